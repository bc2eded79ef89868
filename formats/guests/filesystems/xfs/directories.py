"""XFS: the names in a directory, which are in the inode or in blocks of its data fork."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.formats.guests.filesystems.base.content import read_extents
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.xfs import layout
from holdfast.formats.guests.filesystems.xfs.inode import XfsInode, fork_extents
from holdfast.formats.guests.filesystems.xfs.layout import (
    BLOCK_TAIL,
    DATA_ENTRY,
    DIRECTORY_BLOCK_MAGICS,
    DIRECTORY_DATA_MAGICS,
    DIRECTORY_LEAF_START,
    FORMAT_LOCAL,
    FREE_TAG,
    UNUSED_ENTRY,
)
from holdfast.formats.guests.filesystems.xfs.superblock import XfsGeometry
from holdfast.formats.guests.values.damage import StructureDamaged


def names(
    tables: BlockDevice, geometry: XfsGeometry, node: XfsInode, volume_size: int
) -> Iterator[tuple[bytes, int]]:
    """The names of a directory and their inode numbers. Raises StructureDamaged."""
    if node.fork.format == FORMAT_LOCAL:
        yield from _short_names(node.fork.data, node.number, has_types=geometry.has_types)
        return
    size = geometry.directory_block
    extents = fork_extents(tables, geometry, node.fork, node.number)
    end = min(node.size, DIRECTORY_LEAF_START)
    if end > volume_size:
        raise _damaged(node.number, "size", node.size, f"at most {volume_size} bytes")
    for start, length, place in extents:
        if place < 0 or start >= end:
            continue
        # A directory block may lie in several extents: it is read with the extent where it begins.
        for offset in range(-(-start // size) * size, min(start + length, end), size):
            yield from _block_names(read_extents(tables, extents, end, offset, size), node.number, geometry)


def _short_names(data: bytes, inode: int, *, has_types: bool) -> Iterator[tuple[bytes, int]]:
    """Names in the inode (struct xfs_dir2_sf_hdr, "Short Form Directories").

    The header is the number of entries, whether inode numbers have 8 bytes or 4, and the parent's number. An
    entry is the name's length, 2 bytes of offset, the name, with `has_types` a byte, and the inode number.
    """
    count, is_wide = data[0], data[1]
    width = 8 if is_wide else 4
    position = 2 + width
    for number in range(count):
        start = position + 3
        name_end = start + data[position]
        end = name_end + has_types + width
        if end > len(data):
            raise _damaged(inode, f"end of entry {number}", end, f"at most {len(data)}")
        yield data[start:name_end], int.from_bytes(data[end - width : end], "big")
        position = end


def _block_names(block: bytes, inode: int, geometry: XfsGeometry) -> Iterator[tuple[bytes, int]]:
    """Names in a directory block ("Block Directories", "Leaf Directories")."""
    magic = block[:4]
    end = len(block)
    position = layout.DIRECTORY_HEADERS[geometry.version]
    if magic in DIRECTORY_BLOCK_MAGICS:
        count = BLOCK_TAIL.read(block, end - BLOCK_TAIL.size).entries
        most = (end - BLOCK_TAIL.size - position) // layout.DIRECTORY_LEAF_ENTRY
        end -= BLOCK_TAIL.size + count * layout.DIRECTORY_LEAF_ENTRY
        if end < position:
            raise _damaged(inode, "number of leaf entries in its block", count, f"at most {most}")
    elif magic not in DIRECTORY_DATA_MAGICS:
        allowed = " or ".join(str(one) for one in (*DIRECTORY_BLOCK_MAGICS, *DIRECTORY_DATA_MAGICS))
        raise _damaged(inode, "magic number of a block", magic, allowed)
    typed = 18 if geometry.has_types else 17  # with 7 to round up
    unpack = DATA_ENTRY.unpack
    while position < end:
        if block[position : position + 2] == FREE_TAG:
            size = UNUSED_ENTRY.read(block, position).length
            if size == 0 or size % 8:
                raise _damaged(inode, f"length of the free space at {position}", size, "a multiple of 8")
        else:
            child, length = unpack(block, position)
            size = (length + 1 + typed) & ~7
            yield block[position + 9 : position + 9 + length], child
        position += size
    if position != end:
        raise _damaged(inode, "end of the last entry of a block", position, f"{end}")


def _damaged(inode: int, field: str, value: int | bytes, limit: str) -> StructureDamaged:
    return StructureDamaged(f"xfs directory {inode}", field, value, limit)
