"""Telling what a source is by its first bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.formats.dumps.postgresql.basebackup_tar import is_physical_backup
from holdfast.repo.chunks.chunker import BLOCK, DISK, DUMP, STREAM, CutterSpec
from holdfast.repo.snapshots.snapshot import ItemKind, SubjectKind

SECTOR = 512
_DISK_SUFFIXES = (".raw", ".img", ".dd")


@dataclass(frozen=True, slots=True)
class Form:
    """What a source was recognised as. `form` is how a dump is to be read (`Catalogue.form`), "" for as
    bytes only."""

    item: ItemKind
    cutter: CutterSpec
    engine: str = ""
    file_name: str = ""
    form: str = ""

    @property
    def subject(self) -> SubjectKind:
        """The kind of subject that such an item is of, unless the user says otherwise."""
        kinds = {ItemKind.DISK: SubjectKind.VM, ItemKind.DUMP: SubjectKind.DATABASE}
        return kinds.get(self.item, SubjectKind.FILES)


RAW_DISK = Form(ItemKind.DISK, DISK)
PLAIN_FILE = Form(ItemKind.FILE, STREAM)
OTHER_DUMP = Form(ItemKind.DUMP, DUMP, "other", "dump.sql")

_DUMPS: tuple[tuple[re.Pattern[bytes], Form], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), Form(ItemKind.DUMP, DUMP, engine, name, form))
    for pattern, engine, name, form in (
        (rb"\A(?:\s|--)*\n-- PostgreSQL database dump", "postgresql", "dump.sql", "sql"),
        (rb"\A(?:\s|--)*\n-- PostgreSQL database cluster dump", "postgresql", "dump.sql", "sql"),
        (rb"\APGDMP", "postgresql", "dump.pgdump", "pgdump"),
        (rb"\A(?:/\*.*\*/[;\s\\-]*)?-- MariaDB dump", "mariadb", "dump.sql", "sql"),
        (rb"\A(?:/\*.*\*/[;\s\\-]*)?-- MySQL dump", "mysql", "dump.sql", "sql"),
        (rb"\ASQLite format 3\0", "sqlite", "dump.sqlite", "sqlite"),
        (rb"\A(?:PRAGMA foreign_keys=OFF;\s+)?BEGIN TRANSACTION;", "sqlite", "dump.sql", "sql"),
    )
)
BASE_TAR = Form(ItemKind.DUMP, DUMP, "postgresql", "base.tar", "tar")
"""A physical backup, as pg_basebackup writes it."""


SQL_ENGINES = ("postgresql", "mariadb", "mysql", "sqlite")


def sql_dump(engine: str) -> Form:
    """What somebody says is SQL text of one of `SQL_ENGINES`, whatever it begins with."""
    return Form(ItemKind.DUMP, DUMP, engine, "dump.sql", "sql")


def recognise(head: bytes, name: str, size: int | None) -> Form:
    """What a source with these first bytes is. `size` is None for a stream.

    A stream is taken for a disk only by its partition table; a file also by its suffix.
    """
    for pattern, form in _DUMPS:
        if pattern.search(head):
            return form
    if is_physical_backup(head):
        return BASE_TAR
    if size is not None and size % SECTOR == 0 and size >= BLOCK and name.lower().endswith(_DISK_SUFFIXES):
        return RAW_DISK
    whole_sectors = size is None or (size % SECTOR == 0 and size >= 1 << 20)
    if whole_sectors and _has_partition_table(head):
        return RAW_DISK
    if name.lower().endswith(".sql"):
        return OTHER_DUMP
    return PLAIN_FILE


def _has_partition_table(head: bytes) -> bool:
    """A GPT header in the second sector, or an MBR whose four entries make sense."""
    if head[SECTOR : SECTOR + 8] == b"EFI PART":
        return True
    if len(head) < SECTOR or head[510:512] != b"\x55\xaa":
        return False
    entries = [head[446 + 16 * n : 462 + 16 * n] for n in range(4)]
    return all(e[0] in (0, 0x80) for e in entries) and any(e[4] and any(e[12:16]) for e in entries)
