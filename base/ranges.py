"""Ranges of bytes as (start, end). No I/O."""

from __future__ import annotations

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
