"""What a CREATE statement of a PostgreSQL dump makes, told from its text; and what statements share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from holdfast.formats.dumps.postgresql.plain.text import END, STRING, WORD, Words

ANY_EXTENSION: Final = "EXTENSION"
"""In `needs`: something here may come from an extension that the text does not name."""


class Statement(NamedTuple):
    """`type` is pg_dump's word for it where it has one, else "OTHER". The other fields are as in a Section.

    `needs` may also hold "SERVER name", "FOREIGN DATA WRAPPER name", "PROCEDURAL LANGUAGE name" (what has no
    schema) and ANY_EXTENSION. `extra`, by type:
    TABLE: columns (names), generated (those of them that are never dumped), partitioned (True), parents
    ([[schema, name], ...]: inherited from, or of which it is a partition), partition (True for PARTITION OF),
    of (its type's [schema, name]); TYPE: columns, if it is composite;
    TABLE ATTACH: the section's name is the partition, its table the parent;
    INDEX ATTACH: parent [schema, name]; FK CONSTRAINT: to [schema, name];
    TABLE DATA: columns, rows ("copy", "insert", "" for other options);
    POLICY: roles, unless it is for all; FUNCTION, PROCEDURE: body (names that its body mentions);
    COMMENT, OWNER, ACL, DROP: on (the kind of thing); SET: search_path (the first schema), value;
    SEQUENCE: identity (True) when it is a column's, made by ALTER TABLE.
    """

    type: str
    schema: str = ""
    name: str = ""
    table: tuple[str, str] | None = None
    needs: tuple[str, ...] = ()
    extra: Mapping[str, Any] = {}


_COMPOUND: Final = {
    "foreign": ("table", "data"),
    "data": ("wrapper",),
    "materialized": ("view",),
    "event": ("trigger",),
    "access": ("method",),
    "operator": ("class", "family"),
    "text": ("search",),
    "search": ("parser", "dictionary", "template", "configuration"),
    "user": ("mapping",),
    "large": ("object",),
    "procedural": ("language",),
    "default": ("privileges",),
}
_MODIFIERS: Final = frozenset(
    ("or", "replace", "unique", "unlogged", "global", "local", "temp", "temporary", "trusted", "constraint",
     "recursive")
)  # fmt: skip
_EXACT_METHODS: Final = ("btree", "hash", "brin")
"""Index methods whose operator classes stand in the text, or are built in: others may use a default one
of an extension (btree_gist) that the text does not name."""


def kind_of(words: Words) -> str:
    found = [words.advance().text]
    while found[-1] in _COMPOUND and (more := words.take(*_COMPOUND[found[-1]])):
        found.append(more)
    kind = " ".join(found).upper()
    return "PROCEDURAL LANGUAGE" if kind == "LANGUAGE" else kind


def pair(parts: tuple[str, ...], default_schema: str) -> tuple[str, str]:
    """(schema, name) of a dotted name's last two parts."""
    if not parts:
        return "", ""
    return (parts[-2] if len(parts) > 1 else default_schema), parts[-1]


def relation(words: Words, schema: str) -> tuple[str, str]:
    words.take("only")
    return pair(words.name(), schema)


# ---- CREATE ---------------------------------------------------------------------------------------------


def create(words: Words, schema: str) -> Statement:
    words.skip(_MODIFIERS)
    if words.take("default"):  # CREATE DEFAULT CONVERSION
        words.take("privileges")
    kind = kind_of(words)
    if words.take("if"):
        words.skip(("not", "exists"))
    handler = _CREATE.get(kind)
    if handler:
        return handler(words, kind, schema)
    if kind not in _CREATED:
        return Statement("OTHER")
    if kind not in _IN_SCHEMA:
        return Statement(kind, "", (words.name() or ("",))[-1])
    return Statement(kind, *pair(words.name(), schema))


def _create_table(words: Words, kind: str, schema: str) -> Statement:
    table = pair(words.name(), schema)
    extra: dict[str, Any] = {}
    needs: list[str] = []
    parents: list[tuple[str, str]] = []
    if words.take("partition"):
        words.take("of")
        parents.append(pair(words.name(), schema))
        extra["partition"] = True
    elif words.take("of"):
        extra["of"] = pair(words.name(), schema)
    extra["columns"] = words.list()
    if words.generated:
        extra["generated"] = words.generated
    while word := words.seek("inherits", "partition", "server"):
        if word == "server":
            needs.append("SERVER " + (words.name() or ("",))[-1])
        elif word == "partition":
            if words.take("by"):
                extra["partitioned"] = True
        elif words.take("("):
            while parts := words.name():
                parents.append(pair(parts, schema))
                words.take(",")
    if parents:
        extra["parents"] = parents
    return Statement(kind, *table, table, tuple(needs), extra)


def _create_type(words: Words, kind: str, schema: str) -> Statement:
    name = pair(words.name(), schema)
    columns = words.list() if words.take("as") else []
    return Statement(kind, *name, extra={"columns": columns} if columns else {})


def _create_view(words: Words, kind: str, schema: str) -> Statement:
    view = pair(words.name(), schema)
    return Statement(kind, *view, view)


def _create_extension(words: Words, kind: str, schema: str) -> Statement:
    name = (words.name() or ("",))[-1]
    return Statement(kind, (words.name() or ("",))[-1] if words.seek("schema") else "", name)


def _create_routine(words: Words, kind: str, schema: str) -> Statement:
    name = pair(words.name(), schema)
    needs: tuple[str, ...] = ()
    if words.seek("language"):
        token = words.advance()
        language = token.text.strip("'") if token.kind == STRING else token.text
        if language not in ("sql", "plpgsql", "c", "internal"):
            needs = (f"PROCEDURAL LANGUAGE {language}", ANY_EXTENSION)
    return Statement(kind, *name, None, needs)


_OPERATOR_LIMIT: Final = 64


def _create_operator(words: Words, kind: str, schema: str) -> Statement:
    parts = words.name()
    sign = ""
    while words.next is not END and words.next.text not in ("(", ";") and len(sign) < _OPERATOR_LIMIT:
        sign += words.advance().text
    return Statement(kind, parts[-1] if parts else schema, sign)


def _create_index(words: Words, kind: str, schema: str) -> Statement:
    name = "" if words.next.text == "on" and words.next.kind == WORD else (words.name() or ("",))[-1]
    words.seek("on")
    table = relation(words, schema)
    method = words.name() if words.take("using") else ("btree",)
    exact = method[-1:] and method[-1] in _EXACT_METHODS
    return Statement(kind, table[0], name, table, () if exact else (ANY_EXTENSION,))


def _create_on(words: Words, kind: str, schema: str) -> Statement:
    """TRIGGER name ... ON table, RULE name AS ON event TO table, POLICY name ON table."""
    name = (words.name() or ("",))[-1]
    words.seek("to" if kind == "RULE" else "on")
    table = relation(words, schema)
    extra: dict[str, Any] = {}
    if kind == "POLICY" and words.seek("to", "using", "with") == "to":
        roles = []
        while parts := words.name():
            roles.append(parts[-1])
            if not words.take(","):
                break
        if roles != ["public"]:
            extra["roles"] = roles
    return Statement(kind, table[0], name, table, (), extra)


def _create_statistics(words: Words, kind: str, schema: str) -> Statement:
    name = pair(words.name(), schema)
    words.seek("from")
    return Statement(kind, *name, relation(words, schema))


def _create_server(words: Words, kind: str, schema: str) -> Statement:
    name = (words.name() or ("",))[-1]
    needs: tuple[str, ...] = ()
    if words.seek("wrapper"):
        needs = ("FOREIGN DATA WRAPPER " + (words.name() or ("",))[-1], ANY_EXTENSION)
    return Statement(kind, "", name, None, needs)


_IN_SCHEMA: Final = frozenset(
    ("DOMAIN", "AGGREGATE", "COLLATION", "CONVERSION", "SEQUENCE", "OPERATOR CLASS",
     "OPERATOR FAMILY", "TEXT SEARCH PARSER", "TEXT SEARCH DICTIONARY", "TEXT SEARCH TEMPLATE",
     "TEXT SEARCH CONFIGURATION")
)  # fmt: skip
_CREATED: Final = _IN_SCHEMA | {
    "SCHEMA", "DATABASE", "ROLE", "TABLESPACE", "PROCEDURAL LANGUAGE", "FOREIGN DATA WRAPPER", "USER MAPPING",
    "CAST", "TRANSFORM", "ACCESS METHOD", "EVENT TRIGGER", "PUBLICATION", "SUBSCRIPTION",
}  # fmt: skip
_CREATE: Final[Mapping[str, Callable[[Words, str, str], Statement]]] = {
    "TABLE": _create_table,
    "FOREIGN TABLE": _create_table,
    "TYPE": _create_type,
    "VIEW": _create_view,
    "MATERIALIZED VIEW": _create_view,
    "EXTENSION": _create_extension,
    "FUNCTION": _create_routine,
    "PROCEDURE": _create_routine,
    "OPERATOR": _create_operator,
    "INDEX": _create_index,
    "TRIGGER": _create_on,
    "RULE": _create_on,
    "POLICY": _create_on,
    "STATISTICS": _create_statistics,
    "SERVER": _create_server,
}
