"""mysqldump's and mariadb-dump's output on its way in: its sections, its facts, and whether it is whole.

The tools write around an object what it needs (DROP, SET, LOCK, DELIMITER) without a mark where one object
ends and the next begins, and with `--skip-comments` no comments either. So sections are cut by what
statements do: what prepares (saves a variable, sets one, drops) belongs to the object that follows, what
restores belongs to the one before. Sections have no gaps: a file may be made of any of them.

Their types: HEAD and TAIL (settings of the session, of each part when several dumps stand behind each other),
REPLICATION, DATABASE, USE, TABLE, ALTER TABLE, TRIGGER, DATA HEAD, TABLE DATA (INSERTs and nothing else),
DATA TAIL, SEQUENCE, VIEW, VIEW PLACEHOLDER, DROP, PROCEDURE, FUNCTION, PACKAGE, PACKAGE BODY, EVENT,
USER (accounts, roles, plugins: what is the server's), COMMENT and SQL (anything else).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.client_commands import ClientCommands
from holdfast.formats.dumps.core.weight import SECTION, names_weight
from holdfast.formats.dumps.lexer import _lexer
from holdfast.formats.dumps.mysql.client_lines import SANDBOX, is_command, misleads
from holdfast.formats.dumps.mysql.facts import MARKS, DumpComments
from holdfast.formats.dumps.mysql.sections import Draft, Drafts
from holdfast.formats.dumps.mysql.text import Columns, Name, Words, columns, created, inserted, unquoted

_FIRST: Final = re.compile(rb"(?:\s|/\*M?!\d*|\*/)*+([A-Za-z]+)")
_VARIABLE: Final = rb"(CHARACTER_SET|COLLATION|TIME_ZONE|UNIQUE_CHECKS|FOREIGN_KEY|SQL_MODE|SQL_NOTES|INNODB)"
_SAVES: Final = re.compile(rb"[^=']{0,60}?@(saved?_|old_)(\w*)\s*=\s*@@", re.I)
_RESTORES: Final = re.compile(rb"[^=']{0,120}=\s*@(?:saved?_|old_)", re.I)
_ENDS: Final = re.compile(rb"(?![^=]*\bSESSION\b)[^=']{0,120}=\s*@OLD_" + _VARIABLE, re.I)
_REPLICATION: Final = re.compile(
    rb"[^']{0,60}(?:SQL_LOG_BIN|GTID_PURGED|gtid_slave_pos|wsrep_start_position)", re.I
)
_ROLE: Final = re.compile(rb"[^A-Za-z]{0,20}SET\s+(?:ROLE|DEFAULT\s+ROLE|PASSWORD)\b", re.I)
_NO_CHECKS: Final = re.compile(rb"FOREIGN_KEY_CHECKS\s*=\s*0", re.I)
_SONAME: Final = re.compile(rb".*\bRETURNS\s+\w+\s+SONAME\s+'", re.I | re.S)
_HEAD: Final = 4096
_VIEWS: Final = b"/*!50001 CREATE VIEW "
_REPLICAS: Final = (b"SLAVE", b"REPLICA", b"ALL", b"GROUP_REPLICATION")
QUALIFIED: Final = "its rows name the database that they came from"
_QUALIFIER: Final = 150
"""Bytes of memory of a range that is left out."""
CUT: Final = "the dump ends within it, or it cannot be told"


class MysqlVisitor:
    """A `core.scan.Visitor`. Remembers objects and the columns of tables, no rows."""

    dialect: Final = _lexer.MYSQL
    marks: Final = MARKS

    def __init__(self) -> None:
        self.commands: Final = ClientCommands()
        self._sandbox = -1
        self._facts: Final = DumpComments()
        self._drafts: Final = Drafts()
        self._database = ""
        self._columns: Final[dict[tuple[str, str], Columns]] = {}
        self._tables: Final[dict[tuple[str, str], Draft]] = {}
        self._left_out: Final[dict[tuple[str, str], str]] = {}
        self._created: Final[set[tuple[str, str]]] = set()
        handlers: dict[bytes, Callable[[int, bytes], None]] = {
            b"SET": self._set,
            b"LOCK": self._lock,
            b"ALTER": self._alter,
            b"CREATE": self._create,
            b"DROP": self._drop,
            b"USE": self._use,
            b"INSERT": self._insert,
            b"REPLACE": self._insert,
            b"CHANGE": self._replicate,
            b"STOP": self._replicate,
            b"START": self._start,
            b"DO": self._call,
            b"SELECT": self._call,
            b"EXECUTE": self._call,
            b"FLUSH": self._user,
            b"GRANT": self._user,
            b"REVOKE": self._user,
            b"INSTALL": self._user,
            b"UNLOCK": lambda start, text: self._drafts.trail(start),
            b"COMMIT": lambda start, text: self._drafts.trail(start),
            b"BEGIN": lambda start, text: self._drafts.lead(start),
        }
        self._handlers: Final = handlers

    # ---- pieces ------------------------------------------------------------------------------------------

    @property
    def weight(self) -> int:
        return self._drafts.weight

    def holds_command(self, kind: int, text: bytes) -> bool:
        if kind == _lexer.COMMENT:
            return misleads(text)
        return kind == _lexer.STATEMENT and is_command(text)

    def comment(self, start: int, end: int, text: bytes) -> None:
        head = self._facts.comment(end, text)
        if text.startswith(SANDBOX):
            self._sandbox = start if self._sandbox < 0 else self._sandbox
            self._drafts.part(start)
        elif head is None:
            self._drafts.comment(start)
        else:
            self._drafts.part(start + head.offset)
            self._database = head.database
            self._created.clear()

    def meta(self, start: int, end: int, text: bytes) -> None:
        """Handle a DELIMITER line. Restoring the delimiter belongs to the statement before it."""
        self._facts.other()
        delimiter = text[len(b"DELIMITER") :].strip()
        if delimiter == b";":
            self._drafts.trail(start)
        else:
            self._drafts.lead(start)
        self._drafts.delimiter = delimiter.decode("utf-8", "surrogateescape")

    def statement(self, start: int, end: int, text: bytes) -> None:
        self._facts.other()
        first = _FIRST.match(text)
        handler = self._handlers.get(first[1].upper(), self._sql) if first else self._sql
        handler(start, text)
        if end - start > len(text):
            # The rest was not seen: no columns that are known to be all of them.
            self._drafts.last.extra.pop("columns", None)
            self._columns.pop(self._drafts.last.table or ("", ""), None)

    def rows(self, start: int, end: int, lead: bytes) -> None:
        self._facts.other()
        name, names = inserted(lead)
        table = self._in(name)
        if name.schema:
            self._left_out[table] = QUALIFIED
        known = self._columns.get(table)
        if names and known:
            of_bytes = known.binary_names
            binary = [at for at, column in enumerate(names) if column in of_bytes]
        else:
            names, binary = (known.names, list(known.binary)) if known else (names, [])
        draft = self._drafts.data(start, table)
        draft.extra["rows"] = "insert"
        draft.extra["columns"] = list(names)
        self._drafts.weight += names_weight(names)
        if binary:
            draft.extra["binary"] = binary

    def finish(self, size: int, unfinished: str) -> Catalogue:
        for table in self._drafts.finish(unfinished):
            self._left_out[table] = CUT
        fault = self._facts.fault(size, unfinished)
        if not fault and self._drafts.delimiter != ";":
            fault = "its last DELIMITER was not set back"
        left_out = [[*table, reason] for table, reason in self._left_out.items()]
        return Catalogue(
            engine=self._facts.engine,
            form="sql",
            sections=self._drafts.sections(size),
            fault=fault,
            facts=self._facts.facts().stored(),
            extra={
                **({"left_out": left_out} if left_out else {}),
                **({"sandbox": self._sandbox} if self._sandbox >= 0 else {}),
            },
        )

    def _in(self, name: Name) -> tuple[str, str]:
        return name.schema or self._database, name.name

    def _object(self, start: int, type_: str, name: str) -> Draft:
        return self._drafts.main(start, type_, self._database, name)

    # ---- statements --------------------------------------------------------------------------------------

    def _sql(self, start: int, text: bytes) -> None:
        self._drafts.sql(start, self._database)

    def _user(self, start: int, text: bytes) -> None:
        self._drafts.main(start, "USER", "", "")

    def _replicate(self, start: int, text: bytes) -> None:
        self._drafts.main(start, "REPLICATION", "", "")
        self._facts.position(text)

    def _set(self, start: int, text: bytes) -> None:
        drafts = self._drafts
        if _REPLICATION.match(text):
            self._replicate(start, text)
        elif _ROLE.match(text):
            self._user(start, text)
        elif saves := _SAVES.match(text):
            session = saves[1].upper() == b"OLD_" and re.match(_VARIABLE, saves[2], re.I)
            if (
                session
                and not saves[2].upper().startswith(b"SQL_")
                and drafts.objects
                and not drafts.prepared
            ):
                # A second dump behind the first, both without comments.
                drafts.part(start)
            if session and not drafts.objects:
                drafts.head(start, checks=bool(_NO_CHECKS.search(text[:_HEAD])))
            else:
                drafts.lead(start)
        elif _RESTORES.match(text):
            (drafts.tail if _ENDS.match(text) and not drafts.prepared else drafts.trail)(start)
        elif drafts.objects or drafts.prepared:
            drafts.lead(start)
        else:
            drafts.head(start, checks=bool(_NO_CHECKS.search(text[:_HEAD])))

    def _start(self, start: int, text: bytes) -> None:
        words = Words(text[:_HEAD])
        words.next()
        if words.next().upper() in _REPLICAS:
            self._replicate(start, text)
        else:
            self._drafts.lead(start)

    def _use(self, start: int, text: bytes) -> None:
        words = Words(text[:_HEAD])
        words.next()
        self._database = unquoted(words.next())
        self._object(start, "USE", self._database)

    def _lock(self, start: int, text: bytes) -> None:
        words = Words(text[:_HEAD])
        words.next()
        words.next()
        table = self._in(words.name())
        draft = self._object(start, "DATA HEAD", table[1])
        draft.table = table
        definition = self._tables.get(table)
        if definition and definition.needs:
            # MariaDB refuses to insert: the sequence that a default uses is not locked, and cannot be.
            draft.skip(start, [(0, len(text))])

    def _alter(self, start: int, text: bytes) -> None:
        words = Words(text[:_HEAD])
        words.next()
        kind = words.next().upper()
        if kind in (b"DATABASE", b"SCHEMA"):
            # The collation of the database while a trigger is made: never of another one, in a table's file.
            self._drafts.around(start, len(text))
        elif kind == b"TABLE":
            name = words.name()
            self._alter_table(start, name, words.next().upper())
        else:
            (self._user if kind in (b"USER", b"ROLE", b"SERVER") else self._sql)(start, text)

    def _alter_table(self, start: int, name: Name, action: bytes) -> None:
        table = self._in(name)
        if action == b"ENABLE":
            self._drafts.trail(start)
        elif action != b"DISABLE":
            draft = self._object(start, "ALTER TABLE", table[1])
            draft.table = table
            draft.skip(start, name.qualifier)
        elif (
            self._drafts.prepared or self._drafts.last.type != "DATA HEAD" or self._drafts.last.table != table
        ):
            self._object(start, "DATA HEAD", table[1]).table = table

    def _insert(self, start: int, text: bytes) -> None:
        """Handle an INSERT that the lexer does not treat as bulk rows."""
        name, _ = inserted(text[:_HEAD])
        if name.schema:
            self._left_out[self._in(name)] = QUALIFIED
        self._drafts.data(start, self._in(name))

    def _drop(self, start: int, text: bytes) -> None:
        words = Words(text[:_HEAD])
        words.next()
        kind = words.next().upper()
        if kind in (b"USER", b"ROLE", b"SERVER"):
            self._user(start, text)
            return
        words.accept(b"IF", b"EXISTS")
        self._drafts.lead(start)
        self._drafts.drop(words.name().name)

    def _call(self, start: int, text: bytes) -> None:
        """Handle DO SETVAL(...) or SELECT SETVAL(...) after a sequence, and the statements around roles."""
        head = text[:_HEAD].upper()
        if self._drafts.last.type == "SEQUENCE" and b"SETVAL(" in head:
            self._drafts.trail(start)
        elif b"CURRENT_ROLE" in head or b"SET ROLE" in head:
            self._user(start, text)
        else:
            self._sql(start, text)

    def _create(self, start: int, text: bytes) -> None:
        found = created(text)
        if found is None:
            self._sql(start, text)
        elif found.kind == "TABLE":
            self._create_table(start, text, found.name)
        elif found.kind == "TRIGGER" and found.on:
            draft = self._object(start, "TRIGGER", found.name.name)
            draft.table = self._database, found.on.name  # a trigger is in its table's database
            draft.skip(start, found.name.qualifier + found.on.qualifier)
        elif found.kind in ("DATABASE", "SCHEMA"):
            self._database = found.name.name
            self._object(start, "DATABASE", self._database)
        elif found.kind in ("USER", "ROLE", "SERVER") or _SONAME.match(text[:_HEAD]):
            self._user(start, text)
        elif found.kind == "VIEW":
            self._create_view(start, text, self._in(found.name))
        elif found.kind in ("INDEX", "TABLESPACE", "LOGFILE"):
            self._sql(start, text)
        else:
            self._object(start, found.kind, found.name.name).skip(start, found.name.qualifier)

    def _create_table(self, start: int, text: bytes, its: Name) -> None:
        table = self._in(its)
        if table in self._created:
            self._facts.begins_again()
        self._created.add(table)
        here = self._database
        has = columns(text)
        draft = self._object(start, "TABLE", table[1])
        draft.table = table
        draft.needs = tuple(
            f"{schema or here}.{name}" if here else f".{name}" for schema, name in has.sequences
        )
        draft.skip(start, its.qualifier + has.qualifiers)
        draft.extra["columns"] = list(has.names)
        self._drafts.weight += names_weight(has.names) + names_weight(draft.needs) + SECTION
        self._drafts.weight += _QUALIFIER * len(has.qualifiers)
        self._columns[table] = has
        self._tables[table] = draft

    def _create_view(self, start: int, text: bytes, view: tuple[str, str]) -> None:
        # Before 5.7 the tools wrote a table in its place, until all tables are there.
        if placeholder := self._tables.pop(view, None):
            placeholder.type, placeholder.table = "VIEW PLACEHOLDER", None
        self._object(start, "VIEW PLACEHOLDER" if text.startswith(_VIEWS) else "VIEW", view[1])
