"""btrfs on one device. Subvolumes and snapshots are folders at their place.

An inode's number is that in its tree, with the tree's position among all trees of files above it: the same in
every process that opens the same disk.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base import acls
from holdfast.formats.guests.filesystems.base.content import Content, ExtentContent, disk_extents
from holdfast.formats.guests.filesystems.base.directory_tree import (
    MAX_INODE,
    MAX_SIZE,
    PARSE_ERRORS,
    check_attributes,
    nanoseconds,
)
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.unix import UnixFileSystem
from holdfast.formats.guests.filesystems.btrfs.chunks import Chunks, SuperBlock
from holdfast.formats.guests.filesystems.btrfs.data import StoredExtent, MixedContent, parse_extents, plain_extents
from holdfast.formats.guests.filesystems.btrfs.trees import (
    CHUNK_ITEM,
    DIR_INDEX,
    EXTENT_DATA,
    INODE_ITEM,
    LARGEST,
    ROOT_ITEM,
    ROOT_REF,
    XATTR_ITEM,
    Root,
    Trees,
)
from holdfast.formats.guests.values.values import Entry, Extent, GuestDamaged, GuestMissing, NodeType

_CHUNK_OBJECT = 256
_TOP = 5
"""The tree of files at the top."""
_FIRST_FREE = 256
_LAST_FREE = LARGEST - 255
_EMPTY = 2
"""Stands for a subvolume that a snapshot did not take: an empty folder, as on Linux."""
_INODE = struct.Struct("<QQQQQIIIIQQQ32xqIqIqI")
_NAME = struct.Struct("<QBQQHHB")
_ROOT_FIXED = struct.Struct("<QQQQQQQI")
_MAX_LINK = 4096
_MAX_XATTR = 64 << 10


class _Inode(NamedTuple):
    number: int
    root: Root
    object: int
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    allocated: int
    device: int
    atime: int
    ctime: int
    mtime: int


class BtrfsFileSystem(UnixFileSystem[_Inode]):
    """One btrfs file system on one device. GuestDamaged when its superblock or chunks cannot be used."""

    kind = family = "btrfs"

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        super_ = SuperBlock(self.tables)
        if super_.devices != 1:
            raise GuestDamaged(f"btrfs: the file system is spread over {super_.devices} devices")
        self.label = super_.label
        self.has_log = super_.log_root != 0
        self._sector = super_.sector_size
        self._chunks = Chunks(device.size, super_.device_id)
        self._chunks.add_system(super_.system_chunks)
        self._trees = Trees(self.tables, self._chunks, super_.node_size)
        chunk_root = Root(super_.chunk_root, super_.chunk_level)
        first, last = (_CHUNK_OBJECT, CHUNK_ITEM, 0), (_CHUNK_OBJECT, CHUNK_ITEM, LARGEST)
        for key, item in self._trees.items(chunk_root, first, last):
            self._chunks.add(key[2], item)
        self._root = Root(super_.root, super_.root_level)
        # The top is tree 0, the others follow in the order of their IDs.
        self._ids = [_TOP, *self._subvolumes()]
        self._numbers = {id_: number for number, id_ in enumerate(self._ids)}
        self._bits = 44 - max(len(self._ids) - 1, 1).bit_length()
        self._roots: dict[int, tuple[Root, int]] = {}
        self.root = self._number(0, self._tree(0)[1])
        self._load(self.root)

    def entry(self, inode: int) -> Entry:
        if inode & ((1 << self._bits) - 1) == _EMPTY:
            return Entry(inode, NodeType.FOLDER, 0o755, 0, 0, 1, 0, 0, 0, 0, 0)
        return super().entry(inode)

    def _device(self, node: _Inode) -> int:
        return os.makedev(node.device >> 20 & 0xFFF, node.device & 0xFFFFF)

    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        if inode & ((1 << self._bits) - 1) == _EMPTY:
            return
        node = self._load_kind(inode, stat.S_IFDIR)
        tree = inode >> self._bits
        first, last = (node.object, DIR_INDEX, 0), (node.object, DIR_INDEX, LARGEST)
        for _, item in self._trees.items(node.root, first, last):
            for object_, kind, name, _ in _dir_items(item, inode):
                if kind == INODE_ITEM and object_ < 1 << self._bits:
                    yield name, tree << self._bits | object_
                elif kind == ROOT_ITEM:
                    yield name, self._subvolume(tree, object_, node.object, name)

    def content(self, inode: int) -> Content:
        node = self._load_kind(inode, stat.S_IFREG)
        return self._data(node)

    def readlink(self, inode: int) -> bytes:
        node = self._load_kind(inode, stat.S_IFLNK)
        if node.size > _MAX_LINK:
            raise GuestDamaged(f"btrfs: the link {inode} is of {node.size} bytes")
        return self._data(node).read(0, node.size)

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        if inode & ((1 << self._bits) - 1) == _EMPTY:
            return {}
        node = self._load(inode)
        found = {}
        first, last = (node.object, XATTR_ITEM, 0), (node.object, XATTR_ITEM, LARGEST)
        for _, item in self._trees.items(node.root, first, last):
            for _, _, name, value in _dir_items(item, inode):
                if name.startswith(b"user.") or name in (acls.ACCESS, acls.DEFAULT):
                    found[name] = value
            check_attributes(len(found), inode)
        return found

    def _load(self, inode: int) -> _Inode:
        tree, object_ = inode >> self._bits, inode & ((1 << self._bits) - 1)
        if not 0 <= tree < len(self._ids):
            raise GuestMissing(f"btrfs: no inode {inode}")
        root, _ = self._tree(tree)
        item = self._trees.find(root, (object_, INODE_ITEM, 0))
        if item is None:
            raise GuestMissing(f"btrfs: no inode {object_} in tree {self._ids[tree]}")
        (
            _, _, size, allocated, _, links, uid, gid, mode, device, _, _,
            atime, atime_ns, ctime, ctime_ns, mtime, mtime_ns,
        ) = _INODE.unpack_from(item)  # fmt: skip
        if size > MAX_SIZE:
            raise GuestDamaged(f"btrfs: inode {inode} of {size} bytes")
        return _Inode(
            inode,
            root,
            object_,
            mode,
            uid,
            gid,
            links,
            size,
            min(allocated, MAX_SIZE),
            device,
            nanoseconds(atime, atime_ns),
            nanoseconds(ctime, ctime_ns),
            nanoseconds(mtime, mtime_ns),
        )

    def _extents(self, node: _Inode) -> tuple[Extent, ...] | None:
        try:
            pieces = plain_extents(self._parsed(node), self._chunks)
            return None if pieces is None else disk_extents(self.device, pieces, node.size)
        except PARSE_ERRORS:
            return None  # reading it will say what is wrong

    def _data(self, node: _Inode) -> Content:
        extents = self._parsed(node)
        pieces = plain_extents(extents, self._chunks)
        if pieces is not None:
            return ExtentContent(self.device, pieces, node.size)
        return MixedContent(self.device, self._chunks, extents, node.size, self._sector)

    def _parsed(self, node: _Inode) -> tuple[StoredExtent, ...]:
        first, last = (node.object, EXTENT_DATA, 0), (node.object, EXTENT_DATA, LARGEST)
        items = ((key[2], item) for key, item in self._trees.items(node.root, first, last))
        return tuple(parse_extents(items, node.number))

    def _number(self, tree: int, object_: int) -> int:
        number = tree << self._bits | object_
        if object_ >= 1 << self._bits or number >= MAX_INODE:
            raise GuestDamaged(f"btrfs: the inode number {object_} is too large to be shown")
        return number

    def _tree(self, number: int) -> tuple[Root, int]:
        """Root of a tree of files, and the number of its top folder."""
        known = self._roots.get(number)
        if known is None:
            id_ = self._ids[number]
            for _, item in self._trees.items(self._root, (id_, ROOT_ITEM, 0), (id_, ROOT_ITEM, LARGEST)):
                _, top, logical, _, _, _, _, _ = _ROOT_FIXED.unpack_from(item, 160)
                known = Root(logical, item[238]), top
            if known is None:
                raise GuestDamaged(f"btrfs: no tree {id_}")
            self._roots[number] = known
        return known

    def _subvolumes(self) -> Iterator[int]:
        """IDs of the trees of subvolumes, in order."""
        place = _FIRST_FREE
        while place <= _LAST_FREE:
            first, last = (place, ROOT_ITEM, 0), (_LAST_FREE, ROOT_ITEM, LARGEST)
            for key, _ in self._trees.items(self._root, first, last):
                place = key[0] + 1
                if key[1] == ROOT_ITEM:
                    yield key[0]
                    break
            else:
                return

    def _subvolume(self, tree: int, id_: int, folder: int, name: bytes) -> int:
        """The inode number of a subvolume's top folder, when the root tree knows it at this place; that of an
        empty folder in a snapshot of the place. That also keeps folders from going round in a circle."""
        reference = self._trees.find(self._root, (self._ids[tree], ROOT_REF, id_))
        number = self._numbers.get(id_)
        if reference is None or number is None:
            return self._number(tree, _EMPTY)
        parent, _, length = struct.unpack_from("<QQH", reference)
        if parent != folder or reference[18 : 18 + length] != name:
            return self._number(tree, _EMPTY)
        return self._number(number, self._tree(number)[1])


def _dir_items(item: bytes, inode: int) -> Iterator[tuple[int, int, bytes, bytes]]:
    """(objectid, kind, name, data) of what stands in a directory item or an attribute."""
    place = 0
    while place < len(item):
        object_, kind, _, _, data_length, name_length, _ = _NAME.unpack_from(item, place)
        place += _NAME.size
        end = place + name_length + data_length
        if end > len(item) or data_length > _MAX_XATTR:
            raise GuestDamaged(f"btrfs: inode {inode}: a name of {name_length} bytes")
        yield object_, kind, item[place : place + name_length], item[place + name_length : end]
        place = end
