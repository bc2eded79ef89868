"""The last line of a whole dump, looked for in streams that nobody scans."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from holdfast.base.types import Buffer

_TAIL: Final = 4 << 10
"""Bytes at the end of a stream in which the mark is looked for."""


@dataclass(frozen=True, slots=True)
class EndMark:
    """`pattern` matches the line that a dump tool writes last, and only when the dump is whole."""

    pattern: re.Pattern[bytes]

    def watch(self) -> EndWatch:
        """A watch of one stream."""
        return EndWatch(self.pattern)


class EndWatch:
    """Keeps the end of a stream and says whether the mark is in it."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern: Final = pattern
        self._tail = b""

    def feed(self, data: Buffer) -> None:
        """More of the stream."""
        view = memoryview(data).cast("B")
        self._tail = (self._tail + bytes(view[max(0, len(view) - _TAIL) :]))[-_TAIL:]

    @property
    def is_complete(self) -> bool:
        """Whether the stream so far ends with the mark."""
        return self._pattern.search(self._tail) is not None
