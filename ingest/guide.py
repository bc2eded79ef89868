"""What the previous backup of the same item had where: guesses for the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from holdfast.repo.errors import Damaged
from holdfast.repo.recipe import Extent, Recipe
from holdfast.repo.types import ChunkID

_PAUSE = 16
"""Units without guesses after a unit where less than half of them held: behind an insertion in a dump
nothing is where it was, and hashing for nothing costs as much as hashing for something."""


class Guess(NamedTuple):
    """A chunk of the parent: these bytes may be there again."""

    start: int
    length: int
    id: ChunkID


class Guide:
    """Guesses out of a parent's recipe; none without one, or when the parent is damaged."""

    def __init__(self, parent: Recipe | None) -> None:
        self._parent = parent
        self._pause = 0

    def guesses(self, start: int, end: int) -> Sequence[Guess]:
        """The parent's chunks that lie in [start, end) whole and end in a natural cut."""
        if self._parent is None:
            return ()
        if self._pause:
            self._pause -= 1
            return ()
        try:
            # One byte more: whether the last chunk is followed by another decides whether it counts.
            extents = list(self._parent.extents(start, end + 1))
        except Damaged:
            self._parent = None
            return ()
        return [
            Guess(extent.start, extent.length, extent.id)
            for extent, after in pairwise(extents)
            if extent.id is not None and after.id is not None and _lies_in(extent, start, end)
        ]

    def report(self, held: int, tried: int) -> None:
        """How many of the guessed bytes of a unit held."""
        if held * 2 < tried:
            self._pause = _PAUSE


def _lies_in(extent: Extent, start: int, end: int) -> bool:
    return start <= extent.start and extent.start + extent.length <= end
