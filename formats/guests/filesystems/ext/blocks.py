"""ext2, ext3 and ext4: the blocks of a file, by an extent tree or by the older block map."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from holdfast.formats.guests.filesystems.base.content import VolumeExtent, add_extent
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.ext.layout import (
    BLOCK_MAP,
    DIRECT_BLOCKS,
    EXTENT_HEADER,
    EXTENT_MAGIC,
    EXTENT_RECORD,
    EXTENT_RECORDS_OFFSET,
    MAX_EXTENT_DEPTH,
    UNWRITTEN,
)
from holdfast.formats.guests.values.damage import StructureDamaged

_RECORD_SIZE = EXTENT_RECORD.size


class BlockReader:
    """Finds the blocks of one file. `extents` grows while the file's tree is walked."""

    def __init__(self, device: BlockDevice, block_size: int, inode: int) -> None:
        self.extents: list[VolumeExtent] = []
        self._device = device
        self._size = block_size
        self._inode = inode
        self._count = 0
        self._seen: set[int] = set()

    def by_extents(self, root: bytes) -> list[VolumeExtent]:
        """The extents of a file with an extent tree, whose root `root` is the inode's i_block. Extents that
        were never written are zeros."""
        _, _, depth = EXTENT_HEADER.unpack(root)
        if depth > MAX_EXTENT_DEPTH:
            raise self._damaged("depth of the extent tree", depth, f"at most {MAX_EXTENT_DEPTH}")
        self._add_extents(root, depth, is_root=True)
        return self.extents

    def by_map(self, root: bytes, size: int) -> list[VolumeExtent]:
        """The extents of a file of `size` bytes with a block map: 12 blocks, then three levels of indirect
        blocks."""
        numbers = BLOCK_MAP.unpack(root)
        self._count = -(-size // self._size)
        position = self._add_blocks(numbers[:DIRECT_BLOCKS], 0)
        for level, block in enumerate(numbers[DIRECT_BLOCKS:], 1):
            if position < self._count:
                position = self._add_indirect(block, level, position)
        return self.extents

    def _add_extents(self, node: bytes, level: int, *, is_root: bool = False) -> None:
        magic, count, depth = EXTENT_HEADER.unpack(node)
        most = len(node) // _RECORD_SIZE - 1
        # Only a root may be empty: trees of empty leaves would be walked without end and without a result.
        if magic != EXTENT_MAGIC or count > most or depth != level or not (count or is_root):
            raise self._bad_node(magic, count, depth, level, most)
        size = self._size
        end = EXTENT_RECORDS_OFFSET + count * _RECORD_SIZE
        for logical, low, high in EXTENT_RECORD.each(node[EXTENT_RECORDS_OFFSET:end]):
            if depth:
                block = low | (high & 0xFFFF) << 32
                self._add_extents(self._device.read(block * size, size), depth - 1)
                continue
            length, place = low & 0xFFFF, (high | low >> 16 << 32) * size
            if length > UNWRITTEN:
                length -= UNWRITTEN
                place = -1
            add_extent(self.extents, logical * size, length * size, place)

    def _add_indirect(self, block: int, level: int, position: int) -> int:
        """Add the blocks below an indirect block; returns the number of the block after them."""
        if block == 0:
            return int(position + (self._size // 4) ** level)
        if block in self._seen:
            raise self._damaged("indirect block", block, "used once, but it is used twice")
        self._seen.add(block)
        numbers = array("I", self._device.read(block * self._size, self._size))
        if sys.byteorder == "big":
            numbers.byteswap()
        if level == 1:
            return self._add_blocks(numbers, position)
        for number in numbers:
            if position >= self._count:
                break
            position = self._add_indirect(number, level - 1, position)
        return position

    def _add_blocks(self, numbers: Sequence[int], position: int) -> int:
        """Add blocks by their numbers, 0 being a hole; returns the number of the block after them."""
        size = self._size
        end = position + len(numbers)
        begin = 0
        start = position
        for number in numbers[: max(self._count - position, 0)]:
            if not begin or number != begin + position - start:
                if begin:
                    add_extent(self.extents, start * size, (position - start) * size, begin * size)
                begin = number
                start = position
            position += 1
        if begin:
            add_extent(self.extents, start * size, (position - start) * size, begin * size)
        return end

    def _bad_node(self, magic: int, count: int, depth: int, level: int, most: int) -> StructureDamaged:
        if magic != EXTENT_MAGIC:
            return self._damaged("magic number of an extent node", f"{magic:#x}", f"{EXTENT_MAGIC:#x}")
        if depth != level:
            return self._damaged("depth of an extent node", depth, f"{level}")
        return self._damaged("number of records in an extent node", count, f"1 to {most}")

    def _damaged(self, field: str, value: int | str, limit: str) -> StructureDamaged:
        return StructureDamaged(f"ext inode {self._inode}", field, value, limit)
