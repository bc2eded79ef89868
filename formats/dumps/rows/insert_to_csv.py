"""A table's rows as CSV, out of the INSERT and REPLACE statements of mysqldump, mariadb-dump and SQLite.

RFC 4180 with "\\n" for line ends. NULL is an empty field; all strings are in quotes, so that the empty string
is "". Bytes are written as PostgreSQL does, \\x and two hexadecimal digits each: literals (`X'..'`, `0x..`,
`b'..'`, `_binary '..'`) and, in columns that are known to hold bytes, all strings. Numbers stay as they are.

A block of rows is not read value by value, which takes seconds for what takes milliseconds here: one pattern
splits it into strings and what stands between them; of the latter, with a mark for each string, one pattern
proves that it is rows of the right number of values, and replacements over all of it make lines of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from holdfast.base.errors import Damaged, Refused
from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Section
from holdfast.formats.dumps.lexer import _lexer
from holdfast.formats.dumps.rows.insert_strings import (
    csv_content,
    mysql_literal,
    mysql_unescaped,
    sqlite_literal,
    sqlite_unescaped,
    together,
)

ROW_LIMIT: Final = 128 << 20
"""Bytes of one row, as it stands in the dump; several times as much memory is used for it."""
_BLOCK: Final = 512 << 10
"""Bytes converted at once: several passes over what the processor's cache holds."""
_WHERE: Final = "rows of a table"

_STRING: Final = {
    _lexer.MYSQL: rb"'((?:[^'\\]++|\\.|'')*+)(?:'|\\?\Z)",
    _lexer.SQLITE: rb"'((?:[^']++|'')*+)(?:'|\Z)",
}
"""One that is cut off reaches to the end: what it holds must not be taken for what stands between strings."""
_MARKED: Final = {
    _lexer.MYSQL: rb"(?:_\w+|[xXbB])?'",
    _lexer.SQLITE: rb"(?:[xX]?'|unistr\('\)|replace\((?:replace\(',',char\(13\)\)|'),',char\(1[03]\)\))",
}
"""Values made of strings, each a mark here, and without whitespace."""
_LEAD: Final = re.compile(
    rb"\s*+((?:INSERT|REPLACE)(?:`(?:[^`]|``)*+`|\"(?:[^\"]|\"\")*+\"|'(?:[^']|'')*+'|\[[^\]]*+\]"
    rb"|[\s,.()]|(?!VALUES\b)[\w$\x80-\xff]++)*+VALUES)\s*+",
    re.I,
)
_NUMBER: Final = rb"NULL|[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|0[xX][0-9A-Fa-f]+|[-+]?Inf"
_HEX: Final = re.compile(rb"0[xX]([0-9A-Fa-f]+)")
_CALL: Final = re.compile(rb"\w'|[a-z]\(")
_COMMON: Final = b"'0123456789.,()+-NULeE"
_BORDER: Final = re.compile(rb"\),\s*+\(")
_NEEDS_QUOTES: Final = re.compile(rb'[",\s]|\A\Z')
_WHITE: Final = b" \t\r\n\f\v"


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's rows in the stored stream: `ranges` are (start, length), `binary` the indices of columns
    that hold bytes. `refused` says why they cannot be had as one list, "" if they can."""

    dialect: int
    columns: Sequence[str]
    binary: Sequence[int]
    ranges: Sequence[tuple[int, int]]
    refused: str = ""

    @staticmethod
    def of(dialect: int, sections: Sequence[Section], columns: Sequence[str] = ()) -> Rows:
        """The rows in the sections of a table's data; `columns` serve a table without any."""
        forms = {
            (tuple(map(str, s.extra.get("columns", ()))), tuple(map(int, s.extra.get("binary", ()))))
            for s in sections
        }
        names, binary = forms.pop() if forms else (tuple(columns), ())
        refused = ""
        if forms:
            refused = "its INSERT statements name different columns"
        elif any(s.extra.get("rows") != "insert" for s in sections):
            refused = "its INSERT statements are not in the form that dump tools write"
        elif not names:
            refused = "the dump does not say how its columns are called"
        return Rows(dialect, names, binary, [(s.start, s.length) for s in sections], refused)


