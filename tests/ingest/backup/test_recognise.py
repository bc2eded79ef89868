"""Recognition on the first bytes that the real programs write, and on what only looks like them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.dumps.engines import ENGINES, dump_format
from holdfast.ingest.backup.recognise import (
    OTHER_DUMP,
    PLAIN_FILE,
    RAW_DISK,
    SourceType,
    recognise,
    sql_dump,
)
from holdfast.repo.chunks.chunker import DISK, DUMP, STREAM
from holdfast.repo.snapshots.snapshot import ItemKind, SubjectKind
from support.basics import need, random_bytes

PG_DUMP = b"""--
-- PostgreSQL database dump
--

\\restrict 3nYBhcWhcvmVXQFDIRcQhDcb

-- Dumped from database version 17.6 (Debian 17.6-1)
-- Dumped by pg_dump version 17.6 (Debian 17.6-1)

SET statement_timeout = 0;
"""
PG_END = b"""
--
-- PostgreSQL database dump complete
--

\\unrestrict 3nYBhcWhcvmVXQFDIRcQhDcb

"""
PG_DUMPALL = b"--\n-- PostgreSQL database cluster dump\n--\n\nSET default_transaction_read_only = off;\n"
PG_ALL_END = b"--\n-- PostgreSQL database cluster dump complete\n--\n\n"
MARIADB = (
    b"/*M!999999\\- enable the sandbox mode */ \n"
    b"-- MariaDB dump 10.19  Distrib 10.11.14-MariaDB, for debian-linux-gnu (x86_64)\n--\n"
)
MARIADB_OLD = b"-- MariaDB dump 10.19  Distrib 10.5.15-MariaDB, for debian-linux-gnu (x86_64)\n--\n"
MYSQL = b"-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)\n--\n-- Host: localhost    Database: shop\n"
MY_END = b"/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump completed on 2026-11-22  2:00:00\n"
SQLITE_TEXT = b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t(x);\n"


@pytest.mark.parametrize(
    ("head", "end", "engine"),
    [
        (PG_DUMP, PG_END, "postgresql"),
        (PG_DUMPALL, PG_ALL_END, "postgresql"),
        (MARIADB, MY_END, "mariadb"),
        (MARIADB_OLD, b"-- Dump completed\n", "mariadb"),
        (MYSQL, MY_END, "mysql"),
        (SQLITE_TEXT, b"COMMIT;\n", "sqlite"),
    ],
)
@pytest.mark.parametrize("size", [None, 1 << 20])
def test_dumps_in_text_are_known_by_their_head_and_whole_by_their_trailer(
    head: bytes, end: bytes, engine: str, size: int | None
) -> None:
    form = recognise(head, "stdin", size)
    assert (form.item, form.engine, form.file_name) == (ItemKind.DUMP, engine, "dump.sql")
    assert form.format is dump_format(engine, "sql")
    assert (form.chunker, form.subject) == (DUMP, SubjectKind.DATABASE)
    row = b"INSERT INTO t VALUES (1);\n"
    assert fault(form, head + row + end) == ""
    assert fault(form, head + row)
    assert fault(form, head + b"INSERT INTO t VALUES ('" + end.strip().splitlines()[-1][:12] + b"');\n")


def fault(form: SourceType, dump: bytes) -> str:
    """Why a dump is not whole, by the scanner of its form."""
    assert form.format is not None
    assert form.format.scan is not None
    scanner = form.format.scan()
    scanner.feed(dump)
    return scanner.finish().fault


@pytest.mark.parametrize(
    ("head", "file_name", "engine", "form"),
    [
        (b"PGDMP\1\x0f\0\4\x08", "dump.pgdump", "postgresql", "pgdump"),
        (b"SQLite format 3\0\x10\0\1\1\0\x40\x20\x20", "dump.sqlite", "sqlite", "sqlite"),
    ],
)
def test_binary_dumps_are_known(head: bytes, file_name: str, engine: str, form: str) -> None:
    found = recognise(head + random_bytes(5000, 1), "x", None)
    assert (found.engine, found.file_name) == (engine, file_name)
    assert found.format is dump_format(engine, form)
    assert found.format is not None
    assert (found.item, found.chunker) == (ItemKind.DUMP, DUMP)


def test_a_cluster_dump_that_ends_after_one_of_its_databases_is_not_whole() -> None:
    form = recognise(PG_DUMPALL, "stdin", None)
    assert fault(form, PG_DUMPALL + PG_DUMP + PG_END)
    assert fault(form, PG_DUMPALL + PG_DUMP + PG_END + PG_ALL_END) == ""


def test_a_sqlite_dump_that_met_errors_is_not_whole() -> None:
    form = recognise(SQLITE_TEXT, "stdin", None)
    assert fault(form, SQLITE_TEXT + b"INSERT INTO t VALUES(1);\nROLLBACK; -- due to errors\n")


def test_what_somebody_says_is_sql_is_scanned_like_it() -> None:
    for engine in ENGINES.names:
        form = sql_dump(engine)
        assert (form.item, form.chunker, form.engine, form.file_name) == (
            ItemKind.DUMP,
            DUMP,
            engine,
            "dump.sql",
        )
        assert fault(form, b"CREATE TABLE t (x int);\n")


def test_what_no_scanner_knows_is_stored_unseen() -> None:
    assert OTHER_DUMP.format is None
    assert dump_format(OTHER_DUMP.engine, "sql") is None


def mbr(*entries: tuple[int, int, int, int]) -> bytes:
    """A boot sector with (status, type, first sector, sectors) of each partition."""
    table = b"".join(
        bytes([status, 0, 2, 0, kind, 0, 0, 0]) + first.to_bytes(4, "little") + count.to_bytes(4, "little")
        for status, kind, first, count in entries
    )
    return random_bytes(446, 1) + table.ljust(64, b"\0") + b"\x55\xaa"


LINUX = mbr((0x80, 0x83, 2048, 4096))
PROTECTIVE = mbr((0, 0xEE, 1, 0xFFFFFFFF))


@pytest.mark.parametrize(
    "head", [LINUX, PROTECTIVE, PROTECTIVE + b"EFI PART" + bytes(100), bytes(512) + b"EFI PART" + bytes(100)]
)
@pytest.mark.parametrize("size", [None, 1 << 20, 10 << 30])
def test_disks_are_known_by_their_partition_table(head: bytes, size: int | None) -> None:
    form = recognise(head + bytes(4096), "whatever", size)
    assert form == RAW_DISK
    assert (form.chunker, form.subject) == (DISK, SubjectKind.VM)


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (LINUX, 512),
        (LINUX, (1 << 20) + 1),
        (mbr(), None),
        (mbr((0x12, 0x83, 2048, 4096)), None),
        (mbr((0x80, 0, 2048, 4096)), None),
        (mbr((0x80, 0x83, 2048, 0)), None),
        (LINUX[:510] + b"\0\0", None),
        (LINUX[:511], None),
        (b"", 0),
        (b"", None),
    ],
)
def test_what_only_looks_like_a_partition_table_is_a_file(head: bytes, size: int | None) -> None:
    assert recognise(head, "whatever", size) == PLAIN_FILE
    assert PLAIN_FILE.chunker == STREAM


@pytest.mark.parametrize("name", ["disk.raw", "DISK.IMG", "a.b.dd"])
def test_a_whole_number_of_sectors_with_a_disks_suffix_is_a_disk(name: str) -> None:
    assert recognise(bytes(4096), name, 4096) == RAW_DISK
    assert recognise(random_bytes(4096, 1), name, 1 << 20) == RAW_DISK
    assert recognise(bytes(4096), name, 4097) == PLAIN_FILE
    assert recognise(bytes(512), name, 512) == PLAIN_FILE
    assert recognise(bytes(4096), name, None) == PLAIN_FILE
    assert recognise(PG_DUMP.ljust(4096, b"\n"), name, 4096).engine == "postgresql"


def test_an_unknown_dump_is_known_by_its_suffix() -> None:
    assert recognise(b"CREATE TABLE t (x int);\n", "shop.SQL", 100) == OTHER_DUMP
    assert recognise(b"CREATE TABLE t (x int);\n", "shop.txt", 100) == PLAIN_FILE


@given(st.binary(max_size=2000) | st.integers(0, 99).map(lambda n: random_bytes(65536, n)))
def test_random_bytes_are_a_file(head: bytes) -> None:
    assert recognise(head, "noise", None) == PLAIN_FILE


@pytest.mark.parametrize("head", [b"\n" * 65536, b"--" * 32768, b" -- \n" * 13000, b"/*" * 32768])
def test_hostile_heads_take_no_time(head: bytes) -> None:
    assert recognise(head, "noise", None) == PLAIN_FILE


def test_what_sqlite_really_writes(tmp_path: Path) -> None:
    need(shutil.which("sqlite3"), "sqlite3")
    path = tmp_path / "a.db"
    subprocess.run(["sqlite3", str(path), "CREATE TABLE t(x); INSERT INTO t VALUES('a');"], check=True)
    assert recognise(path.read_bytes(), "a.db", None).file_name == "dump.sqlite"
    text = subprocess.run(["sqlite3", str(path), ".dump"], check=True, capture_output=True).stdout
    form = recognise(text, "stdin", None)
    assert form.engine == "sqlite"
    assert fault(form, text) == ""
    assert fault(form, text[:-9])


def test_what_sfdisk_really_writes(tmp_path: Path) -> None:
    need(shutil.which("sfdisk"), "sfdisk")
    for label in ("dos", "gpt"):
        path = tmp_path / label
        with path.open("wb") as file:
            file.truncate(8 << 20)
        script = f"label: {label}\n,4M\n"
        subprocess.run(["sfdisk", "-q", str(path)], input=script.encode(), check=True)
        assert recognise(path.read_bytes()[:65536], label, 8 << 20) == RAW_DISK
