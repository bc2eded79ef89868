"""Strings as the dump tools of MySQL, MariaDB and SQLite write them, and what stands for them in CSV."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from holdfast.base.errors import Damaged

_WHERE: Final = "rows of a table"
_MYSQL_ESCAPES: Final = {
    b"\\0": b"\0",
    b"\\'": b"'",
    b'\\"': b'"',
    b"\\b": b"\b",
    b"\\n": b"\n",
    b"\\r": b"\r",
    b"\\t": b"\t",
}
"""All but `\\\\` and `\\Z`."""
_MYSQL_ESCAPE: Final = re.compile(rb"\\(.)|''", re.S)
_SEPARATORS: Final = [bytes((code,)) for code in (1, 2, 3, 4, 5, 6, 7, 11, 12, 14, 15, 16, 254, 255)]
_UNISTR: Final = re.compile(
    rb"\\(?:(\\)|([0-9A-Fa-f]{4})|u([0-9A-Fa-f]{4})|\+([0-9A-Fa-f]{6})|U([0-9A-Fa-f]{8})|)"
)


def csv_content(value: bytes) -> bytes:
    """What stands between the quotes of a field."""
    return value.replace(b'"', b'""')


def csv_bytes(value: bytes) -> bytes:
    """The same for bytes that are no text."""
    return b"\\x" + value.hex().encode()


def together(strings: Sequence[bytes], convert: Callable[[bytes], bytes]) -> list[bytes]:
    """`convert` for many strings at once: what it replaces stands within one of them.

    A byte that is in none of them, and that nothing turns into, stands between them for the time.
    """
    joined = b"".join(strings)
    for separator in _SEPARATORS:
        if separator not in joined:
            return convert(separator.join(strings)).split(separator) if strings else []
    return list(map(convert, strings))


# ---- MySQL ----------------------------------------------------------------------------------------------


def mysql_unescaped(content: bytes) -> bytes:
    """What stands between quotes. `\\%` and `\\_` stay as they are, as the server has it."""
    if b"\\" not in content and b"''" not in content:
        return content
    # The tools write a SUB as an escape, so that it can stand for an escaped
    # backslash until the others are done.
    if b"\x1a" in content or b"''" in content:
        return _MYSQL_ESCAPE.sub(_mysql_escape, content)
    value = content.replace(b"\\\\", b"\x1a")
    for escape, character in _MYSQL_ESCAPES.items():
        value = value.replace(escape, character)
    parts = value.split(b"\\Z")
    if any(b"\\" in part for part in parts):
        return _MYSQL_ESCAPE.sub(_mysql_escape, content)
    return b"\x1a".join(part.replace(b"\x1a", b"\\") for part in parts)


def _mysql_escape(found: re.Match[bytes]) -> bytes:
    whole = found[0]
    if whole == b"''":
        return b"'"
    if whole == b"\\Z":
        return b"\x1a"
    if whole in (b"\\%", b"\\_"):
        return whole
    return _MYSQL_ESCAPES.get(whole, found[1])


def mysql_literal(form: bytes, content: bytes, *, binary: bool) -> bytes:
    """The CSV of a literal with an introducer or letter before its quotes (X'..', b'..', _utf8mb4'..').

    `form` is all but the string. `binary`: it stands in a column of bytes, whatever it looks like."""
    if form in (b"x'", b"X'"):
        if len(content) % 2 or content.strip(b"0123456789abcdefABCDEF"):
            raise Damaged(_WHERE, "a hexadecimal literal holds other digits")
        return b"\\x" + content.lower()
    if form in (b"b'", b"B'"):
        if content.strip(b"01") or len(content) > _BITS:
            raise Damaged(_WHERE, "a bit string holds other digits, or more than a column can")
        return csv_bytes(int(content or b"0", 2).to_bytes((len(content) + 7) // 8, "big"))
    value = mysql_unescaped(content)
    return csv_bytes(value) if binary or form.lower() == b"_binary'" else csv_content(value)


_BITS: Final = 64


# ---- SQLite ---------------------------------------------------------------------------------------------


def sqlite_unescaped(content: bytes) -> bytes:
    return content.replace(b"''", b"'")


def sqlite_literal(form: bytes, contents: Sequence[bytes]) -> bytes:
    """The CSV of X'..' or of the calls by which `.dump` writes control characters.

    `form` is all but the strings. The calls are unistr('..'), replace('..','\\n',char(10))
    and such a one within another.
    """
    if form in (b"x'", b"X'"):
        if len(contents[0]) % 2 or contents[0].strip(b"0123456789abcdefABCDEF"):
            raise Damaged(_WHERE, "a blob holds other digits")
        return b"\\x" + contents[0].lower()
    value = sqlite_unescaped(contents[0])
    if form.startswith(b"unistr"):
        return csv_content(_UNISTR.sub(_unistr, value))
    codes = re.findall(rb"char\((1[03])\)", form)
    for mark, code in zip(contents[1:], codes, strict=True):
        if mark:
            value = value.replace(sqlite_unescaped(mark), bytes((int(code),)))
    return csv_content(value)


def _unistr(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return b"\\"
    digits = found[2] or found[3] or found[4] or found[5]
    if not digits or int(digits, 16) > 0x10FFFF:
        raise Damaged(_WHERE, "unistr() is given an escape that SQLite does not know")
    return chr(int(digits, 16)).encode("utf-8", "surrogatepass")
