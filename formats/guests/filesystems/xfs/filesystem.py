"""XFS, versions 4 and 5."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator

from holdfast.formats.guests.filesystems.base import acls
from holdfast.formats.guests.filesystems.base.content import (
    Content,
    Inline,
    Pieces,
    Unreadable,
    file_extents,
    read_pieces,
)
from holdfast.formats.guests.filesystems.base.directory_tree import MAX_INODE, PARSE_ERRORS, check_attributes
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.unix import UnixFileSystem
from holdfast.formats.guests.filesystems.xfs.attributes import ROOT, attributes, is_plain
from holdfast.formats.guests.filesystems.xfs.inode import (
    FLAG_REALTIME,
    FORMAT_LOCAL,
    Inode,
    fork_pieces,
    parse_inode,
)
from holdfast.formats.guests.filesystems.xfs.log import is_clean
from holdfast.formats.guests.filesystems.xfs.superblock import Super
from holdfast.formats.guests.values.values import FileExtent, GuestDamaged

_BLOCK_MAGIC = (b"XD2B", b"XDB3")
_DATA_MAGIC = (b"XD2D", b"XDD3")
_LEAF_START = 1 << 35
"""Offset in a folder's fork from which its blocks are indexes of names and no entries."""
_FREE = b"\xff\xff"
_MAX_LINK = 1024
_LINK_MAGIC = b"XSLM"
_LINK_HEAD = 56
_ENTRY = struct.Struct(">QB")


class XfsFileSystem(UnixFileSystem[Inode]):
    """One XFS file system. Raises GuestDamaged when its superblock cannot be used."""

    kind = family = "xfs"

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        self._super = Super(self.tables)
        self.label = self._super.label
        self.root = self._super.root
        self._load(self.root)
        self.has_log = self._has_log()

    def _device(self, node: Inode) -> int:
        (number,) = struct.unpack_from(">I", node.fork.data)
        return os.makedev(number >> 18, number & 0x3FFFF)

    def _is_plain(self, node: Inode) -> bool:
        return is_plain(node)

    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        node = self._load_kind(inode, stat.S_IFDIR)
        if node.fork.format == FORMAT_LOCAL:
            yield from self._short_names(node.fork.data, inode)
            return
        size = self._super.directory_block
        pieces = fork_pieces(self.tables, self._super, node.fork, inode)
        end = min(node.size, _LEAF_START)
        if end > self.device.size:
            raise GuestDamaged(f"xfs: folder {inode} of {node.size} bytes")
        for start, length, place in pieces:
            if place < 0 or start >= end:
                continue
            # A folder block may be made of several pieces: it is read where it starts.
            for offset in range(-(-start // size) * size, min(start + length, end), size):
                yield from self._block_names(read_pieces(self.tables, pieces, end, offset, size), inode)

    def content(self, inode: int) -> Content:
        node = self._load_kind(inode, stat.S_IFREG)
        if node.flags & FLAG_REALTIME:
            return Unreadable(f"xfs: inode {inode} lies on the real-time device")
        if node.fork.format == FORMAT_LOCAL:
            return Inline(node.fork.data[: node.size])
        return Pieces(self.device, fork_pieces(self.tables, self._super, node.fork, inode), node.size)

    def readlink(self, inode: int) -> bytes:
        node = self._load_kind(inode, stat.S_IFLNK)
        if node.size > _MAX_LINK:
            raise GuestDamaged(f"xfs: the link {inode} is of {node.size} bytes")
        is_local = node.fork.format == FORMAT_LOCAL
        target = node.fork.data[: node.size] if is_local else self._remote_link(node)
        if len(target) < node.size:
            raise GuestDamaged(f"xfs: the link {inode} ends early")
        return target

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        found = {}
        for namespace, name, value in attributes(self.tables, self._super, self._load(inode)):
            if namespace != ROOT:
                found[b"user." + name] = value
            elif name == b"SGI_ACL_FILE":
                found[acls.ACCESS] = acls.from_xfs(value)
            elif name == b"SGI_ACL_DEFAULT":
                found[acls.DEFAULT] = acls.from_xfs(value)
            check_attributes(len(found), inode)
        return found

    def _has_log(self) -> bool:
        if not self._super.log_start or not self._super.log_size:
            return False
        try:
            return not is_clean(
                self.tables, self._super.block_offset(self._super.log_start), self._super.log_size
            )
        except PARSE_ERRORS:
            return True

    def _load(self, inode: int) -> Inode:
        if inode >= MAX_INODE:
            raise GuestDamaged(f"xfs: the inode number {inode} is too large to be shown")
        place = self._super.inode_offset(inode)
        return parse_inode(self.tables.read(place, self._super.inode_size), inode, self._super.block_size)

    def _extents(self, node: Inode) -> tuple[FileExtent, ...] | None:
        if node.flags & FLAG_REALTIME or node.fork.format == FORMAT_LOCAL:
            return None
        try:
            pieces = fork_pieces(self.tables, self._super, node.fork, node.number)
            return file_extents(self.device, pieces, node.size)
        except PARSE_ERRORS:
            return None  # reading it will say what is wrong

    def _short_names(self, data: bytes, inode: int) -> Iterator[tuple[bytes, int]]:
        count, wide = data[0], data[1]
        width = 8 if wide else 4
        typed = 1 if self._super.has_types else 0
        place = 2 + width
        for _ in range(count):
            length = data[place]
            end = place + 3 + length + typed + width
            if end > len(data):
                raise GuestDamaged(f"xfs: folder {inode}: an entry reaches to {end} of {len(data)}")
            name = data[place + 3 : place + 3 + length]
            yield name, int.from_bytes(data[end - width : end], "big")
            place = end

    def _block_names(self, block: bytes, inode: int) -> Iterator[tuple[bytes, int]]:
        magic = block[:4]
        end = len(block)
        if magic in _BLOCK_MAGIC:
            (count,) = struct.unpack_from(">I", block, end - 8)
            end -= 8 + count * 8
        elif magic not in _DATA_MAGIC:
            raise GuestDamaged(f"xfs: folder {inode}: a block of it is damaged")
        place = 64 if self._super.version == 5 else 16
        if end < place:
            raise GuestDamaged(f"xfs: folder {inode}: a block with {count} entries")
        typed = 1 if self._super.has_types else 0
        while place < end:
            if block[place : place + 2] == _FREE:
                (size,) = struct.unpack_from(">H", block, place + 2)
                if size == 0 or size % 8:
                    raise GuestDamaged(f"xfs: folder {inode}: free space of {size} bytes")
            else:
                child, length = _ENTRY.unpack_from(block, place)
                size = (length + typed + 18) & ~7
                yield block[place + 9 : place + 9 + length], child
            place += size
        if place != end:
            raise GuestDamaged(f"xfs: folder {inode}: an entry reaches to {place} of {end}")

    def _remote_link(self, node: Inode) -> bytes:
        """Version 5 has a head before each run of blocks, not before each block."""
        pieces = fork_pieces(self.tables, self._super, node.fork, node.number)
        if self._super.version == 4:
            return read_pieces(self.tables, pieces, node.size, 0, node.size)
        target = b""
        for _, length, place in pieces:
            left = node.size - len(target)
            if left <= 0:
                break
            run = self.tables.read(place, min(length, _LINK_HEAD + left))
            if run[:4] != _LINK_MAGIC:
                raise GuestDamaged(f"xfs: the link {node.number} is damaged after {len(target)} bytes")
            target += run[_LINK_HEAD:]
        return target
