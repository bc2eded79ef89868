"""The files that a MySQL or MariaDB dump is shown as: `schema.sql`, `globals.sql`, `tables/...`."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from holdfast.formats.dumps.core.catalogue import Catalogue, Section
from holdfast.formats.dumps.core.names import file_name
from holdfast.formats.dumps.core.virtual_file import VirtualFile, VirtualRange, stored_range, text
from holdfast.formats.dumps.lexer import _lexer
from holdfast.formats.dumps.rows.insert_to_csv import Rows

_DATA: Final = frozenset(("DATA HEAD", "TABLE DATA", "DATA TAIL"))
_SETTINGS: Final = frozenset(("HEAD", "TAIL"))
_SYSTEM: Final = "mysql"
_BARE: Final = text(
    b"/*!40014 SET FOREIGN_KEY_CHECKS=0 */;\n/*!40101 SET SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n"
)
"""For a dump without settings (`--compact`)."""
_BUDGET: Final = 2_000_000
"""Sections in the files of all tables, together: settings that are spread over a dump are in each file."""


@dataclass(slots=True)
class _Table:
    """Indices of a table's sections in order; `part` is the part of the dump that holds the first."""

    part: int
    sections: list[int] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)


class _Files:
    """One catalogue, sorted by what its sections are for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.sections: Final = catalogue.sections
        left_out = {(str(schema), str(name)) for schema, name, _ in catalogue.extra.get("left_out", ())}
        self.heads: Final[dict[int, list[int]]] = {}
        self.tails: Final[dict[int, list[int]]] = {}
        self.tables: Final[dict[tuple[str, str], _Table]] = {}
        self.sequences: Final[dict[str, list[int]]] = {}
        self.schemas: Final[dict[str, list[int]]] = {}
        self.globals: Final[list[int]] = []
        self.several: Final = len({section.schema for section in self.sections} - {""}) > 1
        part = 0
        for at, section in enumerate(self.sections):
            if section.type in _SETTINGS:
                part = int(section.extra.get("part", part))
                (self.heads if section.type == "HEAD" else self.tails).setdefault(part, []).append(at)
                continue
            if section.table is not None and section.table not in left_out:
                table = self.tables.setdefault(section.table, _Table(part))
                table.sections.append(at)
                table.needs.extend(section.needs)
            if section.type == "SEQUENCE":
                self.sequences.setdefault(f"{section.schema}.{section.name}", []).append(at)
            if section.type == "USER" or section.schema == _SYSTEM:
                self.globals.append(at)
            elif section.type not in _DATA and section.type != "REPLICATION":
                self.schemas.setdefault(section.schema if self.several else "", []).append(at)
        self.parts: Final = list(self.heads)
        self.starts: Final = [heads[0] for heads in self.heads.values()]
        if self.several:
            # What is before any database.
            self.globals[:0] = [at for at in self.schemas.pop("", ()) if self.sections[at].type != "COMMENT"]

    def pieces(self, indices: Iterable[int]) -> Iterator[VirtualRange]:
        """These sections as they stand, with their own DELIMITER."""
        delimiter, last = ";", -2
        for at in indices:
            section = self.sections[at]
            if at != last + 1 and last >= 0:
                yield text(b"\n")
            needed = _delimiter(self.sections, at)
            if needed != delimiter:
                yield text(f"DELIMITER {needed}\n".encode("utf-8", "surrogateescape"))
            yield stored_range(section.start, section.length)
            delimiter, last = _delimiter(self.sections, at + 1), at
        if delimiter != ";":
            yield text(b"\nDELIMITER ;\n")

    def framed(self, part: int, indices: Iterable[int]) -> Iterator[VirtualRange]:
        return self.pieces([*self.heads.get(part, ()), *indices, *self.tails.get(part, ())])

    def table_file(self, table: _Table) -> Iterator[VirtualRange]:
        """One table without the name of its database, and the sequences of its defaults."""
        needed = [at for name in dict.fromkeys(table.needs) for at in self.sequences.get(name, ())]
        heads = self.heads.get(table.part, [])
        if not any("checks" in self.sections[at].extra for at in heads):
            # What its foreign keys refer to need not be there.
            yield _BARE
        skips = sorted(
            (self.sections[at].start + int(start), int(length))
            for at in [*needed, *table.sections]
            for start, length in self.sections[at].extra.get("skip", ())
        )
        whole = self.framed(table.part, sorted({*needed, *table.sections}))
        yield from _without(whole, skips)

    def cost(self, table: _Table) -> int:
        """Sections to look at for the table's file."""
        around = len(self.heads.get(table.part, ())) + len(self.tails.get(table.part, ()))
        needed = sum(len(self.sequences.get(name, ())) for name in dict.fromkeys(table.needs))
        return around + needed + len(table.needs) + len(table.sections)


def files(catalogue: Catalogue, size: int, *, budget: int = _BUDGET) -> dict[str, VirtualFile]:
    """All files of a dump of `size` bytes, by path.

    With several databases `DATABASE.schema.sql` for each; the database `mysql` with all its rows is part of
    `globals.sql`, as are accounts. What sets up replication is in none: nobody who loads one table wants it.
    Tables whose rows could not be loaded elsewhere, or that the dump ends in, have no file, nor those
    for which the work is too much (millions of sections).
    """
    all_ = _Files(catalogue)
    found: dict[str, VirtualFile] = {}
    for schema, indices in all_.schemas.items():
        path = f"{file_name(schema)}.schema.sql" if all_.several else "schema.sql"
        if any(catalogue.sections[at].type != "COMMENT" for at in indices):
            found[path] = VirtualFile(all_.framed(_part(all_, indices[0]), indices))
    if all_.globals:
        found["globals.sql"] = VirtualFile(all_.framed(_part(all_, all_.globals[0]), all_.globals))
    for name, table in all_.tables.items():
        budget -= all_.cost(table)
        if budget < 0:
            break
        found[_path(name) + ".sql"] = VirtualFile(all_.table_file(table))
    return found


def table_rows(catalogue: Catalogue) -> dict[str, Rows]:
    """The rows of each table, by the path of its file without ".sql": "tables/shop.orders"."""
    all_ = _Files(catalogue)
    return {_path(name): _rows(catalogue, table) for name, table in all_.tables.items()}


def _rows(catalogue: Catalogue, table: _Table) -> Rows:
    sections = [catalogue.sections[at] for at in table.sections]
    columns = next((s.extra.get("columns", ()) for s in sections if s.type == "TABLE"), ())
    return Rows.of(_lexer.MYSQL, [s for s in sections if s.type == "TABLE DATA"], columns)


def _path(name: tuple[str, str]) -> str:
    return "tables/" + file_name(*(part for part in name if part))


def _part(all_: _Files, at: int) -> int:
    """The part of the stream that contains section `at`."""
    before = bisect_right(all_.starts, at)
    return all_.parts[before - 1] if before else 0


def _delimiter(sections: Sequence[Section], at: int) -> str:
    return str(sections[at].extra.get("delimiter", ";")) if at < len(sections) else ";"


def _without(pieces: Iterable[VirtualRange], skips: Sequence[tuple[int, int]]) -> Iterator[VirtualRange]:
    """Remove these ranges (start, length) of the stored stream, in order; each lies within one piece."""
    for piece in pieces:
        if piece.data is not None or not skips:
            yield piece
            continue
        at, end = piece.start, piece.start + piece.length
        for start, length in skips[bisect_left(skips, (at, 0)) : bisect_right(skips, (end, 0))]:
            if at <= start and start + length <= end:
                yield stored_range(at, start - at)
                at = start + length
        yield stored_range(at, end - at)
