"""Where two recipes differ, without reading what they share. No I/O but through the node loader."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from holdfast.base.errors import Damaged
from holdfast.base.ranges import joined
from holdfast.base.types import ChunkID
from holdfast.repo.chunks.recipe import RecipeNode

_CHUNK = -1
"""The level of what is no node: a chunk or a hole."""


class _RecipeRange(NamedTuple):
    start: int
    end: int
    level: int
    id: ChunkID | None


class _RecipeCursor:
    """Stands on a piece of a recipe; goes on to the next, or down into it."""

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
    """(start, end) of the stretches that are not the same chunks in both recipes, in order, merged.

    A recipe is (root, size). Parts of the trees that are equal are not loaded, so the cost follows the
    difference, not the size. What one has beyond the end of the other differs. Chunks of equal content
    that are cut at other places count as different: the stretches are an upper limit.
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


class RangeSet:
    """Stretches in order, for asking which of them overlap one."""

    def __init__(self, ranges: Iterator[tuple[int, int]]) -> None:
        self._starts = array("Q")
        self._ends = array("Q")
        for start, end in ranges:
            self._starts.append(start)
            self._ends.append(end)

    @property
    def total(self) -> int:
        """Bytes in all of them."""
        return sum(self._ends) - sum(self._starts)

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of [start, end) that lie in any of them, in order."""
        at = max(0, bisect_right(self._starts, start) - 1)
        while at < len(self._starts) and self._starts[at] < end:
            first, last = max(start, self._starts[at]), min(end, self._ends[at])
            if first < last:
                yield first, last
            at += 1
