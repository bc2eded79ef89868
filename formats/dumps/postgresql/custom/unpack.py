"""A custom archive of pg_dump (`-Fc`) on its way in: stored taken apart and without compression.

What is stored is the archive's bytes up to the end of its table of contents, in the form of an archive
without compression that went into a pipe, and the contents of its blocks, one behind the other (see
`BlockReader`). A table's rows are thus the same bytes as in a plain dump, whatever the archive was compressed
with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Catalogue, Section, encode
from holdfast.formats.dumps.core.scan import BORDER_DISTANCE
from holdfast.formats.dumps.postgresql.custom.blocks import Block, BlockError, BlockReader
from holdfast.formats.dumps.postgresql.custom.format import Entry, Head
from holdfast.formats.dumps.postgresql.custom.script import Script, first_insert
from holdfast.formats.dumps.postgresql.custom.sql import Settings, SqlWriter, read_settings
from holdfast.formats.dumps.postgresql.custom.toc import TocReader
from holdfast.formats.dumps.postgresql.plain.marks import NAME
from holdfast.formats.dumps.postgresql.plain.text import as_text

FORM: Final = "pgdump"
AS_IT_CAME: Final = "as_it_came"
"""In a catalogue's `extra`: the archive was not taken apart."""
_PIECE: Final = 1 << 20
_TAR: Final = b"toc.dat\0"


def is_tar_archive(head: bytes) -> bool:
    """Whether it is what `pg_dump -Ft` writes, by its first bytes."""
    return head.startswith(_TAR) and head[257:262] == b"ustar"


TAR_REASON: Final = (
    "is a tar-format dump of PostgreSQL (pg_dump -Ft), which this program does not take apart; "
    "use pg_dump -Fc -Z0 or plain SQL (-Fp) instead"
)


class Unpacker:
    """Turns an archive's bytes into those that are stored. Not thread-safe.

    Memory grows with the table of contents, not with the data. An archive whose table of contents is too
    large is stored as it comes. The first fault ends it: what comes behind is not stored, and `finish` tells.
    """

    def __init__(self) -> None:
        self._toc: Final = TocReader()
        self._blocks: BlockReader | None = None
        self._settings: Settings | None = None
        self._toc_size = 0
        self._fault = ""
        self._is_raw = False
        self._border = 0
        self._taken = 0

    def feed(self, data: Buffer) -> Iterator[bytes]:
        """What is to be stored, lazily, in pieces of about a MiB at most, none empty; take all of it before
        more is fed.

        Raises Refused, before anything is given out, for what is no such archive, damaged in its table of
        contents, or compressed with what is not supported.
        """
        if self._fault:
            return
        if self._is_raw:
            yield bytes(data)
            return
        if self._blocks is None:
            data = self._toc.feed(data)
            self._is_raw = bool(self._toc.bound)
            if self._is_raw:
                yield from _in_pieces(self._toc.raw())
            if not self._toc.complete:
                return
            yield from self._begin()
        assert self._blocks
        try:
            yield from self._blocks.feed(data)
        except BlockError as error:
            self._fault = f"{error}; what follows was not stored"

    def borders(self) -> list[int]:
        """Offsets in what is stored where chunks shall end, ascending, each told once: the starts of blocks,
        which are the ends of those before, but none nearer than `BORDER_DISTANCE` to the one before. Known
        before the first byte of the block is given out."""
        if self._blocks is None:
            return []
        starts, self._taken = self._blocks.starts[self._taken :], len(self._blocks.starts)
        found = []
        for start in starts:
            if start - self._border >= BORDER_DISTANCE:
                self._border = start
                found.append(start)
        return found

    def finish(self) -> Catalogue:
        """Call it when the stream has ended. The catalogue is of form "pgdump".

        Sections: of an entry with data its block, of any other its bytes in the table of contents; `type`
        and names are the entry's. The `extra` of blocks: at (where its entry's offset stands), id (the
        entry's); of rows also columns, rows (see `plain.scan.PostgresVisitor`). The catalogue's: integer,
        offset (bytes of one), toc (bytes of it), encoding, sql (the pieces of the archive as SQL: text, or
        [start, length]), plain (the encoded catalogue of that).
        """
        if self._is_raw:
            fault = f"{self._toc.bound}: it was stored as it came, and nobody looked whether it is whole"
            return Catalogue(NAME, FORM, (), fault, extra={AS_IT_CAME: True})
        head = self._toc.head
        if self._blocks is None or self._settings is None or head is None:
            return Catalogue(NAME, FORM, (), "the archive ends early, within its table of contents")
        fault = self._fault or self._blocks.fault()
        script = Script()
        writer = SqlWriter(script, head, self._settings, self._blocks.blocks)
        writer.write(self._toc.entries, is_whole=not fault)
        plain = script.finish()
        return Catalogue(
            engine=NAME,
            form=FORM,
            sections=tuple(_sections(self._toc.entries, head, self._blocks.blocks, plain)),
            fault=fault,
            facts=dict(plain.facts),
            extra={
                "integer": head.integer,
                "offset": head.offset,
                "toc": self._toc_size,
                "encoding": self._settings.encoding,
                "sql": script.pieces,
                "plain": encode(plain).decode(),
            },
        )

    def _begin(self) -> Iterator[bytes]:
        head = self._toc.head
        assert head
        self._settings = read_settings(head, self._toc.entries)
        stored = self._toc.stored()
        self._toc_size = len(stored)
        self._blocks = BlockReader(head, self._toc.entries, len(stored), first_insert)
        yield from _in_pieces(stored)


def _in_pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]


def _sections(
    entries: Iterable[Entry], head: Head, blocks: Iterable[Block], plain: Catalogue
) -> Iterator[Section]:
    start = head.length
    stored = {block.entry.id for block in blocks}
    for entry in entries:
        if entry.id not in stored:
            yield _section(entry, start, entry.end - start, {})
        start = entry.end
    rows = {
        (s.schema, s.name): {"columns": s.extra["columns"], "rows": s.extra["rows"]}
        for s in plain.sections
        if s.type == "TABLE DATA"
    }
    for block in blocks:
        extra: dict[str, Any] = {"at": block.entry.end - head.offset - 1, "id": block.entry.id}
        extra |= rows.get((as_text(block.entry.namespace or b""), as_text(block.entry.tag)), {})
        yield _section(block.entry, block.start, block.length, extra)


def _section(entry: Entry, start: int, length: int, extra: dict[str, Any]) -> Section:
    schema, name = as_text(entry.namespace or b""), as_text(entry.tag)
    table = (schema, name) if entry.desc in (b"TABLE", b"TABLE DATA", b"FOREIGN TABLE") else None
    return Section(start, length, as_text(entry.desc), "", schema, name, table, (), extra)
