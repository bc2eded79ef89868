"""SQL that is made of text of our own and of ranges of what is stored, and its sections."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final, NamedTuple

from holdfast.formats.dumps.core.catalogue import Catalogue, Section
from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.lexer import _lexer
from holdfast.formats.dumps.postgresql.custom.blocks import Block
from holdfast.formats.dumps.postgresql.plain.scan import PostgresVisitor
from holdfast.formats.dumps.postgresql.plain.text import as_text

_ROW: Final = b" (1);"


class _Jump(NamedTuple):
    """Maps a data block's placeholder in the scanned text to its range in the script."""

    scanned: int
    scanned_end: int
    start: int
    end: int


class Script:
    """Written from front to back. What is written is scanned as a plain dump is, but for the blocks, which
    are not at hand any more: for each the least that has the same sections is scanned."""

    def __init__(self) -> None:
        self.pieces: Final[list[str | list[int]]] = []
        """Text, and [start, length] of ranges of what is stored."""
        self._scanner: Final = Scanner(PostgresVisitor())
        self._text: list[bytes] = []
        self._scanned = 0
        self.size = 0
        self._jumps: Final[list[_Jump]] = []

    def text(self, text: bytes) -> None:
        self._text.append(text)
        self._scan(text)
        self.size += len(text)

    def stored(self, start: int, text: bytes) -> None:
        """The bytes are in the stored stream, from `start`."""
        self._flush()
        self.pieces.append([start, len(text)])
        self._scan(text)
        self.size += len(text)

    def block(self, block: Block) -> None:
        start, scanned = self.size, self._scanned
        self._flush()
        self.pieces.append([block.start, block.length])
        self.size += block.length
        self._scan(_stand_in(block))
        self._jumps.append(_Jump(scanned, self._scanned, start, self.size))

    def finish(self) -> Catalogue:
        """The script's own, of form "sql"."""
        self._flush()
        found = self._scanner.finish()
        sections = tuple(self._moved(section) for section in found.sections)
        return Catalogue(found.engine, found.form, sections, found.fault, found.facts, found.extra)

    def _scan(self, text: bytes) -> None:
        self._scanner.feed(text)
        self._scanned += len(text)

    def _flush(self) -> None:
        if self._text:
            self.pieces.append(as_text(b"".join(self._text)))
            self._text.clear()

    def _moved(self, section: Section) -> Section:
        start, end = self._place(section.start), self._place(section.start + section.length)
        extra: dict[str, Any] = dict(section.extra)
        if "data" in extra:
            first, length = extra["data"]
            last = self._place(first + length)
            first = self._place(first)
            extra["data"] = [first, last - first]
        return section._replace(start=start, length=end - start, extra=extra)

    def _place(self, scanned: int) -> int:
        """Convert an offset of the scanned text to one in the script.

        Inside a placeholder it is counted from the placeholder's end.
        """
        at = bisect_right(self._jumps, scanned, key=lambda jump: jump.scanned) - 1
        if at < 0:
            return scanned
        jump = self._jumps[at]
        if scanned == jump.scanned:
            return jump.start
        return max(jump.start, jump.end - (jump.scanned_end - scanned))


def _stand_in(block: Block) -> bytes:
    """What has the same sections as the block's content, and ends like it: without rows, or with one."""
    end = block.tail.rstrip(b"\n")
    return (b"\\." if block.entry.copy else block.insert) + block.tail[len(end) :]


def first_insert(head: bytes) -> bytes:
    """A statement like the INSERT that a block begins with, given its first bytes; b"" if it does not."""
    if not head.lstrip().startswith(b"INSERT INTO "):
        return b""
    lexer = _lexer.Lexer(_lexer.POSTGRESQL)
    kind, _, _, text = [*lexer.feed(head), *lexer.finish()][0]
    if kind == _lexer.ROWS_BEGIN:
        return text + _ROW
    return text if kind == _lexer.STATEMENT and text.endswith(b";") else b""
