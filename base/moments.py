"""Times from sources and dumps, which can have any value, brought into the range that a calendar has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_FIRST: Final = -62_135_596_800
_LAST: Final = 253_402_300_799
"""Seconds since 1970 of the ends of year 1 to year 9999, the range of datetime."""
_NS_LIMIT: Final = (1 << 63) - 1


def moment(nanoseconds: int) -> datetime:
    """A time in UTC, in microseconds, clamped to the years 1 to 9999."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    if not _FIRST <= seconds <= _LAST:
        seconds, rest = max(_FIRST, min(seconds, _LAST)), 0
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def clamped(nanoseconds: int) -> int:
    """The time in ns, clamped to signed 64 bits: system calls take no other, file systems can have others."""
    return max(-_NS_LIMIT, min(nanoseconds, _NS_LIMIT))
