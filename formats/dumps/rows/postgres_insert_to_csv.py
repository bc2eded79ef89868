"""A PostgreSQL table's rows as CSV, out of the INSERT statements that `pg_dump --inserts` writes.

The lines are those of `copy_to_csv`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from holdfast.base.errors import Damaged
from holdfast.base.types import Buffer
from holdfast.formats.dumps.rows.copy_to_csv import (
    BLOCK,
    ROW_LIMIT,
    csv_field,
    csv_header,
    too_long,
    unescape,
)

_PART = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+)'
_GAP = rb"(?:\s++|--[^\n]*+\n)*+"
_LEAD: Final = re.compile(
    _GAP + rb"INSERT\s+INTO\s+" + _PART + rb"(?:\." + _PART + rb")*+\s*"
    rb"(?:\((?:\"[^\"]*+\"|[^()\"])*+\)\s*)?(?:OVERRIDING\s+(?:SYSTEM|USER)\s+VALUE\s+)?"
    rb"(?:(DEFAULT\s+VALUES\s*;)|VALUES(?=[\s(]))"
)  # fmt: skip
_LITERAL = (
    rb"(?:(?P<e>[eE])'(?P<escaped>[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+)'"
    rb"|[bBxX]?'(?P<string>[^']*+(?:''[^']*+)*+)'"
    rb"|(?P<bare>[-+0-9A-Za-z_.]++))"
    rb"(?:::[^,()';]++(?:\([0-9, ]*+\))?+[^,()';]*+)*+"
)
_VALUE: Final = re.compile(rb"\s*+" + _LITERAL + rb"\s*+(?:,|\Z)", re.S)
_ANY = re.sub(rb"\?P<\w+>", rb"?:", _LITERAL)
_ROW: Final = re.compile(
    rb"\s*+\((?P<values>(?:\s*+" + _ANY + rb"\s*+(?:,(?!\s*+\))|(?=\))))*+)\)\s*+"
    rb"(?P<next>,|(?:ON\s+CONFLICT\s+DO\s+NOTHING\s*+)?;)",
    re.S,
)
_E_ESCAPE: Final = re.compile(rb"''|\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.S)
_BARE: Final = {b"true": b"t", b"false": b"f"}
_DEFAULT: Final = object()


class _Values:
    """Rows of values out of INSERT statements in pieces."""

    def __init__(self, data: Iterable[Buffer], limit: int) -> None:
        self._limit: Final = limit
        self._data: Final = iter(data)
        self._buffer = b""
        self._at = 0

    def __iter__(self) -> Iterator[list[bytes | object | None]]:
        while self._skip_blank():
            lead = self._need(_LEAD)
            if lead[1]:
                yield []
                continue
            more = b","
            while more == b",":
                row = self._need(_ROW)
                more = row["next"]
                yield [_value(match) for match in _VALUE.finditer(row["values"])]

    def _need(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        """The match here, which more data cannot change: both patterns end with a delimiter."""
        while not (match := pattern.match(self._buffer, self._at)):
            if len(self._buffer) - self._at > self._limit:
                raise too_long(self._limit)
            if not self._read():
                raise Damaged("rows of a table", "an INSERT is not in the form that pg_dump writes")
        self._at = match.end()
        return match

    def _skip_blank(self) -> bool:
        while not self._buffer[self._at : self._at + 1].strip():
            if self._at < len(self._buffer):
                self._at += 1
            elif not self._read():
                return False
        return True

    def _read(self) -> bool:
        """As much again as is unread, so that a long row is looked at a few times only."""
        parts = [self._buffer[self._at :]]
        wanted = max(64 << 10, len(parts[0]))
        for piece in self._data:
            parts.append(bytes(piece))
            wanted -= len(parts[-1])
            if wanted <= 0:
                break
        self._buffer, self._at = b"".join(parts), 0
        return len(self._buffer) > len(parts[0])


def _value(match: re.Match[bytes]) -> bytes | object | None:
    if (bare := match["bare"]) is not None:
        word = bare.lower()
        if word == b"default":
            return _DEFAULT
        return None if word == b"null" else _BARE.get(word, bare)
    if match["e"]:
        return _E_ESCAPE.sub(lambda found: b"'" if found[0] == b"''" else unescape(found), match["escaped"])
    return match["string"].replace(b"''", b"'")


def insert_to_csv(
    columns: Sequence[str], data: Iterable[Buffer], *, limit: int = ROW_LIMIT
) -> Iterator[bytes]:
    """The header and all rows of INSERT statements as pg_dump writes them.

    Without `columns` they are called column1, column2, ... Those whose value is DEFAULT (generated ones) are
    left out, as COPY does. Raises Damaged for what is no such statement, Refused for a row of more than
    `limit` bytes.
    """
    yield from _insert_lines(columns, data, limit, with_header=True)


def insert_rows(columns: Sequence[str], data: Iterable[Buffer]) -> Iterator[bytes]:
    """`insert_to_csv` without the header."""
    yield from _insert_lines(columns, data, ROW_LIMIT, with_header=False)


def _insert_lines(
    columns: Sequence[str], data: Iterable[Buffer], limit: int, *, with_header: bool
) -> Iterator[bytes]:
    names = list(columns)
    kept: list[int] | None = None
    lines: list[bytes] = []
    size = 0
    width = len(names)
    for row in _Values(data, limit):
        if kept is None:
            width = len(row)
            names = names or [f"column{at + 1}" for at in range(width)]
            kept = [at for at, value in enumerate(row) if value is not _DEFAULT]
            if with_header and len(names) == width:
                lines.append(csv_header([names[at] for at in kept]))
        if len(row) != width or width != len(names):
            raise Damaged("rows of a table", f"a row has {len(row)} values for {len(names)} columns")
        line = _line([row[at] for at in kept])
        lines.append(line)
        size += len(line)
        if size >= BLOCK:
            yield b"".join(lines)
            lines, size = [], 0
    if kept is None and with_header:
        lines.append(csv_header(names))
    yield b"".join(lines)


def _line(values: Sequence[bytes | object | None]) -> bytes:
    alone = len(values) == 1
    fields = (csv_field(value, alone=alone) if isinstance(value, bytes) else b"" for value in values)
    return b",".join(fields) + b"\n"
