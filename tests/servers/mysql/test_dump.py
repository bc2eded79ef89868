"""`holdfast backup mysql://`, with a real MariaDB: what comes in, what it is worth, what nobody may see."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.ingest.sources.source import Graded
from holdfast.ingest.sources.wrapped import innermost
from holdfast.repo.snapshots.snapshot import Consistency
from holdfast.servers.base.secrets import Credentials
from holdfast.servers.mysql.connection import access, parse_url
from holdfast.servers.mysql.dump import list_databases, prepare_database, with_position
from support.cli import Place
from support.database import MariaServer, maria_server, recorder
from support.scratch import open_folder

PASSWORD = "se'cr\"et\\:#; "


@pytest.fixture(scope="module")
def server() -> Iterator[MariaServer]:
    with open_folder() as folder, maria_server(folder / "s", ["--log-bin=log", "--server-id=1"]) as running:
        quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
        running.sql(f"CREATE USER bob@localhost IDENTIFIED BY '{quoted}'")
        running.sql("GRANT ALL ON *.* TO bob@localhost")
        running.sql("CREATE USER weak@localhost")
        running.sql("CREATE DATABASE shop; CREATE DATABASE mixed; CREATE DATABASE `-x a/b'`")
        running.sql("CREATE TABLE orders (n INT PRIMARY KEY, b BLOB) ENGINE=InnoDB", "shop")
        running.sql(
            "INSERT INTO orders SELECT seq, UNHEX(SHA1(seq)) FROM seq_1_to_3000;"
            "CREATE PROCEDURE p() SELECT 1; CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
            "shop",
        )
        running.sql("CREATE TABLE old (n INT) ENGINE=MyISAM; CREATE TABLE new (n INT)", "mixed")
        running.sql("GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON shop.* TO weak@localhost")
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def checksum(server: MariaServer, database: str) -> str:
    return server.sql("CHECKSUM TABLE orders", database).split("\t")[1]


def test_a_database_comes_back_row_by_row_with_what_belongs_to_it(server: MariaServer, place: Place) -> None:
    summary = place.json("backup", server.url("shop"))
    assert summary["name"] == "shop"
    assert summary["consistency"] == "application"
    assert "exited with 0" in summary["evidence"]
    assert "end mark" in summary["evidence"]
    assert [item["path"] for item in summary["items"]] == ["dump.sql"]
    server.sql("CREATE DATABASE copy1")
    with place.process("dump", "shop@latest:dump.sql") as process:
        assert process.stdout
        server.sql(process.stdout.read(), "copy1")
    assert checksum(server, "copy1") == checksum(server, "shop")
    assert "p" in server.sql("SHOW PROCEDURE STATUS WHERE Db='copy1'").split("\t")
    assert "e" in server.sql("SHOW EVENTS FROM copy1").split("\t")
    server.sql("DROP DATABASE copy1")


def test_the_server_and_its_place_in_the_binlog_are_known(server: MariaServer) -> None:
    with access(parse_url(server.url("shop")), Credentials()) as reach, ExitStack() as stack:
        prepared = prepare_database(stack, reach)
    assert prepared.engine == "mariadb"
    facts = prepared.facts
    assert facts.server.startswith("MariaDB 10.11")
    assert "mariadb-dump" in facts.tool
    name, position = server.sql("SHOW MASTER STATUS").split("\t")[:2]
    assert facts.binlog == f"{name}:{position}"
    assert facts.gtid == server.sql("SELECT @@gtid_binlog_pos").strip()


def test_unchanged_data_is_dumped_byte_by_byte_the_same(server: MariaServer) -> None:
    def dump() -> bytes:
        with access(parse_url(server.url("shop")), Credentials()) as reach, ExitStack() as stack:
            source = prepare_database(stack, reach).items[0].source
            buffer = bytearray(4 << 20)
            content = bytes(buffer[: source.read_into(memoryview(buffer), 0)])
            assert source.finish() == ""
            return content

    assert dump() == dump()


def test_a_password_is_seen_by_nobody(server: MariaServer, place: Place, tmp_path: Path) -> None:
    secret = place.write("db-password", PASSWORD + "\n")
    url = server.url("shop").replace("root@", "bob@")
    for tool in ("mariadb", "mariadb-dump"):
        found = shutil.which(tool)
        assert found
        path, log = recorder(tmp_path, found)
    env = place.environment | {"PATH": path, "HOME": str(tmp_path)}
    done = place.execute("backup", url, "--db-password-file", secret, "--json", env=env)
    assert done.code == 0, done.err
    text = log.read_text() + done.out.decode() + done.err
    assert "--single-transaction" in text
    assert PASSWORD not in text
    assert json.dumps(PASSWORD)[1:-1] not in text
    assert "correct horse" not in text
    assert "HOLDFAST" not in text


def test_a_given_password_goes_before_the_one_in_the_users_own_file(
    server: MariaServer, place: Place, tmp_path: Path
) -> None:
    (tmp_path / ".my.cnf").write_text("[client]\npassword=wrong\n")
    env = place.environment | {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    url = server.url("shop").replace("root@", "bob@")
    done = place.execute("backup", url, env=env)
    assert done.code == 1
    assert "Access denied" in done.err
    assert "wrong" not in done.err
    done = place.execute("backup", url, env=env | {"MYSQL_PWD": PASSWORD})
    assert done.code == 0, done.err
    options = place.write("options", '[client]\npassword="se\'cr\\"et\\\\:#; "\n')
    options.chmod(0o600)
    done = place.execute("backup", url, "--db-defaults-file", options, env=env)
    assert done.code == 0, done.err


def test_tables_without_transactions_lower_the_grade_unless_writers_wait(
    server: MariaServer, place: Place
) -> None:
    with access(parse_url(server.url("mixed")), Credentials()) as reach, ExitStack() as stack:
        source = innermost(prepare_database(stack, reach).items[0].source)
        assert isinstance(source, Graded)
        assert source.grade is Consistency.UNKNOWN
        assert "tables without transactions were read while they could change: old" in source.evidence
        locked = innermost(prepare_database(stack, reach, lock_all=True).items[0].source)
        assert isinstance(locked, Graded)
        assert locked.grade is Consistency.APPLICATION
    result = place.run("backup", server.url("mixed"), "--require", "application")
    assert result.exit_code == 20, result.stderr
    assert place.json("snapshots")["snapshots"] == []
    assert place.json("backup", server.url("mixed"))["consistency"] == "unknown"
    place.ok("backup", server.url("mixed"), "--lock-all-tables", "--require", "application")


def test_who_may_not_see_the_binlog_gets_the_dump_and_a_warning(server: MariaServer, place: Place) -> None:
    summary = place.json("backup", server.url("shop").replace("root@", "weak@"))
    assert any("binlog was not recorded" in warning for warning in summary["warnings"])


def test_all_databases_become_a_snapshot_each_and_users_one_of_their_own(
    server: MariaServer, place: Place
) -> None:
    lines = place.ok("backup", server.url(), "--all-databases", "--name", "db2", "--json").splitlines()
    summaries = [line for line in map(json.loads, lines) if line["message_type"] == "summary"]
    names = {summary["name"] for summary in summaries}
    assert {"db2-globals", "db2-shop", "db2-mixed", "db2--x a%2Fb'"} <= names
    assert not names & {"db2-mysql", "db2-sys", "db2-information_schema"}
    users = place.ok("dump", "db2-globals@latest:dump.sql")
    assert "CREATE USER IF NOT EXISTS" in users
    assert "`bob`@`localhost`" in users


def test_without_a_database_the_user_is_asked_which(server: MariaServer, place: Place) -> None:
    result = place.run("backup", server.url())
    assert result.exit_code == 1
    assert "names no database" in result.stderr
    assert "--all-databases" in result.stderr


def test_a_database_that_is_not_there_is_named(server: MariaServer, place: Place) -> None:
    result = place.run("backup", server.url("nowhere"))
    assert result.exit_code == 1
    assert "Unknown database 'nowhere'" in result.stderr


def test_a_server_that_is_killed_half_way_commits_nothing(place: Place, tmp_path: Path) -> None:
    with open_folder() as folder:
        with maria_server(folder / "s") as server:
            server.sql("CREATE DATABASE d; CREATE TABLE d.big (a INT, t TEXT)")
            server.sql("INSERT INTO big SELECT seq, REPEAT(SHA1(seq), 20) FROM seq_1_to_30000", "d")
            tool = shutil.which("mariadb-dump")
            assert tool
            path, _ = recorder(tmp_path, tool)
            pid = int((folder / "s" / "pid").read_text())
            rest = f"{{ head -c 8000000; kill -KILL {pid}; cat; }}"
            script = f'#!/bin/bash\nset -o pipefail\n{tool} "$@" | {rest}\n'
            (tmp_path / "bin" / "mariadb-dump").write_text(script)
            done = place.execute("backup", server.url("d"), env=place.environment | {"PATH": path})
        assert done.code == 1
        assert "Lost connection" in done.err or "gone away" in done.err or "exited with" in done.err
        assert place.json("snapshots")["snapshots"] == []


def test_names_of_databases_come_whole(server: MariaServer) -> None:
    with access(parse_url(server.url()), Credentials()) as reach:
        assert "-x a/b'" in list_databases(reach)


def test_mysqls_words_for_its_place_are_understood() -> None:
    head = (
        b"-- SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '3e11fa47-71ca:1-5,\nab:1-9';\n"
        b"-- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000042', SOURCE_LOG_POS=157;\n"
    )
    facts = with_position(DumpFacts(server="8.4"), head)
    assert (facts.server, facts.binlog) == ("8.4", "binlog.000042:157")
    assert facts.gtid == "3e11fa47-71ca:1-5,ab:1-9"
    assert with_position(facts, b"nothing").binlog == ""
