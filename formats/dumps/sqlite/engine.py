"""SQLite's entry: `.dump` as text, and database files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.end_mark import EndMark
from holdfast.formats.dumps.core.engine import DumpFormat, DumpKind, Engine, ReadRange
from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.rows import insert_to_csv
from holdfast.formats.dumps.sqlite.files import files, table_rows
from holdfast.formats.dumps.sqlite.scan import NAME, SqliteVisitor

_MAGIC: Final = b"SQLite format 3\0"
_END: Final = EndMark(re.compile(rb"^COMMIT;", re.M))
_BEGINS: Final = re.compile(rb"\A(?:PRAGMA foreign_keys=OFF;\s+)?BEGIN TRANSACTION;")


def _csv(catalogue: Catalogue, table: str, read: ReadRange) -> Iterator[bytes]:
    return insert_to_csv.csv(table_rows(catalogue)[table], read)


DATABASE_FILE: Final = DumpFormat(
    name="sqlite",
    kind=DumpKind.FILE,
    file_name="dump.sqlite",
    begins=lambda head: head.startswith(_MAGIC),
)
TEXT: Final = DumpFormat(
    name="sql",
    kind=DumpKind.TEXT,
    file_name="dump.sql",
    begins=lambda head: _BEGINS.search(head) is not None,
    scan=lambda: Scanner(SqliteVisitor(), end=_END),
    files=files,
    csv=_csv,
    end=_END,
)
ENGINE: Final = Engine(name=NAME, title="SQLite", formats=(DATABASE_FILE, TEXT))
