"""A pg_dump archive in custom format, taken apart while it streams in, and stored uncompressed.

The stored stream is the canonical table of contents and then the content of each data block, in the order of
the archive and without its framing: rows are byte for byte what a plain dump has, so that they are stored once.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

from holdfast.dumps.catalogue import Catalogue, Section
from holdfast.dumps.pg_archive_content import CopyRows, InsertRows, Undo, undo
from holdfast.dumps.pg_archive_format import INT, LARGE_OBJECTS, ROWS, broken
from holdfast.dumps.pg_archive_toc import Entry, Toc, TocReader
from holdfast.dumps.postgres_statement import classify
from holdfast.dumps.postgres_text import as_text
from holdfast.dumps.scan import BORDER_DISTANCE
from holdfast.repo.types import Buffer

FORM: Final = "pgdump"
CONTENTS: Final = "ARCHIVE"
"""Type of the section that holds the table of contents."""
OPEN: Final = -1
"""Instead of the number of newlines: the rows are not whole."""
_OBJECTS_LIMIT: Final = 10_000_000
_LENGTH_LIMIT: Final = 1 << 31
_LARGE_CHUNK: Final = 4096


class _At(Enum):
    CONTENTS = 1
    BLOCK = 2
    OBJECT = 3
    CHUNK = 4


class ArchiveUnpacker:
    """Feeds one archive. Not thread-safe. Memory grows with the number of objects, not with their bytes."""

    def __init__(self) -> None:
        self._at = _At.CONTENTS
        self._reader: TocReader | None = TocReader()
        self._toc: Toc | None = None
        self._entries: dict[int, Entry] = {}
        self._carry = b""
        self._read = 0
        self._size = 0
        self._border = 0
        self._borders: list[int] = []
        self._sections: list[Section] = []
        self._faults: list[str] = []
        self._seen: set[int] = set()
        # The open block:
        self._entry: Entry | None = None
        self._start = 0
        self._left = 0
        self._undo: Undo = undo(0)
        self._rows: CopyRows | None = None
        self._objects: list[list[int]] = []
        self._object_start = 0

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """What is to be stored, in pieces of 64 MiB at most, good until the next one is asked for. Exhaust it
        before feeding more.

        Raises Refused for what is not supported or absurd, SourceError for what is no archive.
        """
        for piece in self._feed(data):
            if piece:
                self._size += len(piece)
                yield piece

    def take_borders(self) -> list[int]:
        """Offsets in the output where chunks shall end that came up since the last call, ascending: where
        the content of a block begins and ends, but for those near to the border before (see `scan`)."""
        borders, self._borders = self._borders, []
        return borders

    def finish(self) -> Catalogue:
        """The end of the stream. Its fault tells what is missing."""
        toc = self._toc
        if toc is None:
            fault = "the archive ends within its table of contents"
            return Catalogue(engine="postgresql", form=FORM, sections=(), fault=fault)
        if self._at is not _At.BLOCK or self._carry:
            self._faults.append(f"the archive ends within a block of data, after {self._read} bytes")
        if self._entry:
            if self._rows is None and self._at is _At.CHUNK:
                self._objects[-1][1] = self._size - self._object_start
            self._add_section(self._entry, OPEN)
        elif missing := [e for e in toc.entries if e.has_data and e.dump_id not in self._seen]:
            name = as_text(missing[0].tag)
            self._faults.append(f"the archive ends before the data of {name!r} and {len(missing) - 1} others")
        facts = {"server": as_text(toc.head.server), "tool": f"pg_dump {as_text(toc.head.tool)}"}
        packed = base64.b64encode(zlib.compress(toc.canonical)).decode()
        extra = {
            "toc": packed,
            "toc_size": len(toc.canonical),
            "encoding": toc.encoding.decode(),
            "database": as_text(toc.head.database),
        }
        return Catalogue(
            engine="postgresql",
            form=FORM,
            sections=tuple(self._sections),
            fault="; ".join(self._faults[:3]),
            facts=facts,
            extra=extra,
        )

    # ---- the archive ------------------------------------------------------------------------------------

    def _feed(self, data: Buffer) -> Iterator[Buffer]:
        if self._reader:
            self._toc = self._reader.feed(data)
            if not self._toc:
                return
            data = self._reader.rest
            self._reader = None
            yield from self._begin(self._toc)
        block = self._carry + bytes(data)
        self._carry = b""
        at = 0
        while at < len(block):
            before = at
            if self._at is _At.CHUNK:
                at, pieces = self._chunks(block, at)
                yield from self._content(pieces)
                if self._at is not _At.CHUNK:
                    yield from self._end_chunks()
            elif self._at is _At.OBJECT:
                at = self._object(block, at)
            else:
                at = self._block(block, at)
            if at == before:  # a field is not complete
                break
        self._carry = block[at:]

    def _begin(self, toc: Toc) -> Iterator[bytes]:
        self._entries = {entry.dump_id: entry for entry in toc.entries}
        self._read = toc.size
        self._at = _At.BLOCK
        yield toc.canonical
        self._sections.append(Section(0, self._size, CONTENTS))

    def _block(self, block: bytes, at: int) -> int:
        """The head of a block, if it is complete."""
        stop = at + 1 + INT.size
        if stop > len(block):
            return at
        kind = block[at]
        dump_id = self._integer(block, at + 1)
        entry = self._entries.get(dump_id)
        if kind not in (ROWS, LARGE_OBJECTS) or entry is None or not entry.has_data:
            raise broken(self._read, f"a block of kind {kind} for entry {dump_id}")
        if dump_id in self._seen:
            raise broken(self._read, f"a second block for entry {dump_id}")
        if (kind == LARGE_OBJECTS) != (entry.type == b"BLOBS"):
            raise broken(self._read, f"a block of kind {kind} for an entry of another type")
        if entry.offset is not None and entry.offset != self._read:
            self._faults.append(
                f"the data of {as_text(entry.tag)!r} stands at {self._read}, not at {entry.offset} as its "
                "table of contents says"
            )
        self._read += stop - at
        self._seen.add(dump_id)
        self._entry = entry
        self._start = self._size
        self._objects = []
        self._add_border()
        if kind == LARGE_OBJECTS:
            self._rows = None
            self._at = _At.OBJECT
        else:
            strings = self._toc is not None and self._toc.standard_strings
            self._rows = CopyRows() if entry.copy else InsertRows(standard_strings=strings)
            self._begin_chunks()
        return stop

    def _object(self, block: bytes, at: int) -> int:
        """A large object's OID, or the end of all."""
        if at + INT.size > len(block):
            return at
        oid = self._integer(block, at)
        self._read += INT.size
        if oid:
            if len(self._objects) >= _OBJECTS_LIMIT:
                raise broken(self._read, f"more than {_OBJECTS_LIMIT} large objects in one block")
            self._objects.append([oid, 0])
            self._object_start = self._size
            self._begin_chunks()
        else:
            assert self._entry
            self._end_block(self._entry, 0)
        return at + INT.size

    def _integer(self, block: bytes, at: int) -> int:
        sign, value = INT.unpack_from(block, at)
        if sign > 1:
            raise broken(self._read, f"a sign is {sign}")
        return -value if sign else int(value)

    # ---- chunks -----------------------------------------------------------------------------------------

    def _begin_chunks(self) -> None:
        assert self._toc
        self._undo = undo(self._toc.head.compression)
        self._left = 0
        self._at = _At.CHUNK

    def _chunks(self, block: bytes, at: int) -> tuple[int, list[bytes | memoryview]]:
        """All chunks that begin in `block`. Without compression pg_dump makes one of each row."""
        pieces: list[bytes | memoryview] = []
        end = len(block)
        first = at
        if self._left:
            stop = min(at + self._left, end)
            self._left -= stop - at
            pieces.append(memoryview(block)[at:stop])
            at = stop
        unpack, head, append = INT.unpack_from, INT.size, pieces.append
        while at + head <= end:
            sign, length = unpack(block, at)
            if sign or length >= _LENGTH_LIMIT:
                raise broken(self._read + at - first, "the length of a chunk is negative")
            at += head
            if not length:
                self._at = _At.BLOCK
                break
            stop = at + length
            if stop > end:
                self._left = stop - end
                append(memoryview(block)[at:end])
                at = end
                break
            append(block[at:stop] if length < _LARGE_CHUNK else memoryview(block)[at:stop])
            at = stop
        self._read += at - first
        return at, pieces

    def _content(self, pieces: list[bytes | memoryview]) -> Iterator[Buffer]:
        if not pieces:
            return
        joined = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        try:
            for piece in self._undo.feed(joined):
                if self._rows and piece:
                    yield from self._rows.feed(piece)
                else:
                    yield piece
        except ValueError as error:
            raise broken(self._read, f"the data of {self._name!r}: {error}") from None

    def _end_chunks(self) -> Iterator[bytes]:
        entry = self._entry
        assert entry
        try:
            self._undo.finish()
        except ValueError as error:
            raise broken(self._read, f"the data of {self._name!r}: {error}") from None
        if self._rows is None:
            self._objects[-1][1] = self._size - self._object_start
            self._at = _At.OBJECT
            return
        last, tail, fault = self._rows.finish()
        if fault:
            self._faults.append(f"the rows of {self._name!r} {fault}")
            tail = OPEN
        yield last
        self._end_block(entry, tail)

    @property
    def _name(self) -> str:
        return as_text(self._entry.tag) if self._entry else ""

    def _end_block(self, entry: Entry, tail: int) -> None:
        self._add_section(entry, tail)
        self._add_border()
        self._entry = None
        self._at = _At.BLOCK

    # ---- what is kept of it -----------------------------------------------------------------------------

    def _add_section(self, entry: Entry, tail: int) -> None:
        """`tail`: newlines behind the content, which are not stored, or OPEN."""
        extra: dict[str, Any] = {"dump_id": entry.dump_id}
        length = self._size - self._start
        if self._rows is None:
            extra["objects"] = self._objects
            self._sections.append(
                Section(self._start, length, "LARGE OBJECT", name=as_text(entry.tag), extra=extra)
            )
            return
        runs = self._rows.runs
        statement = entry.copy or str(runs[0][2] if runs else "").encode("utf-8", "surrogateescape")
        extra |= {
            "columns": classify(statement).extra.get("columns", []),
            "rows": "copy" if entry.copy else "insert",
            "tail": tail,
        }
        if runs:
            extra["runs"] = runs
        schema, name = as_text(entry.schema or b""), as_text(entry.tag)
        self._sections.append(
            Section(
                self._start, length, as_text(entry.type), "", schema, name, (schema, name), extra=extra
            )
        )

    def _add_border(self) -> None:
        if self._size - self._border >= BORDER_DISTANCE:
            self._border = self._size
            self._borders.append(self._size)
