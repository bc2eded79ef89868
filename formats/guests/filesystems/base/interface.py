"""The seam inside the worker: a disk in, volumes with file systems out.

Everything behind it works on hostile bytes and may raise anything; the worker turns what is no GuestError
into one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from holdfast.formats.guests.values.values import Entry, Volume


class Run(NamedTuple):
    """A run of a block device: its bytes from `start` lie on the disk at `disk`, or are zeros where that is
    negative."""

    start: int
    length: int
    disk: int


class BlockDevice(Protocol):
    """The whole disk, a partition, a logical volume or an opened LUKS container."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Bytes inside the device; `length` of them. Raises GuestDamaged for what is outside of it, and for
        what the repository could not deliver."""
        ...

    def runs(self, offset: int, length: int) -> tuple[Run, ...] | None:
        """Where on the disk these bytes lie, in order, without gaps; None when they do not lie there as they
        are (encrypted)."""
        ...


class FileSystem(Protocol):
    """An open guest file system. `list` never yields `.` and `..`; names and link targets are bytes as they
    are on the disk, UTF-8 where the file system has characters."""

    kind: str
    """`ext4`, `xfs`, `btrfs`, `ntfs`, `fat32`, `exfat`, ..."""
    label: str
    root: int
    """The inode number of its top folder."""

    def entry(self, inode: int) -> Entry:
        """Raises GuestMissing or GuestDamaged, as all of these."""
        ...

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        """The names in a folder with what they stand for, made one by one. Where that alone is damaged the
        entry is `DAMAGED`; GuestDamaged when the rest cannot be trusted."""
        ...

    def lookup(self, inode: int, name: bytes) -> Entry:
        """One name in a folder."""
        ...

    def readlink(self, inode: int) -> bytes: ...

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        """Extended attributes with their prefix (`user.comment`); those of `user.` only, and ACLs."""
        ...

    def read(self, inode: int, offset: int, length: int) -> bytes:
        """Bytes of a file; fewer only at its end."""
        ...


@dataclass(frozen=True, slots=True)
class OpenVolume:
    """A volume and, when there is one, its file system."""

    volume: Volume
    file_system: FileSystem | None
