"""XFS: extended attributes, in the inode or in blocks of the attribute fork."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from holdfast.formats.guests.filesystems.base.content import VolumeExtent, read_extents
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.xfs import layout
from holdfast.formats.guests.filesystems.xfs.inode import Fork, XfsInode, fork_extents
from holdfast.formats.guests.filesystems.xfs.layout import (
    ATTRIBUTE_HIDDEN,
    ATTRIBUTE_ROOT,
    BLOCK_INFO,
    FORMAT_LOCAL,
    LEAF_ENTRY,
    LOCAL_ATTRIBUTE,
    MAX_ATTRIBUTE,
    NODE_ENTRY,
    REMOTE_ATTRIBUTE,
    SHORT_ATTRIBUTES,
)
from holdfast.formats.guests.filesystems.xfs.superblock import XfsGeometry
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import GuestDamaged

_SHORT_HEADER = 4

XfsAttribute = tuple[int, bytes, bytes]
"""(namespace, name, value); the namespace is 0, that of users, or ATTRIBUTE_ROOT."""


def attributes(device: BlockDevice, geometry: XfsGeometry, inode: XfsInode) -> Iterator[XfsAttribute]:
    """The attributes of an inode in the namespaces of users and of root."""
    fork = inode.attributes
    if fork is None:
        return
    if fork.format == FORMAT_LOCAL:
        yield from _short(fork.data, inode.number)
    elif fork.extents:
        yield from _AttributeBlocks(device, geometry, fork, inode.number).attributes()


def is_plain(inode: XfsInode) -> bool:
    """Whether the inode alone shows that there are no such attributes. In guests with SELinux each inode has
    an attribute in the namespace of the system."""
    fork = inode.attributes
    if fork is None or fork.format != FORMAT_LOCAL:
        return fork is None or not fork.extents
    try:
        return next(_short(fork.data, inode.number), None) is None
    except (GuestDamaged, struct.error, IndexError):
        return False


def _short(data: bytes, inode: int) -> Iterator[XfsAttribute]:
    """Attributes in the inode: lengths of name and value, flags, then name and value."""
    size, count = SHORT_ATTRIBUTES.unpack(data)
    if size > len(data):
        raise _damaged(inode, "size of its attributes", size, f"at most {len(data)} bytes")
    position = _SHORT_HEADER
    for number in range(count):
        name_length, value_length, flags = data[position], data[position + 1], data[position + 2]
        start = position + 3
        end = start + name_length + value_length
        if end > size:
            raise _damaged(inode, f"end of attribute {number}", end, f"at most {size}")
        if not flags & ATTRIBUTE_HIDDEN:
            yield flags & ATTRIBUTE_ROOT, data[start : start + name_length], data[start + name_length : end]
        position = end


class _AttributeBlocks:
    """The attribute fork as blocks: a tree whose leaves form a chain."""

    def __init__(self, device: BlockDevice, geometry: XfsGeometry, fork: Fork, inode: int) -> None:
        self._device = device
        self._size = geometry.block_size
        self._version = geometry.version
        self._inode = inode
        self._extents: list[VolumeExtent] = fork_extents(device, geometry, fork, inode)
        if not self._extents:
            raise _damaged(inode, "number of blocks of its attributes", 0, "at least 1")
        self._end = self._extents[-1][0] + self._extents[-1][1]

    def attributes(self) -> Iterator[XfsAttribute]:
        number = self._first_leaf()
        seen = set()
        while True:
            if number in seen:
                raise self._damaged("next attribute block", number, "one that was not read before")
            seen.add(number)
            block = self._block(number)
            forward, magic = BLOCK_INFO.unpack(block)
            if magic not in layout.ATTRIBUTE_LEAF_MAGICS:
                raise self._bad_magic(number, magic, layout.ATTRIBUTE_LEAF_MAGICS)
            yield from self._leaf(block, number)
            if not forward:
                return
            number = forward

    def _first_leaf(self) -> int:
        number = 0
        for _ in range(layout.MAX_ATTRIBUTE_DEPTH):
            block = self._block(number)
            if BLOCK_INFO.read(block).magic not in layout.ATTRIBUTE_NODE_MAGICS:
                return number
            number = NODE_ENTRY.read(block, layout.ATTRIBUTE_NODE_ENTRIES[self._version]).before
        most = layout.MAX_ATTRIBUTE_DEPTH - 1
        raise self._damaged("depth of the attribute tree", f"more than {most}", f"at most {most}")

    def _leaf(self, block: bytes, number: int) -> Iterator[XfsAttribute]:
        first = layout.ATTRIBUTE_LEAF_ENTRIES[self._version]
        (count,) = layout.ATTRIBUTE_COUNT.unpack_from(block, layout.ATTRIBUTE_LEAF_COUNTS[self._version])
        end = first + count * LEAF_ENTRY.size
        if end > len(block):
            most = (len(block) - first) // LEAF_ENTRY.size
            raise self._damaged(f"number of entries of attribute block {number}", count, f"at most {most}")
        for _, offset, flags, _ in LEAF_ENTRY.each(block[first:end]):
            if flags & ATTRIBUTE_HIDDEN:
                continue
            if flags & layout.ATTRIBUTE_LOCAL:
                local = LOCAL_ATTRIBUTE.read(block, offset)
                start = offset + LOCAL_ATTRIBUTE.size
                name_end = start + local.name_length
                end = name_end + local.value_length
                value = block[name_end:end]
            else:
                remote = REMOTE_ATTRIBUTE.read(block, offset)
                start = offset + REMOTE_ATTRIBUTE.size
                end = name_end = start + remote.name_length
                value = self._remote(remote.value_block, remote.value_length)
            if end > len(block):
                field = f"end of an attribute in block {number}"
                raise self._damaged(field, end, f"at most {len(block)}")
            yield flags & ATTRIBUTE_ROOT, block[start:name_end], value

    def _remote(self, number: int, length: int) -> bytes:
        """A value in blocks of its own, from block `number` on."""
        if length > MAX_ATTRIBUTE:
            raise self._damaged("size of an attribute", length, f"at most {MAX_ATTRIBUTE} bytes")
        if self._version == 4:
            return self._read(number * self._size, length)
        parts = []
        while length > 0:
            block = self._block(number)
            magic = block[: len(layout.REMOTE_VALUE_MAGIC)]
            if magic != layout.REMOTE_VALUE_MAGIC:
                field = f"magic number of value block {number}"
                raise self._damaged(field, magic, str(layout.REMOTE_VALUE_MAGIC))
            start = layout.REMOTE_VALUE_HEADER
            parts.append(block[start : start + length])
            length -= len(parts[-1])
            number += 1
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        return self._read(number * self._size, self._size)

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self._end:
            raise self._damaged("end of an attribute block", offset + length, f"at most {self._end}")
        return read_extents(self._device, self._extents, self._end, offset, length)

    def _bad_magic(self, number: int, magic: int, allowed: tuple[int, ...]) -> StructureDamaged:
        names = " or ".join(f"{one:#x}" for one in allowed)
        return self._damaged(f"magic number of attribute block {number}", f"{magic:#x}", names)

    def _damaged(self, field: str, value: int | str | bytes, limit: str) -> StructureDamaged:
        return _damaged(self._inode, field, value, limit)


def _damaged(inode: int, field: str, value: int | str | bytes, limit: str) -> StructureDamaged:
    return StructureDamaged(f"xfs inode {inode}", field, value, limit)
