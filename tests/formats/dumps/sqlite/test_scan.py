"""SQLite's `.dump` and Python's iterdump: every table's file loads by itself; early ends are seen."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from holdfast.formats.dumps.sqlite.files import files, table_rows
from holdfast.formats.dumps.sqlite.scan import SqliteVisitor
from support.basics import need, random_bytes
from support.database import run
from support.mysql_examples import LOOKS_LIKE, content, scan

ODD = "wei\"rd]`';\n/名-- x"
SCHEMA = """
CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, t TEXT, b BLOB, r REAL);
CREATE TABLE other (id INTEGER PRIMARY KEY AUTOINCREMENT, x);
CREATE TABLE /* ( */ "wei""rd]`';
/名-- x" (x -- , y
  , [a b], `AS`, 'q' TEXT DEFAULT ('),('), g AS (x + 1),
  h INT GENERATED ALWAYS AS (x), CHECK (x > 0), UNIQUE (x));
CREATE TABLE keyed (k PRIMARY KEY, v REFERENCES a (id)) WITHOUT ROWID;
CREATE TABLE empty_one (a, b);
CREATE INDEX i1 ON A (t);
CREATE UNIQUE INDEX "i;2" ON "wei""rd]`';
/名-- x" ("a b");
CREATE TRIGGER tr AFTER UPDATE OF t, b ON a BEGIN SELECT 1; DELETE FROM other WHERE id < 0; END;
CREATE VIEW v AS SELECT * FROM a;
CREATE TRIGGER iv INSTEAD OF INSERT ON v BEGIN INSERT INTO a (t) VALUES (NEW.t); END;
"""
TABLES = {"a", "other", ODD, "keyed", "empty_one"}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA)
    rows = [(text, random_bytes(300, at), at / 3) for at, text in enumerate(LOOKS_LIKE)]
    connection.executemany("INSERT INTO a (t, b, r) VALUES (?, ?, ?)", rows)
    connection.execute("DELETE FROM a WHERE id > 10")
    connection.executemany("INSERT INTO other (x) VALUES (?)", [(None,), (2**60,), (b"",)])
    name = '"' + ODD.replace('"', '""') + '"'
    connection.executemany(
        f"INSERT INTO {name} (x, [a b], [AS], q) VALUES (?, ?, ?, ?)",
        [(at + 1, text, text, None) for at, text in enumerate(LOOKS_LIKE)],
    )
    connection.executemany("INSERT INTO keyed VALUES (?, ?)", [(text, 1) for text in LOOKS_LIKE])
    connection.commit()
    connection.close()
    return path


def shell(database: Path | str, *commands: str, stdin: bytes = b"") -> bytes:
    found = shutil.which("sqlite3")
    need(found, "sqlite3")
    assert found
    return run([found, "-bail", str(database), *commands], stdin=stdin)


def iterdump(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE " + '"' + ODD.replace('"', '""') + '"')  # iterdump fails for it
    connection.commit()
    dump = "".join(f"{line}\n" for line in connection.iterdump()).encode()
    connection.close()
    return dump


def load_by_python(path: Path, sql: bytes) -> None:
    """As the shell does, but for the carriage returns in strings that it takes for ends of lines."""
    connection = sqlite3.connect(path)
    connection.executescript(sql.decode())
    connection.close()


def state(path: Path, table: str) -> list[object]:
    """Definition, rows, indexes, triggers and the place in sqlite_sequence."""
    connection = sqlite3.connect(path)
    name = '"' + table.replace('"', '""') + '"'
    # The shell writes some definitions in other words.
    sql = "rtrim(replace(sql, 'IF NOT EXISTS ', ''), char(10))"
    query = f"SELECT type, name, {sql} FROM sqlite_master WHERE tbl_name = ? ORDER BY name"
    found: list[object] = [connection.execute(query, (table,)).fetchall()]
    found.append(connection.execute(f"SELECT * FROM {name}").fetchall())
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").fetchone():
        found.append(connection.execute("SELECT * FROM sqlite_sequence WHERE name = ?", (table,)).fetchall())
    connection.close()
    return [part for part in found if part]


@pytest.mark.parametrize("tool", ["shell", "shell with row IDs", "iterdump"])
def test_each_table_loads_by_itself(database: Path, tmp_path: Path, tool: str) -> None:
    if tool == "iterdump":
        dump = iterdump(database)
    else:
        dump = shell(database, ".dump --preserve-rowids" if "IDs" in tool else ".dump")
    catalogue = scan(SqliteVisitor(), dump, step=777)
    assert (catalogue.fault, catalogue.engine, catalogue.form) == ("", "sqlite", "sql")
    made = files(catalogue, len(dump))
    tables = TABLES - ({ODD} if tool == "iterdump" else set())
    assert len(made) == 1 + len(tables)
    by_name = {section.name: section for section in catalogue.sections if section.type == "TABLE"}
    assert set(by_name) == tables
    paths = dict(zip(by_name, [path for path in made if "/" in path], strict=True))
    for number, (table, path) in enumerate(paths.items()):
        assert path.startswith("tables/main.")
        fresh = tmp_path / f"fresh{number}.db"
        if tool == "iterdump":
            load_by_python(fresh, content(made[path], dump))
        else:
            shell(fresh, stdin=content(made[path], dump))
        assert state(fresh, table) == state(database, table)
    assert state(database, "a")[-1] == [("a", len(LOOKS_LIKE))]


def test_a_table_beside_others_leaves_their_sequences_alone(database: Path, tmp_path: Path) -> None:
    dump = shell(database, ".dump")
    made = files(scan(SqliteVisitor(), dump), len(dump))
    fresh = tmp_path / "fresh.db"
    shell(
        fresh, stdin=b"CREATE TABLE mine (a INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO mine VALUES (77);"
    )
    for table in ("a", "other"):
        shell(fresh, stdin=content(made[f"tables/main.{table}.sql"], dump))
    expected = f"a|{len(LOOKS_LIKE)}\nmine|77\nother|3\n".encode()
    assert shell(fresh, "SELECT * FROM sqlite_sequence ORDER BY name") == expected


def test_the_schema_has_all_but_rows(database: Path, tmp_path: Path) -> None:
    dump = shell(database, ".dump")
    made = files(scan(SqliteVisitor(), dump), len(dump))
    fresh = tmp_path / "fresh.db"
    shell(fresh, stdin=content(made["schema.sql"], dump))
    query = "SELECT name FROM sqlite_master ORDER BY name"
    assert shell(fresh, query) == shell(database, query)
    assert shell(fresh, "SELECT count(*) FROM a") == b"0\n"


@pytest.mark.parametrize(
    "definition",
    [
        "VIRTUAL TABLE f USING fts5(x)",
        "VIRTUAL TABLE f USING fts4(x)",
        "VIRTUAL TABLE f USING rtree(x, y, z)",
    ],
)
def test_a_virtual_tables_file_holds_its_shadow_tables(
    database: Path, tmp_path: Path, definition: str
) -> None:
    values = "(1, 2, 3)" if "rtree" in definition else "('hello world')"
    shell(database, f"CREATE {definition}; INSERT INTO f VALUES {values}; CREATE TABLE f_mine (a); ANALYZE;")
    dump = shell(database, ".dump")
    catalogue = scan(SqliteVisitor(), dump)
    assert not catalogue.fault
    made = files(catalogue, len(dump))
    assert {path for path in made if "main.f" in path} == {"tables/main.f.sql", "tables/main.f_mine.sql"}
    fresh = tmp_path / "fresh.db"
    shell(fresh, stdin=content(made["tables/main.f.sql"], dump))
    where = "" if "rtree" in definition else " WHERE f MATCH 'hello'"
    assert shell(fresh, f"SELECT * FROM f{where}") == shell(database, f"SELECT * FROM f{where}") != b""
    assert shell(fresh, "PRAGMA integrity_check") == b"ok\n"
    schema = content(made["schema.sql"], dump)
    assert b"f_content" not in schema
    assert schema.startswith(b"-- Virtual tables are left out")
    shell(tmp_path / "schema.db", stdin=schema)
    assert "tables/main.f" not in table_rows(catalogue)


def test_virtual_tables_of_iterdump_are_left_out_with_the_reason(database: Path) -> None:
    shell(database, "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('hello')")
    dump = iterdump(database)
    catalogue = scan(SqliteVisitor(), dump)
    assert [left_out[:2] for left_out in catalogue.extra["left_out"]] == [["main", "f"]]
    assert "iterdump" in catalogue.extra["left_out"][0][2]
    assert not any("main.f" in path for path in files(catalogue, len(dump)))
    assert "tables/main.a.sql" in files(catalogue, len(dump))


def test_a_dump_that_ends_anywhere_early_has_a_fault(database: Path) -> None:
    dump = shell(database, ".dump")
    for end in [*range(400), *range(400, len(dump) - 400, 41), *range(len(dump) - 400, len(dump) - 1)]:
        catalogue = scan(SqliteVisitor(), dump[:end])
        assert catalogue.fault, end
        files(catalogue, end)
    assert not scan(SqliteVisitor(), dump[:-1]).fault


def test_a_table_that_the_dump_ends_in_has_no_file(database: Path) -> None:
    dump = shell(database, ".dump")
    end = dump.index(b"INSERT INTO other VALUES(2")
    made = files(scan(SqliteVisitor(), dump[: end + 9]), end + 9)
    assert set(made) == {"schema.sql", "tables/main.a.sql"}


@pytest.mark.parametrize(
    ("dump", "fault"),
    [
        (b"", "BEGIN"),
        (b"CREATE TABLE a(x);\n", "BEGIN"),
        (b"BEGIN TRANSACTION;\nCREATE TABLE a(x);\n", "COMMIT"),
        (b"BEGIN TRANSACTION;\nCREATE TABLE a(x);\nROLLBACK; -- due to errors\n", "ROLLBACK"),
        (b"BEGIN TRANSACTION;\nINSERT INTO a VALUES('\nCOMMIT;\n", "rows"),
        (b"BEGIN TRANSACTION;\nCOMMIT;\nINSERT INTO a VALUES(1);\n", "COMMIT"),
        (b"BEGIN TRANSACTION;\n/****** CORRUPTION ERROR *******/\nCOMMIT;\n", "damaged"),
        (b"BEGIN TRANSACTION;\n-- COMMIT;\n", "COMMIT"),
        (b"BEGIN TRANSACTION;\nCREATE TABLE a(x);\nCOMMIT;\nPRAGMA user_version=3;\n", ""),
    ],
)
def test_faults(dump: bytes, fault: str) -> None:
    found = scan(SqliteVisitor(), dump).fault
    assert fault in found
    assert bool(found) == bool(fault)


def test_a_damaged_database_is_dumped_with_a_fault(database: Path) -> None:
    data = bytearray(database.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    for page in range(len(data) // size // 2, len(data) // size):
        data[page * size : (page + 1) * size] = bytes(size)
    database.write_bytes(data)
    found = shutil.which("sqlite3")
    assert found

    dump = subprocess.run([found, str(database), ".dump"], capture_output=True, check=False).stdout
    assert scan(SqliteVisitor(), dump).fault


def test_a_row_of_megabytes_loads(tmp_path: Path) -> None:
    path, fresh = tmp_path / "a.db", tmp_path / "b.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a, b)")
    text = "".join(LOOKS_LIKE) * 20_000
    connection.execute("INSERT INTO t VALUES (?, ?)", (random_bytes(5 << 20, 1), text))
    connection.commit()
    connection.close()
    dump = shell(path, ".dump")
    made = files(scan(SqliteVisitor(), dump, step=100_003), len(dump))
    shell(fresh, stdin=content(made["tables/main.t.sql"], dump))
    assert state(fresh, "t") == state(path, "t")
