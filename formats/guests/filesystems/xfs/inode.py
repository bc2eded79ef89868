"""XFS: reading an inode, and the blocks of its data and attribute forks."""

from __future__ import annotations

from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.content import VolumeExtent, add_extent
from holdfast.formats.guests.filesystems.base.directory_tree import MAX_SIZE, nanoseconds
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.xfs.layout import (
    BIG_TIME,
    BIG_TIME_EPOCH,
    EXTENT_NODE,
    EXTENT_NODE_HEADERS,
    EXTENT_RECORD,
    EXTENT_ROOT,
    EXTENT_ROOT_SIZE,
    FORMAT_BTREE,
    FORMAT_EXTENTS,
    INODE,
    INODE_MAGIC,
    INODE_SIZES,
    INODE_V3,
    MANY_EXTENTS,
    MAX_EXTENT_LEVEL,
    UNWRITTEN,
)
from holdfast.formats.guests.filesystems.xfs.superblock import XfsGeometry
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import GuestMissing

_RECORD_SIZE = EXTENT_RECORD.size
_POINTER_SIZE = 8


class Fork(NamedTuple):
    """The data or the attributes of an inode. `format` tells what `data` holds: the content itself, `extents`
    records of extents, or the root of a tree with as many extents."""

    format: int
    extents: int
    data: bytes


class XfsInode(NamedTuple):
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
    fork: Fork
    attributes: Fork | None


def parse_inode(raw: bytes, number: int, block_size: int) -> XfsInode:
    """Decode an inode. Raises GuestMissing when it is not in use, StructureDamaged."""
    (
        magic, mode, version, format_, old_links, uid, gid, links, big_count, atime, mtime, ctime,
        size, blocks, extents, attributes, fork_offset, attribute_format, flags,
    ) = INODE.unpack(raw)  # fmt: skip
    start = INODE_SIZES.get(version, 0)
    if magic != INODE_MAGIC:
        raise _damaged(number, "magic number", magic, str(INODE_MAGIC))
    if not start:
        raise _damaged(number, "version", version, "1 to 3")
    if mode == 0:
        raise GuestMissing(f"xfs inode {number} is not in use")
    if size > MAX_SIZE:
        raise _damaged(number, "size", size, f"at most {MAX_SIZE} bytes")
    flags2 = INODE_V3.unpack(raw)[0] if version == 3 else 0
    if flags2 & MANY_EXTENTS:
        attributes = extents
        extents = big_count
    end = len(raw)
    attribute_fork = None
    if fork_offset:
        end = start + fork_offset * 8
        if end > len(raw):
            raise _damaged(number, "offset of the attribute fork", end, f"at most {len(raw)}")
        attribute_fork = Fork(attribute_format, attributes, raw[end:])
    decode = _big_time if flags2 & BIG_TIME else _time
    return XfsInode(
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


def fork_extents(device: BlockDevice, geometry: XfsGeometry, fork: Fork, inode: int) -> list[VolumeExtent]:
    """Where the bytes of a fork lie; extents that were never written are zeros."""
    return _ForkReader(device, geometry, inode).read(fork)


class _ForkReader:
    """Finds the extents of one fork."""

    def __init__(self, device: BlockDevice, geometry: XfsGeometry, inode: int) -> None:
        self._device = device
        self._geometry = geometry
        self._inode = inode
        self._extents: list[VolumeExtent] = []

    def read(self, fork: Fork) -> list[VolumeExtent]:
        if fork.format == FORMAT_EXTENTS:
            end = fork.extents * _RECORD_SIZE
            if end > len(fork.data):
                most = len(fork.data) // _RECORD_SIZE
                raise self._damaged("number of extents in the inode", fork.extents, f"at most {most}")
            self._add_records(fork.data[:end])
        elif fork.format == FORMAT_BTREE:
            level, count = EXTENT_ROOT.unpack(fork.data)
            capacity = (len(fork.data) - EXTENT_ROOT_SIZE) // (2 * _POINTER_SIZE)
            first = EXTENT_ROOT_SIZE + capacity * _POINTER_SIZE
            if not 1 <= level <= MAX_EXTENT_LEVEL:
                raise self._damaged("level of the extent root", level, f"1 to {MAX_EXTENT_LEVEL}")
            if first + count * _POINTER_SIZE > len(fork.data):
                raise self._damaged("number of pointers in the extent root", count, f"at most {capacity}")
            for block in self._pointers(fork.data, first, count):
                self._add_node(block, level - 1)
        else:
            raise self._damaged("format of a fork", fork.format, f"{FORMAT_EXTENTS} or {FORMAT_BTREE}")
        return self._extents

    def _add_node(self, block: int, level: int) -> None:
        size = self._geometry.block_size
        raw = self._device.read(self._geometry.block_offset(block), size)
        magic, header = EXTENT_NODE_HEADERS[self._geometry.version]
        node = EXTENT_NODE.read(raw)
        capacity = (size - header) // (2 * _POINTER_SIZE)
        if node.magic != magic:
            raise self._damaged(f"magic number of extent block {block:#x}", node.magic, str(magic))
        if node.level != level:
            raise self._damaged(f"level of extent block {block:#x}", node.level, f"{level}")
        # No empty nodes: trees of them would be walked without end and without a result.
        if not 0 < node.entries <= capacity:
            field = f"number of entries in extent block {block:#x}"
            raise self._damaged(field, node.entries, f"1 to {capacity}")
        if level == 0:
            self._add_records(raw[header : header + node.entries * _RECORD_SIZE])
            return
        for child in self._pointers(raw, header + capacity * _POINTER_SIZE, node.entries):
            self._add_node(child, level - 1)

    def _pointers(self, raw: bytes, start: int, count: int) -> list[int]:
        end = start + count * _POINTER_SIZE
        return [
            int.from_bytes(raw[position : position + _POINTER_SIZE], "big")
            for position in range(start, end, _POINTER_SIZE)
        ]

    def _add_records(self, records: bytes) -> None:
        size = self._geometry.block_size
        for high, low in EXTENT_RECORD.each(records):
            start = (high & ~UNWRITTEN) >> 9
            count = low & 0x1FFFFF
            block = (high & 0x1FF) << 43 | low >> 21
            place = -1 if high & UNWRITTEN else self._geometry.block_offset(block)
            add_extent(self._extents, start * size, count * size, place)

    def _damaged(self, field: str, value: int | bytes, limit: str) -> StructureDamaged:
        return _damaged(self._inode, field, value, limit)


def _damaged(inode: int, field: str, value: int | bytes, limit: str) -> StructureDamaged:
    return StructureDamaged(f"xfs inode {inode}", field, value, limit)


def _time(value: int) -> int:
    """ns since 1970 of a time in seconds (32 bits, signed) and nanoseconds (32 bits)."""
    seconds = value >> 32
    return nanoseconds(seconds - (1 << 32) if seconds >= 1 << 31 else seconds, value & 0xFFFFFFFF)


def _big_time(value: int) -> int:
    """ns since 1970 of a time in ns since BIG_TIME_EPOCH."""
    seconds, fraction = divmod(value, 1_000_000_000)
    return nanoseconds(seconds - BIG_TIME_EPOCH, fraction)
