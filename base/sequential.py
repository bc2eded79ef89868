"""Telling a reader that reads on from one that jumps."""

from __future__ import annotations


class SequentialReads:
    """Watches the reads of one file. Not thread-safe.

    A read counts as reading on when it begins at most `before` bytes before the end of the last one, or at
    most `behind` bytes behind it. The first read never does.
    """

    __slots__ = ("_before", "_behind", "_last_end")

    def __init__(self, *, before: int, behind: int) -> None:
        self._before = before
        self._behind = behind
        self._last_end = -1

    def notice(self, offset: int, end: int) -> bool:
        """Take note of a read of [offset, end); whether it reads on."""
        last = self._last_end
        self._last_end = end
        return last >= 0 and last - self._before <= offset <= last + self._behind
