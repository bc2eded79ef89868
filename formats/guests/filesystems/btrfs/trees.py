"""btrfs: B-trees of items."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.btrfs.chunks import Chunks
from holdfast.formats.guests.filesystems.btrfs.layout import LEAF_ITEM, MAX_LEVEL, NODE_HEADER, NODE_POINTER
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import GuestDamaged

Key: TypeAlias = tuple[int, int, int]
"""(object ID, type, offset); keys are ordered like tuples."""

_NODES = 256
"""Nodes that are kept."""


class TreeRoot(NamedTuple):
    """The logical address of a tree's top node, and its level; 0 is a leaf."""

    address: int
    level: int


class TreeNode(NamedTuple):
    """A node, decoded. `where` holds (offset, size) of each item in `data`, or the address of each node
    below, and then `data` is empty."""

    keys: list[Key]
    where: list[tuple[int, int]]
    data: bytes


class Trees:
    """The items of all trees of a file system. The 256 nodes read last are kept."""

    def __init__(self, device: BlockDevice, chunks: Chunks, node_size: int) -> None:
        self._device = device
        self._chunks = chunks
        self._size = node_size
        self._nodes: dict[int, TreeNode] = {}

    def items(self, root: TreeRoot, first: Key, last: Key) -> Iterator[tuple[Key, bytes]]:
        """The items of a tree from `first` to `last`, both included, in order."""
        if root.level > MAX_LEVEL:
            raise StructureDamaged(
                f"btrfs tree at {root.address}", "level", root.level, f"at most {MAX_LEVEL}"
            )
        return self._below(self._node(root.address, root.level), root.level, first, last)

    def find(self, root: TreeRoot, key: Key) -> bytes | None:
        """The data of the item with a key; None when there is none."""
        for _, data in self.items(root, key, key):
            return data
        return None

    def _below(self, node: TreeNode, level: int, first: Key, last: Key) -> Iterator[tuple[Key, bytes]]:
        keys = node.keys
        if level == 0:
            for index in range(bisect_left(keys, first), len(keys)):
                key = keys[index]
                if key > last:
                    return
                offset, size = node.where[index]
                yield key, node.data[offset : offset + size]
            return
        for index in range(max(bisect_right(keys, first) - 1, 0), len(keys)):
            if keys[index] > last:
                return
            # A node must begin with the key of its pointer, as Linux checks too, and end before that of the
            # next pointer. Otherwise items could come twice, and nodes without keys be walked without end.
            address = node.where[index][0]
            below = self._node(address, level - 1)
            stop = keys[index + 1] if index + 1 < len(keys) else None
            if below.keys[:1] != keys[index : index + 1]:
                raise _damaged(
                    address, "first key", str(below.keys[:1]), f"that of its pointer, {keys[index]}"
                )
            if stop is not None and below.keys[-1] >= stop:
                raise _damaged(address, "last key", str(below.keys[-1]), f"below the next pointer's, {stop}")
            yield from self._below(below, level - 1, first, last)

    def _node(self, address: int, level: int) -> TreeNode:
        """A node of a level, from the first of its copies that is sound."""
        node = self._nodes.get(address)
        if node is not None:
            is_leaf = bool(node.data)
            if is_leaf != (level == 0):
                raise _damaged(address, "level", "0" if is_leaf else "above 0", f"{level}")
            return node
        error: GuestDamaged | None = None
        for offset in self._chunks.copies(address, self._size):
            try:
                node = _parse(self._device.read(offset, self._size), level, address)
            except GuestDamaged as found:
                error = found
                continue
            if len(self._nodes) >= _NODES:
                del self._nodes[next(iter(self._nodes))]
            self._nodes[address] = node
            return node
        raise error or _damaged(address, "number of copies on this device", 0, "at least 1")


def _parse(raw: bytes, level: int, address: int) -> TreeNode:
    header = NODE_HEADER.read(raw)
    if header.address != address:
        raise _damaged(address, "address in its header", header.address, f"{address}")
    if header.level != level:
        raise _damaged(address, "level", header.level, f"{level}")
    node = _leaf(raw, header.items, address) if level == 0 else _inner(raw, header.items, address)
    keys = node.keys
    for index in range(len(keys) - 1):
        if keys[index] >= keys[index + 1]:
            limit = f"above the key before it, {keys[index]}"
            raise _damaged(address, f"key {index + 1}", str(keys[index + 1]), limit)
    return node


def _leaf(raw: bytes, count: int, address: int) -> TreeNode:
    start = NODE_HEADER.size
    end = start + count * LEAF_ITEM.size
    if end > len(raw):
        most = (len(raw) - start) // LEAF_ITEM.size
        raise _damaged(address, "number of items", count, f"at most {most}")
    items = list(LEAF_ITEM.each(raw[start:end]))
    where = [(item[3] + start, item[4]) for item in items]
    for offset, size in where:
        if offset + size > len(raw):
            raise _damaged(address, "end of an item", offset + size, f"at most {len(raw)}")
    return TreeNode([item[:3] for item in items], where, raw)


def _inner(raw: bytes, count: int, address: int) -> TreeNode:
    start = NODE_HEADER.size
    end = start + count * NODE_POINTER.size
    # No empty nodes: trees of them would be walked without end and without a result.
    if not count or end > len(raw):
        most = (len(raw) - start) // NODE_POINTER.size
        raise _damaged(address, "number of pointers", count, f"1 to {most}")
    pointers = list(NODE_POINTER.each(raw[start:end]))
    return TreeNode([pointer[:3] for pointer in pointers], [(pointer[3], 0) for pointer in pointers], b"")


def _damaged(address: int, field: str, value: int | str, limit: str) -> StructureDamaged:
    return StructureDamaged(f"btrfs node {address}", field, value, limit)
