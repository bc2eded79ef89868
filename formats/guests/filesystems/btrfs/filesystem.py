"""btrfs on one device. Subvolumes and snapshots are directories, where Linux shows them.

An inode number here has two parts. The low bits are the inode's number in its tree, the high bits are the
position of that tree among all trees of files. So every process that opens the same disk uses the same
numbers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from holdfast.formats.guests.filesystems.base import acls
from holdfast.formats.guests.filesystems.base.content import Content, ExtentContent, disk_extents
from holdfast.formats.guests.filesystems.base.directory_tree import (
    MAX_INODE,
    MAX_SIZE,
    PARSE_ERRORS,
    check_attributes,
    label_text,
    nanoseconds,
)
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.signature import FileSystemFormat, Signature, Trust
from holdfast.formats.guests.filesystems.base.unix import UnixFileSystem
from holdfast.formats.guests.filesystems.btrfs.chunks import Chunks, read_superblock
from holdfast.formats.guests.filesystems.btrfs.data import (
    MixedContent,
    StoredExtent,
    parse_extents,
    plain_extents,
)
from holdfast.formats.guests.filesystems.btrfs.layout import (
    CHUNK_ITEM,
    CHUNK_OBJECT,
    DIR_INDEX,
    DIR_ITEM,
    EXTENT_DATA,
    FIRST_FREE,
    INODE,
    INODE_ITEM,
    LARGEST,
    LAST_FREE,
    MAGIC,
    MAGIC_OFFSET,
    MAX_ATTRIBUTE,
    MAX_LINK,
    ROOT,
    ROOT_ITEM,
    ROOT_REF,
    ROOT_REFERENCE,
    SUPER_OFFSET,
    TOP_TREE,
    XATTR_ITEM,
)
from holdfast.formats.guests.filesystems.btrfs.trees import TreeRoot, Trees
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import DiskExtent, Entry, GuestMissing, NodeType

_EMPTY = 2
"""Inode number, in its tree, of a subvolume that a snapshot left out: an empty directory, as on Linux."""
_INODE_BITS = 44
"""Bits of the numbers that the mount has room for."""


class BtrfsInode(NamedTuple):
    """An inode, decoded. Sizes are in bytes, times in ns since 1970. `object` is its number in its tree."""

    number: int
    root: TreeRoot
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


class BtrfsFileSystem(UnixFileSystem[BtrfsInode]):
    """One btrfs file system on one device. Raises GuestDamaged when its superblock, its chunks or its top
    directory cannot be used."""

    kind = "btrfs"

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        stored, system_chunks = read_superblock(self.tables)
        self.label = label_text(stored.label)
        self.has_log = stored.log_root != 0
        self._sector = stored.sector_size
        self._chunks = Chunks(device.size, stored.device_id)
        self._chunks.add_system(system_chunks)
        self._trees = Trees(self.tables, self._chunks, stored.node_size)
        chunk_root = TreeRoot(stored.chunk_root, stored.chunk_level)
        first, last = (CHUNK_OBJECT, CHUNK_ITEM, 0), (CHUNK_OBJECT, CHUNK_ITEM, LARGEST)
        for key, item in self._trees.items(chunk_root, first, last):
            self._chunks.add(key[2], item)
        self._root = TreeRoot(stored.root, stored.root_level)
        # The top is tree 0, the others follow in the order of their IDs.
        self._ids = [TOP_TREE, *self._subvolumes()]
        self._numbers = {id_: number for number, id_ in enumerate(self._ids)}
        self._bits = _INODE_BITS - max(len(self._ids) - 1, 1).bit_length()
        self._roots: dict[int, tuple[TreeRoot, int]] = {}
        self.root = self._number(0, self._tree(0)[1])
        self._load(self.root)

    def entry(self, inode: int) -> Entry:
        if inode & ((1 << self._bits) - 1) == _EMPTY:
            return Entry(inode, NodeType.FOLDER, 0o755, 0, 0, 1, 0, 0, 0, 0, 0)
        return super().entry(inode)

    def _device(self, node: BtrfsInode) -> int:
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
        if node.size > MAX_LINK:
            raise _damaged(inode, "length of the link target", node.size, f"at most {MAX_LINK} bytes")
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

    def _load(self, inode: int) -> BtrfsInode:
        tree, object_ = inode >> self._bits, inode & ((1 << self._bits) - 1)
        if not 0 <= tree < len(self._ids):
            raise GuestMissing(f"btrfs: there is no inode {inode}")
        root, _ = self._tree(tree)
        item = self._trees.find(root, (object_, INODE_ITEM, 0))
        if item is None:
            raise GuestMissing(f"btrfs: tree {self._ids[tree]} has no inode {object_}")
        (
            size, allocated, links, uid, gid, mode, device,
            atime, atime_ns, ctime, ctime_ns, mtime, mtime_ns,
        ) = INODE.unpack(item)  # fmt: skip
        if size > MAX_SIZE:
            raise _damaged(inode, "size", size, f"at most {MAX_SIZE} bytes")
        return BtrfsInode(
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

    def _extents(self, node: BtrfsInode) -> tuple[DiskExtent, ...] | None:
        try:
            extents = plain_extents(self._stored_extents(node), self._chunks)
            return None if extents is None else disk_extents(self.device, extents, node.size)
        except PARSE_ERRORS:
            return None  # reading the file tells what is wrong

    def _data(self, node: BtrfsInode) -> Content:
        stored = self._stored_extents(node)
        extents = plain_extents(stored, self._chunks)
        if extents is not None:
            return ExtentContent(self.device, extents, node.size)
        return MixedContent(self.device, self._chunks, stored, node.size, self._sector)

    def _stored_extents(self, node: BtrfsInode) -> tuple[StoredExtent, ...]:
        first, last = (node.object, EXTENT_DATA, 0), (node.object, EXTENT_DATA, LARGEST)
        items = ((key[2], item) for key, item in self._trees.items(node.root, first, last))
        return tuple(parse_extents(items, node.number))

    def _number(self, tree: int, object_: int) -> int:
        """The inode number here of the inode `object_` in the tree at position `tree`."""
        number = tree << self._bits | object_
        if object_ >= 1 << self._bits or number >= MAX_INODE:
            limit = f"below {1 << self._bits}, the most that a mount can show"
            raise _damaged(object_, "number", object_, limit)
        return number

    def _tree(self, number: int) -> tuple[TreeRoot, int]:
        """The root of the tree of files at a position, and the number of its top directory in it."""
        known = self._roots.get(number)
        if known is None:
            id_ = self._ids[number]
            for _, item in self._trees.items(self._root, (id_, ROOT_ITEM, 0), (id_, ROOT_ITEM, LARGEST)):
                root = ROOT.read(item)
                known = TreeRoot(root.address, root.level), root.top_directory
            if known is None:
                raise StructureDamaged(
                    "btrfs tree of roots", f"number of roots of tree {id_}", 0, "at least 1"
                )
            self._roots[number] = known
        return known

    def _subvolumes(self) -> Iterator[int]:
        """The IDs of the trees of subvolumes, in order."""
        next_id = FIRST_FREE
        while next_id <= LAST_FREE:
            first, last = (next_id, ROOT_ITEM, 0), (LAST_FREE, ROOT_ITEM, LARGEST)
            for key, _ in self._trees.items(self._root, first, last):
                next_id = key[0] + 1
                if key[1] == ROOT_ITEM:
                    yield key[0]
                    break
            else:
                return

    def _subvolume(self, tree: int, id_: int, directory: int, name: bytes) -> int:
        """The inode number of the subvolume that a directory's entry refers to.

        It is that of the subvolume's top directory when the tree of roots says that the subvolume belongs
        there. Else the entry is in a snapshot of its directory, and leads to an empty directory. So no
        directory can lead back to itself.
        """
        reference = self._trees.find(self._root, (self._ids[tree], ROOT_REF, id_))
        number = self._numbers.get(id_)
        if reference is None or number is None:
            return self._number(tree, _EMPTY)
        known = ROOT_REFERENCE.read(reference)
        start = ROOT_REFERENCE.size
        if known.directory != directory or reference[start : start + known.name_length] != name:
            return self._number(tree, _EMPTY)
        return self._number(number, self._tree(number)[1])


def _dir_items(item: bytes, inode: int) -> Iterator[tuple[int, int, bytes, bytes]]:
    """(object ID, type of key, name, data) of the entries in a directory item or an attribute item."""
    position = 0
    while position < len(item):
        object_, kind, data_length, name_length, _ = DIR_ITEM.unpack(item, position)
        start = position + DIR_ITEM.size
        name_end = start + name_length
        position = name_end + data_length
        if position > len(item):
            raise _damaged(inode, "end of a name and its data", position, f"at most {len(item)}")
        if data_length > MAX_ATTRIBUTE:
            raise _damaged(inode, "size of an attribute", data_length, f"at most {MAX_ATTRIBUTE} bytes")
        yield object_, kind, item[start:name_end], item[name_end:position]


def _damaged(inode: int, field: str, value: int, limit: str) -> StructureDamaged:
    return StructureDamaged(f"btrfs inode {inode}", field, value, limit)


BTRFS: Final = FileSystemFormat(
    "btrfs", BtrfsFileSystem, (Signature(SUPER_OFFSET + MAGIC_OFFSET, MAGIC, Trust.ELSEWHERE),)
)
