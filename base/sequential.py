"""Tells sequential reads from random ones."""

from __future__ import annotations


class SequentialReads:
    """Watches the reads of one file. Not thread-safe.

    A read is sequential when it begins at most `before` bytes before the end of the last one, or at most
    `behind` bytes after it. The first read never is.
    """

    __slots__ = ("_before", "_behind", "_last_end")

    def __init__(self, *, before: int, behind: int) -> None:
        self._before = before
        self._behind = behind
        self._last_end = -1

    def notice(self, offset: int, end: int) -> bool:
        """Remember a read of [offset, end), and return whether it is sequential."""
        last = self._last_end
        self._last_end = end
        return last >= 0 and last - self._before <= offset <= last + self._behind
