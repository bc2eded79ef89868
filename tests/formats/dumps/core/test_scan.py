"""Scanning of SQL dumps: what visitors are told, where borders are, that pieces lose nothing of dumps."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.client_commands import ClientCommands
from holdfast.formats.dumps.core.scan import BORDER_DISTANCE, Scanner
from holdfast.formats.dumps.core.scan_marks import Marks
from holdfast.formats.dumps.lexer._lexer import MYSQL, POSTGRESQL, SQLITE
from support.basics import need
from support.database import MariaServer, PostgresServer, maria_server, postgres_server
from support.scratch import open_folder

NASTY = "it's; \\. \"q\" -- /* $$ ` \n\\.\n;;\r\n\t\\' \\\\"


@dataclass
class Recorder:
    """A visitor that keeps everything."""

    dialect: int
    pieces: list[tuple[str, int, int, bytes]] = field(default_factory=list)
    size: int = -1
    unfinished: str = "not asked"
    marks: Marks = field(default_factory=Marks)
    weight: int = 0
    commands: ClientCommands = field(default_factory=ClientCommands, compare=False)

    def holds_command(self, kind: int, text: bytes) -> bool:
        return False

    def comment(self, start: int, end: int, text: bytes) -> None:
        self.pieces.append(("comment", start, end, text))

    def statement(self, start: int, end: int, text: bytes) -> None:
        self.pieces.append(("statement", start, end, text))

    def meta(self, start: int, end: int, text: bytes) -> None:
        self.pieces.append(("meta", start, end, text))

    def rows(self, start: int, end: int, lead: bytes) -> None:
        self.pieces.append(("rows", start, end, lead))

    def finish(self, size: int, unfinished: str) -> Catalogue:
        self.size, self.unfinished = size, unfinished
        return Catalogue("sqlite", "sql", (), fault=unfinished)


def scan(dialect: int, stream: bytes, block: int = 1 << 20) -> tuple[Recorder, list[int]]:
    recorder = Recorder(dialect)
    scanner = Scanner(recorder)
    borders: list[int] = []
    for start in range(0, len(stream), block):
        borders += scanner.feed(memoryview(stream)[start : start + block])
    assert scanner.finish().fault == recorder.unfinished
    assert recorder.size == len(stream)
    return recorder, borders


def rejoined(stream: bytes, recorder: Recorder) -> bytes:
    """The dump made of its pieces alone, each followed by a newline."""
    return b"".join(stream[start:end] + b"\n" for _, start, end, _ in recorder.pieces)


def table(number: int, rows: int) -> bytes:
    return b"COPY t%d FROM stdin;\n" % number + b"%099d\n" % number * rows + b"\\.\n"


# ---- visitors and borders ------------------------------------------------------------------------


def test_a_visitor_is_told_in_stream_order() -> None:
    stream = b"-- c\nCOPY t FROM stdin;\n1\n\\.\nINSERT INTO u VALUES (1);\nINSERT INTO u VALUES (2);\n\\q\n"
    recorder, borders = scan(POSTGRESQL, stream)
    assert recorder.pieces == [
        ("comment", 0, 4, b"-- c"),
        ("statement", 5, 23, b"COPY t FROM stdin;"),
        ("rows", 24, 29, b""),
        ("rows", 29, 80, b"INSERT INTO u VALUES"),
        ("meta", 81, 83, b"\\q"),
    ]
    assert (recorder.unfinished, borders) == ("", [])


def test_rows_begin_and_end_at_borders() -> None:
    head = b"-- " + b"x" * 5000 + b"\n"
    stream = head + table(1, 50) + b"-- y\n" * 1000 + table(2, 60)
    recorder, borders = scan(POSTGRESQL, stream)
    ends = [offset for kind, start, end, _ in recorder.pieces if kind == "rows" for offset in (start, end)]
    assert borders == ends


def test_tiny_tables_share_chunks() -> None:
    stream = b"".join(table(i, 1 + i % 5) for i in range(500))
    recorder, borders = scan(POSTGRESQL, stream)
    distances = [b - a for a, b in zip([0, *borders], borders, strict=False)]
    assert all(BORDER_DISTANCE <= distance < BORDER_DISTANCE + 700 for distance in distances)
    assert set(borders) < {at for _, start, end, _ in recorder.pieces for at in (start, end)}


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 40)), max_size=8),
    st.integers(1, 9000),
    st.booleans(),
)
def test_borders_and_pieces_do_not_depend_on_the_feeds(
    tables: list[tuple[int, int]], block: int, inserts: bool
) -> None:
    stream = b"".join(
        b"INSERT INTO t%d VALUES (%099d);\n" % (i, i) * rows if inserts else table(i, rows) + b"--\n" * gap
        for i, (rows, gap) in enumerate(tables)
    )
    wanted, wanted_borders = scan(POSTGRESQL, stream)
    found, borders = scan(POSTGRESQL, stream, block)
    assert (found, borders) == (wanted, wanted_borders)
    assert borders == sorted(set(borders))


def test_an_empty_stream_is_whole_to_the_scanner() -> None:
    recorder, borders = scan(SQLITE, b"")
    assert (recorder.pieces, recorder.unfinished, borders) == ([], "", [])


def test_what_the_end_leaves_unfinished_reaches_the_visitor() -> None:
    assert scan(POSTGRESQL, table(1, 3)[:-1])[0].unfinished == "rows"
    assert scan(MYSQL, b"SELECT 'x")[0].unfinished == "string"


# ---- real dumps: restored from their pieces alone -------------------------------------------------


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where servers' own users may go, unlike pytest's."""
    with open_folder() as made:
        yield made


