"""Which sections of a PostgreSQL dump make one table by itself. Knows nothing of where sections stand."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from holdfast.formats.dumps.core.catalogue import Section
from holdfast.formats.dumps.postgresql.plain.statement import ANY_EXTENSION
from holdfast.formats.dumps.postgresql.plain.text import qualified

Table: TypeAlias = tuple[str, str]
"""(schema, name)."""

_Named: TypeAlias = tuple[str, Table]
"""(kind, (schema, name)) of an index or of statistics."""

TABLE_TYPES: Final = ("TABLE", "FOREIGN TABLE")
_RELATIONS: Final = (*TABLE_TYPES, "VIEW", "MATERIALIZED VIEW", "SEQUENCE")
_LEFT_OUT: Final = {
    "OWNER": "owner",
    "ACL": "grants",
    "FK CONSTRAINT": "foreign keys to other tables",
    "POLICY": "policies for roles",
    "TRIGGERS": "",
    "DROP": "",
    "STATISTICS DATA": "",
    "MATERIALIZED VIEW DATA": "",
}
_NOT_DEFINING: Final = frozenset(
    (*_LEFT_OUT, "SET", "META", "CONNECT", "OTHER", "COMMENT", "SEQUENCE SET", "SEQUENCE OWNED BY",
     "INDEX ATTACH", "LARGE OBJECT", "DEFAULT ACL", "PUBLICATION", "PUBLICATION TABLE", "SUBSCRIPTION",
     "EVENT TRIGGER", "DATABASE", "DATABASE PROPERTIES", "ROLE", "ROLE MEMBERSHIP", "TABLESPACE", "SCHEMA",
     "USER MAPPING", "SECURITY LABEL")
)  # fmt: skip
_NAMED: Final = frozenset(("SERVER", "FOREIGN DATA WRAPPER", "PROCEDURAL LANGUAGE"))
_IMPLICIT: Final = frozenset(("CAST", "OPERATOR CLASS"))
"""Come with the types that they mention: statements use them without naming them."""
_ALIASES: Final = frozenset(
    ("TRIGGER", "RULE", "POLICY", "VIEW", "MATERIALIZED VIEW", "FUNCTION", "PROCEDURE")
)
"""Where `a.b` may be a column of an alias, so that a name that nothing defines says nothing."""
_POSITIONAL: Final = ("search_path", "default_table_access_method")
"""Settings that differ from section to section."""
_NOT_SET: Final = frozenset((*_POSITIONAL, "default_tablespace", "session authorization"))


@dataclass(frozen=True, slots=True)
class Selection:
    """Indices of sections in the order of the dump; `schemas` that they are in; the kinds of what was left
    out, sorted; whether the dump defines the table (a dump of data alone does not); how many sections and
    names were looked at for it."""

    sections: Sequence[int]
    schemas: Sequence[str]
    left_out: Sequence[str]
    defined: bool
    cost: int


class Tables:
    """The tables of one database of a dump. `indices` are those of its sections, ascending.

    A selection costs what it selects, building this one pass.
    """

    def __init__(self, sections: Sequence[Section], indices: Iterable[int]) -> None:
        self._sections: Final = sections
        self._concerning: Final[dict[Table, list[int]]] = defaultdict(list)
        self._defining: Final[dict[str, list[int]]] = defaultdict(list)
        self._implicit: Final[dict[str, list[int]]] = defaultdict(list)
        self._children: Final[dict[Table, list[Table]]] = defaultdict(list)
        self._partitioned: Final[set[Table]] = set()
        self._extensions: Final[list[int]] = []
        self._settings: Final[list[int]] = []
        self._in_force: Final[dict[str, list[int]]] = {name: [] for name in _POSITIONAL}
        self._names: Final[dict[Table, None]] = {}
        resolvers: dict[_Named, Table] = {}
        later: list[int] = []
        head = True
        for at in indices:
            s = sections[at]
            if s.type == "SET":
                if s.name in _POSITIONAL:
                    self._in_force[s.name].append(at)
                elif head and s.name not in _NOT_SET:
                    self._settings.append(at)
                continue
            if s.type == "CONNECT":
                self._settings.clear()
                head = True
                continue
            head = head and s.type in ("META", "DROP", "OTHER")
            self._enter(at, s, resolvers, later)
        for at in later:
            self._resolve(at, resolvers)

    def _enter(self, at: int, s: Section, resolvers: dict[_Named, Table], later: list[int]) -> None:
        own = (s.schema, s.name)
        if s.table:
            self._enter_relation(s, own, s.table)
            self._concerning[s.table].append(at)
            if s.type in ("INDEX", "CONSTRAINT", "STATISTICS"):
                resolvers["STATISTICS" if s.type == "STATISTICS" else "INDEX", own] = s.table
        elif s.type == "EXTENSION":
            self._extensions.append(at)
        elif s.type in ("INDEX ATTACH", "ALTER INDEX", "ALTER STATISTICS", "COMMENT"):
            later.append(at)
        if s.type == "SEQUENCE SET" or s.type in _RELATIONS or (not s.table and s.type not in _NOT_DEFINING):
            self._defining[self._key(s)].append(at)
            for need in s.needs if s.type in _IMPLICIT else ():
                self._implicit[need].append(at)

    def _enter_relation(self, s: Section, own: Table, table: Table) -> None:
        if s.type in TABLE_TYPES or s.type == "TABLE DATA":
            self._names[table] = None
        if s.type in TABLE_TYPES:
            if s.extra.get("partitioned"):
                self._partitioned.add(own)
            if s.extra.get("partition"):
                self._children[_table(s.extra["parents"][0])].append(own)
        elif s.type == "TABLE ATTACH":
            self._children[table].append(own)

    @staticmethod
    def _key(s: Section) -> str:
        return f"{s.type} {s.name}" if s.type in _NAMED else qualified(s.schema, s.name)

    def _resolve(self, at: int, resolvers: dict[_Named, Table]) -> None:
        """Find the table of what names only an index or statistics object."""
        s = self._sections[at]
        kind = str(s.extra.get("on", "")) if s.type == "COMMENT" else s.type.split()[-1]
        name = (s.schema, s.name)
        if s.type == "INDEX ATTACH":
            kind, name = "INDEX", _table(s.extra["parent"])
        if table := resolvers.get((kind, name)):
            self._concerning[table].append(at)
        elif kind == "SEQUENCE":
            self._defining[qualified(s.schema, s.name)].append(at)

    @property
    def names(self) -> Iterable[Table]:
        """Names of the tables in the order of the dump, without views."""
        return self._names.keys()

    @property
    def settings(self) -> Sequence[int]:
        """The SET statements at the beginning of the database's dump, in order."""
        return self._settings

    def is_setting(self, at: int) -> bool:
        where = bisect_left(self._settings, at)
        return where < len(self._settings) and self._settings[where] == at

    def with_partitions(self, table: Table) -> list[Table]:
        """The table and, if it is partitioned and so has no rows itself, all partitions below it."""
        found = {table: None}
        waiting = [table]
        while waiting:
            one = waiting.pop()
            for child in self._children.get(one, ()) if one in self._partitioned else ():
                if child not in found:
                    found[child] = None
                    waiting.append(child)
        return list(found)

    def data(self, table: Table) -> list[Section]:
        """The sections of the table's own rows."""
        return [s for at in self._concerning[table] if (s := self._sections[at]).type == "TABLE DATA"]

    def columns(self, table: Table) -> list[str]:
        """The dumped columns of the table's definition; empty without a definition."""
        for at in self._concerning[table]:
            if self._sections[at].type in TABLE_TYPES:
                extra = self._sections[at].extra
                generated = set(extra.get("generated", ()))
                return [str(name) for name in extra.get("columns", ()) if name not in generated]
        return []

    def select(self, table: Table) -> Selection:
        """What makes the table, without what concerns other tables or the cluster."""
        whole = set(self.with_partitions(table))
        left_out: Counter[str] = Counter()
        chosen: dict[int, None] = {}
        for one in whole:
            self._choose_own(one, whole, chosen, left_out)
        cost = len(whole) + self._follow_needs(chosen)
        self._choose_settings(chosen)
        schemas = {self._sections[at].schema for at in chosen} - {"", "public"}
        schemas = {schema for schema in schemas if not schema.startswith("pg_")}
        defined = any(self._sections[at].type in TABLE_TYPES for at in self._concerning[table])
        return Selection(sorted(chosen), sorted(schemas), sorted(left_out), defined, cost)

    def _choose_own(
        self, table: Table, whole: set[Table], chosen: dict[int, None], left_out: Counter[str]
    ) -> None:
        mine = self._concerning[table]
        uncommented: set[tuple[str, str]] = set()
        for at in mine:  # in the order of the dump comments come later than their subjects, or with the table
            s = self._sections[at]
            if not _belongs(s, whole):
                uncommented.add((s.type.removeprefix("FK "), s.name))
                if reason := _LEFT_OUT[s.type]:
                    left_out[reason] += 1
            elif s.type != "COMMENT" or (str(s.extra.get("on")), s.name) not in uncommented:
                chosen[at] = None

    def _follow_needs(self, chosen: dict[int, None]) -> int:
        """Add the definitions of what the chosen sections mention, and so on. Of other tables that is their
        definition, never their rows. Returns how many sections and names were looked at."""
        seen: set[str] = set()
        seen_in_bodies: set[str] = set()
        cost = 0
        waiting = list(chosen)
        while waiting:
            s = self._sections[waiting.pop()]
            cost += 1 + len(s.needs) + len(s.extra.get("body", ()))
            if s.type == "SEQUENCE OWNED BY" or s.extra.get("identity"):
                self._need(qualified(s.schema, s.name), s, chosen, waiting)
            for need in s.needs:
                if need not in seen and self._need(need, s, chosen, waiting):
                    seen.add(need)
            for need in s.extra.get("body", ()):
                if need in seen_in_bodies:
                    continue
                seen_in_bodies.add(need)
                found = [
                    at for at in self._defining.get(need, ()) if self._sections[at].type not in _RELATIONS
                ]
                _add(found, chosen, waiting)
        return cost

    def _need(self, need: str, s: Section, chosen: dict[int, None], waiting: list[int]) -> bool:
        found = self._defining.get(need, [])
        if found or need in self._implicit:
            _add(found, chosen, waiting)
            _add(self._implicit.get(need, ()), chosen, waiting)
            return True
        extensions = self._extensions
        if (s.type not in _ALIASES or need == ANY_EXTENSION) and extensions and extensions[-1] not in chosen:
            _add(self._extensions, chosen, waiting)
        return False

    def _choose_settings(self, chosen: dict[int, None]) -> None:
        """Add the settings in force where each chosen section stands, if they are not the initial ones."""
        for starts in self._in_force.values():
            for at in list(chosen) if starts else ():
                before = bisect_right(starts, at)
                if before:
                    chosen[starts[before - 1]] = None


def _belongs(s: Section, whole: set[Table]) -> bool:
    if s.type == "FK CONSTRAINT":
        return _table(s.extra["to"]) in whole
    if s.type == "POLICY":
        return "roles" not in s.extra
    return s.type not in _LEFT_OUT


def _table(pair: Sequence[str]) -> Table:
    return str(pair[0]), str(pair[1])


def _add(found: Iterable[int], chosen: dict[int, None], waiting: list[int]) -> None:
    for at in found:
        if at not in chosen:
            chosen[at] = None
            waiting.append(at)
