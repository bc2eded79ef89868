"""A dump of SQL text on its way in: pieces to an engine's visitor, borders of bulk data to the chunker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.client_commands import ClientCommands
from holdfast.formats.dumps.core.end_mark import EndMark
from holdfast.formats.dumps.core.facts import NOT_TAKEN_APART, read_facts
from holdfast.formats.dumps.core.scan_marks import Marks, MarkWatch
from holdfast.formats.dumps.core.weight import LIMIT
from holdfast.formats.dumps.lexer import _lexer

PIECE_LIMIT: Final = 5_000_000
"""Statements and comments of a dump that are looked into, where a run of rows counts as two. Each takes some
10 to 50 us, whatever it holds, and `;` alone is one."""

BORDER_DISTANCE: Final = 4096
"""Bytes. Borders nearer to the one before are left out: a forced chunk costs a record of some 100 bytes
in recipe and index, so tiny tables share one instead of getting one each."""

_SLICE: Final = 256 << 10
"""Bytes lexed at once: an attacker's statements of one byte make events 150 times as large."""


_WHOLE: Final = frozenset((_lexer.STATEMENT, _lexer.COMMENT, _lexer.META))


class Visitor(Protocol):
    """What an engine makes of the pieces. Calls come in stream order; offsets are the stream's.

    `text` is cut at 1 MiB; `end - start` is the true length. For what the pieces are see `_lexer.pyi`.
    """

    @property
    def dialect(self) -> int:
        """`_lexer.POSTGRESQL`, `MYSQL` or `SQLITE`."""

    @property
    def marks(self) -> Marks:
        """What the tool writes at the beginning and end of each dump."""

    @property
    def weight(self) -> int:
        """Bytes of memory that the catalogue takes so far, as `weight` has them."""

    @property
    def commands(self) -> ClientCommands:
        """Those of the client that were found so far."""

    def holds_command(self, kind: int, text: bytes) -> bool:
        """Whether a piece of this kind (`_lexer.STATEMENT`, COMMENT or META) is a command of the client that
        no dump tool writes, or may hide one. Those within statements the lexer finds."""

    def comment(self, start: int, end: int, text: bytes) -> None: ...

    def statement(self, start: int, end: int, text: bytes) -> None: ...

    def meta(self, start: int, end: int, text: bytes) -> None:
        """A line for the client program."""

    def rows(self, start: int, end: int, lead: bytes) -> None:
        """Rows have ended: a run of INSERTs that all begin with `lead`, or, when it is empty, the data of
        the COPY statement before, its closing line included."""

    def finish(self, size: int, unfinished: str) -> Catalogue:
        """The stream has ended after `size` bytes, within `unfinished` unless that is "".

        The catalogue has a fault if something is unfinished or the dump tool's own end mark is missing.
        """


class Scanner:
    """Feeds one stream to `visitor`. Not thread-safe. Memory does not depend on what the stream holds,
    but for what the visitor keeps: `limit` bytes or a little more. Then the rest is only looked through, for
    borders, commands and the end mark `end`, and the catalogue has no sections: without those to come, a file
    made of the others would lack what belongs to it."""

    def __init__(self, visitor: Visitor, *, end: EndMark | None = None, limit: int = LIMIT) -> None:
        self._limit: Final = limit
        self._visitor = visitor
        self._end: Final = end.watch() if end else None
        self._lexer: Final = _lexer.Lexer(visitor.dialect)
        self._watch: Final = MarkWatch(visitor.marks)
        self._lead = b""
        self._full = ""
        self._pieces = 0
        self._size = 0
        self._border = 0

    def feed(self, data: Buffer) -> list[int]:
        """Offsets where chunks shall end, ascending: starts and ends of rows, those left out that are
        nearer than `BORDER_DISTANCE` to the border before (or to the start of the stream).

        A border is known once the bytes behind it have been seen, hence it may lie in an earlier feed.
        """
        view = memoryview(data).cast("B")
        borders: list[int] = []
        for start in range(0, len(view), _SLICE):
            piece = view[start : start + _SLICE]
            at = 0
            for end, is_head in self._watch.find(piece):
                self._visit(self._lexer.feed(piece[at:end]), borders)
                self._watch.met(self._lexer.state, self._lead, is_head=is_head)
                at = end
            self._visit(self._lexer.feed(piece[at:]), borders)
        self._size += len(view)
        if self._full and self._end:
            self._end.feed(view)
        return borders

    def finish(self) -> Catalogue:
        self._visit(self._lexer.finish(), [])
        state = self._lexer.state
        catalogue = self._visitor.finish(self._size, state)
        if told := self._visitor.commands.told:
            facts = replace(read_facts(catalogue.facts), commands=told)
            catalogue = replace(catalogue, facts=facts.stored())
        if self._full:
            fault = f"it ends within {'rows' if state == 'rows' else f'a {state}'}" if state else ""
            if not fault and self._end and not self._end.is_complete:
                fault = "its last line is missing"
            facts = read_facts(catalogue.facts)
            facts = replace(facts, others={**facts.others, NOT_TAKEN_APART: self._full})
            extra = {"bound": self._full}
            return replace(catalogue, sections=(), fault=fault, facts=facts.stored(), extra=extra)
        return catalogue if catalogue.fault else replace(catalogue, fault=self._watch.fault)

    def _visit(self, events: Sequence[tuple[int, int, int, bytes]], borders: list[int]) -> None:
        visitor = self._visitor
        if not self._full:
            self._full = self._bound()
        self._pieces += len(events)
        for kind, start, end, text in events:
            if kind in _WHOLE and visitor.holds_command(kind, text):
                visitor.commands.add(text)
            if kind == _lexer.COMMAND:
                visitor.commands.add(text)
            elif self._full:
                continue
            elif kind == _lexer.STATEMENT:
                visitor.statement(start, end, text)
            elif kind == _lexer.COMMENT:
                visitor.comment(start, end, text)
            elif kind == _lexer.META:
                visitor.meta(start, end, text)
            elif kind == _lexer.ROWS_BEGIN:
                self._lead = text
                self._add_border(start, borders)
            else:
                self._add_border(end, borders)
                visitor.rows(start, end, text)

    def _add_border(self, offset: int, borders: list[int]) -> None:
        if offset - self._border >= BORDER_DISTANCE:
            self._border = offset
            borders.append(offset)

    def _bound(self) -> str:
        """Which bound is passed, "" for none."""
        if self._visitor.weight > self._limit:
            what = f"what stands where in it would take more than {self._limit / (1 << 20):g} MiB of memory"
        elif self._pieces > PIECE_LIMIT:
            what = f"it has more than {PIECE_LIMIT} statements and comments"
        else:
            return ""
        return (
            f"{what}, at some {self._size} bytes; it was stored whole, but no single table can be had from it"
        )