@pytest.fixture(scope="module")
def postgres(folder: Path) -> Iterator[PostgresServer]:
    with postgres_server(folder / "pg") as server:
        server.psql('CREATE DATABASE "from"')
        server.psql(
            """
            CREATE TABLE "t;--1" ("a'b" int PRIMARY KEY, "values" text, "set" text, j jsonb);
            CREATE TABLE empty (); INSERT INTO empty DEFAULT VALUES; INSERT INTO empty DEFAULT VALUES;
            CREATE TABLE u (id int GENERATED ALWAYS AS IDENTITY, t text DEFAULT 'x;''y');
            CREATE FUNCTION f(a int) RETURNS int LANGUAGE plpgsql AS $f$BEGIN -- '
              RETURN $$1$$; END$f$;
            CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;
            CREATE RULE r AS ON DELETE TO u DO ALSO (SELECT 1; SELECT 2);
            CREATE VIEW v AS SELECT ';' AS "a;b", E'\\\\''' AS c;
            COMMENT ON TABLE u IS E'a\n-- b; \\' /* c';
            INSERT INTO u (t) SELECT repeat('x;', i % 50) FROM generate_series(1, 500) AS i;
            """,
            "from",
        )
        quoted = NASTY.replace("'", "''")
        for i in range(40):
            server.psql(
                f"""INSERT INTO "t;--1" VALUES ({i}, '{quoted}', NULL, '{{"a": ";\\\\\\"'' "}}')""", "from"
            )
        yield server


@pytest.mark.parametrize(
    "options", [[], ["--inserts"], ["--column-inserts"], ["--inserts", "--rows-per-insert=7"]], ids=" ".join
)
def test_a_dump_of_postgresql_restores_from_its_pieces(postgres: PostgresServer, options: list[str]) -> None:
    dump = postgres.tool("pg_dump", *options, "from")
    recorder, _ = scan(POSTGRESQL, dump, 777)
    assert recorder.unfinished == ""
    assert [kind for kind, *_ in recorder.pieces].count("rows") == 3
    postgres.psql('DROP DATABASE IF EXISTS "to"')
    postgres.psql('CREATE DATABASE "to"')
    postgres.tool("psql", "-Xqv", "ON_ERROR_STOP=1", "-d", "to", "-f", "-", stdin=rejoined(dump, recorder))
    assert without_key(postgres.tool("pg_dump", *options, "to")) == without_key(dump)


