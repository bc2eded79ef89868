"""NTFS: the names in a directory's index."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.formats.guests.filesystems.base.content import read_extents
from holdfast.formats.guests.filesystems.base.directory_tree import utf8
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.ntfs import layout
from holdfast.formats.guests.filesystems.ntfs.layout import (
    BITMAP,
    DIRECTORY_INDEX,
    DOS_NAME,
    ENTRY_NAME_LENGTH_OFFSET,
    ENTRY_NAME_OFFSET,
    ENTRY_NAME_SPACE_OFFSET,
    INDEX_ALLOCATION,
    INDEX_ENTRY,
    INDEX_HEADER,
    INDEX_LAST,
    INDEX_MAGIC,
    INDEX_ROOT,
    INDEX_ROOT_HEADER,
    KEY_OFFSET,
    NAME_KEY_SIZE,
)
from holdfast.formats.guests.filesystems.ntfs.records import MasterTable, Record, fix_up
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import GuestMissing


def names(tables: BlockDevice, table: MasterTable, record: Record) -> Iterator[tuple[bytes, int]]:
    """The names of a directory with the references to their records.

    Index blocks are read in their order, not in that of the tree: no loops, and every block is read once.
    Raises GuestMissing when the record is not a directory, StructureDamaged.
    """
    inode = record.number
    root = record.find(INDEX_ROOT, DIRECTORY_INDEX)
    if not record.is_directory or root is None or root.data is None:
        raise GuestMissing(f"ntfs record {inode} is not a directory")
    yield from _entries(root.data, layout.INDEX_ROOT_SIZE, inode)
    parts = [a for a in record.attributes if a.type == INDEX_ALLOCATION and a.name == DIRECTORY_INDEX]
    if not parts:
        return
    block_size = INDEX_ROOT_HEADER.read(root.data).block_size
    if not layout.MIN_RECORD <= block_size <= layout.MAX_RECORD or block_size & (block_size - 1):
        limit = f"a power of two from {layout.MIN_RECORD} to {layout.MAX_RECORD} bytes"
        raise _damaged(inode, "size of an index block", block_size, limit)
    parts.sort(key=lambda part: part.lowest)
    size = parts[0].size
    extents = table.extents(parts, inode)
    used = record.find(BITMAP, DIRECTORY_INDEX)
    bitmap = table.value(used, inode, layout.MAX_BITMAP) if used is not None else b""
    kind = f"ntfs directory {inode}, index block"
    for number in range(min(size // block_size, len(bitmap) * 8)):
        if bitmap[number >> 3] >> (number & 7) & 1:
            raw = read_extents(tables, extents, size, number * block_size, block_size)
            block = bytes(fix_up(raw, INDEX_MAGIC, kind, number))
            yield from _entries(block, layout.INDEX_BLOCK_HEADER, inode)


def _entries(data: bytes, header: int, inode: int) -> Iterator[tuple[bytes, int]]:
    """The names behind the index header at an offset; names for DOS alone are left out."""
    start, total = INDEX_HEADER.unpack(data, header)
    position, end = header + start, header + total
    if end > len(data):
        raise _damaged(inode, "end of its index entries", end, f"at most {len(data)}")
    unpack = INDEX_ENTRY.unpack
    while position + KEY_OFFSET <= end:
        reference, length, key_length, flags = unpack(data, position)
        if flags & INDEX_LAST:
            return
        if length < KEY_OFFSET + key_length or key_length < NAME_KEY_SIZE or position + length > end:
            value = f"{length} bytes with a key of {key_length}"
            limit = f"at most {end - position}, with a key of at least {NAME_KEY_SIZE} in it"
            raise _damaged(inode, f"length of the index entry at {position}", value, limit)
        units = data[position + ENTRY_NAME_LENGTH_OFFSET]
        if NAME_KEY_SIZE + units * 2 > key_length:
            most = (key_length - NAME_KEY_SIZE) // 2
            raise _damaged(inode, "number of characters of a name", units, f"at most {most}")
        if data[position + ENTRY_NAME_SPACE_OFFSET] != DOS_NAME:
            start = position + ENTRY_NAME_OFFSET
            yield utf8(data[start : start + units * 2]), reference
        position += length


def _damaged(inode: int, field: str, value: int | str, limit: str) -> StructureDamaged:
    return StructureDamaged(f"ntfs directory {inode}", field, value, limit)
