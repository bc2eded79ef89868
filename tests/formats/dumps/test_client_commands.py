"""Commands for the client that stand in a dump: found wherever the client takes them, and nowhere else."""

from __future__ import annotations

import pytest

from holdfast.formats.dumps.contents import files
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.engine import Scanning
from holdfast.formats.dumps.core.facts import DumpFacts, agreed_facts, read_facts
from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.engines import text_format
from holdfast.formats.dumps.lexer._lexer import COMMAND, MYSQL, POSTGRESQL, SQLITE, Lexer
from holdfast.formats.dumps.mysql.scan import MysqlVisitor
from holdfast.formats.dumps.postgresql.plain.client_lines import is_command
from support import lexer_twin
from support.pgdump_real import content

KEY = "0123456789abcdef"


def scan(engine: str, dump: bytes) -> Catalogue:
    format_ = text_format(engine).format
    assert format_.scan
    scanner: Scanning = format_.scan()
    scanner.feed(dump)
    return scanner.finish()


def commands(engine: str, dump: bytes) -> str:
    return read_facts(scan(engine, dump).facts).commands


# ---- what is found ---------------------------------------------------------------------------------------

POSTGRESQL_COMMANDS = [
    b"CREATE TABLE t (id integer \\! touch x\n);",
    b"SELECT 1 \\gexec\n",
    b"SELECT 1; \\! touch x\n",
    b"\\! touch x\n",
    b"\\copy t from program 'touch x'\n",
    b"\\connect `touch x`\n",
    b"\\connect host=evil\n",
    b"\\connect postgresql://evil/x\n",
    b'\\connect "host=evil"\n',
    b"\\connect a b \\! touch x\n",
    b"\\connect :HOST\n",
    b"\\unrestrict `touch x`\n",
    b"\\restrict a \\! touch x\n",
    b"\\restrict\n",
    b"\\set x y\n",
    b"\\encoding SJIS\n",
    b"\\.x\n",
    b"SELECT 'a', 'b' \\! touch x\n;",
    b"SELECT $$ $$ \\! touch x\n;",
    b"SELECT $a$ $$ $a$ \\! touch x\n;",
    b"SELECT E'\\'' \\! touch x\n;",
    b'SELECT "a\\" \\! touch x\n;',
    b"SELECT /* /* */ */ \\! touch x\n;",
    b"SELECT 1 -- a\n \\! touch x\n;",
    b"SELECT 'a\\' \\! touch x\n;",
    b"SET standard_conforming_strings = off;\nSELECT 'a\\'' \\! touch x\n;",
    b"INSERT INTO t VALUES (1 \\! touch x\n);",
    b"INSERT INTO t VALUES (1, '" + b"x" * 500 + b"'), (2 \\! touch x\n" + b" " * 500 + b");",
    b"COPY t (a) FROM stdin; \\! touch x\n1\n\\.\n",
    b"COPY t (a) FROM stdin; select '\n1\n\\.\n' \\! touch x\n",
    b"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 \\! touch x\n; END;",
    b"SELECT set_config('standard_conforming_strings', 'off', false);",
    b"ALTER ROLE x SET Standard_Conforming_Strings TO off;",
    b"SELECT 'a\0';",
    b"SELECT 1 \\; SELECT 2;",
]
MYSQL_COMMANDS = [
    b"CREATE TABLE t (id int \\! touch x\n);",
    b"system touch x\n;",
    b"SYSTEM touch x;",
    b"\\! touch x\n;",
    b"\\. /tmp/x\n;",
    b"source /tmp/x\nSELECT 1;",
    b"/* a */ source /tmp/x;",
    b"tee /etc/cron.d/x\nSELECT 1;",
    b"pager touch x;",
    b"edit\n;",
    b"connect x evil\n;",
    b"/*!50001 CREATE TABLE t (a int) \\! touch x\n */;",
    b"/*M!999999\\- enable \\! touch x */\n",
    b"/*!999999 ' */ SELECT ' \\! touch x\n;",
    b"SELECT 'a\\'' , `b\\` \\! touch x\n;",
    b"INSERT INTO t VALUES (1),(2 \\! touch x\n);",
    b"DELIMITER ;;\nCREATE TRIGGER a BEGIN SELECT 1; END \\! touch x\n;;\nDELIMITER ;\n",
    b"DELIMITER $$\nsystem touch x$$\nDELIMITER ;\n",
]
SQLITE_COMMANDS = [
    b"CREATE TABLE t(x);\n.shell touch x\n;",
    b"CREATE TABLE t(x)\ngo\n.shell touch x\n;",
    b"CREATE TABLE t(x)\n/\n.read x\n;",
    b".shell touch x\n",
    b"INSERT INTO t VALUES(1)\ngo\n.shell touch x\n;",
    b"INSERT INTO t VALUES(1)" + b" " * 200 + b"\ngo\n.shell touch x\n" + b" " * 200 + b";",
    b"INSERT INTO t VALUES(1)\ngo\n# '\n.shell touch x\n" + b" " * 200 + b";'",
    b"CREATE TABLE [a'b](x)\n;.shell x\n\n.shell touch x\n;",
    b"CREATE VIEW v AS SELECT 'a\0';",
]