def csv(rows: Rows, read: Callable[[int, int], Iterable[Buffer]]) -> Iterator[bytes]:
    """A table as CSV with a header line; `read(start, length)` gives a range of the stored stream.

    Raises Refused when the rows cannot be one list, and as `insert_rows`.
    """
    if rows.refused:
        raise Refused(f"this table cannot be written as CSV: {rows.refused}")
    yield csv_header(rows.columns)
    for start, length in rows.ranges:
        yield from insert_rows(rows.dialect, len(rows.columns), read(start, length), binary=rows.binary)


def csv_header(columns: Sequence[str]) -> bytes:
    names = (name.encode("utf-8", "surrogateescape") for name in columns)
    return (
        b",".join(b'"' + csv_content(name) + b'"' if _NEEDS_QUOTES.search(name) else name for name in names)
        + b"\n"
    )


def insert_to_csv(
    dialect: int,
    columns: Sequence[str],
    data: Iterable[Buffer],
    *,
    binary: Collection[int] = (),
    block: int = _BLOCK,
    limit: int = ROW_LIMIT,
) -> Iterator[bytes]:
    """The header and all rows of `data`, INSERT statements of one lead cut anywhere. Raises as `insert_rows`.

    `dialect` is `_lexer.MYSQL` or `SQLITE`, `binary` the indices of columns that hold bytes.
    """
    yield csv_header(columns)
    yield from insert_rows(dialect, len(columns), data, binary=binary, block=block, limit=limit)


def insert_rows(
    dialect: int,
    width: int,
    data: Iterable[Buffer],
    *,
    binary: Collection[int] = (),
    block: int = _BLOCK,
    limit: int = ROW_LIMIT,
) -> Iterator[bytes]:
    """`insert_to_csv` without the header, for rows of `width` values.

    Raises Damaged when the data is anything else or ends early, Refused for a row of more than `limit` bytes.
    About `block` bytes are converted at a time.
    """
    waiting = bytearray()
    wanted = block
    converter: _Converter | None = None
    for piece in data:
        view = memoryview(piece).cast("B")
        for at in range(0, len(view), block):
            waiting += view[at : at + block]
            if len(waiting) < wanted:
                continue
            part = bytes(waiting)
            if converter is None:
                converter, part = _begin(dialect, width, binary, part)
            lines, rest = converter.convert(part)
            if lines:
                yield lines
            waiting = bytearray(rest)
            if len(waiting) > limit:
                raise Refused(f"a row of this table has more than {limit >> 20} MiB: take its SQL instead")
            # Doubling keeps the time for a row that is longer than a block linear.
            wanted = max(block, 2 * len(waiting))
    part = bytes(waiting)
    if converter is None and not part.strip(_WHITE):
        return
    if converter is None:
        converter, part = _begin(dialect, width, binary, part)
    if lines := converter.convert_last(part):
        yield lines


def _begin(dialect: int, width: int, binary: Collection[int], block: bytes) -> tuple[_Converter, bytes]:
    """Choose the converter by the lead of the rows in `block`; return it and the bytes after the lead."""
    lead = _LEAD.match(block)
    if not lead:
        raise Damaged(_WHERE, "they do not begin with INSERT INTO ... VALUES")
    return _Converter(dialect, width, binary, lead[1]), b"," + block[lead.end() :]


