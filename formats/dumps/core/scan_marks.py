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
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

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
        self._marks: Final = [(mark, True) for mark in marks.heads] + [(mark, False) for mark in marks.ends]
        self._overlap: Final = max((len(mark) for mark, _ in self._marks), default=1) - 1
        self._common: Final = marks.common
        self._before = b""
        self._more: Final[Counter[str]] = Counter()
        """Heads less ends, by what they are within."""
        self._in_statement = False

    def find(self, data: memoryview) -> Iterable[tuple[int, bool]]:
        """(end of the mark, whether it is a head) of all that end in `data`, the next bytes of the stream."""
        if not self._marks:
            return ()
        before = len(self._before)
        text = b"".join((self._before, data))
        found = []
        for mark, is_head in self._marks if self._common in text else ():
            at = text.find(mark)
            while at >= 0:
                end = at + len(mark)
                if end > before:
                    found.append((end - before, is_head))
                at = text.find(mark, at + 1)
        self._before = text[len(text) - min(self._overlap, len(text)) :]
        found.sort()
        return found

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
