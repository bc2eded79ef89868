"""Ranges of bytes as (start, end). No I/O."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator


def joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Merge ranges (start, end) that ascend by start: join those that touch or overlap, drop empty ones."""
    start = end = 0
    for first, last in ranges:
        if first > end:
            if end > start:
                yield start, end
            start = first
        end = max(end, last)
    if end > start:
        yield start, end


class RangeSet:
    """Disjoint ranges (start, end) in ascending order, 16 bytes of memory each."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        self._starts = array("Q")
        self._ends = array("Q")
        for start, end in ranges:
            self._starts.append(start)
            self._ends.append(end)

    @property
    def total(self) -> int:
        """Sum of the ranges' lengths in bytes."""
        return sum(self._ends) - sum(self._starts)

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts (start, end) of [start, end) that are in any of the ranges, in order."""
        at = max(0, bisect_right(self._starts, start) - 1)
        while at < len(self._starts) and self._starts[at] < end:
            first, last = max(start, self._starts[at]), min(end, self._ends[at])
            if first < last:
                yield first, last
            at += 1