@pytest.mark.parametrize("dump", POSTGRESQL_COMMANDS)
def test_what_psql_takes_for_a_command_is_found(dump: bytes) -> None:
    assert commands("postgresql", b"SELECT 1;\n" + dump).startswith("1, the first: ")


@pytest.mark.parametrize("dump", MYSQL_COMMANDS)
def test_what_the_mysql_client_takes_for_a_command_is_found(dump: bytes) -> None:
    assert commands("mariadb", b"SELECT 1;\n" + dump).startswith("1, the first: ")


@pytest.mark.parametrize("dump", SQLITE_COMMANDS)
def test_what_the_sqlite_shell_takes_for_a_command_is_found(dump: bytes) -> None:
    assert commands("sqlite", b"BEGIN TRANSACTION;\n" + dump).startswith("1, the first: ")


@pytest.mark.parametrize(
    ("engine", "dump"),
    [
        ("postgresql", b"COPY t (a) FROM stdin;\n\\N\n\\! touch x\n\\\\.\n\\.\nSELECT 1;"),
        ("postgresql", b"SELECT '\\! x', E'\\'\\! x', $$\\! x$$, \"\\! x\" /* \\! x */ -- \\! x\n;"),
        ("postgresql", b"SET standard_conforming_strings = on;\nset STANDARD_conforming_strings TO 'off';"),
        ("postgresql", b"INSERT INTO t VALUES ('\\! touch x\n');\nINSERT INTO t VALUES ('\\\n');"),
        (
            "postgresql",
            b"\\restrict abcDEF123\n\\unrestrict abcDEF123\r\n\\connect shop\n\\c x\n\\encoding SQL_ASCII\n",
        ),
        ("postgresql", b'\\connect -reuse-previous=on "dbname=\'it\\\'s \\\\ ""a"" db\'"\n\\connect "A b"\n'),
        ("postgresql", b"\\connect - alice\n\\.\n"),
        ("mariadb", b"/*M!999999\\- enable the sandbox mode */ \n/*!999999\\- enable the sandbox mode */\n"),
        (
            "mariadb",
            b"USE `shop`;\nINSERT INTO t VALUES (\\N,'\\! x',\"\\! x\"); /* \\! x */ -- \\! x\n# \\! x\n;",
        ),
        (
            "mariadb",
            b"DELIMITER ;;\nCREATE TRIGGER system BEGIN x: LOOP SELECT 1; END LOOP; END;;\nDELIMITER ;\n",
        ),
        ("mariadb", b"CREATE TABLE `source` (`a` int COMMENT 'system\n\\\\! x');\nDROP TABLE source;"),
        ("sqlite", b"CREATE TABLE t(x, y DEFAULT 1.5);\nINSERT INTO t VALUES('a\n.shell x\n#',.5);\n"),
        ("sqlite", b'CREATE VIEW v AS SELECT 1 /*\n.x */, "\n.y" --\n;'),
    ],
)
def test_what_dump_tools_write_is_no_command(engine: str, dump: bytes) -> None:
    assert commands(engine, b"SELECT 1;\n" + dump) == ""


def test_commands_are_counted_by_pieces_and_the_first_is_shown_harmless() -> None:
    dump = b"\\! touch \x1b[2Jx\nSELECT 1 \\! a \\! b\n;\nSELECT \\! c\n;\n\\q\n"
    assert commands("postgresql", dump) == "4, the first: \\! touch \\x1b[2Jx"
    assert commands("postgresql", b"SELECT 1;") == ""


def test_the_commands_of_each_part_are_those_of_the_whole() -> None:
    one, two = (
        DumpFacts(tool="a", commands="1, the first: \\!"),
        DumpFacts(tool="b", commands="2, the first: \\g"),
    )
    agreed = agreed_facts([one.stored(), two.stored()], DumpFacts())
    assert read_facts(agreed) == DumpFacts(commands="1, the first: \\!; 2, the first: \\g")


@pytest.mark.parametrize(("dialect", "dumps"), [
    (POSTGRESQL, POSTGRESQL_COMMANDS), (MYSQL, MYSQL_COMMANDS), (SQLITE, SQLITE_COMMANDS)
])  # fmt: skip
def test_the_twin_finds_the_same(dialect: int, dumps: list[bytes]) -> None:
    for dump in [*dumps, b"\n".join(dumps)]:
        for step in (1, 7, 1 << 20):
            lexer = Lexer(dialect)
            events = [e for at in range(0, len(dump), step) for e in lexer.feed(dump[at : at + step])]
            assert ([*events, *lexer.finish()], lexer.state) == lexer_twin.lex(dialect, dump)


def test_a_flood_of_commands_is_told_once_a_piece() -> None:
    events = [*(lexer := Lexer(POSTGRESQL)).feed(b"SELECT " + b"\\! " * 100_000 + b"\n;"), *lexer.finish()]
    assert [kind for kind, *_ in events].count(COMMAND) == 1


# ---- files -------------------------------------------------------------------------------------------------

