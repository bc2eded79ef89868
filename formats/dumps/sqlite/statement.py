"""What statements of an SQLite dump are about. Text in, values out.

CREATE statements stand in a dump as their author wrote them, with all quoting and comments that SQLite takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# What is not closed reaches to the end: patterns that fail there would try again at every quote.
_GAP: Final = rb"(?:\s|/\*.*?(?:\*/|\Z)|--[^\n]*)*+"
_TOKEN: Final = re.compile(
    _GAP + rb"(\"(?:[^\"]|\"\")*+(?:\"|\Z)|'(?:[^']|'')*+(?:'|\Z)|`(?:[^`]|``)*+(?:`|\Z)|\[[^\]]*+(?:\]|\Z)"
    rb"|[\w$\x80-\xff]++|.)",
    re.S,
)
_KINDS: Final = frozenset((b"TABLE", b"INDEX", b"TRIGGER", b"VIEW"))
_CONSTRAINTS: Final = frozenset((b"CONSTRAINT", b"PRIMARY", b"UNIQUE", b"CHECK", b"FOREIGN"))
_WORDS: Final = 4096
"""Words of a statement that are looked at before ON: an UPDATE OF trigger lists columns."""


@dataclass(frozen=True, slots=True)
class Created:
    """A CREATE statement: `kind` in capitals, `on` the table of an index or trigger."""

    kind: str
    name: str
    on: str | None = None


def _tokens(text: bytes) -> Iterator[bytes]:
    return (found[1] for found in _TOKEN.finditer(text))


def unquoted(word: bytes) -> str:
    """Remove an identifier's quotes. Bytes that are not UTF-8 become lone surrogates."""
    quote = word[:1]
    if quote == b"[":
        word = word[1:-1]
    elif quote in (b'"', b"'", b"`"):
        word = word[1:-1].replace(quote * 2, quote)
    return word.decode("utf-8", "surrogateescape")


def created(text: bytes) -> Created | None:
    """The object that a CREATE statement creates; None for an unknown kind."""
    words = _tokens(text)
    kind = next(
        (word.upper() for word, _ in zip(words, range(4), strict=False) if word.upper() in _KINDS), b""
    )
    if not kind:
        return None
    name = next(words, b"")
    if name.upper() == b"IF":
        next(words, b"")  # NOT
        next(words, b"")  # EXISTS
        name = next(words, b"")
    on: str | None = None
    if kind in (b"INDEX", b"TRIGGER"):
        for word, _ in zip(words, range(_WORDS), strict=False):
            if word.upper() == b"ON":
                on = unquoted(next(words, b""))
                break
    return Created(kind.decode(), unquoted(name), on)


def columns(text: bytes) -> tuple[list[str], bool]:
    """The columns of a CREATE TABLE that rows hold (no generated ones), and whether it has AUTOINCREMENT."""
    names: list[str] = []
    autoincrement = False
    depth = 0
    begins = is_column = False
    for word in _tokens(text):
        if word == b"(":
            depth += 1
            begins = begins or depth == 1
        elif word == b")":
            depth -= 1
            if not depth:
                break
        elif depth == 1 and word == b",":
            begins = True
        elif begins:
            begins = False
            is_column = word.upper() not in _CONSTRAINTS
            if is_column:
                names.append(unquoted(word))
        elif depth == 1 and is_column and word.upper() == b"AS":
            is_column = False
            names.pop()
        elif depth == 1 and word.upper() == b"AUTOINCREMENT":
            autoincrement = True
    return names, autoincrement


def inserted(lead: bytes) -> tuple[str, list[str]]:
    """The table of `INSERT INTO table(columns) VALUES`, and the columns if they are said."""
    words = _tokens(lead[: 64 << 10])
    for word in words:
        if word.upper() == b"INTO":
            break
    name = unquoted(next(words, b""))
    names: list[str] = []
    if next(words, b"") == b"(":
        for word in words:
            if word == b")":
                break
            if word != b",":
                names.append(unquoted(word))
    return name, names
