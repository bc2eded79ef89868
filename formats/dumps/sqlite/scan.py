"""SQLite's `.dump` and Python's `iterdump` on their way in: sections, and whether the dump is whole.

Types of sections: HEAD and TAIL (the transaction around all), TABLE, TABLE DATA (INSERTs and nothing else),
INDEX, TRIGGER, VIEW, SEQUENCE SET (the rows of sqlite_sequence), STATISTICS, VIRTUAL TABLE (rows of
sqlite_schema), SHADOW TABLE and SHADOW DATA (where a virtual table, which `table` says, keeps its content),
SETTING (of the session) and SQL (anything else). The schema is "main". Sections have no gaps.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.formats.dumps.core.catalogue import Catalogue, Section
from holdfast.formats.dumps.core.client_commands import ClientCommands
from holdfast.formats.dumps.core.scan_marks import Marks
from holdfast.formats.dumps.core.weight import SECTION, names_weight
from holdfast.formats.dumps.lexer import _lexer
from holdfast.formats.dumps.sqlite.statement import columns, created, inserted

NAME: Final = "sqlite"
"""The engine's name in snapshots and catalogues."""
SCHEMA: Final = "main"
_WORD: Final = re.compile(rb"[A-Za-z]+")
_SHADOWS: Final = re.compile(
    # fts5, fts3 and fts4, rtree and geopoly
    r"(.+)_(?:data|idx|content|docsize|config|segments|segdir|stat|node|rowid|parent)\Z",
    re.S,
)
_ERROR: Final = (b"/****** CORRUPTION ERROR", b"/****** ERROR")
CUT: Final = "the dump ends within it, or it cannot be told"
_TWICE: Final = "another dump begins before COMMIT: the first one was cut off, and the other appended"
_ITERDUMP: Final = "a virtual table, which Python's iterdump writes in a form that cannot be loaded"


