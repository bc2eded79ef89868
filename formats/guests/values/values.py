"""What a guest's disk holds, as values that both sides of the process border know. No I/O."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from holdfast.base.errors import HoldfastError


class NodeType(Enum):
    """What a name in a guest stands for."""

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER = "character device"
    BLOCK = "block device"
    DAMAGED = "damaged"
    """A name is there, and what it stands for cannot be told."""


FILE_FORMATS: Final[Mapping[NodeType, int]] = {
    NodeType.FOLDER: stat.S_IFDIR,
    NodeType.FILE: stat.S_IFREG,
    NodeType.LINK: stat.S_IFLNK,
    NodeType.FIFO: stat.S_IFIFO,
    NodeType.SOCKET: stat.S_IFSOCK,
    NodeType.CHARACTER: stat.S_IFCHR,
    NodeType.BLOCK: stat.S_IFBLK,
}
"""The upper bits of `st_mode` for each type that there is on Unix."""


class FileExtent(NamedTuple):
    """A run of a guest file. `disk` is its offset on the disk in bytes, -1 where it is zeros."""

    start: int
    length: int
    disk: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What a guest's file system says of one inode.

    Sizes in bytes, times in ns since 1970, `mode` the permission bits (0o7777). `inode` names the node in
    its volume: `GuestDisk.entry` finds it again. `extents` cover [0, size) when the data lies on the disk as
    it is; None when only the parser can read it (compressed, encrypted, inside the inode). `plain`: surely
    without extended attributes and ACLs, so that `xattrs` need not be asked.
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
    extents: tuple[FileExtent, ...] | None = None
    plain: bool = False


DAMAGED = Entry((1 << 44) - 1, NodeType.DAMAGED, 0, 0, 0, 1, 0, 0, 0, 0, 0, plain=True)
"""Stands in a listing for an inode that is damaged: a file that cannot be read must not vanish from its
folder. Its number is no inode's: asked for it, a file system has none."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A part of a disk: a partition, a logical volume, or the whole disk when it has no table.

    `path` is where it stands below files/DISK: `p1`, `lvm/VG/LV`; the whole disk is `p0`; a subvolume of
    btrfs is a folder in its volume. `file_system` is "" when no file system was recognised in it: then
    `text` says what it is (swap, LUKS without a passphrase, unknown, damaged) in words for the user. With a
    file system it is "", or what the user must know of it.
    `offset` is that of its first byte on the disk, -1 when it is in several pieces.
    """

    path: str
    size: int
    offset: int
    file_system: str
    label: str
    text: str


class GuestError(HoldfastError):
    """Something inside a guest could not be read."""


class GuestDamaged(GuestError):
    """The guest's file system is damaged there, or is something the parser does not know."""


class GuestMissing(GuestError):
    """No such volume, inode or name."""


class WorkerFailed(GuestError):
    """The parser's process died, hung or answered nonsense; the next call gets a fresh one."""