def without_key(dump: bytes) -> bytes:
    """`\\restrict` takes a random word, another in each dump."""
    return re.sub(rb"(?m)^\\(un)?restrict .*$", b"", dump)


@pytest.fixture(scope="module")
def maria(folder: Path) -> Iterator[MariaServer]:
    with maria_server(folder / "maria") as server:
        quoted = NASTY.replace("\\", "\\\\").replace("'", "\\'")
        rows = ",".join(f"({i},'{quoted}',X'{i:04x}5c27',-{i}.5)" for i in range(300))
        server.sql(
            f"""
            CREATE DATABASE `from`; USE `from`;
            CREATE TABLE `t;``a` (id int PRIMARY KEY, `values` text, b varbinary(9), n decimal(9,1));
            CREATE TABLE u (id int AUTO_INCREMENT PRIMARY KEY, t varchar(50) DEFAULT ';''' COMMENT '-- ; /*');
            INSERT INTO `t;``a` VALUES {rows};
            INSERT INTO u (t) SELECT `values` FROM `t;``a` LIMIT 9;
            CREATE VIEW v AS SELECT ';' AS `a;b`, id FROM u;
            DELIMITER ;;
            CREATE TRIGGER g BEFORE INSERT ON u FOR EACH ROW BEGIN SET @a = ';'; /* ; */ SET @b = 1; END;;
            CREATE PROCEDURE p() BEGIN -- it's ;
              SELECT "a;\\";"; SELECT 1--1; # ;
            END;;
            DELIMITER ;
            """
        )
        yield server


@pytest.mark.parametrize(
    "options", [[], ["--skip-extended-insert", "--complete-insert", "--hex-blob"]], ids=["extended", "single"]
)
def test_a_dump_of_mariadb_restores_from_its_pieces(maria: MariaServer, options: list[str]) -> None:
    options = ["--routines", "--triggers", "--skip-dump-date", *options]
    dump = maria.tool("mariadb-dump", *options, "from")
    recorder, _ = scan(MYSQL, dump, 777)
    assert recorder.unfinished == ""
    assert [kind for kind, *_ in recorder.pieces].count("rows") == 2
    maria.sql("DROP DATABASE `from`; CREATE DATABASE `from`")
    maria.sql(rejoined(dump, recorder), "from")
    assert maria.tool("mariadb-dump", *options, "from") == dump


def test_a_dump_of_sqlite_restores_from_its_pieces(tmp_path: Path) -> None:
    tool = shutil.which("sqlite3")
    need(tool, "sqlite3")
    assert tool
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    connection = sqlite3.connect(first)
    connection.executescript(
        """
        CREATE TABLE [t;1] (a INTEGER PRIMARY KEY, "values" TEXT, b BLOB);
        CREATE TABLE `u;` (a TEXT DEFAULT ';');
        CREATE TRIGGER g AFTER INSERT ON `u;` BEGIN SELECT 'END;'; SELECT CASE 1 WHEN 1 THEN 2 END; END;
        """
    )
    connection.executemany('INSERT INTO "t;1" VALUES (?, ?, ?)', [(i, NASTY, b"';\n") for i in range(200)])
    connection.execute("INSERT INTO `u;` VALUES (?)", (NASTY,))
    connection.commit()
    connection.close()
    dump = subprocess.run([tool, str(first), ".dump"], check=True, capture_output=True).stdout
    recorder, _ = scan(SQLITE, dump, 777)
    assert recorder.unfinished == ""
    assert [kind for kind, *_ in recorder.pieces].count("rows") == 2
    connection = sqlite3.connect(second)
    connection.executescript(rejoined(dump, recorder).decode())
    connection.close()
    again = subprocess.run([tool, str(second), ".dump"], check=True, capture_output=True).stdout
    assert again == dump
