"""A stored disk whose files can be read, and the questions that its readers ask the parser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from holdfast.formats.guests.client.stored import StoredDisk
from holdfast.formats.guests.values.naming import Place
from holdfast.formats.guests.values.values import Entry, Volume
from holdfast.repo.snapshots.snapshot import Item


class Guest(Protocol):
    """What GuestDisk can do; see there."""

    def volumes(self) -> tuple[Volume, ...]: ...
    def root(self, volume: str) -> Entry: ...
    def entry(self, volume: str, inode: int) -> Entry: ...
    def lookup(self, volume: str, folder: int, name: bytes) -> Entry: ...
    def list(self, volume: str, folder: int) -> Iterator[tuple[bytes, Entry]]: ...
    def page(self, volume: str, folder: int, position: int) -> tuple[Sequence[tuple[bytes, Entry]], bool]: ...
    def readlink(self, volume: str, inode: int) -> bytes: ...
    def xattrs(self, volume: str, inode: int) -> dict[bytes, bytes]: ...
    def read(self, volume: str, inode: int, offset: int, length: int) -> bytes: ...
    def close(self) -> None: ...


OpenGuest: TypeAlias = Callable[[StoredDisk, str], Guest]
"""Opens a disk for its files; the second argument is its name for messages."""


@dataclass(frozen=True, slots=True)
class OpenDisk:
    """An open disk. `places` are its volumes, by their places inside of files/NAME."""

    name: str
    item: Item
    stored: StoredDisk
    guest: Guest
    places: Mapping[Place, Volume]
