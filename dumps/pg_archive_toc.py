"""The table of contents of a pg_dump archive: read while it streams in, and made canonical.

Canonical: without offsets of data, which depend on the compression and on whether pg_dump wrote to a pipe.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from holdfast.dumps.pg_archive_format import (
    OFFSET_KNOWN,
    OFFSET_NONE,
    OFFSET_UNKNOWN,
    Fields,
    Head,
    MoreNeeded,
    put_offset,
    read_head,
)
from holdfast.repo.errors import Refused, SourceError
from holdfast.repo.types import Buffer

TOC_LIMIT: Final = 512 << 20
"""Bytes of head and contents. Up to PostgreSQL 16 each large object has an entry of some 200 bytes."""
_ENTRY_LIMIT: Final = 4_000_000
_DEPENDENCIES: Final = 100_000
"""Of one entry: a table has 1,600 columns at most, a view mentions no more than it has text for."""
_ACCESS_METHODS: Final = 14
_KINDS: Final = 16
_ENCODING: Final = re.compile(rb"SET client_encoding = '([A-Za-z0-9_]{1,32})';\n?")
_STRINGS: Final = re.compile(rb"SET standard_conforming_strings = '(on|off)';\n?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object. `type` is pg_dump's word ("TABLE DATA"); None and b"" are different to pg_restore.

    `offset` is where the archive says its block begins, None if it does not; `state_at` where state and
    offset stand in the canonical contents.
    """

    dump_id: int
    has_data: bool
    tag: bytes
    type: bytes
    section: int
    definition: bytes
    drop: bytes
    copy: bytes
    schema: bytes | None
    tablespace: bytes | None
    access_method: bytes | None
    kind: str
    owner: bytes | None
    offset: int | None
    state_at: int


@dataclass(frozen=True, slots=True)
class Toc:
    """`canonical` are the bytes of head and contents, `size` how many they took in the archive."""

    head: Head
    entries: tuple[Entry, ...]
    canonical: bytes
    size: int

    @property
    def encoding(self) -> bytes:
        """Of all text: PostgreSQL's name."""
        return self._setting(b"ENCODING", _ENCODING) or b"SQL_ASCII"

    @property
    def standard_strings(self) -> bool:
        return self._setting(b"STDSTRINGS", _STRINGS) == b"on"

    @property
    def search_path(self) -> bytes:
        """The statement that sets it; b"" in archives made before March 2018."""
        return next((e.definition for e in reversed(self.entries) if e.type == b"SEARCHPATH"), b"")

    def _setting(self, type_: bytes, pattern: re.Pattern[bytes]) -> bytes:
        for entry in reversed(self.entries):
            if entry.type == type_ and (found := pattern.fullmatch(entry.definition)):
                return found[1]
        return b""


class TocReader:
    """Takes the beginning of an archive in any pieces. Memory grows with the contents."""

    def __init__(self) -> None:
        self._waiting: Final = bytearray()
        self._base = 0
        self._needed = 1
        self._head: Head | None = None
        self._count: int | None = None
        self._entries: Final[list[Entry]] = []
        self._ids: Final[set[int]] = set()
        self._canonical: Final = bytearray()

    def feed(self, data: Buffer) -> Toc | None:
        """The contents once they are complete; then `rest` is what came behind them. Raises Refused for what is
        too large or not supported, SourceError for what is no archive."""
        self._waiting += data
        if len(self._waiting) < self._needed:
            return None
        used = 0
        try:
            while self._count is None or len(self._entries) < self._count:
                used += self._step(used)
        except MoreNeeded as short:
            self._drop(used)
            self._needed = short.size - used
            if self._base + self._needed > TOC_LIMIT:
                raise Refused(
                    f"the contents of the pg_dump archive take more than {TOC_LIMIT >> 20} MiB"
                ) from None
            return None
        self._drop(used)
        assert self._head
        return Toc(self._head, tuple(self._entries), bytes(self._canonical), self._base)

    @property
    def rest(self) -> bytes:
        return bytes(self._waiting)

    def _drop(self, count: int) -> None:
        del self._waiting[:count]
        self._base += count

    def _step(self, start: int) -> int:
        """Read the next part at `start` of what waits; how many bytes it took."""
        if self._head is None:
            self._head = read_head(self._waiting)
            self._canonical.extend(self._head.canonical)
            return self._head.size
        fields = Fields(self._waiting, self._base, TOC_LIMIT)
        fields.at = start
        if self._count is None:
            count = fields.integer()
            if not 0 <= count <= _ENTRY_LIMIT:
                raise fields.fail(f"contents of {count} entries")
            self._count = count
            self._canonical.extend(self._waiting[start : fields.at])
        else:
            entry = _read_entry(fields, self._head, len(self._canonical))
            if entry.dump_id in self._ids:
                raise fields.fail(f"two entries have the ID {entry.dump_id}")
            _check(entry, fields)
            self._ids.add(entry.dump_id)
            self._entries.append(entry)
            tail = 1 + self._head.offset_size
            self._canonical.extend(self._waiting[start : fields.at - tail])
            self._canonical.extend(put_offset(OFFSET_UNKNOWN if entry.has_data else OFFSET_NONE, 0))
        return fields.at - start


def read_toc(canonical: bytes) -> Toc:
    """Of what `Toc.canonical` was. Raises Refused, SourceError."""
    reader = TocReader()
    toc = reader.feed(canonical)
    if toc is None or reader.rest:
        raise SourceError("the contents of a pg_dump archive do not end where they should")
    return toc


def _read_entry(fields: Fields, head: Head, canonical_at: int) -> Entry:
    start = fields.at
    dump_id = fields.integer()
    if dump_id <= 0:
        raise fields.fail(f"an entry has the ID {dump_id}")
    has_data = bool(fields.integer())
    fields.text(), fields.text()
    tag, type_, section = fields.text(), fields.text(), fields.integer()
    definition, drop, copy, schema, tablespace = (fields.string() for _ in range(5))
    access_method = fields.string() if head.minor >= _ACCESS_METHODS else None
    kind = fields.integer() if head.minor >= _KINDS else 0
    owner = fields.string()
    fields.text()
    for count in range(_DEPENDENCIES + 1):
        if fields.string() is None:
            break
        if count == _DEPENDENCIES:
            raise fields.fail(f"an entry depends on more than {_DEPENDENCIES} others")
    state_at = canonical_at + fields.at - start
    state = fields.take(1)[0]
    offset = int.from_bytes(fields.take(head.offset_size), "little")
    if state not in (OFFSET_UNKNOWN, OFFSET_KNOWN, OFFSET_NONE) or has_data == (state == OFFSET_NONE):
        raise fields.fail(f"an entry's data is in state {state}")
    return Entry(
        dump_id,
        has_data,
        tag,
        type_,
        section,
        definition or b"",
        drop or b"",
        copy or b"",
        schema,
        tablespace,
        access_method,
        chr(kind) if 0 < kind < 128 else "",
        owner,
        offset if state == OFFSET_KNOWN else None,
        state_at,
    )


def _check(entry: Entry, fields: Fields) -> None:
    for type_, pattern in ((b"ENCODING", _ENCODING), (b"STDSTRINGS", _STRINGS)):
        if entry.type == type_ and not pattern.fullmatch(entry.definition):
            raise fields.fail(f"an entry of type {type_.decode()} is not what pg_dump writes")
