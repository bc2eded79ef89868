"""ext2, ext3 and ext4: the blocks of a file, by extents or by the older block maps."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence

from holdfast.formats.guests.filesystems.base.content import Piece, add_piece
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.values import GuestDamaged

_EXTENT_MAGIC = 0xF30A
_MAX_DEPTH = 5
_UNWRITTEN = 0x8000
_DIRECT = 12

_HEAD = struct.Struct("<HHHH")
_RECORD = struct.Struct("<III")


class BlockReader:
    """Finds the blocks of one file. `pieces` grow while its trees are walked."""

    def __init__(self, device: BlockDevice, block_size: int, inode: int) -> None:
        self.pieces: list[Piece] = []
        self._device = device
        self._size = block_size
        self._inode = inode
        self._count = 0
        self._seen: set[int] = set()

    def by_extents(self, root: bytes) -> list[Piece]:
        """The pieces of a file with extents; `root` is what is in the inode. Unwritten ones are zeros."""
        (_, _, _, depth) = _HEAD.unpack_from(root)
        if depth > _MAX_DEPTH:
            raise GuestDamaged(f"ext: inode {self._inode}: an extent tree of depth {depth}")
        self._add_extents(root, depth, is_root=True)
        return self.pieces

    def by_map(self, root: bytes, size: int) -> list[Piece]:
        """The pieces of a file of `size` bytes with a block map: 12 blocks and three levels of indirect
        ones."""
        numbers = struct.unpack("<15I", root)
        self._count = -(-size // self._size)
        position = self._add_blocks(numbers[:_DIRECT], 0)
        for level, block in enumerate(numbers[_DIRECT:], 1):
            if position < self._count:
                position = self._add_indirect(block, level, position)
        return self.pieces

    def _add_extents(self, node: bytes, level: int, *, is_root: bool = False) -> None:
        magic, count, _, depth = _HEAD.unpack_from(node)
        # Only a root may be empty: trees of empty leaves would be walked without end and without a result.
        if magic != _EXTENT_MAGIC or count > len(node) // 12 - 1 or depth != level or not (count or is_root):
            raise GuestDamaged(f"ext: inode {self._inode}: an extent block is damaged")
        size = self._size
        for logical, low, high in _RECORD.iter_unpack(node[12 : 12 + count * 12]):
            if depth:
                block = low | (high & 0xFFFF) << 32
                self._add_extents(self._device.read(block * size, size), depth - 1)
                continue
            length, place = low & 0xFFFF, (high | low >> 16 << 32) * size
            if length > _UNWRITTEN:
                length -= _UNWRITTEN
                place = -1
            add_piece(self.pieces, logical * size, length * size, place)

    def _add_indirect(self, block: int, level: int, position: int) -> int:
        """Add what is below an indirect block; returns the number of the block after it."""
        if block == 0:
            return int(position + (self._size // 4) ** level)
        if block in self._seen:
            raise GuestDamaged(f"ext: inode {self._inode}: indirect block {block} is there twice")
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
                    add_piece(self.pieces, start * size, (position - start) * size, begin * size)
                begin = number
                start = position
            position += 1
        if begin:
            add_piece(self.pieces, start * size, (position - start) * size, begin * size)
        return end
