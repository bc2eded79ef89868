"""Dumps that begin where no dump can: a cut-off one that had another appended.

What continues a dump that was cut off within a piece (rows, a string, a statement) is taken for that piece,
its head too, so that the end of the second dump looks like that of the first. Hence heads are looked for in
the bytes as well. One within a statement and outside of quotes has no other reason. In quotes and in rows it
may be data: a table that holds dumps, or a file line by line. Such data holds the ends of these dumps too,
which a dump that was cut off does not: more heads than ends are a fault. The rows of COPY are counted by
themselves, as no data of several columns can have either there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from holdfast.formats.dumps.lexer._lexer import find_all

_FAULT: Final = "another dump begins within {}: the first one was cut off, and the other appended"


@dataclass(frozen=True, slots=True)
class Marks:
    """Bytes that a dump tool writes once at the beginning and once at the end of a dump; no head is part of
    another mark. `common` is in all of them: where it is not, one search does instead of one for each."""

    heads: tuple[bytes, ...] = ()
    ends: tuple[bytes, ...] = ()
    common: bytes = b""


class MarkWatch:
    """Finds the marks in a stream and judges where they stand."""

    def __init__(self, marks: Marks) -> None:
        self._marks: Final = marks.heads + marks.ends
        self._heads: Final = len(marks.heads)
        self._common: Final = marks.common
        self._overlap: Final = max((len(mark) for mark in self._marks), default=1) - 1
        self._before = b""
        self._more: Final[Counter[str]] = Counter()
        """Heads less ends, by what they are within."""
        self._in_statement = False

    def find(self, data: memoryview) -> list[tuple[int, bool]]:
        """(end of the mark, whether it is a head) of all that end in `data`, the next bytes of the stream."""
        if not self._marks:
            return []
        before = len(self._before)
        border = self._before + data[: self._overlap]
        found = [
            (end - before, mark)
            for end, mark in find_all(border, self._marks, b"")
            if end - len(self._marks[mark]) < before < end
        ]
        found += find_all(data, self._marks, self._common)
        kept = border if len(data) <= self._overlap else bytes(data[-self._overlap :])
        self._before = kept[len(kept) - min(self._overlap, len(kept)) :]
        return [(end, mark < self._heads) for end, mark in sorted(found)]

    def met(self, state: str, lead: bytes, *, is_head: bool) -> None:
        """A mark ends in this state of the lexer; `lead` is that of the last rows, b"" for COPY."""
        if state == "statement":
            self._in_statement = self._in_statement or is_head
        elif state:
            within = "the rows of a table" if state == "rows" and not lead else "a string or comment"
            self._more[within] += 1 if is_head else -1

    @property
    def fault(self) -> str:
        """ "" when there is none."""
        if self._in_statement:
            return _FAULT.format("a statement")
        return next((_FAULT.format(within) for within, more in self._more.items() if more > 0), "")
