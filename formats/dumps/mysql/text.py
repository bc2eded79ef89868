"""What statements that mysqldump and mariadb-dump write are about. Text in, values out.

Not a parser of SQL: only the beginnings of statements are read, in the forms that the tools and
SHOW CREATE write, and definitions of columns as SHOW CREATE TABLE lays them out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

# What is not closed reaches to the end: patterns that fail there would try again at every quote.
_GAP: Final = rb"(?:\s|/\*M?!\d*|\*/|/\*(?!M?!).*?(?:\*/|\Z)|--\s[^\n]*|#[^\n]*)*+"
"""Between words: whitespace, comments, and the brackets of executable comments, `/*!50003 ... */`."""
_BACKTICKS: Final = rb"`(?:[^`]|``)*+(?:`|\Z)"
_STRING: Final = rb"'(?:[^'\\]|\\.|'')*+(?:'|\Z)"
_DOUBLE: Final = rb'"(?:[^"\\]|\\.|"")*+(?:"|\Z)'
_NAME: Final = _BACKTICKS + b"|" + _DOUBLE + rb"|[\w$\x80-\xff]++"
_WORD: Final = re.compile(_GAP + b"(" + _NAME + b"|" + _STRING + rb"|.)?", re.S)
_COLUMN: Final = re.compile(
    rb"\n  (?:(" + _BACKTICKS + b"|" + _DOUBLE + rb"|[\w$\x80-\xff]++) (\w+))"
    rb"|(?:nextval|lastval|setval)\((?:((?:" + _NAME + rb")\.))?(" + _NAME + rb")"
    rb"|" + _STRING + b"|" + _NAME,
    re.S | re.I,
)
_NO_COLUMNS: Final = frozenset(
    b"PRIMARY UNIQUE KEY INDEX CONSTRAINT FULLTEXT SPATIAL FOREIGN CHECK PERIOD VECTOR".split()
)
_BINARY: Final = frozenset(
    b"binary varbinary tinyblob blob mediumblob longblob bit geometry point linestring polygon multipoint "
    b"multilinestring multipolygon geometrycollection geomcollection vector".split()
)
_KINDS: Final = frozenset(
    b"TABLE VIEW SEQUENCE TRIGGER PROCEDURE FUNCTION PACKAGE EVENT DATABASE SCHEMA USER ROLE SERVER INDEX "
    b"TABLESPACE LOGFILE".split()
)
_HEAD: Final = 4096
"""Bytes of a statement in which its object is named: names have 64 characters at most."""


class Words:
    """The words of a statement from `at` on, one by one; `start` and `end` are those of the last one."""

    __slots__ = ("end", "start", "text")

    def __init__(self, text: bytes, at: int = 0) -> None:
        self.text: Final = text
        self.start = self.end = at

    def next(self) -> bytes:
        """b"" at the end. A quoted name or string is one word, with its quotes."""
        match = _WORD.match(self.text, self.end)
        assert match  # every part of the pattern may be empty
        self.start, self.end = match.start(1), match.end()
        return match[1] or b""

    def accept(self, *keywords: bytes) -> bool:
        """Whether the next words are these; if not, nothing is taken."""
        start, end = self.start, self.end
        for keyword in keywords:
            if self.next().upper() != keyword:
                self.start, self.end = start, end
                return False
        return True

    def name(self) -> Name:
        """`name` or `schema`.`name`."""
        first = self.next()
        start = self.start
        if self.text[self.end : self.end + 1] != b".":
            return Name("", unquoted(first), start, start)
        self.end += 1
        second = self.next()
        return Name(unquoted(first), unquoted(second), start, self.start)


class Name(NamedTuple):
    """A name with its schema, "" for none; the schema and its dot are at [start, end) of the text."""

    schema: str
    name: str
    start: int
    end: int

    @property
    def qualifier(self) -> tuple[tuple[int, int], ...]:
        return ((self.start, self.end - self.start),) if self.end > self.start else ()


@dataclass(frozen=True, slots=True)
class Created:
    """A CREATE statement: `kind` in capitals, `on` a trigger's table."""

    kind: str
    name: Name
    on: Name | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Of a table: `binary` are the indices of those that hold bytes, `sequences` are (schema, name) which
    defaults use, `qualifiers` (start, length) the schema and dot before those."""

    names: tuple[str, ...]
    binary: tuple[int, ...]
    sequences: tuple[tuple[str, str], ...]
    qualifiers: tuple[tuple[int, int], ...]

    @property
    def binary_names(self) -> frozenset[str]:
        return frozenset(self.names[at] for at in self.binary)


def unquoted(word: bytes) -> str:
    """Remove an identifier's quotes. Bytes that are not UTF-8 become lone surrogates."""
    quote = word[:1]
    if quote in (b"`", b'"', b"'") and len(word) > 1:
        word = word[1:-1].replace(quote * 2, quote)
    return word.decode("utf-8", "surrogateescape")


def created(text: bytes) -> Created | None:
    """The object that a CREATE statement creates; None for an unknown kind."""
    words = Words(text[:_HEAD])
    kind = b""
    # OR REPLACE DEFINER = user @ host SQL SECURITY INVOKER ALGORITHM = x TEMPORARY AGGREGATE: 20 at most.
    for _ in range(24):
        kind = words.next().upper()
        if kind in _KINDS or not kind:
            break
    if kind not in _KINDS:
        return None
    if kind == b"PACKAGE" and words.accept(b"BODY"):
        kind = b"PACKAGE BODY"
    words.accept(b"IF", b"NOT", b"EXISTS")
    name = words.name()
    on = _triggered(words) if kind == b"TRIGGER" else None
    return Created(kind.decode(), name, on)


def _triggered(words: Words) -> Name | None:
    # BEFORE INSERT ON, or BEFORE INSERT OR UPDATE OF a, b ON.
    while word := words.next():
        if word.upper() == b"ON":
            return words.name()
    return None


def columns(text: bytes) -> Columns:
    """Columns of a CREATE TABLE statement as SHOW CREATE TABLE writes it; fewer when the text is cut off."""
    names: list[str] = []
    binary: list[int] = []
    sequences: dict[tuple[str, str], None] = {}
    qualifiers: list[tuple[int, int]] = []
    for match in _COLUMN.finditer(text):
        column, type_, schema, sequence = match.groups()
        if column is not None:
            if column.upper() in _NO_COLUMNS:
                continue
            if type_.lower() in _BINARY:
                binary.append(len(names))
            names.append(unquoted(column))
        elif sequence is not None:
            sequences[unquoted(schema[:-1]) if schema else "", unquoted(sequence)] = None
            if schema:
                qualifiers.append((match.start(3), len(schema)))
    return Columns(tuple(names), tuple(binary), tuple(sequences), tuple(qualifiers))


def inserted(lead: bytes) -> tuple[Name, tuple[str, ...]]:
    """The table of `INSERT ... INTO table (columns) VALUES`, and the columns if they are said."""
    words = Words(lead)
    words.next()
    # LOW_PRIORITY, DELAYED, HIGH_PRIORITY, IGNORE, INTO: but a table may be called so, within quotes.
    while words.next().upper() in _BEFORE_TABLE:
        continue
    words.end = words.start
    name = words.name()
    names: list[str] = []
    if words.next() == b"(":
        while word := words.next():
            if word not in (b",", b")"):
                names.append(unquoted(word))
            elif word == b")":
                break
    return name, tuple(names)


_BEFORE_TABLE: Final = frozenset(b"LOW_PRIORITY DELAYED HIGH_PRIORITY IGNORE INTO".split())
