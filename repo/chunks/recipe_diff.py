"""Finds the ranges in which two recipes differ, without loading the nodes that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from holdfast.base.errors import Damaged
from holdfast.base.ranges import joined
from holdfast.base.types import ChunkID
from holdfast.repo.chunks.recipe import RecipeNode

_CHUNK = -1
"""The level of a chunk or a hole; nodes have levels from 0."""


class _RecipeRange(NamedTuple):
    start: int
    end: int
    level: int
    id: ChunkID | None


class _RecipeCursor:
    """A position in a recipe's tree: on a node, a chunk or a hole. Moves to the next one, or down a level."""

    def __init__(self, root: ChunkID, size: int, load: Callable[[ChunkID], RecipeNode]) -> None:
        self._load = load
        self.size = size
        self._above: list[tuple[RecipeNode, int, int]] = []  # (node, its offset, next entry)
        node = load(root)
        if node.size != size:
            raise Damaged(f"recipe {root.hex()}", f"describes {node.size} bytes, not {size}")
        self.piece: _RecipeRange | None = _RecipeRange(0, size, node.level, root) if size else None

    def go_on(self) -> None:
        while self._above:
            node, base, at = self._above.pop()
            if at < len(node.ids):
                self._above.append((node, base, at + 1))
                starts = node.starts
                self.piece = _RecipeRange(
                    base + starts[at], base + starts[at + 1], node.level - 1, node.ids[at]
                )
                return
        self.piece = None

    def go_down(self) -> None:
        assert self.piece is not None
        start, end, level, id_ = self.piece
        assert id_ is not None  # only leaves have holes
        node = self._load(id_)
        if (node.level, node.size) != (level, end - start):
            raise Damaged(f"recipe node {id_.hex()}", "is not what its parent says")
        self._above.append((node, start, 0))
        self.go_on()


def differing(
    one: tuple[ChunkID, int], other: tuple[ChunkID, int], load: Callable[[ChunkID], RecipeNode]
) -> Iterator[tuple[int, int]]:
    """Merged ranges (start, end), in order, in which the recipes have different chunks.

    A recipe is (root, size). Equal subtrees are not loaded, so the cost grows with the difference, not with
    the size. Bytes beyond the end of the shorter file differ. Equal bytes that were cut at other offsets
    count as different, so the result is an upper limit. Raises Damaged for a malformed tree.
    """
    return joined(_differing(_RecipeCursor(*one, load), _RecipeCursor(*other, load)))


def _differing(a: _RecipeCursor, b: _RecipeCursor) -> Iterator[tuple[int, int]]:
    at = 0
    while a.piece and b.piece:
        p, q = a.piece, b.piece
        if p == q:
            at = p.end
        elif p.level > _CHUNK or q.level > _CHUNK:
            (a if p.level >= q.level else b).go_down()
            continue
        else:
            end = min(p.end, q.end)
            if p.id is not None or q.id is not None:
                yield at, end
            at = end
        if p.end <= at:
            a.go_on()
        if q.end <= at:
            b.go_on()
    for left in (a.piece, b.piece):
        if left:
            yield at, max(a.size, b.size)