class _Converter:
    """Blocks begin behind a row: with "," or with ";" and the lead."""

    def __init__(self, dialect: int, width: int, binary: Collection[int], lead: bytes) -> None:
        self._mysql: Final = dialect == _lexer.MYSQL
        self._binary: Final = sorted(at for at in binary if at < width)
        # Parts of a block: what is outside, then a string or None, then a lead or None, and so on.
        self._split: Final = re.compile(
            _STRING[dialect] + rb"|(;\s*+" + re.escape(lead) + rb"\s*+)", re.S
        ).split
        self._value: Final = re.compile(_MARKED[dialect])
        value = b"(?:" + _MARKED[dialect] + b"|" + _NUMBER + b")"
        row = rb",\(" + value + b"(?:,%b){%d}" % (value, width - 1) + rb"\)"
        self._rows: Final = re.compile(b"(?:" + row + b")*+").fullmatch

    def convert(self, block: bytes) -> tuple[bytes, bytes]:
        """Lines for the rows that certainly end in the block, and the rest of it."""
        parts = self._split(block)
        if b";" in b"".join(parts[::3]):
            # The end of a statement, and of the next one's lead not all.
            at = next(at for at in range(0, len(parts), 3) if b";" in parts[at])
            last = parts[at].partition(b";")[0]
            return self._lines([*parts[:at], last]), block[_length(parts[:at]) + len(last) :]
        # From the end back to where a row ends.
        for at in range(len(parts) - 1, -1, -3):
            outside = parts[at]
            found = outside.rfind(b"),")
            while found >= 0 and not _BORDER.match(outside, found):
                found = outside.rfind(b"),", 0, found)
            if found >= 0:
                last = outside[: found + 1]
                return self._lines([*parts[:at], last]), block[_length(parts[:at]) + len(last) :]
            if at and parts[at - 1] is not None:
                return self._lines(parts[: at - 2]), block[_length(parts[: at - 2]) :]
        return b"", block

    def convert_last(self, block: bytes) -> bytes:
        parts = self._split(block)
        last = parts[-1].rstrip(_WHITE)
        if not last.endswith(b";"):
            raise Damaged(_WHERE, "they end within a statement")
        parts[-1] = last[:-1]
        return self._lines(parts)

    def _lines(self, parts: list[Any]) -> bytes:
        """The CSV of rows in the form of `_split`."""
        strings = [part for part in parts[1::3] if part is not None]
        outside = parts[::3]
        if len(strings) == len(outside) - 1:
            text = b"'".join(outside)
        else:
            marks = [b"," if part is None else b"'" for part in parts[1::3]]
            text = b"".join(chain.from_iterable(zip(outside, [*marks, b""], strict=True)))
        text = text.translate(None, _WHITE)
        if not self._rows(text) or text.count(b"'") != len(strings):
            raise Damaged(_WHERE, "they are not what the dump tool writes, or of another number of columns")
        if not text:
            return b""
        calls = self._value.findall(text) if text.translate(None, _COMMON) and _CALL.search(text) else None
        if calls:
            text = self._value.sub(b"'", text)
        lines = text[2:-1].replace(b"),(", b"\n").replace(b"NULL", b"")
        binary = set(self._in_binary(lines)) if self._binary else frozenset()
        contents = self._called(calls, strings, binary) if calls else self._contents(strings, binary)
        if b"x" in lines or b"X" in lines:
            lines = _HEX.sub(lambda found: b'"\\x' + found[1].lower() + b'"', lines)
        # Every mark becomes the quotes around a string.
        around = lines.replace(b"'", b'"\'"').split(b"'")
        return b"".join(chain.from_iterable(zip(around, [*contents, b"\n"], strict=True)))

    def _contents(self, strings: Sequence[bytes], binary: Set[int]) -> list[bytes]:
        """Convert the contents of strings to CSV, without quotes around them."""
        if binary:
            return [mysql_literal(b"'", s, binary=at in binary) for at, s in enumerate(strings)]
        unescaped = mysql_unescaped if self._mysql else sqlite_unescaped
        return together(strings, lambda content: csv_content(unescaped(content)))

    def _called(self, calls: Iterable[bytes], strings: Sequence[bytes], binary: Set[int]) -> Iterator[bytes]:
        """The same for values of one or more strings each."""
        first = 0
        for at, form in enumerate(calls):
            last = first + form.count(b"'")
            if self._mysql:
                yield mysql_literal(form, strings[first], binary=at in binary)
            elif last == first + 1 and form == b"'":
                yield csv_content(sqlite_unescaped(strings[first]))
            else:
                yield sqlite_literal(form, strings[first:last])
            first = last

    def _in_binary(self, lines: bytes) -> Iterator[int]:
        """Indices of the strings in binary columns."""
        before = 0
        for line in lines.split(b"\n"):
            values = line.split(b",")
            for at in self._binary:
                if values[at] == b"'":
                    yield before + values[:at].count(b"'")
            before += line.count(b"'")


def _length(parts: Sequence[Any]) -> int:
    """Bytes of a block that these parts are, each string closed."""
    return sum(len(part) for part in parts if part is not None) + 2 * sum(
        part is not None for part in parts[1::3]
    )
