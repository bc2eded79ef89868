"""A dump that was cut off and had a whole one appended is never whole, wherever it was cut; data that looks
like dumps is no fault; and what has too many parts costs no more than its share."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from holdfast.formats.dumps.contents import files
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.scan import Scanner, Visitor
from holdfast.formats.dumps.engines import dump_format, text_format
from holdfast.formats.dumps.mysql import files as mysql_files
from holdfast.formats.dumps.mysql.scan import MysqlVisitor
from holdfast.formats.dumps.postgresql.plain import files as postgres_files
from holdfast.formats.dumps.postgresql.plain.scan import PostgresVisitor
from holdfast.formats.dumps.sqlite.scan import SqliteVisitor

POSTGRES = b"""--
-- PostgreSQL database dump
--

SET client_encoding = 'UTF8';

CREATE FUNCTION public.f() RETURNS integer LANGUAGE sql AS $$SELECT 1 -- text
$$;

CREATE TABLE public.x (
    a integer,
    b text
);

COPY public.x (a, b) FROM stdin;
1\tit's
2\tb
\\.

CREATE TABLE public.z (
    a integer
);

--
-- PostgreSQL database dump complete
--

"""
MARIA = b"""-- MariaDB dump 10.19  Distrib 10.11.3-MariaDB, for debian-linux-gnu (x86_64)
--
-- Host: localhost    Database: d
-- ------------------------------------------------------
-- Server version\t10.11.3-MariaDB

/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
--
-- Table structure for table `x`
--

