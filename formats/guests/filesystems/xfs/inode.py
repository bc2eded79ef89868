"""XFS: inodes, and the blocks of their data and attribute forks."""

from __future__ import annotations

import struct
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.content import Piece, add_piece
from holdfast.formats.guests.filesystems.base.directory_tree import MAX_SIZE, nanoseconds
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.xfs.superblock import Super
from holdfast.formats.guests.values.values import GuestDamaged, GuestMissing

FORMAT_DEVICE = 0
FORMAT_LOCAL = 1
FORMAT_EXTENTS = 2
FORMAT_BTREE = 3
FLAG_REALTIME = 0x1

_BASE = struct.Struct(">2sHBBHIIIHHQQQQQQIIHBbIHH")
_FLAGS2_OFFSET = 120
_BIG_TIME = 0x8
_MANY_EXTENTS = 0x10
_BIG_TIME_EPOCH = 1 << 31
_RECORD = struct.Struct(">QQ")
_MAX_LEVEL = 9
_UNWRITTEN = 1 << 63


class Fork(NamedTuple):
    """`format` says what is in `data`: the content, `extents` of them, or the root of a tree of as many."""

    format: int
    extents: int
    data: bytes


class Inode(NamedTuple):
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
    fork: Fork
    attributes: Fork | None


def parse_inode(raw: bytes, number: int, block_size: int) -> Inode:
    """An inode as it stands on the disk. GuestMissing when it is not in use."""
    (
        magic, mode, version, format_, old_links, uid, gid, links, _, _, big_count, atime, mtime, ctime,
        size, blocks, _, extents, attributes, place, attribute_format, _, _, flags,
    ) = _BASE.unpack_from(raw)  # fmt: skip
    if magic != b"IN" or not 1 <= version <= 3:
        raise GuestDamaged(f"xfs: inode {number} is damaged")
    if mode == 0:
        raise GuestMissing(f"xfs: inode {number} is not in use")
    if size > MAX_SIZE:
        raise GuestDamaged(f"xfs: inode {number} of {size} bytes")
    flags2 = struct.unpack_from(">Q", raw, _FLAGS2_OFFSET)[0] if version == 3 else 0
    if flags2 & _MANY_EXTENTS:
        (attributes,) = struct.unpack_from(">I", raw, 76)
        extents = big_count
    start = 176 if version == 3 else 100
    end = len(raw)
    attribute_fork = None
    if place:
        end = start + place * 8
        if end > len(raw):
            raise GuestDamaged(f"xfs: inode {number}: its attributes start at {end}")
        attribute_fork = Fork(attribute_format, attributes, raw[end:])
    decode = _big_time if flags2 & _BIG_TIME else _time
    return Inode(
        number,
        mode,
        uid,
        gid,
        links if version > 1 else old_links,
        size,
        blocks * block_size,
        decode(mtime),
        decode(ctime),
        decode(atime),
        flags,
        Fork(format_, extents, raw[start:end]),
        attribute_fork,
    )


def fork_pieces(device: BlockDevice, super_: Super, fork: Fork, inode: int) -> list[Piece]:
    """Where the bytes of a fork lie; unwritten extents are zeros."""
    return _ForkReader(device, super_, inode).read(fork)


class _ForkReader:
    """Finds the extents of one fork."""

    def __init__(self, device: BlockDevice, super_: Super, inode: int) -> None:
        self._device = device
        self._super = super_
        self._inode = inode
        self._pieces: list[Piece] = []

    def read(self, fork: Fork) -> list[Piece]:
        if fork.format == FORMAT_EXTENTS:
            if fork.extents * 16 > len(fork.data):
                raise GuestDamaged(f"xfs: inode {self._inode}: {fork.extents} extents do not fit in it")
            self._add_records(fork.data[: fork.extents * 16])
        elif fork.format == FORMAT_BTREE:
            level, count = struct.unpack_from(">HH", fork.data)
            first = 4 + (len(fork.data) - 4) // 16 * 8
            if not 1 <= level <= _MAX_LEVEL or first + count * 8 > len(fork.data):
                raise GuestDamaged(f"xfs: inode {self._inode}: a tree of level {level}, {count} entries")
            for block in struct.unpack_from(f">{count}Q", fork.data, first):
                self._add_node(block, level - 1)
        else:
            raise GuestDamaged(f"xfs: inode {self._inode}: a fork of format {fork.format} has no blocks")
        return self._pieces

    def _add_node(self, block: int, level: int) -> None:
        size = self._super.block_size
        node = self._device.read(self._super.block_offset(block), size)
        magic, head = (b"BMA3", 72) if self._super.version == 5 else (b"BMAP", 24)
        found, count = struct.unpack_from(">HH", node, 4)
        capacity = (size - head) // 16
        # No empty nodes: trees of them would be walked without end and without a result.
        if node[:4] != magic or found != level or not 0 < count <= capacity:
            raise GuestDamaged(f"xfs: inode {self._inode}: block {block:#x} of its extents is damaged")
        if level == 0:
            self._add_records(node[head : head + count * 16])
            return
        for child in struct.unpack_from(f">{count}Q", node, head + capacity * 8):
            self._add_node(child, level - 1)

    def _add_records(self, records: bytes) -> None:
        """128 bits each: unwritten (1), first block of the file (54), first on the disk (52), count (21)."""
        size = self._super.block_size
        for high, low in _RECORD.iter_unpack(records):
            start = (high & ~_UNWRITTEN) >> 9
            count = low & 0x1FFFFF
            block = (high & 0x1FF) << 43 | low >> 21
            place = -1 if high & _UNWRITTEN else self._super.block_offset(block)
            add_piece(self._pieces, start * size, count * size, place)


def _time(value: int) -> int:
    seconds = value >> 32
    return nanoseconds(seconds - (1 << 32) if seconds >= 1 << 31 else seconds, value & 0xFFFFFFFF)


def _big_time(value: int) -> int:
    seconds, fraction = divmod(value, 1_000_000_000)
    return nanoseconds(seconds - _BIG_TIME_EPOCH, fraction)
