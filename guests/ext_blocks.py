"""ext2, ext3 and ext4: the blocks of a file, by extents or by the older block maps."""

from __future__ import annotations

import struct
import sys
from array import array

from holdfast.guests.filesystem import BlockDevice
from holdfast.guests.fs_content import Piece, add_piece
from holdfast.guests.values import GuestDamaged

_EXTENT_MAGIC = 0xF30A
_MAX_DEPTH = 5
_UNWRITTEN = 0x8000
_DIRECT = 12
_LEVELS = 3

_HEAD = struct.Struct("<HHHH")
_RECORD = struct.Struct("<III")


def extent_pieces(device: BlockDevice, root: bytes, block_size: int, inode: int) -> list[Piece]:
    """The pieces of a file with extents; `root` is the 60 bytes in the inode. Unwritten ones are zeros."""
    pieces: list[Piece] = []
    _add_extents(device, root, block_size, inode, None, pieces)
    return pieces


def _add_extents(
    device: BlockDevice, node: bytes, block_size: int, inode: int, level: int | None, pieces: list[Piece]
) -> None:
    magic, count, _, depth = _HEAD.unpack_from(node)
    is_root = level is None
    if magic != _EXTENT_MAGIC or count > len(node) // 12 - 1:
        raise GuestDamaged(f"ext: inode {inode}: an extent block is damaged")
    # Only a root may be empty: trees of empty leaves would be walked without end and without a result.
    if depth > _MAX_DEPTH or depth != (depth if is_root else level) or not (count or is_root):
        raise GuestDamaged(f"ext: inode {inode}: an extent tree of depth {depth}")
    if depth:
        for _, low, high in _RECORD.iter_unpack(node[12 : 12 + count * 12]):
            block = low | (high & 0xFFFF) << 32
            child = device.read(block * block_size, block_size)
            _add_extents(device, child, block_size, inode, depth - 1, pieces)
        return
    for logical, middle, low in _RECORD.iter_unpack(node[12 : 12 + count * 12]):
        length = middle & 0xFFFF
        place = (low | (middle >> 16) << 32) * block_size
        if length > _UNWRITTEN:
            length -= _UNWRITTEN
            place = -1
        if length:
            add_piece(pieces, logical * block_size, length * block_size, place)


def mapped_pieces(device: BlockDevice, root: bytes, block_size: int, size: int, inode: int) -> list[Piece]:
    """The pieces of a file of `size` bytes with a block map: 12 blocks and three levels of indirect ones."""
    pieces: list[Piece] = []
    numbers = struct.unpack("<15I", root)
    count = -(-size // block_size)
    position = _add_blocks(pieces, numbers[:_DIRECT], 0, count, block_size)
    seen: set[int] = set()
    for level in range(1, _LEVELS + 1):
        if position >= count:
            break
        position = _add_indirect(
            device, pieces, numbers[_DIRECT + level - 1], level, position, count, block_size, seen, inode
        )
    return pieces


def _add_indirect(
    device: BlockDevice,
    pieces: list[Piece],
    block: int,
    level: int,
    position: int,
    count: int,
    block_size: int,
    seen: set[int],
    inode: int,
) -> int:
    """Add what is below an indirect block; returns the number of the block after it."""
    if block == 0:
        return int(position + (block_size // 4) ** level)
    if block in seen:
        raise GuestDamaged(f"ext: inode {inode}: indirect block {block} is there twice")
    seen.add(block)
    numbers = array("I", device.read(block * block_size, block_size))
    if sys.byteorder == "big":
        numbers.byteswap()
    if level == 1:
        return _add_blocks(pieces, numbers, position, count, block_size)
    for number in numbers:
        if position >= count:
            break
        position = _add_indirect(device, pieces, number, level - 1, position, count, block_size, seen, inode)
    return position


def _add_blocks(
    pieces: list[Piece], numbers: tuple[int, ...] | array[int], position: int, count: int, block_size: int
) -> int:
    """Add blocks by their numbers, 0 being a hole; returns the number of the block after them."""
    first = start = position
    begin = 0
    for number in numbers[: max(count - position, 0)]:
        if begin and number == begin + position - start:
            position += 1
            continue
        if begin:
            add_piece(pieces, start * block_size, (position - start) * block_size, begin * block_size)
        begin = number
        start = position
        position += 1
    if begin:
        add_piece(pieces, start * block_size, (position - start) * block_size, begin * block_size)
    return first + len(numbers)
