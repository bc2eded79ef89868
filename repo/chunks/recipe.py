"""Recipes: the ordered chunks and holes of one stored file, as a tree of nodes. No I/O.

A node, little endian:

    0   1   level (0: leaf)
    1   1   zero
    2   2   number of entries n
    4   8n  length of each entry in bytes; the top bit marks a hole (leaves only)
    ..  32  ID of each entry that is not a hole: a data chunk in a leaf, a node below otherwise

The last bytes of an entry's ID decide whether a node ends after it. So a change rewrites only the nodes
around it, and the same entries always make the same tree. Each recipe has exactly one encoding.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from holdfast.base.errors import Damaged
from holdfast.base.ranges import joined
from holdfast.base.types import ChunkID

_HOLE = 1 << 63
_ID = 32
_NODE_AVERAGE = 128
"""Mean number of entries in a node. A quiet day on a disk costs some hundred leaves of 5 KB; with 4096
entries in a node it would write more metadata than data."""
_NODE_MINIMUM = 32
_NODE_LIMIT = 1024
_DEPTH_LIMIT = 12


@dataclass(frozen=True, slots=True)
class RecipeNode:
    """A decoded node. `starts` has one more element than there are entries: starts[-1] is the size."""

    level: int
    starts: array[int]
    ids: tuple[ChunkID | None, ...]

    @property
    def size(self) -> int:
        """Bytes of the file below this node."""
        return self.starts[-1]

    def find(self, offset: int) -> int:
        """Index of the entry that holds the byte at `offset` (0 <= offset < size)."""
        return bisect_right(self.starts, offset) - 1


def encode_node(level: int, lengths: list[int], ids: list[ChunkID | None]) -> bytes:
    marked = array("Q", [n if id_ else n | _HOLE for n, id_ in zip(lengths, ids, strict=True)])
    if sys.byteorder == "big":
        marked.byteswap()
    head = bytes([level, 0]) + len(lengths).to_bytes(2, "little")
    return head + marked.tobytes() + b"".join(id_ for id_ in ids if id_)


def decode_node(data: bytes, where: str) -> RecipeNode:
    """Raises Damaged when the bytes are not a node: they are authentic, so their writer was faulty."""
    count = int.from_bytes(data[2:4], "little")
    if len(data) < 4 or data[1] or data[0] > _DEPTH_LIMIT or count > _NODE_LIMIT:
        raise Damaged(where, "not a recipe node")
    if len(data) < 4 + 8 * count:
        raise Damaged(where, "recipe node is too short")
    marked = array("Q", data[4 : 4 + 8 * count])
    if sys.byteorder == "big":
        marked.byteswap()
    ids: list[ChunkID | None] = []
    at = 4 + 8 * count
    for n in marked:
        if n & _HOLE:
            ids.append(None)
        else:
            ids.append(ChunkID(data[at : at + _ID]))
            at += _ID
    if sum(n & ~_HOLE for n in marked) >= _HOLE:
        raise Damaged(where, "recipe node describes an impossible size")
    starts = array("Q", accumulate((n & ~_HOLE for n in marked), initial=0))
    increasing = all(n & ~_HOLE for n in marked)
    if at != len(data) or not increasing or (data[0] and None in ids):
        raise Damaged(where, "recipe node with impossible entries")
    return RecipeNode(data[0], starts, tuple(ids))


class RecipeBuilder:
    """Builds a recipe from a file's chunks and holes, in order, and stores nodes through `store_node`.

    Keeps one unfinished node in memory for each level. Merges adjacent holes.
    """

    def __init__(self, store_node: Callable[[bytes], ChunkID]) -> None:
        self._store_node = store_node
        self._lengths: list[list[int]] = [[]]
        self._ids: list[list[ChunkID | None]] = [[]]
        self._pending_hole = 0
        self.size = 0
        self.allocated = 0

    def add_chunk(self, id_: ChunkID, length: int) -> None:
        self._flush_hole()
        self.size += length
        self.allocated += length
        self._add(0, id_, length)

    def add_hole(self, length: int) -> None:
        self.size += length
        self._pending_hole += length

    def finish(self) -> ChunkID:
        """Store the unfinished nodes and return the root node's ID. Call it once, last."""
        self._flush_hole()
        level = 0
        while level < len(self._lengths) - 1:
            if self._lengths[level]:
                self._close(level)
            level += 1
        if level and len(self._lengths[level]) == 1:  # a root with one child is that child
            child = self._ids[level][0]
            assert child is not None
            return child
        return self._store_node(encode_node(level, self._lengths[level], self._ids[level]))

    def _flush_hole(self) -> None:
        if self._pending_hole:
            length, self._pending_hole = self._pending_hole, 0
            self._add(0, None, length)

    def _add(self, level: int, id_: ChunkID | None, length: int) -> None:
        if level == len(self._lengths):
            self._lengths.append([])
            self._ids.append([])
        lengths = self._lengths[level]
        lengths.append(length)
        self._ids[level].append(id_)
        if len(lengths) >= _NODE_LIMIT or (len(lengths) >= _NODE_MINIMUM and _ends_node(id_)):
            self._close(level)

    def _close(self, level: int) -> None:
        lengths, ids = self._lengths[level], self._ids[level]
        node = self._store_node(encode_node(level, lengths, ids))
        self._lengths[level], self._ids[level] = [], []
        self._add(level + 1, node, sum(lengths))


