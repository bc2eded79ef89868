"""ext2, ext3 and ext4: reading an inode."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.directory_tree import MAX_SIZE, nanoseconds
from holdfast.formats.guests.filesystems.ext.layout import (
    ATTRIBUTE_MAGIC,
    DEVICE_NUMBERS,
    EXTRA_INODE,
    FLAG_HUGE,
    INODE,
    MIN_INODE_SIZE,
)
from holdfast.formats.guests.filesystems.ext.superblock import ExtGeometry
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import GuestMissing

_SECTOR = 512
_TIMES_END = 16
"""Bytes of extra fields that an inode has when it has all three times."""


class ExtInode(NamedTuple):
    """An inode, decoded. Sizes are in bytes, times in ns since 1970."""

    number: int
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    allocated: int
    mtime: int
    ctime: int
    atime: int
    flags: int
    block: bytes
    """i_block, 60 bytes."""
    attribute_block: int
    """The block of its extended attributes; 0: there is none."""
    extra: bytes
    """The inode's bytes behind all fields: extended attributes."""

    @property
    def has_attributes_inside(self) -> bool:
        return self.extra[:4] == ATTRIBUTE_MAGIC


def parse_inode(raw: bytes, number: int, geometry: ExtGeometry) -> ExtInode:
    """Decode an inode. Raises GuestMissing when it is not in use, StructureDamaged."""
    (
        mode, uid, size, atime, ctime, mtime, deleted, gid, links, sectors, flags, block,
        attributes, size_high, sectors_high, attributes_high, uid_high, gid_high,
    ) = INODE.unpack(raw)  # fmt: skip
    if mode == 0 or (links == 0 and deleted):
        raise GuestMissing(f"{geometry.kind} inode {number} is not in use")
    extra_size = mtime_extra = ctime_extra = atime_extra = 0
    if len(raw) >= EXTRA_INODE.size:
        extra_size, ctime_extra, mtime_extra, atime_extra = EXTRA_INODE.unpack(raw)
        if extra_size > len(raw) - MIN_INODE_SIZE:
            raise StructureDamaged(
                f"{geometry.kind} inode {number}",
                "size of its extra fields",
                extra_size,
                f"at most {len(raw) - MIN_INODE_SIZE} bytes",
            )
        if extra_size < _TIMES_END:
            mtime_extra = ctime_extra = atime_extra = 0
    if stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and geometry.large_directories):
        size |= size_high << 32
    unit = _SECTOR
    if geometry.huge_files:
        sectors |= sectors_high << 32
        if flags & FLAG_HUGE:
            unit = geometry.block_size
    if size > MAX_SIZE:
        raise StructureDamaged(f"{geometry.kind} inode {number}", "size", size, f"at most {MAX_SIZE} bytes")
    return ExtInode(
        number,
        mode,
        uid | uid_high << 16,
        gid | gid_high << 16,
        links,
        size,
        sectors * unit,
        nanoseconds(mtime + ((mtime_extra & 3) << 32), mtime_extra >> 2),
        nanoseconds(ctime + ((ctime_extra & 3) << 32), ctime_extra >> 2),
        nanoseconds(atime + ((atime_extra & 3) << 32), atime_extra >> 2),
        flags,
        block,
        attributes | attributes_high << 32,
        raw[MIN_INODE_SIZE + extra_size :] if len(raw) > MIN_INODE_SIZE else b"",
    )


def device_number(block: bytes) -> int:
    """The number of a device, from the i_block of its inode."""
    old, new = DEVICE_NUMBERS.unpack_from(block)
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    return os.makedev((new & 0xFFF00) >> 8, new & 0xFF | new >> 12 & 0xFFF00)
