"""Locations of chunks in packs, and their encoding in the index. No I/O.

A value is one or more locations of 12 bytes: pack number, offset / 64, length / 64, little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from holdfast.base.types import PackID
from holdfast.repo.format.format import ALIGN

_LOCATION: Final = struct.Struct("<III")


class Location(NamedTuple):
    """A record's location in a pack. `length` is in bytes and includes header and padding."""

    pack: PackID
    offset: int
    length: int


def encode_location(number: int, offset: int, length: int) -> bytes:
    """The encoded location of a record in the pack of that number."""
    return _LOCATION.pack(number, offset // ALIGN, length // ALIGN)


def decode_locations(packs: Mapping[int, PackID], value: bytes) -> Iterator[Location]:
    """The locations of a value that are in these packs. Raises struct.error for a malformed value."""
    for number, offset, length in _LOCATION.iter_unpack(value):
        pack = packs.get(number)
        if pack is not None:
            yield Location(pack, offset * ALIGN, length * ALIGN)


def remove_locations(value: bytes, goes: Callable[[int], bool]) -> bytes:
    """The value without the locations in packs for whose number `goes` is true; b"" if none is left."""
    locations = (value[i : i + _LOCATION.size] for i in range(0, len(value), _LOCATION.size))
    return b"".join(each for each in locations if not goes(_LOCATION.unpack(each)[0]))


class LmdbCursor(Protocol):
    """The part of LMDB's cursor interface that `sweep` uses."""

    def first(self) -> bool: ...
    def set_range(self, key: bytes) -> bool: ...
    def next(self) -> bool: ...
    def item(self) -> tuple[bytes, bytes]: ...
    def key(self) -> bytes: ...
    def put(self, key: bytes, value: bytes) -> bool: ...
    def delete(self) -> bool: ...


def sweep(
    cursor: LmdbCursor,
    after: bytes | None,
    gone: frozenset[int],
    count: int,
    mask: Callable[[bytes, bytes], bytes],
) -> tuple[bytes | None, bool]:
    """Remove locations in packs that are `gone` from `count` entries after the key `after`.

    Deletes entries without remaining locations. Returns (key to continue after, whether entries may remain).
    `mask(key, value)` shows a hidden value, and hides it again.
    """
    found = cursor.set_range(after) if after else cursor.first()
    for _ in range(count):
        if not found:
            return None, False
        after, hidden = cursor.item()
        value = mask(after, hidden)
        kept = remove_locations(value, gone.__contains__)
        if len(kept) == len(value):
            found = cursor.next()
        elif kept:
            cursor.put(after, mask(after, kept))
            found = cursor.next()
        else:
            found = cursor.delete() and bool(cursor.key())
    return after, True
