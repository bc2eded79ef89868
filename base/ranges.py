"""Stretches of bytes. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(start, end) of ranges that come in order; those that touch or overlap are one, empty ones are gone."""
    start = end = 0
    for first, last in ranges:
        if first > end:
            if end > start:
                yield start, end
            start = first
        end = max(end, last)
    if end > start:
        yield start, end
