"""MariaDB, SQLite and physical backups of PostgreSQL, rehearsed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.cli.base.exit_codes import ExitCode
from holdfast.servers.base.proof import latest_verdicts
from support import physical
from support.cli import Place
from support.database import MariaServer, maria_server, postgres_server, run
from support.rehearse import counts, opened, put_dump, rehearse
from support.scratch import open_folder

SHOP = """
create database shop; use shop;
create table `or``ders` (id int primary key, picture blob) engine=innodb;
insert into `or``ders` values (1, x'00ff0a27'), (2, null);
create table items (id int, foreign key (id) references `or``ders` (id));
insert into items values (1);
create view seen as select * from items;
create procedure look() select 1;
create trigger keep before insert on items for each row set new.id = new.id;
"""


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def maria(scratch: Path) -> Iterator[MariaServer]:
    with maria_server(scratch / "my") as server:
        server.sql(SHOP)
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [["--routines", "shop"], ["--databases", "shop"], ["--skip-extended-insert", "shop"]],
    ids=" ".join,
)
def test_a_dump_of_mariadb_is_proven_with_all_its_rows(
    place: Place, scratch: Path, maria: MariaServer, arguments: list[str]
) -> None:
    dump = maria.tool("mariadb-dump", *arguments)
    place.ok("backup", place.write("shop.sql", dump), "--name", "shop")
    proof = rehearse(place, scratch, "shop", "--query", "select max(id), null from items")
    assert proof["outcome"] == "proven"
    assert counts(proof) == {"or`ders": 2, "items": 1}
    assert proof["server"].startswith("MariaDB ")
    assert proof["queries"][0]["rows"] == [["1", None]]


def test_users_that_come_with_a_dump_do_not_shut_the_rehearsal_out(
    place: Place, scratch: Path, maria: MariaServer
) -> None:
    dump = maria.tool("mariadb-dump", "--all-databases", "--flush-privileges")
    locked = b"ALTER USER root@localhost IDENTIFIED BY 'another';\n-- Dump completed"
    dump = dump.replace(b"-- Dump completed", locked)
    place.ok("backup", place.write("shop.sql", dump), "--name", "shop")
    assert counts(rehearse(place, scratch, "shop"))["or`ders"] == 2


def test_rows_that_break_a_constraint_of_mariadb_fail_the_rehearsal(
    place: Place, scratch: Path, maria: MariaServer
) -> None:
    dump = maria.tool("mariadb-dump", "shop")
    orphan = b"SET FOREIGN_KEY_CHECKS=1;\nINSERT INTO `items` VALUES (77);\n-- Dump completed"
    dump = dump.replace(b"-- Dump completed", orphan)
    place.ok("backup", place.write("shop.sql", dump), "--name", "shop")
    proof = rehearse(place, scratch, "shop", code=1)
    assert "foreign key constraint fails" in proof["error"]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "app.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """create table "a b" (x integer primary key, y text);
            insert into "a b" values (1, 'q'), (2, null);
            create table c (x references "a b"); insert into c values (1), (9);
            create index i on c (x); create view v as select * from c;"""
        )
    return path


@pytest.mark.parametrize("live", ["", "sqlite:"])
def test_a_database_file_of_sqlite_is_proven(place: Place, scratch: Path, database: Path, live: str) -> None:
    place.ok("backup", f"{live}{database}", "--name", "app")
    proof = rehearse(place, scratch, "app", "--query", 'select * from "a b"')
    assert counts(proof) == {"a b": 2, "c": 2}
    assert proof["queries"][0]["rows"] == [["1", "q"], ["2", None]]
    assert proof["notes"][-1].endswith("1 rows refer to rows that are not there")
    assert "path" not in proof, "its text is made of it"


def test_a_dump_of_sqlite_is_proven_and_one_that_ends_early_is_not(
    place: Place, scratch: Path, database: Path
) -> None:
    dump = run(["sqlite3", str(database), ".dump"])
    place.ok("backup", place.write("app.sql", dump), "--name", "app")
    assert counts(rehearse(place, scratch, "app")) == {"a b": 2, "c": 2}
    put_dump(place, dump[: dump.index(b"CREATE TABLE c")], "sqlite")
    assert rehearse(place, scratch, "shop", code=1)["outcome"] == "failed"


def test_a_damaged_database_file_fails_the_rehearsal(place: Place, scratch: Path, database: Path) -> None:
    data = bytearray(database.read_bytes())
    data[-4096:] = bytes(4096)
    database.write_bytes(data)
    place.ok("backup", database, "--name", "app")
    proof = rehearse(place, scratch, "app", code=1)
    assert proof["outcome"] == "failed"
    assert "sqlite3" in proof["error"]


def test_a_dump_cannot_make_sqlite_run_programs(place: Place, scratch: Path, database: Path) -> None:
    dump = run(["sqlite3", str(database), ".dump"])
    scratch.chmod(0o777)
    made = scratch / "made"
    for line in (b".shell touch %s\n" % bytes(made), b"ATTACH '%s' AS x;\n" % bytes(made)):
        bad = dump.replace(b"COMMIT;", line + b"COMMIT;")
        put_dump(place, bad, "sqlite")
        assert rehearse(place, scratch, "shop", code=1)["outcome"] == "failed"
        assert not made.exists()


def test_a_physical_backup_is_recovered_and_read_by_pg_amcheck(place: Place, scratch: Path) -> None:
    with postgres_server(scratch / "ph") as server:
        server.psql("create table t (a int primary key); insert into t select generate_series(1, 500)")
        with opened(place) as repository:
            physical.take(repository, server)
    proof = rehearse(place, scratch, physical.NAME, "--query", "select count(*) from t")
    assert proof["outcome"] == "proven"
    assert counts(proof) == {"public.t": 500}
    assert any("pg_amcheck" in note for note in proof["notes"])


def test_a_physical_backup_is_recovered_to_a_moment_with_archived_log(place: Place, scratch: Path) -> None:
    archive = scratch / "archive"
    archive.mkdir()
    archive.chmod(0o777)
    settings = ["archive_mode = on", f"archive_command = 'cp %p {archive}/%f'", "wal_level = replica"]
    with postgres_server(scratch / "pt", settings) as server:
        server.psql("create table t (a int); insert into t values (1)")
        with opened(place) as repository:
            stored, _ = physical.take(repository, server)
        server.psql("insert into t values (2)")
        place_in_log = server.psql("select pg_current_wal_lsn()").strip()
        server.psql("insert into t values (4)")
        server.psql("select pg_switch_wal()")
        server.stop()  # it archives what is left first
    for path in sorted(archive.iterdir()):
        if not path.suffix:
            place.ok("wal-push", path, "--system-id", stored.snapshot.facts["system_id"])
    name = physical.NAME
    proof = rehearse(place, scratch, name, "--until", place_in_log, "--query", "select sum(a) from t")
    assert proof["queries"][0]["rows"] == [["3"]]
    assert any(place_in_log in note for note in proof["notes"])
    everything = rehearse(place, scratch, name, "--until", "latest", "--query", "select sum(a) from t")
    assert everything["queries"][0]["rows"] == [["7"]]
    assert rehearse(place, scratch, name, "--until", "2099-01-01 00:00", code=1) is None


def test_a_recovery_that_would_end_at_a_hole_in_the_log_is_not_begun(place: Place, scratch: Path) -> None:
    archive = scratch / "holed"
    archive.mkdir()
    archive.chmod(0o777)
    settings = ["archive_mode = on", f"archive_command = 'cp %p {archive}/%f'", "wal_level = replica"]
    with postgres_server(scratch / "hole", settings) as server:
        server.psql("create table t (a int)")
        with opened(place) as repository:
            stored, _ = physical.take(repository, server)
        for number in range(4):
            server.psql(f"insert into t values ({number})")
            server.psql("select pg_switch_wal()")
        server.stop()
    segments = sorted(path for path in archive.iterdir() if not path.suffix)
    lost = segments[-3]
    for path in segments:
        if path != lost:
            place.ok("wal-push", path, "--system-id", stored.snapshot.facts["system_id"])
    words: list[str | Path] = ["rehearse", physical.NAME, "--until", "latest", "--scratch", scratch]
    result = place.run(*words)
    assert result.exit_code == 1
    assert f"{lost.name} is missing" in result.stderr
    (place.repository / "snapshots" / ("0" * 64)).write_bytes(b"nonsense")  # it may have held the file
    result = place.run(*words)
    assert result.exit_code == ExitCode.DAMAGE, result.output + result.stderr
    assert "is missing" not in result.stderr
    with opened(place) as repository:
        assert latest_verdicts(repository).latest == {}
