"""Guesses of chunks for the pipeline, from the previous backup of the same item."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.base.errors import Damaged
from holdfast.base.types import ChunkID
from holdfast.repo.chunks.recipe import Recipe, RecipeNode

PAUSE = 16
"""Units without guesses after a unit where less than half of the bytes were guessed right: after an insertion
in a dump all offsets differ, and a wrong guess costs as much hashing as a right one."""


class Guess(NamedTuple):
    """A chunk of the parent that may be unchanged at the same offset."""

    start: int
    length: int
    id: ChunkID


@dataclass(frozen=True, slots=True)
class ParentRecipe:
    """The recipe of the item in the previous snapshot. `present`: the repository has all its chunks."""

    recipe: Recipe
    present: bool


class ParentChunks:
    """Guesses chunks from a parent's recipe; none without a parent, or when its recipe is damaged."""

    def __init__(self, parent: ParentRecipe | None, *, pause: int = PAUSE) -> None:
        self._parent = parent.recipe if parent else None
        self.present = parent is not None and parent.present
        self._pause_after = pause
        self._pause = 0

    def guesses(self, start: int, end: int) -> Sequence[Guess]:
        """The parent's chunks that are completely in [start, end) and end in a natural cut."""
        if self._parent is None:
            return ()
        if self._pause:
            self._pause -= 1
            return ()
        try:
            # One byte more, because a chunk counts only if another chunk follows it.
            leaves = list(self._parent.leaves(start, end + 1))
        except Damaged:
            self._parent = None
            return ()
        found: list[Guess] = []
        for n, (base, leaf) in enumerate(leaves):
            follower = leaves[n + 1][1].ids[0] if n + 1 < len(leaves) else None
            found += _natural_chunks(leaf, base, start, end, follower)
        return found

    def report(self, held: int, tried: int) -> None:
        """Report how many of a unit's `tried` guessed bytes were guessed right (`held`)."""
        if held * 2 < tried:
            self._pause = self._pause_after


def _natural_chunks(
    leaf: RecipeNode, base: int, start: int, end: int, follower: ChunkID | None
) -> Iterator[Guess]:
    """The leaf's chunks in [start, end) that a chunk follows; `follower` is the ID after the leaf's last."""
    starts, ids = leaf.starts, leaf.ids
    first = bisect_left(starts, start - base)
    last = bisect_right(starts, end - base) - 1
    next_ids = (*ids[1:], follower)
    for at in range(first, last):
        id_ = ids[at]
        if id_ is not None and next_ids[at] is not None:
            yield Guess(base + starts[at], starts[at + 1] - starts[at], id_)
