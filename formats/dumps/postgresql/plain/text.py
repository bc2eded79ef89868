"""PostgreSQL's SQL as pg_dump writes it: words of a statement, identifiers, and the names that it mentions.

Works on bytes, in time linear in the text whatever it holds: what is not terminated reaches to the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from holdfast.formats.dumps.postgresql.plain.quoting import quoted_identifier

_WORD = rb"[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+"
_QUOTED = rb'(?:[uU]&)?"[^"]*+(?:""[^"]*+)*+(?:"|\Z)'
_PLAIN = rb"(?:[bBxXnN]|[uU]&)?'[^']*+(?:''[^']*+)*+(?:'|\Z)"
_ESCAPED = rb"[eE]'[^'\\]*+(?:(?:\\(?s:.)|'')[^'\\]*+)*+(?:'|\Z)"
_TAG = rb"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+)?\$"
_REMARK = rb"--[^\n]*+|/\*(?s:.*?)(?:\*/|\Z)"
_OPERATOR = rb"[+\-*/<>=~!@#%^&|`?]++"

_TOKEN: Final = re.compile(
    rb"(?:[\s]++|" + _REMARK + rb")*+(?:"
    rb"(?P<string>" + _ESCAPED + rb"|" + _PLAIN + rb"|(?P<tag>" + _TAG + rb")(?s:.*?)(?:(?P=tag)|\Z))"
    rb"|(?P<quoted>" + _QUOTED + rb")"
    rb"|(?P<word>" + _WORD + rb")"
    rb"|(?P<other>[0-9]++|(?s:.))|\Z)"
)
_PART = rb"(?:" + _QUOTED + rb"|" + _WORD + rb")"
_MENTIONS: Final = re.compile(
    _REMARK + rb"|'(?P<regclass>[^']*+(?:''[^']*+)*+)'::\"?regclass\b"
    rb"|" + _ESCAPED + rb"|" + _PLAIN + rb"|(?P<tag>" + _TAG + rb")(?P<body>(?s:.*?))(?:(?P=tag)|\Z)"
    rb"|(?P<name>" + _PART + rb"(?:\." + _PART + rb")*+(?:\." + _OPERATOR + rb")?)"
)
_IDENTIFIER: Final = re.compile(rb"(" + _PART + rb")(?:\.|\Z)|(?s:.)+")
_UNESCAPED: Final = re.compile(r'[."]')
_MENTION_LIMIT: Final = 10_000
"""Different names of one statement that are remembered."""
_OWN_SCHEMAS: Final = ("pg_catalog", "information_schema")

STRING, QUOTED, WORD, OTHER = "string", "quoted", "word", "other"


class Token(NamedTuple):
    """`text` is a WORD folded to lower case as the server does, a QUOTED identifier without its quotes, and
    else the bytes as they stand."""

    kind: str
    text: str


END: Final = Token("end", "")


def tokens(text: bytes) -> Iterator[Token]:
    """The tokens of SQL text without blanks and comments, lazily."""
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == WORD:
            yield Token(WORD, as_text(match[WORD].lower()))
        elif kind == OTHER:
            yield Token(OTHER, as_text(match[OTHER]))
        elif kind == QUOTED:
            yield Token(QUOTED, unquoted(match[QUOTED]))
        elif kind:
            yield Token(STRING, as_text(match[STRING]))


def as_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def as_bytes(name: str) -> bytes:
    """Inverse of `as_text`."""
    return name.encode("utf-8", "surrogateescape")


def unquoted(raw: bytes) -> str:
    """Remove an identifier's quotes, or fold it to lower case where it has none."""
    if raw[-1:] != b'"':
        return as_text(raw.lower())
    return as_text(raw[raw.index(b'"') + 1 : -1].replace(b'""', b'"'))


def quoted(name: str) -> bytes:
    """The name as an identifier, always quoted."""
    return quoted_identifier(as_bytes(name))


def parts_of(raw: bytes) -> tuple[str, ...]:
    """A dotted name's parts: `a."b.c"` is ("a", "b.c"). The last one may be an operator."""
    if b'"' not in raw:
        return tuple(as_text(raw.lower()).split("."))
    parts = []
    at = 0
    while at < len(raw):
        match = _IDENTIFIER.match(raw, at)
        assert match
        parts.append(unquoted(match[1]) if match[1] else as_text(match[0]))
        at = match.end()
    return tuple(parts)


