"""What a statement of a PostgreSQL dump does, told from its own text.

The comments that pg_dump puts before its statements are not asked: names may hold what ends a comment's
field ("; Type: ", until 2012 newlines too), and `--no-comments` or other tools leave them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from holdfast.formats.dumps.postgresql.plain.create import (
    ANY_EXTENSION,
    Statement,
    create,
    kind_of,
    pair,
    relation,
)
from holdfast.formats.dumps.postgresql.plain.text import STRING, WORD, Words, mentions, parts_of, qualified

__all__ = ["ANY_EXTENSION", "Statement", "classify"]


def classify(text: bytes, default_schema: str = "") -> Statement:
    """Classify the first statement in `text`; `needs` covers the whole text.

    `default_schema` is that of names without one: "" when the dump's search_path is empty.
    """
    words = Words(text)
    handler = _VERBS.get(words.advance().text)
    found = handler(words, default_schema) if handler else Statement("OTHER")
    if found.type in _NEEDLESS:
        return found
    names, bodies = mentions(text, default_schema=default_schema)
    own = qualified(found.schema, found.name)
    needs = tuple(name for name in (*names, *found.needs) if name != own)
    if found.type in _ROUTINES and bodies:
        return found._replace(needs=needs, extra={**found.extra, "body": bodies})
    return found._replace(needs=needs)


_NEEDLESS: Final = frozenset(
    (
        "SET",
        "TABLE DATA",
        "SEQUENCE SET",
        "COMMENT",
        "OWNER",
        "ACL",
        "LARGE OBJECT",
        "DROP",
        "STATISTICS DATA",
    )
)
_ROUTINES: Final = ("FUNCTION", "PROCEDURE")

# ---- ALTER ----------------------------------------------------------------------------------------------

_TABLES: Final = ("TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW")


def _alter(words: Words, schema: str) -> Statement:  # noqa: PLR0911 # a table of kinds
    kind = kind_of(words)
    if kind in _ALTER_FIXED:
        return Statement(_ALTER_FIXED[kind])
    guarded = bool(words.take("if"))
    words.take("exists")
    name = relation(words, schema)
    if kind in _TABLES:
        return _alter_table(words, name, schema, guarded=guarded)
    if kind in _ALTER_GLOBAL:
        return Statement(_ALTER_GLOBAL[kind], "", name[1])
    action = words.seek("owner", "owned", "attach", "add", "set", "depends", "alter", ";")
    if action == "owner":
        return Statement("OWNER", *name, extra={"on": kind})
    if action == "owned" and words.take("by"):
        parts = words.name()
        return Statement("SEQUENCE OWNED BY", *name, pair(parts[:-1], schema) if len(parts) > 1 else None)
    if action == "attach" and words.take("partition"):
        return Statement("INDEX ATTACH", *pair(words.name(), schema), extra={"parent": name})
    return Statement(f"ALTER {kind}", *name)


_ALTER_FIXED: Final = {"DEFAULT PRIVILEGES": "DEFAULT ACL", "LARGE OBJECT": "LARGE OBJECT"}
_ALTER_GLOBAL: Final = {
    "DATABASE": "DATABASE PROPERTIES",
    "ROLE": "ROLE",
    "TABLESPACE": "TABLESPACE",
    "SUBSCRIPTION": "SUBSCRIPTION",
    "PUBLICATION": "PUBLICATION TABLE",
}


def _alter_table(words: Words, table: tuple[str, str], schema: str, *, guarded: bool) -> Statement:  # noqa: PLR0911 # a table of actions
    action = words.advance().text
    if action == "owner":
        return Statement("OWNER", *table, table, extra={"on": "TABLE"})
    if action == "add" and words.take("constraint"):
        return _add_constraint(words, table, schema)
    if action == "attach":
        words.take("partition")
        return Statement("TABLE ATTACH", *relation(words, schema), table)
    if action == "alter":
        return _alter_column(words, table, schema, guarded=guarded)
    if action in ("enable", "disable", "force", "no"):
        what = words.seek("row", "trigger", "rule", ";")
        if what == "trigger" and words.take("all"):
            return Statement("TRIGGERS", *table, table)
        return Statement("ROW SECURITY" if what == "row" else "ALTER TABLE", *table, table)
    return Statement("DROP" if action == "drop" or guarded else "ALTER TABLE", *table, table)


def _add_constraint(words: Words, table: tuple[str, str], schema: str) -> Statement:
    name = (words.name() or ("",))[-1]
    kind = words.advance().text
    if kind == "foreign":
        words.seek("references")
        return Statement("FK CONSTRAINT", table[0], name, table, (), {"to": relation(words, schema)})
    if kind == "exclude" and words.take("using"):
        method = words.name()
        needs = () if method[-1:] in (("btree",), ("hash",)) else (ANY_EXTENSION,)
        return Statement("CONSTRAINT", table[0], name, table, needs)
    return Statement("CHECK CONSTRAINT" if kind == "check" else "CONSTRAINT", table[0], name, table)


def _alter_column(words: Words, table: tuple[str, str], schema: str, *, guarded: bool) -> Statement:
    words.take("column")
    column = words.advance().text
    action = words.advance().text
    if action == "drop" or guarded:
        return Statement("DROP", *table, table)
    if action == "set" and words.take("default"):
        return Statement("DEFAULT", table[0], column, table)
    if action == "add" and words.take("generated"):
        words.seek("identity")
        if words.take("(") and words.take("sequence") and words.take("name"):
            return Statement("SEQUENCE", *pair(words.name(), schema), table, (), {"identity": True})
    return Statement("ALTER TABLE", *table, table)


# ---- other verbs ----------------------------------------------------------------------------------------


def _comment(words: Words, schema: str) -> Statement:
    words.take("on")
    kind = kind_of(words)
    if kind == "LARGE OBJECT":
        return Statement(kind)
    extra = {"on": kind}
    parts = words.name()
    if kind in ("CONSTRAINT", "TRIGGER", "RULE", "POLICY") and words.take("on"):
        if words.take("domain"):
            return Statement("COMMENT", *pair(words.name(), schema), extra={"on": "DOMAIN"})
        table = relation(words, schema)
        return Statement("COMMENT", table[0], parts[-1] if parts else "", table, (), extra)
    if kind == "COLUMN":
        table = pair(parts[:-1], schema)
        return Statement("COMMENT", *table, table, (), extra)
    if kind in _TABLES:
        return Statement("COMMENT", *pair(parts, schema), pair(parts, schema), (), extra)
    return Statement("COMMENT", *pair(parts, schema), None, (), extra)


def _grant(words: Words, schema: str) -> Statement:
    if words.seek("on", "to", "from") != "on":
        return Statement("ROLE MEMBERSHIP")
    kind = kind_of(words) if words.next.kind == WORD and words.next.text in _GRANTED else "TABLE"
    if kind == "LARGE OBJECT":
        return Statement(kind)
    name = pair(words.name(), schema)
    return Statement("ACL", *name, name if kind == "TABLE" else None, (), {"on": kind})


_GRANTED: Final = frozenset(
    ("table", "sequence", "database", "domain", "foreign", "function", "procedure", "routine", "language",
     "large", "parameter", "schema", "tablespace", "type", "all")
)  # fmt: skip


def _select(words: Words, schema: str) -> Statement:
    words.take("*")
    words.take("from")
    function = (words.name() or ("",))[-1]
    words.take("(")
    argument = words.advance()
    literal = argument.text[1:-1].replace("''", "'") if argument.kind == STRING else ""
    if function == "setval":
        parts = parts_of(literal.encode("utf-8", "surrogateescape"))
        return Statement("SEQUENCE SET", *pair(parts, schema))
    if function == "set_config":
        words.take(",")
        value = words.advance().text[1:-1]
        return Statement("SET", "", literal, extra={"search_path": value} if literal == "search_path" else {})
    if function in ("lo_create", "lo_open", "lo_unlink", "lowrite", "lo_close", "lo_from_bytea", "lo_put"):
        return Statement("LARGE OBJECT")
    return Statement("STATISTICS DATA" if function.startswith("pg_restore_") else "OTHER")


def _set(words: Words, schema: str) -> Statement:
    name = words.advance().text
    if name == "session" and words.take("authorization"):
        return Statement("SET", "", "session authorization")
    words.take("to", "=")
    value = words.advance()
    first = value.text.strip("'") if value.kind == STRING else value.text
    if name == "search_path":
        return Statement("SET", "", name, extra={"search_path": first})
    return Statement("SET", "", name, extra={"value": first} if name == "client_encoding" else {})


def _drop(words: Words, schema: str) -> Statement:
    return Statement("DROP", extra={"on": kind_of(words)})


def _copy(words: Words, schema: str) -> Statement:
    table = pair(words.name(), schema)
    columns = words.list()
    plain = words.take("from") and words.take("stdin") and words.take(";")
    return Statement("TABLE DATA", *table, table, (), {"columns": columns, "rows": "copy" if plain else ""})


def _insert(words: Words, schema: str) -> Statement:
    words.take("into")
    table = pair(words.name(), schema)
    return Statement("TABLE DATA", *table, table, (), {"columns": words.list(), "rows": "insert"})


def _refresh(words: Words, schema: str) -> Statement:
    words.skip(("materialized", "view", "concurrently"))
    view = pair(words.name(), schema)
    return Statement("MATERIALIZED VIEW DATA", *view, view)


def _always(type_: str) -> Callable[[Words, str], Statement]:
    return lambda words, schema: Statement(type_)


_VERBS: Final[Mapping[str, Callable[[Words, str], Statement]]] = {
    "create": create,
    "alter": _alter,
    "comment": _comment,
    "grant": _grant,
    "revoke": _grant,
    "select": _select,
    "set": _set,
    "reset": _set,
    "copy": _copy,
    "insert": _insert,
    "refresh": _refresh,
    "drop": _drop,
    "begin": _always("LARGE OBJECT"),
    "commit": _always("LARGE OBJECT"),
    "security": _always("SECURITY LABEL"),
}
