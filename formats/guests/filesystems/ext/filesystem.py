"""ext2, ext3 and ext4: directories, files, links and extended attributes."""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from typing import Final

from holdfast.formats.guests.filesystems.base import acls
from holdfast.formats.guests.filesystems.base.content import (
    Content,
    ExtentContent,
    InlineContent,
    UnreadableContent,
    VolumeExtent,
    disk_extents,
    read_extents,
)
from holdfast.formats.guests.filesystems.base.directory_tree import PARSE_ERRORS, check_attributes
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.signature import FileSystemFormat, Signature, Trust
from holdfast.formats.guests.filesystems.base.unix import UnixFileSystem
from holdfast.formats.guests.filesystems.ext.blocks import BlockReader
from holdfast.formats.guests.filesystems.ext.inode import ExtInode, device_number, parse_inode
from holdfast.formats.guests.filesystems.ext.layout import (
    ATTRIBUTE_BLOCK_HEADER,
    ATTRIBUTE_ENTRY,
    ATTRIBUTE_MAGIC,
    DIRECTORY_ENTRY,
    FLAG_ENCRYPTED,
    FLAG_EXTENTS,
    FLAG_INLINE,
    INDEX_ACL_ACCESS,
    INDEX_ACL_DEFAULT,
    INDEX_USER,
    INLINE_DATA,
    MAGIC_BYTES,
    MAGIC_OFFSET,
    MAX_ATTRIBUTE,
    MAX_LINK,
    MIN_DIRECTORY_ENTRY,
    ROOT_INODE,
    SUPER_OFFSET,
)
from holdfast.formats.guests.filesystems.ext.superblock import ExtGeometry
from holdfast.formats.guests.values.damage import GuestUnsupported, StructureDamaged
from holdfast.formats.guests.values.values import DiskExtent

_READ_STEP = 64 << 10
"""Bytes of a directory that are read at a time."""

Attributes = dict[tuple[int, bytes], bytes]
"""(name index, name) to value."""


