"""btrfs: B-trees of items."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.btrfs.chunks import Chunks
from holdfast.formats.guests.values.values import GuestDamaged

Key: TypeAlias = tuple[int, int, int]
"""objectid, type, offset: in this order."""

INODE_ITEM = 1
XATTR_ITEM = 24
DIR_INDEX = 96
EXTENT_DATA = 108
ROOT_ITEM = 132
ROOT_REF = 156
CHUNK_ITEM = 228

LARGEST = (1 << 64) - 1

_HEAD = struct.Struct("<QQ16sQQIB")
_HEAD_OFFSET = 0x30
_HEAD_SIZE = 101
_ITEM = struct.Struct("<QBQII")
_POINTER = struct.Struct("<QBQQQ")
_MAX_LEVEL = 7
_NODES = 256


class Root(NamedTuple):
    """Where the top node of a tree is, and its level."""

    logical: int
    level: int


class _Node(NamedTuple):
    """`where` are (offset, size) of the items in `data`, or the addresses of the nodes below."""

    keys: list[Key]
    where: list[tuple[int, int]]
    data: bytes


class Trees:
    """Items of all trees of a file system. 256 nodes are kept."""

    def __init__(self, device: BlockDevice, chunks: Chunks, node_size: int) -> None:
        self._device = device
        self._chunks = chunks
        self._size = node_size
        self._nodes: dict[int, _Node] = {}

    def items(self, root: Root, first: Key, last: Key) -> Iterator[tuple[Key, bytes]]:
        """The items from `first` to `last`, both included, in order."""
        if root.level > _MAX_LEVEL:
            raise GuestDamaged(f"btrfs: a tree of level {root.level}")
        return self._below(self._node(root.logical, root.level), root.level, first, last)

    def find(self, root: Root, key: Key) -> bytes | None:
        """The item with a key."""
        for _, data in self.items(root, key, key):
            return data
        return None

    def _below(self, node: _Node, level: int, first: Key, last: Key) -> Iterator[tuple[Key, bytes]]:
        keys = node.keys
        if level == 0:
            for index in range(bisect_left(keys, first), len(keys)):
                key = keys[index]
                if key > last:
                    return
                place, size = node.where[index]
                yield key, node.data[place : place + size]
            return
        for index in range(max(bisect_right(keys, first) - 1, 0), len(keys)):
            if keys[index] > last:
                return
            # A node below starts with the key of this pointer, as Linux checks too, and ends before the next:
            # what claims more would come twice, and nodes without keys would be walked without end.
            below = self._node(node.where[index][0], level - 1)
            stop = keys[index + 1] if index + 1 < len(keys) else None
            if below.keys[:1] != keys[index : index + 1] or (stop is not None and below.keys[-1] >= stop):
                raise GuestDamaged(f"btrfs: the node {node.where[index][0]} has keys of another")
            yield from self._below(below, level - 1, first, last)

    def _node(self, logical: int, level: int) -> _Node:
        node = self._nodes.get(logical)
        if node is not None:
            if bool(node.data) != (level == 0):
                raise GuestDamaged(f"btrfs: the node {logical} is not of level {level}")
            return node
        reason = f"btrfs: the node {logical} lies nowhere"
        for place in self._chunks.places(logical, self._size):
            try:
                node = self._parse(self._device.read(place, self._size), level, logical)
            except GuestDamaged as error:
                reason = str(error)
                continue
            if len(self._nodes) >= _NODES:
                del self._nodes[next(iter(self._nodes))]
            self._nodes[logical] = node
            return node
        raise GuestDamaged(reason)

    def _parse(self, raw: bytes, level: int, logical: int) -> _Node:
        address, _, _, _, _, count, found = _HEAD.unpack_from(raw, _HEAD_OFFSET)
        if address != logical or found != level:
            raise GuestDamaged(f"btrfs: the node {logical} is not of level {level}, or not itself")
        keys: list[Key]
        where: list[tuple[int, int]]
        if level == 0:
            end = _HEAD_SIZE + count * _ITEM.size
            if end > len(raw):
                raise GuestDamaged(f"btrfs: the node {logical} has {count} items")
            items = list(_ITEM.iter_unpack(raw[_HEAD_SIZE:end]))
            keys = [item[:3] for item in items]
            where = [(item[3] + _HEAD_SIZE, item[4]) for item in items]
            if any(place + size > len(raw) for place, size in where):
                raise GuestDamaged(f"btrfs: an item of the node {logical} lies outside")
            data = raw
        else:
            end = _HEAD_SIZE + count * _POINTER.size
            # No empty nodes: trees of them would be walked without end and without a result.
            if not count or end > len(raw):
                raise GuestDamaged(f"btrfs: the node {logical} has {count} pointers")
            pointers = list(_POINTER.iter_unpack(raw[_HEAD_SIZE:end]))
            keys = [pointer[:3] for pointer in pointers]
            where = [(pointer[3], 0) for pointer in pointers]
            data = b""
        if any(keys[index] >= keys[index + 1] for index in range(len(keys) - 1)):
            raise GuestDamaged(f"btrfs: the keys of the node {logical} are out of order")
        return _Node(keys, where, data)
