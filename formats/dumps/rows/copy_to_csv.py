"""A PostgreSQL table's rows as CSV, byte for byte as `COPY ... TO ... (FORMAT csv, HEADER)` writes it.

RFC 4180 with "\\n" for line ends; NULL is an empty field, the empty string is "".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from holdfast.base.errors import Damaged, Refused
from holdfast.base.types import Buffer

ROW_LIMIT: Final = 64 << 20
"""Bytes of one row, as it stands in the dump."""
_BLOCK: Final = 512 << 10
"""Bytes converted at once: several passes over what the processor's cache holds."""
_END: Final = b"\\."

# Marks for what must not be taken for a separator or for a quoted field while a block is worked on. No value
# in PostgreSQL holds a NUL.
_NULL: Final = b"\0"
_EMPTY: Final = b"\0\0"
_TAB: Final = b"\0t"
_BAD_NULL: Final = re.compile(rb"\0[^\t\n]")
_SPECIAL: Final = re.compile(rb'[",\\][^\t\n]*+')
_NEEDS_QUOTES: Final = re.compile(rb'[,"\n\r]')
_ESCAPE: Final = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.)|\Z)", re.S)
_CONTROL: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def csv_field(value: bytes, *, alone: bool = False) -> bytes:
    """A value that is not NULL. `alone`: it is a whole line, which must not look like the end of data."""
    if not value:
        return b'""'
    if _NEEDS_QUOTES.search(value) or (alone and value == _END):
        return b'"' + value.replace(b'"', b'""') + b'"'
    return value


def csv_header(columns: Sequence[str]) -> bytes:
    names = (name.encode("utf-8", "surrogateescape") for name in columns)
    return b",".join(csv_field(name, alone=len(columns) == 1) for name in names) + b"\n"


def copy_to_csv(
    columns: Sequence[str], data: Iterable[Buffer], *, block: int = _BLOCK, limit: int = ROW_LIMIT
) -> Iterator[bytes]:
    """The header and all rows of one COPY's `data`: its lines, up to the closing `\\.`, in any pieces.

    Raises as `copy_rows`.
    """
    yield csv_header(columns)
    yield from copy_rows(columns, data, block=block, limit=limit)


def copy_rows(
    columns: Sequence[str], data: Iterable[Buffer], *, block: int = _BLOCK, limit: int = ROW_LIMIT
) -> Iterator[bytes]:
    """`copy_to_csv` without the header, for tables whose rows are in several ranges.

    What follows the closing line is not looked at. Raises Damaged when it is missing or a line is not what
    COPY writes, Refused for a row of more than `limit` bytes. About `block` bytes are converted at a time.
    """
    for lines, ends in _whole_lines(data, block, limit):
        yield _convert(lines, len(columns))
        if ends:
            return
    raise Damaged("rows of a table", "they end before the closing line")


def _whole_lines(data: Iterable[Buffer], least: int, limit: int) -> Iterator[tuple[bytes, bool]]:
    """Blocks of whole lines; with the last one, which comes before the closing line, True."""
    waiting: list[bytes] = []
    size = 0
    for piece in data:
        view = memoryview(piece).cast("B")
        for at in range(0, len(view), least):
            part = bytes(view[at : at + least])
            waiting.append(part)
            size += len(part)
            if size < least or b"\n" not in part:
                if size > limit:
                    raise _too_long(limit)
                continue
            block, end, rest = b"".join(waiting).rpartition(b"\n")
            waiting, size = [rest], len(rest)
            lines, ends = _until_end(block + end)
            yield lines, ends
            if ends:
                return
    lines, ends = _until_end(b"".join(waiting))
    if ends:
        yield lines, True


def _until_end(block: bytes) -> tuple[bytes, bool]:
    """The lines before the closing one, and whether it is there."""
    if block.startswith((b"\\.\n", b"\\.\r\n")) or block == _END:
        return b"", True
    at = block.find(b"\n\\.\n")
    if at < 0 and b"\r" in block:
        at = block.find(b"\n\\.\r\n")
    if at < 0 and block.endswith(b"\n\\."):
        at = len(block) - 3
    return (block[: at + 1], True) if at >= 0 else (block, False)


def _convert(block: bytes, width: int) -> bytes:
    """Lines of COPY text as lines of CSV."""
    if b"\0" in block:
        raise Damaged("rows of a table", "they hold a NUL")
    if b"\r" in block:  # written on Windows; within a value it would be \r
        block = block.replace(b"\r\n", b"\n")
        if b"\r" in block:
            raise Damaged("rows of a table", "they hold a bare carriage return")
    block = b"\n" + block
    if b"\\N" in block:
        marked = block.replace(b"\t\\N", b"\t\0").replace(b"\n\\N", b"\n\0")
        if _BAD_NULL.search(marked):  # \N begins a longer value: an N that need not have been escaped
            marked = re.sub(rb"(?<=[\t\n])\\N(?=[\t\n])", _NULL, block)
        block = marked
    block = block.replace(b"\t\t", b"\t\0\0\t").replace(b"\t\t", b"\t\0\0\t")
    block = block.replace(b"\n\t", b"\n\0\0\t").replace(b"\t\n", b"\t\0\0\n")
    if width == 1:
        block = block.replace(b"\n\n", b"\n\0\0\n").replace(b"\n\n", b"\n\0\0\n")
    if b"\\" in block or b"," in block or b'"' in block:
        block = _convert_fields(block, alone=width == 1)
    block = block.replace(b"\t", b",")
    if b"\0" in block:
        block = block.replace(_EMPTY, b'""').replace(_TAB, b"\t").replace(_NULL, b"")
    return block[1:]


def _convert_fields(block: bytes, *, alone: bool) -> bytes:
    """Only those that hold a backslash, a comma or a quote. Tabs within values become marks."""
    parts: list[bytes] = []
    done = 0
    for match in _SPECIAL.finditer(block):
        found = match.start()
        start = max(block.rfind(b"\t", done, found), block.rfind(b"\n", done, found)) + 1
        parts.append(block[done:start])
        done = match.end()
        value = block[start:done]
        if b"\\" in value:
            value = csv_field(_ESCAPE.sub(_unescape, value), alone=alone).replace(b"\t", _TAB)
        else:
            value = b'"' + value.replace(b'"', b'""') + b'"'
        parts.append(value)
    parts.append(block[done:])
    return b"".join(parts)


def _unescape(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, other = match.groups()
    if other is not None:
        return _CONTROL.get(other, other)
    if octal is None and hexadecimal is None:
        raise Damaged("rows of a table", "a line ends with a backslash")
    code = int(octal, 8) & 0xFF if octal is not None else int(hexadecimal, 16)
    if not code:
        raise Damaged("rows of a table", "they hold a NUL")
    return bytes((code,))


def _too_long(limit: int) -> Refused:
    return Refused(
        f"a row of this table has more than {limit >> 20} MiB, which is too long for CSV; take it as SQL"
    )


# ---- INSERT ---------------------------------------------------------------------------------------------

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
                raise _too_long(self._limit)
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
        return _E_ESCAPE.sub(lambda found: b"'" if found[0] == b"''" else _unescape(found), match["escaped"])
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
        if size >= _BLOCK:
            yield b"".join(lines)
            lines, size = [], 0
    if kept is None and with_header:
        lines.append(csv_header(names))
    yield b"".join(lines)


def _line(values: Sequence[bytes | object | None]) -> bytes:
    alone = len(values) == 1
    fields = (csv_field(value, alone=alone) if isinstance(value, bytes) else b"" for value in values)
    return b",".join(fields) + b"\n"
