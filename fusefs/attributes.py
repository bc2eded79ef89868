"""The attributes of nodes, as `stat` returns them."""

from __future__ import annotations

import stat
from dataclasses import dataclass

import pyfuse3

from holdfast.formats.guests.values.values import FILE_FORMATS, Entry, NodeType
from holdfast.tree.nodes import DirectoryNode, GuestNode, LinkNode, Node, is_directory, is_disk

_FOREVER = 86_400.0
"""Seconds the kernel may believe what never changes; what disappears is taken back from it."""
_GROWING = 1.0
_TIME_LIMIT = 2**63 - 1
"""Nanoseconds, of the year 2262; times come from sources and may be anything."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns the files, and whether others may read them.

    `faithful`: files inside guests are shown with the guest's owners and permissions. Only root can use
    them then; for anybody else they belong to `uid` and can be read by it.
    """

    uid: int
    gid: int
    everybody: bool
    faithful: bool = False


def attributes_of(node: Node, number: int, owner: Ownership) -> pyfuse3.EntryAttributes:
    """Link counts of directories are 1, as in btrfs: "not counted", which tree walkers understand."""
    if isinstance(node, GuestNode):
        return attributes_of_entry(node.entry, number, owner)
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(number)
    entry.st_mode = pyfuse3.ModeT(_mode(node, owner))
    entry.st_uid, entry.st_gid = owner.uid, owner.gid
    entry.st_nlink = 1
    entry.st_size, entry.st_blocks = node.size, -(-node.allocated // 512)
    time = max(0, min(node.mtime, _TIME_LIMIT))
    entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = time
    passing = isinstance(node, LinkNode) or (isinstance(node, DirectoryNode) and node.growing)
    entry.attr_timeout = entry.entry_timeout = _GROWING if passing else _FOREVER
    return entry


_ID_LIMIT = 2**32 - 1


def attributes_of_entry(guest: Entry, number: int, owner: Ownership) -> pyfuse3.EntryAttributes:
    """The attributes in a guest's file system, as far as the host can show them. Harmless: the mount is
    `nosuid` and `nodev`."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(number)
    mode = guest.mode & 0o7777
    if owner.faithful:
        entry.st_uid, entry.st_gid = min(guest.uid, _ID_LIMIT), min(guest.gid, _ID_LIMIT)
    else:
        entry.st_uid, entry.st_gid = owner.uid, owner.gid
        mode |= 0o500 if guest.type is NodeType.FOLDER else 0o400
    # A damaged entry is listed with its name; opening it gives EIO.
    entry.st_mode = pyfuse3.ModeT(FILE_FORMATS.get(guest.type, stat.S_IFREG) | mode)
    entry.st_nlink = 1 if guest.type is NodeType.FOLDER else max(1, min(guest.links, _ID_LIMIT))
    entry.st_size = guest.size
    entry.st_blocks = -(-guest.allocated // 512)
    entry.st_rdev = guest.device & _ID_LIMIT
    entry.st_mtime_ns = max(-_TIME_LIMIT, min(guest.mtime, _TIME_LIMIT))
    entry.st_ctime_ns = max(-_TIME_LIMIT, min(guest.ctime, _TIME_LIMIT))
    entry.st_atime_ns = max(-_TIME_LIMIT, min(guest.atime, _TIME_LIMIT))
    entry.attr_timeout = entry.entry_timeout = _FOREVER
    return entry


def _mode(node: Node, owner: Ownership) -> int:
    if isinstance(node, LinkNode):
        return stat.S_IFLNK | 0o777
    if is_directory(node):
        return stat.S_IFDIR | (0o555 if owner.everybody else 0o500)
    # Out of a whole disk anybody could take what the guest's own permissions keep from him in `files`.
    return stat.S_IFREG | (0o444 if owner.everybody and not is_disk(node) else 0o400)