CREATE TABLE `x` (
  `a` int
);
INSERT INTO `x` VALUES
(1,'it\\'s'),
(2,'b');
/*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */;

-- Dump completed on 2024-01-01  0:00:00
"""
SQLITE = b"""PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE x(a, b);
INSERT INTO x VALUES(1,'it''s');
INSERT INTO x VALUES(2,'b');
CREATE TABLE z(a);
COMMIT;
"""
DUMPS = {
    "postgresql": (POSTGRES, b"--\n-- PostgreSQL database dump complete"),
    "mariadb": (MARIA, b"-- Dump completed"),
    "sqlite": (SQLITE, b"COMMIT"),
}


VISITORS: dict[str, Callable[[], Visitor]] = {
    "postgresql": PostgresVisitor,
    "mariadb": MysqlVisitor,
    "sqlite": SqliteVisitor,
}


def scanned(engine: str, dump: bytes, step: int = 1 << 20) -> Catalogue:
    format_ = dump_format(engine, "sql")
    assert format_ is not None
    assert format_.scan is not None
    scanner = format_.scan()
    assert isinstance(scanner, Scanner)
    for at in range(0, len(dump), step):
        scanner.feed(dump[at : at + step])
    return scanner.finish()


@pytest.mark.parametrize("engine", DUMPS)
def test_a_cut_off_dump_with_a_whole_one_behind_it_has_a_fault_wherever_it_was_cut(engine: str) -> None:
    dump, end = DUMPS[engine]
    first = dump.index(b"CREATE")
    assert not scanned(engine, dump).fault
    assert not scanned(engine, dump + dump).fault
    for cut in range(first + 1, dump.index(end)):
        joined = dump[:cut] + dump
        assert scanned(engine, joined).fault, joined[max(0, cut - 60) : cut + 20]


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_heads_are_found_however_the_bytes_come_in(engine: str) -> None:
    dump, _ = DUMPS[engine]
    cut = dump.index(b"b\n\\." if engine == "postgresql" else b"b');")
    want = scanned(engine, dump[:cut] + dump).fault
    assert "another dump begins within" in want
    assert {scanned(engine, dump[:cut] + dump, step).fault for step in (1, 7, 64, 101)} == {want}


def test_rows_and_functions_that_hold_whole_dumps_are_data() -> None:
    held = POSTGRES.replace(b"'", b"''")
    insert = b"INSERT INTO public.z VALUES ('" + held + b"');\n"
    body = b"CREATE FUNCTION public.g() RETURNS text LANGUAGE x AS $_$" + POSTGRES + b"$_$;\n"
    lines = b"COPY public.l (line) FROM stdin;\n" + POSTGRES.replace(b"\\", b"\\\\") + b"\\.\n"
    at = POSTGRES.index(b"--\n-- PostgreSQL database dump complete")
    for more in (insert, body, lines, b"COMMENT ON TABLE public.x IS '" + held + b"';\n"):
        assert not scanned("postgresql", POSTGRES[:at] + more + POSTGRES[at:]).fault
    dump = SQLITE.replace(b"'b'", b"'" + SQLITE.replace(b"'", b"''") + b"'")
    assert not scanned("sqlite", dump).fault


@pytest.mark.parametrize(
    ("dump", "fault"),
    [
        (b"BEGIN TRANSACTION;\nCREATE TABLE a(x);\n" + SQLITE, "before COMMIT"),
        (SQLITE + b"COMMIT;\n", "without BEGIN"),
        (SQLITE + b"CREATE TABLE q(a);\nCOMMIT;\n", "behind COMMIT"),
        (SQLITE + b"CREATE TABLE q(a);\n" + SQLITE, "behind COMMIT"),
    ],
)
def test_transactions_of_sqlite_must_follow_each_other(dump: bytes, fault: str) -> None:
    assert fault in scanned("sqlite", dump).fault


# ---- hostile sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", DUMPS)
def test_statements_that_nobody_knows_are_one_section(engine: str) -> None:
    type_ = "OTHER" if engine == "postgresql" else "SQL"
    sections = scanned(engine, b"VACUUM;\n" * 5000).sections
    assert [(s.type, s.start) for s in sections] == [(type_, 0)]
    assert sections[0].start + sections[0].length >= 8 * 5000 - 1


@pytest.mark.parametrize("engine", DUMPS)
def test_a_dump_whose_catalogue_would_be_too_large_is_only_looked_through(engine: str) -> None:
    dump = b"".join(b"CREATE TABLE t%d (a int);\n" % at for at in range(30_000))
    for end, fault in ((ENDS[engine], ""), (b"", "its last line is missing"), (b"X '", "within a string")):
        catalogue = bounded(engine, dump + end)
        assert "more than 1 MiB of memory" in catalogue.extra["bound"]
        assert fault in catalogue.fault
        assert bool(fault) is bool(catalogue.fault)
        assert catalogue.sections == ()
        assert files(catalogue, len(dump), lambda path: "") == {}


@pytest.mark.parametrize(
    ("engine", "statement"),
    [
        (
            "postgresql",
            b"CREATE VIEW a.v%d AS SELECT " + b",".join(b"a.b%d" % n for n in range(1000)) + b";\n",
        ),
        ("postgresql", b"CREATE TABLE t%d (" + b",".join(b"c%d int" % n for n in range(1000)) + b");\n"),
        (
            "postgresql",
            b"INSERT INTO t%d (" + b",".join(b"c%d" % n for n in range(1000)) + b") VALUES (1);\n",
        ),
        (
            "postgresql",
            b"CREATE FUNCTION f%d() AS $$ " + b" ".join(b"a.b%d" % n for n in range(1000)) + b"$$;\n",
        ),
        ("postgresql", b'CREATE TABLE "%d' + b"x" * 60_000 + b'" (a int);\n'),
        ("mariadb", b"INSERT INTO `t%d` (" + b",".join(b"c%d" % n for n in range(1000)) + b") VALUES (1);\n"),
        (
            "mariadb",
            b"CREATE TABLE `t%d` (\n" + b",\n".join(b"  `c%d` int" % n for n in range(1000)) + b");\n",
        ),
        ("sqlite", b"CREATE TABLE t%d(" + b",".join(b"c%d" % n for n in range(1000)) + b");\n"),
        ("sqlite", b"INSERT INTO t%d(" + b",".join(b"c%d" % n for n in range(1000)) + b") VALUES(1);\n"),
    ],
)
def test_names_count_as_well(engine: str, statement: bytes) -> None:
    """One statement takes far less than the limit, 50 of them more: what few bytes ask for is bounded."""
    assert "bound" not in bounded(engine, statement % 1).extra
    assert "bound" in bounded(engine, b"".join(statement % n for n in range(50))).extra


ENDS = {
    "postgresql": b"--\n-- PostgreSQL database dump complete\n--\n\n",
    "mariadb": b"-- Dump completed on 2026-11-25  2:00:00\n",
    "sqlite": b"COMMIT;\n",
}


def bounded(engine: str, dump: bytes) -> Catalogue:
    text = text_format(engine).format
    scanner = Scanner(VISITORS[engine](), end=text.end, limit=1 << 20)
    for at in range(0, len(dump), 1 << 16):
        scanner.feed(dump[at : at + (1 << 16)])
    return scanner.finish()


def test_tables_beyond_the_budget_have_no_file() -> None:
    dump = b"".join(b"CREATE TABLE public.t%d (a int);\n" % at for at in range(100))
    made = postgres_files.files(scanned("postgresql", dump), len(dump), budget=50)
    assert 10 < len(made) < 60
    assert "schema.sql" in made
    dump = dump.replace(b"public.", b"")
    made = mysql_files.files(scanned("mariadb", dump), len(dump), budget=50)
    assert 10 < len(made) < 60


def test_rows_of_a_table_with_many_ancestors_cost_little() -> None:
    """Without remembering a table's columns each run of rows took 10 ms here."""
    parents = b"".join(
        b"CREATE TABLE public.t%d (%b)%b;\n"
        % (
            n,
            b",".join(b"c%d_%d int" % (n, m) for m in range(100)),
            b" INHERITS (public.t%d)" % (n - 1) if n else b"",
        )
        for n in range(300)
    )
    began = time.process_time()
    found = scanned("postgresql", parents + b"INSERT INTO public.t299 VALUES (1); -- x\n" * 5000)
    assert time.process_time() - began < 10
    assert len(found.sections[-1].extra["columns"]) == 30_000
