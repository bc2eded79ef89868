"""The files that a PostgreSQL dump is shown as: `schema.sql`, `globals.sql`, `tables/SCHEMA.TABLE.sql`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.base.errors import Damaged, Refused
from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Catalogue, Section
from holdfast.formats.dumps.core.names import file_name
from holdfast.formats.dumps.core.virtual_file import VirtualFile, VirtualRange, stored_range, text
from holdfast.formats.dumps.postgresql.plain.tables import Selection, Table, Tables
from holdfast.formats.dumps.postgresql.plain.text import quoted
from holdfast.formats.dumps.rows.copy_to_csv import (
    copy_rows,
    copy_to_csv,
    csv_header,
)
from holdfast.formats.dumps.rows.postgres_insert_to_csv import insert_rows, insert_to_csv

_DATA: Final = frozenset(
    ("TABLE DATA", "SEQUENCE SET", "LARGE OBJECT", "MATERIALIZED VIEW DATA", "STATISTICS DATA", "TRIGGERS")
)
_BUDGET: Final = 2_000_000
"""Sections and names that are looked at for the files of all tables: each may need the same ones."""
_UNSAFE: Final = frozenset(("SJIS", "SHIFTJIS2004", "BIG5", "GBK", "GB18030", "JOHAB", "UHC"))
"""Encodings of clients only, in which the second byte of a character may be a backslash."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's rows in the stored stream. `kind` is "copy" or "insert" (see `copy_rows`), `ranges` are
    (start, length). `refused` says why they cannot be had as one list, "" if they can."""

    columns: Sequence[str]
    kind: str
    ranges: Sequence[tuple[int, int]]
    refused: str = ""


def files(catalogue: Catalogue, size: int, *, budget: int = _BUDGET) -> dict[str, VirtualFile]:
    """All files of a dump of `size` bytes, by path. In time linear in what they are made of; tables for
    which that is too much (millions of sections, all together) have no file.

    With several databases (pg_dumpall) `DATABASE.schema.sql` and `tables/DATABASE/SCHEMA.TABLE.sql`.
    """
    sections = catalogue.sections
    found: dict[str, VirtualFile] = {}
    several = _several(catalogue)
    for database, (start, end) in _regions(catalogue, size).items():
        if several and not database:
            found["globals.sql"] = VirtualFile(_globals(sections, start, end))
            continue
        name = f"{file_name(database)}.schema.sql" if several else "schema.sql"
        found[name] = VirtualFile(_schema(sections, start, end, size))
    settings: list[VirtualRange] = []
    before: Tables | None = None
    for path, tables, table in _tables(catalogue):
        if tables is not before:
            settings = list(_stored_ranges(sections, tables.settings))
            before = tables
        selection = tables.select(table)
        budget -= selection.cost + len(settings)
        if budget < 0:
            break
        found[path + ".sql"] = VirtualFile(_table_file(sections, tables, selection, settings))
    return found


def table_rows(catalogue: Catalogue) -> dict[str, Rows]:
    """The rows of each table, by the path of its file without ".sql": "tables/public.orders"."""
    encoding = str(catalogue.extra.get("encoding", "")).upper().replace("_", "")
    refused = (
        f"its rows are in {encoding}, whose characters may hold backslashes" if encoding in _UNSAFE else ""
    )
    found: dict[str, Rows] = {}
    budget = _BUDGET
    for path, tables, table in _tables(catalogue):
        whole = tables.with_partitions(table)
        budget -= len(whole)
        if budget < 0:
            break
        found[path] = _rows(tables, whole, refused)
    return found


def csv(rows: Rows, read: Callable[[int, int], Iterable[Buffer]]) -> Iterator[bytes]:
    """A table as CSV with a header line; `read(start, length)` gives a range of the stored stream.

    Raises Refused when the rows cannot be one list, and as `copy_rows` and `insert_rows` do.
    """
    if rows.refused:
        raise Refused(f"this table cannot be written as CSV: {rows.refused}")
    if not rows.ranges:
        yield csv_header(rows.columns)
    for at, (start, length) in enumerate(rows.ranges):
        data = read(start, length)
        if rows.kind == "copy":
            yield from copy_rows(rows.columns, data) if at else copy_to_csv(rows.columns, data)
        else:
            yield from insert_rows(rows.columns, data) if at else insert_to_csv(rows.columns, data)


def _several(catalogue: Catalogue) -> bool:
    return bool(catalogue.extra.get("cluster")) or len({s.database for s in catalogue.sections} - {""}) > 1


def _tables(catalogue: Catalogue) -> Iterator[tuple[str, Tables, Table]]:
    """(path without ending, the database's tables, table) for all."""
    sections = catalogue.sections
    several = _several(catalogue)
    databases: dict[str, list[int]] = {}
    for at, section in enumerate(sections):
        databases.setdefault(section.database if several else "", []).append(at)
    for database, indices in databases.items():
        folder = f"tables/{file_name(database)}/" if several else "tables/"
        tables = Tables(sections, indices)
        for table in tables.names:
            yield folder + file_name(*table), tables, table


# ---- schema.sql, globals.sql ----------------------------------------------------------------------------


def _regions(catalogue: Catalogue, size: int) -> dict[str, tuple[int, int]]:
    """The sections [start, end) of each database, "" for what is before all; all are "" when the dump is
    of one database."""
    sections = catalogue.sections
    if not _several(catalogue):
        return {"": (0, len(sections))}
    regions: dict[str, tuple[int, int]] = {}
    for at, section in enumerate(sections):
        start, _ = regions.get(section.database, (at, at))
        regions[section.database] = (start, at + 1)
    return regions


def _schema(sections: Sequence[Section], start: int, end: int, size: int) -> Iterator[VirtualRange]:
    """Everything between the beginning of the first section and the end of the last but the data."""
    at = sections[start].start if start else 0
    for section in sections[start:end]:
        if section.type in _DATA:
            yield stored_range(at, section.start - at)
            at = section.start + section.length
    stop = sections[end].start if end < len(sections) else size
    yield stored_range(at, stop - at)


def _globals(sections: Sequence[Section], start: int, end: int) -> Iterator[VirtualRange]:
    """Roles, tablespaces, memberships. Not `DROP DATABASE` (of pg_dumpall --clean): who loads the roles
    does not expect to lose databases."""
    chosen = [at for at in range(start, end) if sections[at].extra.get("on") != "DATABASE"]
    return _stored_ranges(sections, chosen)


# ---- tables ---------------------------------------------------------------------------------------------


def _table_file(
    sections: Sequence[Section], tables: Tables, selection: Selection, settings: Iterable[VirtualRange]
) -> Iterator[VirtualRange]:
    yield text(_head(selection.left_out, defined=selection.defined))
    yield from settings
    for schema in selection.schemas:
        yield text(b"CREATE SCHEMA IF NOT EXISTS " + quoted(schema) + b";\n")
    yield from _stored_ranges(sections, [at for at in selection.sections if not tables.is_setting(at)])


def _head(left_out: Sequence[str], *, defined: bool) -> bytes:
    """One line of comment, of fixed words only: names could end it."""
    if not defined:
        return b"-- One table's rows; the dump does not hold its definition.\n\n"
    if not left_out:
        return b"-- One table, with what it needs.\n\n"
    return f"-- One table, with what it needs. Left out, see schema.sql: {', '.join(left_out)}.\n\n".encode()


def _stored_ranges(sections: Sequence[Section], indices: Iterable[int]) -> Iterator[VirtualRange]:
    """These sections, each followed by a blank line; neighbours with all that stands between them."""
    start = end = last = -1
    for at in indices:
        section = sections[at]
        if at != last + 1 or start < 0:
            if start >= 0:
                yield stored_range(start, end - start)
                yield _BLANK
            start = section.start
        end = section.start + section.length
        last = at
    if start >= 0:
        yield stored_range(start, end - start)
        yield _BLANK


_BLANK: Final = text(b"\n\n")


def _rows(tables: Tables, whole: Sequence[Table], refused: str) -> Rows:
    """Rows of the first of these tables and of its partitions, the other tables."""
    data = [s for one in whole for s in tables.data(one)]
    ranges = sorted(_data_of(s) for s in data if "data" in s.extra)
    forms: dict[tuple[tuple[str, ...], str], None] = {}
    for s in data:
        forms[tuple(map(str, s.extra.get("columns", ()))), str(s.extra.get("rows", ""))] = None
    if not forms:
        return Rows(tables.columns(whole[0]), "copy", ())
    columns, kind = next(iter(forms))
    if not kind:
        refused = "its rows are not in the form that pg_dump writes"
    elif len(forms) > 1:
        refused = "its parts have their columns in different orders: take each partition by itself"
    return Rows(columns, kind, ranges, refused)


def _data_of(s: Section) -> tuple[int, int]:
    start, length = int(s.extra["data"][0]), int(s.extra["data"][1])
    if not s.start <= start <= start + length <= s.start + s.length:
        raise Damaged("catalogue of a dump", "rows lie outside of their section", offset=s.start)
    return start, length
