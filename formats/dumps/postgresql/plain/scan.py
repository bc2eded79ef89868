"""Plain SQL of pg_dump, pg_dumpall and pg_restore: its sections as it streams in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from holdfast.formats.dumps.core.catalogue import Catalogue, Section
from holdfast.formats.dumps.core.client_commands import ClientCommands
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.core.scan_marks import Marks
from holdfast.formats.dumps.core.weight import SECTION, names_weight
from holdfast.formats.dumps.lexer import _lexer
from holdfast.formats.dumps.postgresql.plain.client_lines import (
    RESTRICT,
    is_command,
    is_connect,
    is_restrict,
    misleads,
)
from holdfast.formats.dumps.postgresql.plain.marks import HEAD, MARKS, NAME, TRAILER, trailer_line
from holdfast.formats.dumps.postgresql.plain.statement import Statement, classify
from holdfast.formats.dumps.postgresql.plain.text import as_text

_SERVER: Final = re.compile(rb"^-- Dumped from database version ([^\r\n]{1,200})", re.M)
_TOOL: Final = re.compile(rb"^-- Dumped by (pg_dump) version ([^\r\n]{1,200})", re.M)
_CONNECT: Final = re.compile(rb"\\c(?:onnect)?\s+(?:-reuse-previous=\w+\s+)?(.+)", re.S)
_FLOATING: Final = frozenset(("SET", "META", "DROP", "OTHER"))
"""What belongs to the database that is connected to, or created, next."""


class PostgresVisitor:
    """Makes the catalogue of one dump (see `core.scan.Visitor`) of form "sql".

    A section is a statement with the comment before it. Types are those of `plain.statement`, and CONNECT
    and META for lines to psql; the `extra` of those that pg_dump writes has line, the bytes of the line, with
    which the section ends. TABLE DATA's `extra` has columns, rows and data: [start, length] of the rows,
    for COPY with the closing line, for INSERT whole statements; statements that follow each other for one
    table are one section. The catalogue's `extra`: cluster (True for pg_dumpall), encoding, restricted (True
    when it has `\\restrict`, or commands that no dump has).
    """

    dialect: int = _lexer.POSTGRESQL
    marks: Marks = MARKS

    def __init__(self) -> None:
        self.commands: Final = ClientCommands()
        self.weight = 0
        self._sections: list[Section] = []
        self._comment: tuple[int, int] | None = None
        self._database = ""
        self._schema = ""
        self._floating = 0
        self._server = self._tool = ""
        self._encodings: set[str] = set()
        self._tables: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._found_columns: dict[tuple[str, str] | None, list[str]] = {}
        self._is_cluster = False
        self._heads = self._trailers = 0
        self._last: str = ""
        self._restricted = b""
        self._is_restricted = False
        self._twice = False

    def holds_command(self, kind: int, text: bytes) -> bool:
        if kind == _lexer.META:
            return is_command(text)
        return kind == _lexer.STATEMENT and misleads(text)

    def comment(self, start: int, end: int, text: bytes) -> None:
        self._comment = (start, end)
        if head := HEAD.search(text):
            self._is_cluster = self._is_cluster or bool(head[1])
            self._heads += not head[1]
            self._forget_tables()
        if not self._server and (server := _SERVER.search(text)):
            self._server = as_text(server[1])
        if not self._tool and (tool := _TOOL.search(text)):
            self._tool = as_text(b" ".join(tool.groups()))
        trailer = TRAILER.search(text)
        self._last = ""
        if trailer:
            self._last = "cluster" if trailer[1] else "database"
            self._trailers += not trailer[1]
            self._floating = len(self._sections)

    def statement(self, start: int, end: int, text: bytes) -> None:
        found = classify(text, self._schema)
        if found.type == "SET":
            self._schema = str(found.extra.get("search_path", self._schema))
            if found.name == "client_encoding":
                self._encodings.add(found.extra["value"])
        elif found.type in ("TABLE", "TYPE") and found.extra:
            self._twice = self._twice or (
                (found.schema, found.name) in self._tables and found.type == "TABLE"
            )
            self._tables[found.schema, found.name] = found.extra
            self._found_columns.clear()
        elif found.type == "TABLE DATA" and found.extra["rows"] == "insert":
            self._add_inserts(start, end, found)
            return
        if found.type == "DATABASE":
            self._enter(found.name)
        if found.type in ("LARGE OBJECT", "OTHER") and self._merge(end, found):
            return
        self._add(start, end, found)

    def meta(self, start: int, end: int, text: bytes) -> None:
        line = text.strip()
        if connect := _CONNECT.fullmatch(line):
            self._forget_tables()
            self._enter(_database_name(connect[1]))
            extra = {"line": end - start} if is_connect(text) else {}
            self._add(start, end, Statement("CONNECT", "", self._database, extra=extra))
            return
        last = self._last
        own = is_restrict(text)
        self._is_restricted = self._is_restricted or own
        extra = {"line": end - start} if own or is_connect(text) else {}
        self._add(start, end, Statement("META", "", RESTRICT if own else "", extra=extra))
        command, _, key = line.partition(b" ")
        if command == b"\\restrict":
            self._restricted = key
        elif command == b"\\unrestrict" and key == self._restricted:
            self._restricted = b""
            self._last = last
            self._floating = len(self._sections)

    def rows(self, start: int, end: int, lead: bytes) -> None:
        if lead:
            self._add_inserts(start, end, classify(lead, self._schema))
            return
        copy = self._sections[-1]
        data = [start, end - start]
        self._sections[-1] = copy._replace(length=end - copy.start, extra={**copy.extra, "data": data})

    def finish(self, size: int, unfinished: str) -> Catalogue:
        return Catalogue(
            engine=NAME,
            form="sql",
            sections=tuple(self._sections),
            fault=self._fault(unfinished),
            facts=DumpFacts(server=self._server, tool=self._tool).stored(),
            extra={
                "cluster": self._is_cluster,
                "encoding": self._encodings.pop() if len(self._encodings) == 1 else "",
                **({"restricted": True} if self._is_restricted or self.commands.count else {}),
            },
        )

    def _fault(self, unfinished: str) -> str:
        wanted = "cluster" if self._is_cluster else "database"
        trailer = trailer_line(cluster=self._is_cluster)
        if unfinished:
            within = unfinished if unfinished == "rows" else f"a {unfinished}"
            return f'the dump ends within {within}; its last line, "{trailer}", is missing'
        if self._last != wanted:
            return f'the dump does not end with "{trailer}"'
        if self._restricted:
            return "the dump ends before its last line, \\unrestrict"
        if self._heads != self._trailers:
            return f"{self._heads} dumps of databases begin, {self._trailers} are complete"
        if self._twice:
            return "a table is created twice: the dump was cut off, and another one appended"
        return ""

    # ---- sections ---------------------------------------------------------------------------------------

    def _add(self, start: int, end: int, found: Statement) -> None:
        if self._comment:
            start = self._comment[0]
        self._comment = None
        self._last = ""
        self.weight += _weight(found)
        self._sections.append(
            Section(
                start,
                end - start,
                found.type,
                self._database,
                found.schema,
                found.name,
                found.table,
                found.needs,
                found.extra,
            )
        )
        if found.type not in _FLOATING:
            self._floating = len(self._sections)

    def _merge(self, end: int, found: Statement) -> bool:
        """Make it part of the section before, if that is of the same kind: there is one section for all
        large objects, one for a table's rows and one for what is not known, whatever statements they take."""
        if not self._sections:
            return False
        before = self._sections[-1]
        if found.type == "OTHER" and len(self._sections) == self._floating:
            return False  # that one is of the database before
        if (before.type, before.table, before.database) != (found.type, found.table, self._database):
            return False
        extra = before.extra
        if found.type == "TABLE DATA":
            same = extra["columns"] is found.extra["columns"] or extra["columns"] == found.extra["columns"]
            if not same or extra["rows"] != found.extra["rows"]:
                return False
            extra = {**extra, "data": [extra["data"][0], end - extra["data"][0]]}
        self._sections[-1] = before._replace(length=end - before.start, extra=extra)
        self._comment = None
        self._last = ""
        return True

    def _add_inserts(self, start: int, end: int, found: Statement) -> None:
        columns = found.extra["columns"] or self._known_columns(found.table)
        found = found._replace(extra={**found.extra, "columns": columns})
        if not self._merge(end, found):
            extra = {**found.extra, "data": [start, end - start]}
            self._add(start, end, found._replace(extra=extra))

    def _forget_tables(self) -> None:
        self._tables.clear()
        self._found_columns.clear()

    def _known_columns(self, table: tuple[str, str] | None) -> list[str]:
        """As `_columns`. Remembered: there may be ancestors by the thousand, and a run of rows for each
        row."""
        if table not in self._found_columns:
            self._found_columns[table] = self._columns(table)
        return self._found_columns[table]

    def _columns(self, table: tuple[str, str] | None) -> list[str]:
        """A table's columns in order, those of its parents or type first; empty if they are not known."""
        order: dict[tuple[str, str], None] = {}
        waiting = [table] if table else []
        while waiting:
            one = waiting.pop()
            order.pop(one, None)  # ancestors behind their descendants, whatever the way
            order[one] = None
            extra = self._tables.get(one, {})
            parents = [*extra.get("parents", ()), *([extra["of"]] if "of" in extra else ())]
            if len(order) <= _ANCESTORS:
                waiting.extend(parent for parent in parents if parent not in order)
        columns: dict[str, None] = {}
        for one in reversed(order):
            columns.update(dict.fromkeys(self._tables.get(one, {}).get("columns", ())))
        return list(columns)

    def _enter(self, database: str) -> None:
        """What follows is of this database; so are the settings just before."""
        for at in range(self._floating, len(self._sections)):
            self._sections[at] = self._sections[at]._replace(database=database)
        self._database = database
        self._floating = len(self._sections)


_ANCESTORS: Final = 1000


def _weight(found: Statement) -> int:
    lists = (found.extra[name] for name in _LISTS if name in found.extra)
    names = SECTION + len(found.schema) + len(found.name) + names_weight(found.needs)
    return names + sum(map(names_weight, lists))


_LISTS: Final = ("columns", "generated", "body", "roles", "parents")


def _database_name(argument: bytes) -> str:
    """The database that `\\connect` names: a plain word or "dbname='...'"."""
    word = argument.strip()
    if word[:1] == b'"':
        word = word.strip(b'"').replace(b'""', b'"')
        if word.startswith(b"dbname="):
            value = word.removeprefix(b"dbname=")
            word = re.sub(rb"\\(.)", rb"\1", value.strip(b"'"), flags=re.S)
    return as_text(word)
