"""The interfaces inside the worker: a block device in, volumes with file systems out.

Code behind these interfaces works on hostile bytes and may raise any exception; the worker turns what is not
a GuestError into one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from holdfast.formats.guests.values.values import DiskExtent, Entry, Volume


class BlockDevice(Protocol):
    """The whole disk, a partition, a logical volume or an opened LUKS container. `size` is in bytes."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes. Raises GuestDamaged when they are outside of the device, or when the
        repository could not deliver them."""
        ...

    def extents(self, offset: int, length: int) -> tuple[DiskExtent, ...] | None:
        """Where on the disk these bytes lie, in order, without gaps. None when the disk does not hold them
        unchanged (they are encrypted)."""
        ...


class FileSystem(Protocol):
    """An open guest file system.

    `list` never yields `.` and `..`. Names and link targets are bytes as the disk holds them, in UTF-8 where
    the file system stores characters. Every method raises GuestMissing or GuestDamaged.
    """

    kind: str
    """`ext4`, `xfs`, `btrfs`, `ntfs`, `fat32`, `exfat`, ..."""
    label: str
    root: int
    """The inode number of the top directory."""

    def entry(self, inode: int) -> Entry:
        """Read one inode."""
        ...

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        """Yield the names of a directory with their inodes, reading one inode at a time. The entry is
        `DAMAGED` where only that inode is damaged; GuestDamaged is raised when the directory itself is."""
        ...

    def lookup(self, inode: int, name: bytes) -> Entry:
        """Find one name in a directory."""
        ...

    def readlink(self, inode: int) -> bytes:
        """Return the target of a symbolic link."""
        ...

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        """Return the POSIX ACLs and the attributes of the namespace `user.`, by their full name."""
        ...

    def read(self, inode: int, offset: int, length: int) -> bytes:
        """Return bytes of a file, fewer than `length` only at its end."""
        ...


@dataclass(frozen=True, slots=True)
class OpenVolume:
    """A volume, and its file system when it has one."""

    volume: Volume
    file_system: FileSystem | None