@dataclass(slots=True)
class _Draft:
    start: int
    type: str
    name: str = ""
    table: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class SqliteVisitor:
    """A `core.scan.Visitor`. Remembers objects and the columns of tables, no rows."""

    dialect: Final = _lexer.SQLITE
    marks: Final = Marks(heads=(b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n",), ends=(b"\nCOMMIT;\n",))

    def __init__(self) -> None:
        self.commands: Final = ClientCommands()
        self.weight = 0
        self._drafts: Final[list[_Draft]] = []
        self._comment = -1
        self._names: Final[dict[str, str]] = {}
        self._created: Final[set[str]] = set()
        self._columns: Final[dict[str, list[str]]] = {}
        self._virtual: _Draft | None = None
        self._shadows: Final[dict[str, str]] = {}
        self._left_out: Final[dict[str, str]] = {}
        self._begun = False
        self._committed = False
        self._problem = ""
        handlers: dict[bytes, Callable[[int, bytes], None]] = {
            b"PRAGMA": self._pragma,
            b"BEGIN": self._begin,
            b"COMMIT": self._end,
            b"END": self._end,
            b"ROLLBACK": self._end,
            b"CREATE": self._create,
            b"INSERT": self._insert,
            b"REPLACE": self._insert,
            b"ANALYZE": self._analyze,
            b"DELETE": self._delete,
        }
        self._handlers: Final = handlers

    def holds_command(self, kind: int, text: bytes) -> bool:
        """A zero byte ends a line for sqlite3, which may then see a dot at the beginning of the next."""
        return b"\0" in text.rstrip(b"\0")

    def comment(self, start: int, end: int, text: bytes) -> None:
        if text.startswith(_ERROR):
            self._problem = self._problem or "sqlite3 reports that the database it came from is damaged"
        if self._comment < 0:
            self._comment = start

    def meta(self, start: int, end: int, text: bytes) -> None:
        """There is none in this dialect."""

    def statement(self, start: int, end: int, text: bytes) -> None:
        first = _WORD.match(text)
        handler = self._handlers.get(first[0].upper()) if first else None
        if handler:
            handler(start, text)
        else:
            self._add(start, "SQL", "")
        if end - start > len(text):
            # The rest was not seen: no columns that are known to be all of them.
            last = self._drafts[-1]
            last.extra.pop("columns", None)
            self._columns.pop(last.name, None)

    def rows(self, start: int, end: int, lead: bytes) -> None:
        name, names = inserted(lead)
        if name in ("sqlite_schema", "sqlite_master"):
            self._virtual = self._add(start, "VIRTUAL TABLE", "")
        elif name == "sqlite_sequence":
            self._add(start, "SEQUENCE SET", name)
        elif name.startswith("sqlite_stat"):
            self._add(start, "STATISTICS", name)
        elif name in self._shadows:
            self._add(start, "SHADOW DATA", name, self._shadows[name])
        else:
            if self._virtual and not self._virtual.name and self._fold(name) not in self._names:
                self._name_virtual(self._virtual, name)
                self._left_out[name] = _ITERDUMP
            draft = self._add(start, "TABLE DATA", name, self._declared(name))
            self.weight += names_weight(names)
            draft.extra = {"rows": "insert", "columns": list(names) or self._columns.get(name, [])}

    def finish(self, size: int, unfinished: str) -> Catalogue:
        if self._begun and not self._committed:
            # What is cut off may be the name of a table too.
            bound = [draft for draft in self._drafts if draft.table is not None]
            defined = [draft for draft in bound if draft.type in ("TABLE", "VIRTUAL TABLE")]
            for draft in bound[-1:] + defined[-1:]:
                self._left_out[draft.table or ""] = CUT
        return Catalogue(
            engine=NAME,
            form="sql",
            sections=self._sections(size),
            fault=self._fault(unfinished),
            extra={"left_out": [[SCHEMA, *left_out] for left_out in self._left_out.items()]}
            if self._left_out
            else {},
        )

    def _fault(self, unfinished: str) -> str:
        if unfinished:
            return f"it ends within {'rows' if unfinished == 'rows' else f'a {unfinished}'}"
        if self._problem:
            return self._problem
        if not self._begun:
            return "it does not begin with BEGIN TRANSACTION, so that nothing shows where it should end"
        return "" if self._committed else "its end is missing: the last statement must be COMMIT"

    def _sections(self, size: int) -> tuple[Section, ...]:
        ends = [*(draft.start for draft in self._drafts), size][1:]
        return tuple(
            Section(
                draft.start,
                end - draft.start,
                draft.type,
                schema=SCHEMA,
                name=draft.name,
                table=None if draft.table is None else (SCHEMA, draft.table),
                extra=draft.extra,
            )
            for draft, end in zip(self._drafts, ends, strict=True)
        )

    def _add(self, start: int, type_: str, name: str, table: str | None = None) -> _Draft:
        """A section, or the one before if both are SQL. Comments before are its own, but never with rows."""
        if self._comment >= 0 and type_ not in ("TABLE DATA", "SHADOW DATA"):
            start = self._comment
        self._comment = -1
        if self._committed and type_ not in ("HEAD", "TAIL", "SETTING"):
            self._problem = self._problem or "it has statements behind COMMIT, outside of any transaction"
        self._committed = self._committed and type_ in ("TAIL", "SETTING")
        if type_ == "SQL" and self._drafts and self._drafts[-1].type == "SQL":
            return self._drafts[-1]
        draft = _Draft(start, type_, name, table)
        self.weight += SECTION + len(name)
        self._drafts.append(draft)
        return draft

    # ---- statements -------------------------------------------------------------------------------------

    def _pragma(self, start: int, text: bytes) -> None:
        self._add(start, "SETTING" if self._begun else "HEAD", "")

    def _begin(self, start: int, text: bytes) -> None:
        if self._begun and not self._committed:
            self._problem = self._problem or _TWICE
        self._begun = True
        self._add(start, "HEAD", "")

    def _end(self, start: int, text: bytes) -> None:
        self._add(start, "TAIL", "")
        if text[:1] in (b"R", b"r"):
            self._problem = self._problem or "it ends with ROLLBACK: sqlite3 met errors"
        if self._committed:
            self._problem = self._problem or "it has a COMMIT without BEGIN TRANSACTION before it"
        self._committed = True
        self._created.clear()

    def _analyze(self, start: int, text: bytes) -> None:
        self._add(start, "STATISTICS", "")

    def _delete(self, start: int, text: bytes) -> None:
        self._add(start, "SETTING" if b"sqlite_sequence" in text[:64] else "SQL", "")

    def _insert(self, start: int, text: bytes) -> None:
        """Handle an INSERT that the lexer does not treat as bulk rows."""
        name, _ = inserted(text)
        self._add(start, "TABLE DATA", name, self._declared(name))

    def _create(self, start: int, text: bytes) -> None:
        found = created(text)
        if found and found.kind == "TABLE":
            # The BEGIN of another dump is not seen when it stands within a statement.
            if self._fold(found.name) in self._created:
                self._problem = self._problem or _TWICE
            self._created.add(self._fold(found.name))
        if found is None:
            self._add(start, "SQL", "")
        elif found.kind != "TABLE":
            table = None if found.on is None else self._declared(found.on)
            self._add(start, found.kind, found.name, table)
        elif owner := self._owner(found.name):
            self._shadows[found.name] = owner
            self._add(start, "SHADOW TABLE", found.name, owner)
        else:
            self._virtual = None
            draft = self._add(start, "TABLE", found.name, found.name)
            self._names[self._fold(found.name)] = found.name
            names, autoincrement = columns(text)
            self.weight += names_weight(names)
            draft.extra["columns"] = self._columns[found.name] = names
            if autoincrement:
                draft.extra["autoincrement"] = True

    def _owner(self, name: str) -> str:
        """The virtual table whose content a table of this name holds, "" for none.

        The rows of sqlite_schema that make virtual tables are not at hand: their names are those of the
        tables that follow, without the ending.
        """
        found = _SHADOWS.match(name)
        if not found or not self._virtual:
            return ""
        if not self._virtual.name:
            self._name_virtual(self._virtual, found[1])
        return found[1] if self._virtual.name == found[1] else ""

    @staticmethod
    def _name_virtual(virtual: _Draft, name: str) -> None:
        virtual.name = virtual.table = name

    @staticmethod
    def _fold(name: str) -> str:
        """As SQLite compares names: without case, but of ASCII letters only."""
        return name.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")

    def _declared(self, name: str) -> str:
        return self._names.get(self._fold(name), name)
