"""What stat says about a node."""

from __future__ import annotations

import stat
from dataclasses import dataclass

import pyfuse3

from holdfast.fusefs.nodes import Document, Folder, Link, Node, StoredFile

_FOREVER = 86_400.0
"""Seconds the kernel may believe what never changes; what disappears is taken back from it."""
_GROWING = 1.0
_TIME_LIMIT = 2**62
"""Nanoseconds; times come from sources and may be anything."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns the files, and whether others may read them."""

    uid: int
    gid: int
    everybody: bool


def attributes_of(node: Node, number: int, owner: Ownership) -> pyfuse3.EntryAttributes:
    """Link counts of folders are 1, as in btrfs: "not counted", which tree walkers understand."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(number)
    entry.st_mode = pyfuse3.ModeT(_mode(node, owner))
    entry.st_uid, entry.st_gid = owner.uid, owner.gid
    entry.st_nlink = 1
    entry.st_size, entry.st_blocks = _size(node)
    time = max(0, min(node.mtime, _TIME_LIMIT))
    entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = time
    passing = isinstance(node, Link) or (isinstance(node, Folder) and node.growing)
    entry.attr_timeout = entry.entry_timeout = _GROWING if passing else _FOREVER
    return entry


def _mode(node: Node, owner: Ownership) -> int:
    if isinstance(node, Link):
        return stat.S_IFLNK | 0o777
    if isinstance(node, Folder):
        return stat.S_IFDIR | (0o555 if owner.everybody else 0o500)
    return stat.S_IFREG | (0o444 if owner.everybody else 0o400)


def _size(node: Node) -> tuple[int, int]:
    """(st_size, st_blocks); holes of stored files take no blocks."""
    if isinstance(node, StoredFile):
        return node.item.size, -(-node.item.allocated // 512)
    if isinstance(node, Document):
        return len(node.data), -(-len(node.data) // 512)
    if isinstance(node, Link):
        return len(node.target.encode()), 0
    return 0, 0