def _ends_node(id_: ChunkID | None) -> bool:
    # The last bytes: the first ones are the index key, and keyed BLAKE3 is uniform everywhere.
    return id_ is not None and int.from_bytes(id_[-2:], "little") % (_NODE_AVERAGE - _NODE_MINIMUM) == 0


class Extent(NamedTuple):
    """A range of a stored file: a chunk, or a hole when `id` is None. Start and length in bytes."""

    start: int
    length: int
    id: ChunkID | None


class Recipe:
    """Finds the extents of a stored file by offset; reads nodes through `load_node(id) -> RecipeNode`.

    Finding an extent loads O(depth) nodes. The loader may cache them; this class does not.
    """

    def __init__(self, root: ChunkID, size: int, load_node: Callable[[ChunkID], RecipeNode]) -> None:
        self._root = root
        self._load = load_node
        self.size = size

    def extents(self, start: int = 0, end: int | None = None) -> Iterator[Extent]:
        """All extents that overlap [start, end), unclipped, in order. Raises Damaged for a malformed tree."""
        end = self.size if end is None else min(end, self.size)
        for base, leaf in self.leaves(start, end):
            starts = leaf.starts
            for at in range(leaf.find(start - base) if start > base else 0, len(leaf.ids)):
                first = starts[at]
                if base + first >= end:
                    return
                yield Extent(base + first, starts[at + 1] - first, leaf.ids[at])

    def data_runs(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """(start, length) of the ranges without holes that overlap [start, end), in order, not clipped to it.
        Between them are holes."""
        chunks = (extent for extent in self.extents(start, end) if extent.id is not None)
        for first, last in joined((chunk.start, chunk.start + chunk.length) for chunk in chunks):
            yield first, last - first

    def leaves(self, start: int, end: int) -> Iterator[tuple[int, RecipeNode]]:
        """(offset in the file, leaf) of every leaf that overlaps [start, end), in order."""
        end = min(end, self.size)
        if start >= end:
            return
        root = self._load(self._root)
        if root.size != self.size:
            raise Damaged(f"recipe {self._root.hex()}", f"describes {root.size} bytes, not {self.size}")
        yield from self._descend(root, 0, start, end)

    def find(self, offset: int) -> Extent:
        """The extent that holds the byte at `offset` (0 <= offset < size)."""
        return next(self.extents(offset, offset + 1))

    def _descend(self, node: RecipeNode, base: int, start: int, end: int) -> Iterator[tuple[int, RecipeNode]]:
        if node.level == 0:
            yield base, node
            return
        for at in range(node.find(start - base) if start > base else 0, len(node.ids)):
            first = base + node.starts[at]
            if first >= end:
                return
            yield from self._descend(self._child(node, at), first, start, end)

    def _child(self, node: RecipeNode, at: int) -> RecipeNode:
        """Load a child. Raises Damaged unless size and level are what the parent says: no cycle can occur."""
        id_ = node.ids[at]
        assert id_ is not None  # decode_node lets holes pass in leaves only
        child = self._load(id_)
        if child.level != node.level - 1:
            raise Damaged(f"recipe node {id_.hex()}", f"is at level {child.level}, not {node.level - 1}")
        if child.size != node.starts[at + 1] - node.starts[at]:
            raise Damaged(f"recipe node {id_.hex()}", "its size is not what its parent says")
        return child
