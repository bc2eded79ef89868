"""Files that are made of a hostile dump, in the hands of the real clients: none runs what stands in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import PASSWORD, PG_HEAD, PG_TAIL, Place
from support.database import MariaServer, PostgresServer, maria_server, postgres_server, postgres_tool
from support.scratch import open_folder


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with open_folder() as folder, postgres_server(folder / "pg") as one:
        yield one


@pytest.fixture(scope="module")
def maria() -> Iterator[MariaServer]:
    with open_folder() as folder, maria_server(folder / "maria") as one:
        yield one


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def psql(server: PostgresServer, sql: str | bytes, database: str = "postgres") -> bytes:
    """What psql complains of; it goes on after errors, as users have it."""
    argv = [postgres_tool("psql"), "-Xq", "-d", database]
    data = sql.encode() if isinstance(sql, str) else sql
    env = os.environ | server.environment
    return subprocess.run(argv, input=data, capture_output=True, env=env, check=False).stderr


def hostile(ran: Path, *, restricted: bool) -> bytes:
    lines = b"\\restrict abcDEF123\n\n" if restricted else b""
    end = b"\\unrestrict abcDEF123\n\n" if restricted else b""
    return (
        PG_HEAD + lines + b"SET client_encoding = 'UTF8';\n\n"
        b"CREATE TABLE public.orders (\n    id integer \\! touch " + os.fsencode(ran) + b"\n);\n\n"
        b"COPY public.orders (id) FROM stdin;\n1\n\\.\n\n\n" + PG_TAIL + end
    )


@pytest.mark.parametrize("restricted", [True, False])
def test_no_file_of_a_dump_runs_what_stands_in_it(
    place: Place, server: PostgresServer, tmp_path: Path, restricted: bool
) -> None:
    ran = tmp_path / "ran"
    dump = tmp_path / "d.sql"
    dump.write_bytes(hostile(ran, restricted=restricted))
    result = place.run("backup", dump, "--name", "e")
    assert result.exit_code == 0
    assert "warning: d.sql: it has commands for the client program, which no dump tool" in result.stderr
    psql(server, place.ok("dump", "e:dump.sql"))
    assert ran.exists() is not restricted  # as it came: that is what the warning is for
    ran.unlink(missing_ok=True)
    place.ok("restore", "e:tables", "--target", tmp_path / "out")
    restored = next((tmp_path / "out").rglob("public.orders.sql")).read_bytes()
    table = place.ok("dump", "e", "--table", "public.orders").encode()
    assert restored == table
    for sql in (table, place.ok("dump", "e:schema.sql").encode()):
        assert b"backslash commands are restricted" in psql(server, sql)
        assert not ran.exists()


def test_the_key_of_a_file_is_its_own_and_the_contents(place: Place, tmp_path: Path) -> None:
    def keys(number: int) -> set[str]:
        dump = tmp_path / "d.sql"
        dump.write_bytes(hostile(tmp_path / f"ran{number}", restricted=True))
        place.ok("backup", dump, "--name", "e")
        files = (place.ok("dump", f"e:{name}") for name in ("schema.sql", "tables/public.orders.sql"))
        return {sql.partition("\n")[0] for sql in files}

    found = keys(1) | keys(2)
    assert len(found) == 4
    assert all(line.startswith("\\restrict ") and line.split()[1].isalnum() for line in found)
    assert keys(2) <= found
    assert not any("abcDEF123" in line for line in found)


def test_a_dump_of_a_cluster_loads_file_by_file(place: Place, server: PostgresServer, tmp_path: Path) -> None:
    server.psql('CREATE ROLE carol; CREATE DATABASE "it\'s a ""db""";')
    server.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2);", 'it\'s a "db"')
    dump = tmp_path / "all.sql"
    dump.write_bytes(server.tool("pg_dumpall"))
    assert b"\\restrict " in dump.read_bytes()
    assert "warning" not in place.run("backup", dump, "--name", "all").stderr
    server.psql('DROP DATABASE "it\'s a ""db"""; DROP ROLE carol;')
    for name in ("globals.sql", 'it\'s a "db".schema.sql'):
        assert b"restrict" not in psql(server, place.ok("dump", f"all:{name}"))
    assert server.psql("SELECT count(*) FROM t", 'it\'s a "db"') == "0\n"
    assert server.psql("SELECT 1 FROM pg_roles WHERE rolname = 'carol'") == "1\n"
    server.psql("CREATE DATABASE one")
    table = place.ok("dump", "all", "--table", 'it\'s a "db"/public.t')
    assert psql(server, table, "one") == b""
    assert server.psql("SELECT count(*) FROM t", "one") == "2\n"


def test_files_of_an_archive_are_restricted_too(place: Place, server: PostgresServer, tmp_path: Path) -> None:
    server.psql("CREATE DATABASE arch")
    server.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1);", "arch")
    dump = tmp_path / "a.pgdump"
    dump.write_bytes(server.tool("pg_dump", "-Fc", "-d", "arch"))
    place.ok("backup", dump, "--name", "arch")
    server.psql("DROP TABLE t", "arch")
    for name in ("dump.sql", "schema.sql", "tables/public.t.sql"):
        sql = place.ok("dump", f"arch:{name}")
        assert sql.startswith("\\restrict ")
        assert psql(server, sql, "arch") == b""
        assert server.psql("SELECT count(*) FROM t", "arch") in ("0\n" if name == "schema.sql" else "1\n")
        server.psql("DROP TABLE t", "arch")


def test_the_mariadb_client_stays_in_its_sandbox(place: Place, maria: MariaServer, tmp_path: Path) -> None:
    maria.sql("CREATE DATABASE shop; CREATE TABLE shop.t (a int); CREATE DATABASE empty;")
    ran = tmp_path / "ran"
    dump = maria.tool("mariadb-dump", "shop")
    assert dump.startswith(b"/*M!999999\\- enable the sandbox mode */")
    path = tmp_path / "d.sql"
    path.write_bytes(dump.replace(b"`a` int", b"`a` int \\! touch " + os.fsencode(ran) + b"\n"))
    result = place.run("backup", path, "--name", "m")
    assert "commands for the client program" in result.stderr
    for name in ("dump.sql", "schema.sql", "tables/shop.t.sql"):
        argv = ["mariadb", "--no-defaults", "-uroot", f"--socket={maria.socket}", "--force", "empty"]
        sql = place.ok("dump", f"m:{name}").encode()
        done = subprocess.run(argv, input=sql, capture_output=True, check=False)
        assert b"sandbox" in done.stderr, done.stderr
        assert not ran.exists()


def test_info_tells_commands_and_a_rehearsal_refuses_them(place: Place, tmp_path: Path) -> None:
    dump = tmp_path / "d.sql"
    dump.write_bytes(hostile(tmp_path / "ran", restricted=True))
    place.run("backup", dump, "--name", "e")
    assert "client commands  1, the first: \\! touch " in place.ok("info", "e")
    assert place.json("snapshots")  # nothing else is different
    refused = place.run("rehearse", "e")
    assert refused.exit_code == 1
    assert "dump.sql has commands for the client program, which no dump tool writes (1, the" in refused.stderr
    assert "--allow-meta-commands loads it all the same" in refused.stderr
    assert PASSWORD not in refused.stderr


def test_sqlite_text_with_a_dot_command_is_told(place: Place, tmp_path: Path) -> None:
    dump = tmp_path / "d.sql"
    head = b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"
    dump.write_bytes(head + b"CREATE TABLE t(x);\n.shell touch y\n;\nCOMMIT;\n")
    assert "(1, the first: .shell touch y)" in place.run("backup", dump, "--name", "s").stderr
