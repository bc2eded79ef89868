"""PostgreSQL's entry: plain dumps, archives of `pg_dump -Fc`, physical backups, and WAL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.engine import DumpFormat, DumpKind, Engine, ReadRange
from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.postgresql.custom import files as custom_files
from holdfast.formats.dumps.postgresql.custom import unpack
from holdfast.formats.dumps.postgresql.custom.format import MAGIC
from holdfast.formats.dumps.postgresql.physical import basebackup_tar
from holdfast.formats.dumps.postgresql.physical.required_wal import WalRules
from holdfast.formats.dumps.postgresql.plain import client_lines, marks
from holdfast.formats.dumps.postgresql.plain import files as plain_files
from holdfast.formats.dumps.postgresql.plain.marks import NAME
from holdfast.formats.dumps.postgresql.plain.scan import PostgresVisitor


def _plain_csv(catalogue: Catalogue, table: str, read: ReadRange) -> Iterator[bytes]:
    return plain_files.csv(plain_files.table_rows(catalogue)[table], read)


def _custom_csv(catalogue: Catalogue, table: str, read: ReadRange) -> Iterator[bytes]:
    return plain_files.csv(custom_files.table_rows(catalogue)[table], read)


def _refuses(head: bytes) -> str:
    return unpack.TAR_REASON if unpack.is_tar_archive(head) else ""


PLAIN: Final = DumpFormat(
    name="sql",
    kind=DumpKind.TEXT,
    file_name="dump.sql",
    begins=lambda head: marks.BEGINS.search(head) is not None,
    scan=lambda: Scanner(PostgresVisitor(), end=marks.END),
    files=plain_files.files,
    guard=client_lines.guarded,
    csv=_plain_csv,
    end=marks.END,
)
CUSTOM: Final = DumpFormat(
    name=unpack.FORM,
    kind=DumpKind.APART,
    file_name="dump.pgdump",
    begins=lambda head: head.startswith(MAGIC),
    unpack=unpack.Unpacker,
    files=custom_files.files,
    guard=custom_files.guarded,
    csv=_custom_csv,
)
PHYSICAL: Final = DumpFormat(
    name=basebackup_tar.FORM,
    kind=DumpKind.PHYSICAL,
    file_name="base.tar",
    begins=basebackup_tar.is_physical_backup,
    scan=basebackup_tar.TarScanner,
    files=basebackup_tar.files,
    evidence="manifest is right",
)
ENGINE: Final = Engine(
    name=NAME,
    title="PostgreSQL",
    formats=(PLAIN, CUSTOM, PHYSICAL),
    logs=WalRules(),
    refuses=_refuses,
)