def qualified(schema: str, name: str) -> str:
    """The form in which `Section.needs` names things: "schema.name", parts that hold a dot or a double quote
    in double quotes; the name alone when there is no schema."""
    return f"{_key(schema)}.{_key(name)}" if schema else _key(name)


def _key(part: str) -> str:
    return '"' + part.replace('"', '""') + '"' if _UNESCAPED.search(part) else part


def mentions(text: bytes, *, default_schema: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The qualified names in SQL text, and those inside of its string bodies, each once, in order.

    Names of the server's own schemas are left out. Of what has three parts, the first two count. With a
    `default_schema` (pg_dump before 10.3 did not qualify) single words count as names in it.
    """
    names: dict[str, None] = {}
    bodies: dict[str, None] = {}
    _collect(text, names, bodies, default_schema)
    return tuple(names), tuple(name for name in bodies if name not in names)


def _collect(
    text: bytes, names: dict[str, None], bodies: dict[str, None] | None, default_schema: str
) -> None:
    for match in _MENTIONS.finditer(text):
        raw = match["name"]
        if raw is None:
            raw = match["regclass"]
            if raw is None:
                if bodies is not None and match["body"]:
                    _collect(match["body"], bodies, None, default_schema)
                continue
            raw = raw.replace(b"''", b"'")
        if b"." not in raw and not default_schema:
            continue
        parts = parts_of(raw)
        if len(parts) == 1 and default_schema:
            parts = (default_schema, *parts)
        if len(parts) > 1 and parts[0] not in _OWN_SCHEMAS and len(names) < _MENTION_LIMIT:
            names[qualified(parts[0], parts[1])] = None


class Words:
    """A statement's tokens, read from left to right."""

    def __init__(self, text: bytes) -> None:
        self._tokens: Final = tokens(text)
        self.next = next(self._tokens, END)
        self.generated: Final[list[str]] = []
        """The items of `list` that are GENERATED ALWAYS AS (...)."""

    def advance(self) -> Token:
        token, self.next = self.next, next(self._tokens, END)
        return token

    def take(self, *words: str) -> str:
        """Step over the next token if it is one of these unquoted words (or signs), and return it."""
        if self.next.text in words and self.next.kind in (WORD, OTHER):
            return self.advance().text
        return ""

    def skip(self, words: Iterable[str]) -> None:
        """Step over any number of these."""
        some = tuple(words)
        while self.take(*some):
            pass

    def seek(self, *words: str) -> str:
        """Step behind the next of these outside of parentheses; "" at the end of the statement."""
        depth = 0
        while self.next is not END:
            token = self.advance()
            if token.kind == OTHER:
                depth += (token.text == "(") - (token.text == ")")
            if not depth and token.kind in (WORD, OTHER) and token.text in words:
                return token.text
        return ""

    def name(self) -> tuple[str, ...]:
        """A dotted name's parts; empty if there is none."""
        parts: list[str] = []
        while self.next.kind in (WORD, QUOTED):
            parts.append(self.advance().text)
            if not self.take("."):
                break
        return tuple(parts)

    def list(self) -> list[str]:
        """The first identifier of each item of a parenthesised list that stands here; empty if none does."""
        if not self.take("("):
            return []
        found: list[str] = []
        depth, fresh = 1, True
        while depth and self.next is not END:
            token = self.advance()
            if token.kind == OTHER:
                depth += (token.text in "([") - (token.text in ")]")
                fresh = token.text == "," and depth == 1
            elif fresh:
                if token.kind == QUOTED or (token.kind == WORD and token.text not in _NO_COLUMN):
                    found.append(token.text)
                fresh = False
            elif token == _GENERATED and depth == 1 and found and self._is_expression():
                self.generated.append(found[-1])
        return found

    def _is_expression(self) -> bool:
        return bool(self.take("always") and self.take("as")) and self.next.text == "("


_GENERATED: Final = Token(WORD, "generated")
_NO_COLUMN: Final = frozenset(("constraint", "like", "check", "primary", "unique", "foreign", "not"))
"""Reserved words that begin an item of CREATE TABLE which is no column."""