RESTRICTED = b"""--
-- PostgreSQL database dump
--

\\restrict theirKEY1

SET client_encoding = 'UTF8';

--
-- Name: t; Type: TABLE
--

CREATE TABLE public.t (id integer \\! touch x
);

COPY public.t (id) FROM stdin;
1
\\.


--
-- PostgreSQL database dump complete
--

\\unrestrict theirKEY1

"""


def made(engine: str, dump: bytes) -> dict[str, bytes]:
    found = files(scan(engine, dump), len(dump), lambda path: KEY)
    return {path: content(file, dump) for path, file in found.items()}


def lines_for_psql(sql: bytes) -> list[bytes]:
    return [line for line in sql.splitlines() if line.startswith(b"\\") and line != b"\\."]


def test_each_file_of_a_restricted_dump_is_restricted_under_a_key_of_its_own() -> None:
    whole = [f"\\restrict {KEY}".encode(), f"\\unrestrict {KEY}".encode()]
    found = made("postgresql", RESTRICTED)
    assert set(found) == {"schema.sql", "tables/public.t.sql"}
    for sql in found.values():
        assert lines_for_psql(sql) == whole
        assert sql.startswith(whole[0] + b"\n")
        assert sql.endswith(b"\n" + whole[1] + b"\n")
        assert b"CREATE TABLE public.t" in sql


def test_a_file_of_a_dump_without_restriction_is_as_it_was_unless_it_has_commands() -> None:
    plain = RESTRICTED.replace(b"\\restrict theirKEY1", b"").replace(b"\\unrestrict theirKEY1", b"")
    assert all(map(lines_for_psql, made("postgresql", plain).values()))
    honest = plain.replace(b"\\! touch x\n", b"")
    assert not any(map(lines_for_psql, made("postgresql", honest).values()))


def test_a_dumps_own_line_ends_no_restriction() -> None:
    hostile = RESTRICTED.replace(b"CREATE TABLE", b"\\unrestrict theirKEY1\n\\! touch x\nCREATE TABLE")
    for sql in made("postgresql", hostile).values():
        assert b"\\unrestrict theirKEY1" not in sql


def test_in_a_file_of_several_databases_only_connect_stands_outside() -> None:
    part = RESTRICTED.replace(b" \\! touch x\n", b"")
    dump = b"--\n-- PostgreSQL database cluster dump\n--\n\n\\restrict KEY0\n\nCREATE ROLE a;\n\n"
    dump += b"\\unrestrict KEY0\n\n--\n-- Databases\n--\n\n\\connect template1\n\n" + part
    dump += b"CREATE DATABASE shop;\n\n\\connect shop\n\n" + part
    dump += b"--\n-- PostgreSQL database cluster dump complete\n--\n\n"
    found = made("postgresql", dump)
    on, off = f"\\restrict {KEY}".encode(), f"\\unrestrict {KEY}".encode()
    assert lines_for_psql(found["globals.sql"]) == [on, off]
    assert lines_for_psql(found["shop.schema.sql"]) == [on, off, b"\\connect shop", on, off]
    assert lines_for_psql(found["tables/shop/public.t.sql"]) == [on, off]


def test_a_connect_that_runs_something_is_not_let_out() -> None:
    hostile = RESTRICTED.replace(b"CREATE TABLE", b"\\connect `touch x`\nCREATE TABLE")
    schema = made("postgresql", hostile)["schema.sql"]
    assert b"\\unrestrict " + KEY.encode() not in schema[: schema.index(b"\\connect")]
    assert is_command(b"\\connect `touch x`")


def test_many_lines_of_its_own_cost_a_dump_no_more_than_its_size() -> None:
    dump = b"\\restrict a\n" * 20_000 + b"".join(b"CREATE TABLE t%d (a int);\n" % n for n in range(2000))
    assert len(made("postgresql", dump)) == 2001


def test_each_file_of_a_sandboxed_dump_is_sandboxed() -> None:
    head = b"-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB\n--\n-- Host: localhost    Database: shop\n"
    head += b"-- ------------------------------------------------------\n-- Server version\t10.11\n\n"
    part = head + b"/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE */;\nCREATE TABLE `%b` (\n  `a` int\n);\n"
    part += b"/*!40101 SET SQL_MODE=@OLD_SQL_MODE */;\n-- Dump completed\n"
    sandbox = b"/*M!999999\\- enable the sandbox mode */ \n"
    found = made("mariadb", sandbox + part % b"t" + part % b"u")
    assert set(found) == {"schema.sql", "tables/shop.t.sql", "tables/shop.u.sql"}
    assert all(sql.startswith(sandbox) for sql in found.values())
    assert not any(sandbox in sql for sql in made("mariadb", part % b"t").values())


def test_the_rest_of_a_dump_is_looked_at_for_commands_when_its_sections_are_too_many() -> None:
    scanner = Scanner(MysqlVisitor(), limit=10_000)
    for n in range(100):
        scanner.feed(b"CREATE TABLE t%d (\n  `a` int\n);\n" % n)
    scanner.feed(b"SYSTEM touch x;\n")
    assert read_facts(scanner.finish().facts).commands == "1, the first: SYSTEM touch x;"
