"""The files that a dump of SQLite as text is shown as: `schema.sql` and `tables/main.TABLE.sql`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from holdfast.formats.dumps.core.catalogue import Catalogue, Section
from holdfast.formats.dumps.core.names import file_name
from holdfast.formats.dumps.core.virtual_file import VirtualFile, VirtualRange, stored_range, text
from holdfast.formats.dumps.lexer import _lexer
from holdfast.formats.dumps.rows.insert_to_csv import Rows
from holdfast.formats.dumps.sqlite.scan import SCHEMA

_DEFINITIONS: Final = frozenset(("TABLE", "INDEX", "TRIGGER", "VIEW", "SQL"))
_VIRTUAL: Final = text(b"-- Virtual tables are left out: each has its own file, with all it holds.\n")
_WRITABLE: Final = text(b"PRAGMA writable_schema=ON;\n")
_READ_ONLY: Final = text(b"PRAGMA writable_schema=OFF;\n")


def files(catalogue: Catalogue, size: int) -> dict[str, VirtualFile]:
    """All files of a dump of `size` bytes, by path.

    A virtual table's file holds its shadow tables too. Tables that the dump ends in have none.
    """
    sections = catalogue.sections
    found = {"schema.sql": VirtualFile(_schema(sections))} if sections else {}
    head = [section for section in sections if section.type == "HEAD"]
    tail = [section for section in sections if section.type == "TAIL"]
    sequences = [section for section in sections if section.type == "SEQUENCE SET"]
    for name, own in _tables(catalogue).items():
        pieces = [
            *_stored_ranges(head),
            *_table_file(name, own, sequences),
            *_stored_ranges(tail),
        ]
        found[_path(name) + ".sql"] = VirtualFile(pieces)
    return found


def table_rows(catalogue: Catalogue) -> dict[str, Rows]:
    """The rows of each table, by the path of its file without ".sql": "tables/main.orders"."""
    found: dict[str, Rows] = {}
    for name, own in _tables(catalogue).items():
        if own[0].type != "VIRTUAL TABLE":
            columns = next((s.extra.get("columns", ()) for s in own if s.type == "TABLE"), ())
            rows = [section for section in own if section.type == "TABLE DATA"]
            found[_path(name)] = Rows.of(_lexer.SQLITE, rows, columns)
    return found


def _path(name: str) -> str:
    return f"tables/{file_name(SCHEMA, name)}"


def _tables(catalogue: Catalogue) -> dict[str, list[Section]]:
    """The sections of each table, in order; of what has no definition in the dump none (views)."""
    left_out = {str(name) for _, name, _ in catalogue.extra.get("left_out", ())}
    tables: dict[str, list[Section]] = {}
    for section in catalogue.sections:
        if section.table is None or section.table[1] in left_out:
            continue
        if section.type in ("TABLE", "TABLE DATA", "VIRTUAL TABLE"):
            tables.setdefault(section.table[1], []).append(section)
        elif section.table[1] in tables:
            tables[section.table[1]].append(section)
    return tables


def _schema(sections: Iterable[Section]) -> Iterator[VirtualRange]:
    if any(section.type == "VIRTUAL TABLE" for section in sections):
        yield _VIRTUAL
    yield from _stored_ranges(s for s in sections if s.type in _DEFINITIONS or s.type in ("HEAD", "TAIL"))


def _table_file(name: str, own: list[Section], sequences: list[Section]) -> Iterator[VirtualRange]:
    if own[0].type == "VIRTUAL TABLE":
        yield _WRITABLE
        yield from _stored_ranges(own)
        yield _READ_ONLY
        return
    yield from _stored_ranges(own)
    if sequences and any(section.extra.get("autoincrement") for section in own):
        yield from _sequence(name, sequences)


def _sequence(name: str, sequences: list[Section]) -> Iterator[VirtualRange]:
    """The table's row of sqlite_sequence, out of the INSERTs of all; those of others stay as they are."""
    quoted = name.replace("'", "''").encode("utf-8", "surrogateescape")
    yield text(
        b"CREATE TEMP TABLE holdfast_sequence AS SELECT * FROM main.sqlite_sequence WHERE name <> '%b';\n"
        b"DELETE FROM main.sqlite_sequence;\n" % quoted
    )
    yield from _stored_ranges(sequences)
    yield text(
        b"DELETE FROM main.sqlite_sequence WHERE name <> '%b';\n"
        b"INSERT INTO main.sqlite_sequence SELECT * FROM temp.holdfast_sequence;\n"
        b"DROP TABLE temp.holdfast_sequence;\n" % quoted
    )


def _stored_ranges(sections: Iterable[Section]) -> Iterator[VirtualRange]:
    return (stored_range(section.start, section.length) for section in sections)