class ExtFileSystem(UnixFileSystem[ExtInode]):
    """One ext file system. Raises GuestDamaged when its superblock or top directory cannot be used."""

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        self._geometry = ExtGeometry(self.tables)
        self.kind = self._geometry.kind
        self.label = self._geometry.label
        self.has_log = self._geometry.has_log
        self.root = ROOT_INODE
        self._load(ROOT_INODE)

    def _device(self, node: ExtInode) -> int:
        return device_number(node.block)

    def _is_plain(self, node: ExtInode) -> bool:
        return not node.attribute_block and not node.has_attributes_inside

    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        node = self._load_kind(inode, stat.S_IFDIR)
        names = self._stored_names(node)
        yield from _encrypted(names) if node.flags & FLAG_ENCRYPTED else names

    def _stored_names(self, node: ExtInode) -> Iterator[tuple[bytes, int]]:
        inode = node.number
        if node.flags & FLAG_INLINE:
            # The first four bytes are the parent's number; the attribute holds more entries.
            yield from _names(node.block[4:], inode)
            yield from _names(self._attributes(node).get(INLINE_DATA, b""), inode)
            return
        if node.size > self.device.size:
            raise self._damaged(node, "size of the directory", node.size, f"at most {self.device.size} bytes")
        block_size = self._geometry.block_size
        for start, whole, place in self._volume_extents(node):
            length = min(whole, node.size - start)
            if place < 0:
                continue
            for offset in range(0, length, _READ_STEP):
                data = self.tables.read(place + offset, min(_READ_STEP, length - offset))
                for block in range(0, len(data), block_size):
                    yield from _names(data[block : block + block_size], inode)

    def content(self, inode: int) -> Content:
        node = self._load_kind(inode, stat.S_IFREG)
        if node.flags & FLAG_ENCRYPTED:
            return UnreadableContent(f"{self.kind} inode {inode}", "its content is encrypted")
        if node.flags & FLAG_INLINE:
            return InlineContent(self._inline(node))
        return ExtentContent(self.device, self._volume_extents(node), node.size)

    def readlink(self, inode: int) -> bytes:
        node = self._load_kind(inode, stat.S_IFLNK)
        if node.flags & FLAG_ENCRYPTED:
            raise GuestUnsupported(f"{self.kind} inode {inode}", "its link target is encrypted")
        if node.size > MAX_LINK:
            raise self._damaged(node, "length of the link target", node.size, f"at most {MAX_LINK} bytes")
        if node.flags & FLAG_INLINE:
            return self._inline(node)
        if node.size < len(node.block) and not node.flags & FLAG_EXTENTS:
            return node.block[: node.size]
        return read_extents(self.tables, self._volume_extents(node), node.size, 0, node.size)

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        found = {}
        for (index, name), value in self._attributes(self._load(inode)).items():
            if index == INDEX_USER:
                found[b"user." + name] = value
            elif index == INDEX_ACL_ACCESS and not name:
                found[acls.ACCESS] = acls.from_ext(value)
            elif index == INDEX_ACL_DEFAULT and not name:
                found[acls.DEFAULT] = acls.from_ext(value)
        return found

    def _load(self, inode: int) -> ExtInode:
        raw = self.tables.read(self._geometry.inode_offset(inode), self._geometry.inode_size)
        return parse_inode(raw, inode, self._geometry)

    def _volume_extents(self, node: ExtInode) -> tuple[VolumeExtent, ...]:
        reader = BlockReader(self.tables, self._geometry.block_size, node.number)
        if node.flags & FLAG_EXTENTS:
            return tuple(reader.by_extents(node.block))
        return tuple(reader.by_map(node.block, node.size))

    def _extents(self, node: ExtInode) -> tuple[DiskExtent, ...] | None:
        if node.flags & (FLAG_INLINE | FLAG_ENCRYPTED):
            return None
        try:
            return disk_extents(self.device, self._volume_extents(node), node.size)
        except PARSE_ERRORS:
            return None  # reading the file tells what is wrong

    def _inline(self, node: ExtInode) -> bytes:
        """The content of a file, or the target of a link, that the inode itself holds."""
        data = node.block[: node.size]
        if len(data) < node.size:
            data += self._attributes(node).get(INLINE_DATA, b"")
        if len(data) < node.size:
            raise self._damaged(node, "size", node.size, f"at most {len(data)}, the bytes in the inode")
        return data[: node.size]

    def _attributes(self, node: ExtInode) -> Attributes:
        """All extended attributes: those in the inode, then those in its attribute block."""
        found: Attributes = {}
        if node.has_attributes_inside:
            self._add_attributes(found, node.extra[len(ATTRIBUTE_MAGIC) :], 0, node)
        if node.attribute_block:
            size = self._geometry.block_size
            block = self.tables.read(node.attribute_block * size, size)
            if block[: len(ATTRIBUTE_MAGIC)] != ATTRIBUTE_MAGIC:
                field = f"magic number of attribute block {node.attribute_block}"
                raise self._damaged(node, field, block[: len(ATTRIBUTE_MAGIC)], str(ATTRIBUTE_MAGIC))
            self._add_attributes(found, block, ATTRIBUTE_BLOCK_HEADER, node)
        return found

    def _add_attributes(self, found: Attributes, area: bytes, position: int, node: ExtInode) -> None:
        """Add the attributes whose entries begin at `position` of `area`; offsets of values count from the
        start of `area`. Entries end with four zero bytes."""
        while position + 4 <= len(area) and area[position : position + 4] != bytes(4):
            entry = ATTRIBUTE_ENTRY.read(area, position)
            start = position + ATTRIBUTE_ENTRY.size
            name = area[start : start + entry.name_length]
            position += (ATTRIBUTE_ENTRY.size + entry.name_length + 3) & ~3
            size = entry.value_size
            if size > MAX_ATTRIBUTE:
                raise self._damaged(node, "size of an attribute", size, f"at most {MAX_ATTRIBUTE} bytes")
            end = entry.value_offset + size
            if entry.value_inode:
                value = self._attribute_in_inode(entry.value_inode, size)
            elif end > len(area):
                raise self._damaged(node, "end of an attribute's value", end, f"at most {len(area)}")
            else:
                value = area[entry.value_offset : end]
            found.setdefault((entry.name_index, name), value)
            check_attributes(len(found), node.number)

    def _attribute_in_inode(self, inode: int, size: int) -> bytes:
        """The value of an attribute that fills an inode of its own."""
        node = self._load(inode)
        if node.flags & FLAG_INLINE or node.size < size:
            raise self._damaged(node, "size of an attribute's inode", node.size, f"at least {size} bytes")
        return read_extents(self.tables, self._volume_extents(node), size, 0, size)

    def _damaged(self, node: ExtInode, field: str, value: int | bytes, limit: str) -> StructureDamaged:
        return StructureDamaged(f"{self.kind} inode {node.number}", field, value, limit)


def _names(block: bytes, inode: int) -> Iterator[tuple[bytes, int]]:
    """The entries of a directory block; index blocks look like one empty entry."""
    position = 0
    end = len(block)
    unpack = DIRECTORY_ENTRY.unpack
    while position + MIN_DIRECTORY_ENTRY <= end:
        child, length, name_length = unpack(block, position)
        if length in (0, 0xFFFF) and end == 65536:
            length = 65536
        if length < 8 or length % 4 or position + length > end or name_length + 8 > length:
            raise StructureDamaged(
                f"ext directory {inode}",
                f"length of the entry at {position}",
                f"{length} with a name of {name_length} bytes",
                f"a multiple of 4 up to {end - position} that holds the name",
            )
        if child:
            yield block[position + 8 : position + 8 + name_length], child
        position += length


def _encrypted(names: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """Encode encrypted names, which can be any bytes, slashes too, as Base64. Linux does the same without the
    key, but adds hashes that it computes, so that its names differ."""
    for name, child in names:
        is_dots = name in (b".", b"..")
        yield name if is_dots else base64.urlsafe_b64encode(name).rstrip(b"="), child


EXT: Final = FileSystemFormat(
    "ext", ExtFileSystem, (Signature(SUPER_OFFSET + MAGIC_OFFSET, MAGIC_BYTES, Trust.STALE),)
)
