"""XFS, versions 4 and 5: files, links and extended attributes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from holdfast.formats.guests.filesystems.base import acls
from holdfast.formats.guests.filesystems.base.content import (
    Content,
    ExtentContent,
    InlineContent,
    UnreadableContent,
    disk_extents,
    read_extents,
)
from holdfast.formats.guests.filesystems.base.directory_tree import MAX_INODE, PARSE_ERRORS, check_attributes
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.signature import FileSystemFormat, Signature, Trust
from holdfast.formats.guests.filesystems.base.unix import UnixFileSystem
from holdfast.formats.guests.filesystems.xfs import directories
from holdfast.formats.guests.filesystems.xfs.attributes import attributes, is_plain
from holdfast.formats.guests.filesystems.xfs.inode import XfsInode, fork_extents, parse_inode
from holdfast.formats.guests.filesystems.xfs.layout import (
    ATTRIBUTE_ROOT,
    DEVICE,
    FLAG_REALTIME,
    FORMAT_LOCAL,
    LINK_HEADER,
    LINK_MAGIC,
    MAGIC,
    MAX_LINK,
)
from holdfast.formats.guests.filesystems.xfs.log import is_clean
from holdfast.formats.guests.filesystems.xfs.superblock import XfsGeometry
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import DiskExtent


class XfsFileSystem(UnixFileSystem[XfsInode]):
    """One XFS file system. Raises GuestDamaged when its superblock or top directory cannot be used."""

    kind = "xfs"

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        self._geometry = XfsGeometry(self.tables)
        self.label = self._geometry.label
        self.root = self._geometry.root
        self._load(self.root)
        self.has_log = self._has_log()

    def _device(self, node: XfsInode) -> int:
        (number,) = DEVICE.unpack_from(node.fork.data)
        return os.makedev(number >> 18, number & 0x3FFFF)

    def _is_plain(self, node: XfsInode) -> bool:
        return is_plain(node)

    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        node = self._load_kind(inode, stat.S_IFDIR)
        return directories.names(self.tables, self._geometry, node, self.device.size)

    def content(self, inode: int) -> Content:
        node = self._load_kind(inode, stat.S_IFREG)
        if node.flags & FLAG_REALTIME:
            return UnreadableContent(f"xfs inode {inode}", "its content lies on the real-time device")
        if node.fork.format == FORMAT_LOCAL:
            return InlineContent(node.fork.data[: node.size])
        extents = fork_extents(self.tables, self._geometry, node.fork, inode)
        return ExtentContent(self.device, extents, node.size)

    def readlink(self, inode: int) -> bytes:
        node = self._load_kind(inode, stat.S_IFLNK)
        if node.size > MAX_LINK:
            raise _damaged(inode, "length of the link target", node.size, f"at most {MAX_LINK} bytes")
        is_local = node.fork.format == FORMAT_LOCAL
        target = node.fork.data[: node.size] if is_local else self._remote_link(node)
        if len(target) < node.size:
            raise _damaged(inode, "number of bytes of the link target", len(target), f"{node.size}")
        return target

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        found = {}
        for namespace, name, value in attributes(self.tables, self._geometry, self._load(inode)):
            if namespace != ATTRIBUTE_ROOT:
                found[b"user." + name] = value
            elif name == b"SGI_ACL_FILE":
                found[acls.ACCESS] = acls.from_xfs(value)
            elif name == b"SGI_ACL_DEFAULT":
                found[acls.DEFAULT] = acls.from_xfs(value)
            check_attributes(len(found), inode)
        return found

    def _has_log(self) -> bool:
        geometry = self._geometry
        if not geometry.log_start or not geometry.log_size:
            return False
        try:
            return not is_clean(self.tables, geometry.block_offset(geometry.log_start), geometry.log_size)
        except PARSE_ERRORS:
            return True

    def _load(self, inode: int) -> XfsInode:
        if inode >= MAX_INODE:
            raise _damaged(inode, "number", inode, f"below {MAX_INODE}, the most that a mount can show")
        geometry = self._geometry
        offset = geometry.inode_offset(inode)
        return parse_inode(self.tables.read(offset, geometry.inode_size), inode, geometry.block_size)

    def _extents(self, node: XfsInode) -> tuple[DiskExtent, ...] | None:
        if node.flags & FLAG_REALTIME or node.fork.format == FORMAT_LOCAL:
            return None
        try:
            extents = fork_extents(self.tables, self._geometry, node.fork, node.number)
            return disk_extents(self.device, extents, node.size)
        except PARSE_ERRORS:
            return None  # reading the file tells what is wrong

    def _remote_link(self, node: XfsInode) -> bytes:
        """The target of a link in blocks. Version 5 has a header before each extent, not before each
        block."""
        extents = fork_extents(self.tables, self._geometry, node.fork, node.number)
        if self._geometry.version == 4:
            return read_extents(self.tables, extents, node.size, 0, node.size)
        target = b""
        for _, length, place in extents:
            left = node.size - len(target)
            if left <= 0:
                break
            part = self.tables.read(place, min(length, LINK_HEADER + left))
            magic = part[: len(LINK_MAGIC)]
            if magic != LINK_MAGIC:
                raise _damaged(node.number, "magic number of a link block", magic, str(LINK_MAGIC))
            target += part[LINK_HEADER:]
        return target


def _damaged(inode: int, field: str, value: int | bytes, limit: str) -> StructureDamaged:
    return StructureDamaged(f"xfs inode {inode}", field, value, limit)


XFS: Final = FileSystemFormat("xfs", XfsFileSystem, (Signature(0, MAGIC, Trust.FIRST_SECTOR),))
