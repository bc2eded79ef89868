"""Values that describe a guest's disk: entries, extents, volumes. The worker and its parent share them."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from holdfast.base.errors import HoldfastError


class NodeType(Enum):
    """The kind of node that a name in a guest refers to."""

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER = "character device"
    BLOCK = "block device"
    DAMAGED = "damaged"
    """The name exists; its inode cannot be read."""


FILE_FORMATS: Final[Mapping[NodeType, int]] = {
    NodeType.FOLDER: stat.S_IFDIR,
    NodeType.FILE: stat.S_IFREG,
    NodeType.LINK: stat.S_IFLNK,
    NodeType.FIFO: stat.S_IFIFO,
    NodeType.SOCKET: stat.S_IFSOCK,
    NodeType.CHARACTER: stat.S_IFCHR,
    NodeType.BLOCK: stat.S_IFBLK,
}
"""The upper bits of `st_mode` for each type that Unix knows."""


class DiskExtent(NamedTuple):
    """`length` bytes of a file or block device, from its offset `start`, that lie on the disk at `disk`. All
    in bytes; `disk` is negative where the bytes are zeros and lie nowhere."""

    start: int
    length: int
    disk: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One inode of a guest's file system.

    Sizes are in bytes, times in ns since 1970, `mode` is the permission bits (0o7777). `inode` identifies the
    node in its volume: `GuestDisk.entry` finds it again. `extents` cover [0, size) when the file's bytes lie
    on the disk unchanged; None when only the parser can read them (compressed, encrypted, inside the inode).
    `plain` is true when the inode certainly has no extended attributes and ACLs, so that callers need not ask
    for them.
    """

    inode: int
    type: NodeType
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    allocated: int
    mtime: int
    ctime: int
    atime: int
    device: int = 0
    extents: tuple[DiskExtent, ...] | None = None
    plain: bool = False


DAMAGED = Entry((1 << 44) - 1, NodeType.DAMAGED, 0, 0, 0, 1, 0, 0, 0, 0, 0, plain=True)
"""Listings show this entry in place of an inode that cannot be read, so that the file does not vanish from
its directory. No file system has an inode with its number."""


UNOPENED: Final = "encrypted; no passphrase was given for it"
"""The end of the text of a volume that a passphrase would open."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A partition, a logical volume, or the whole disk when it has no partition table.

    `path` is its path below files/DISK: `p1`, `lvm/VG/LV`, `p0` for the whole disk. (A subvolume of btrfs is
    a directory in its volume.) `size` is in bytes. `offset` is the disk offset of its first byte, -1 when the
    volume lies in several extents. `file_system` is "" when no file system was recognised; then `text` tells
    the user what the volume is (swap, LUKS without a passphrase, unknown, damaged). With a file system,
    `text` is "" or a warning about it.
    """

    path: str
    size: int
    offset: int
    file_system: str
    label: str
    text: str

    @property
    def lacks_passphrase(self) -> bool:
        """Whether it is encrypted and nobody gave a passphrase to try."""
        return self.text.endswith(UNOPENED)


class GuestError(HoldfastError):
    """Something inside a guest could not be read."""


class GuestDamaged(GuestError):
    """The guest's file system is damaged, or uses something that the parser does not know."""


class GuestMissing(GuestError):
    """The guest has no such volume, inode or name."""


class WorkerFailed(GuestError):
    """The parser's process died, hung or broke the protocol; the next call starts a new one."""
