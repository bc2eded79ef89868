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
BLOCK: Final = 512 << 10
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
    columns: Sequence[str], data: Iterable[Buffer], *, block: int = BLOCK, limit: int = ROW_LIMIT
) -> Iterator[bytes]:
    """The header and all rows of one COPY's `data`: its lines, up to the closing `\\.`, in any pieces.

    Raises as `copy_rows`.
    """
    yield csv_header(columns)
    yield from copy_rows(columns, data, block=block, limit=limit)


def copy_rows(
    columns: Sequence[str], data: Iterable[Buffer], *, block: int = BLOCK, limit: int = ROW_LIMIT
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
                    raise too_long(limit)
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
            value = csv_field(_ESCAPE.sub(unescape, value), alone=alone).replace(b"\t", _TAB)
        else:
            value = b'"' + value.replace(b'"', b'""') + b'"'
        parts.append(value)
    parts.append(block[done:])
    return b"".join(parts)


def unescape(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, other = match.groups()
    if other is not None:
        return _CONTROL.get(other, other)
    if octal is None and hexadecimal is None:
        raise Damaged("rows of a table", "a line ends with a backslash")
    code = int(octal, 8) & 0xFF if octal is not None else int(hexadecimal, 16)
    if not code:
        raise Damaged("rows of a table", "they hold a NUL")
    return bytes((code,))


def too_long(limit: int) -> Refused:
    return Refused(
        f"a row of this table has more than {limit >> 20} MiB, which is too long for CSV; take it as SQL"
    )
