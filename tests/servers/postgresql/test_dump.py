"""`holdfast backup postgres://`, with real servers: what comes in, what it is worth, what nobody may see."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.servers.base.secrets import Credentials
from holdfast.servers.postgresql.connection import access, parse_url
from holdfast.servers.postgresql.dump import prepare_database
from support.cli import Place
from support.database import PostgresServer, postgres_server, postgres_tool, recorder, run
from support.scratch import open_folder

PASSWORD = "se'cr\"et\\:#;"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with open_folder() as folder, postgres_server(folder / "s") as running:
        quoted = PASSWORD.replace("'", "''")
        running.psql(f"CREATE ROLE bob LOGIN SUPERUSER PASSWORD '{quoted}'; CREATE ROLE owner")
        running.psql("CREATE ROLE reader LOGIN")
        hba = "local replication,all postgres trust\nlocal all reader trust\nlocal all all scram-sha-256\n"
        (running.data / "pg_hba.conf").write_text(hba)
        running.psql("SELECT pg_reload_conf()")
        running.psql("CREATE DATABASE shop OWNER owner")
        running.psql(
            "CREATE TABLE orders AS SELECT n, md5(n::text) t FROM generate_series(1, 5000) n", "shop"
        )
        running.psql("GRANT SELECT ON orders TO reader", "shop")
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "db-password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    return path


def rows(server: PostgresServer, database: str) -> str:
    return server.psql("SELECT count(*), sum(hashtext(o::text)) FROM orders o", database)


def loaded(server: PostgresServer, place: Place, selector: str, database: str) -> str:
    """Load a dump into a fresh database; what `rows` says of it."""
    server.psql(f"DROP DATABASE IF EXISTS {database}")
    server.psql(f"CREATE DATABASE {database}")
    with place.process("dump", selector) as process:
        assert process.stdout
        dump = process.stdout.read()
    server.tool("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", database, stdin=dump)
    return rows(server, database)


def test_a_database_comes_back_row_by_row_with_its_place_in_the_log(
    server: PostgresServer, place: Place
) -> None:
    summary = place.json("backup", server.url("shop"))
    assert summary["name"] == "shop"
    assert summary["consistency"] == "application"
    assert "exited with 0" in summary["evidence"]
    assert "end mark" in summary["evidence"]
    assert {item["path"] for item in summary["items"]} == {"dump.sql", "globals.sql"}
    assert loaded(server, place, "shop@latest:dump.sql", "copy1") == rows(server, "shop")
    globals_ = place.ok("dump", "shop@latest:globals.sql")
    assert "CREATE ROLE owner" in globals_
    assert "SCRAM-SHA-256" in globals_


def test_what_the_server_was_and_where_its_log_stood_is_known(server: PostgresServer) -> None:
    before = server.psql("SELECT pg_current_wal_lsn()").strip()
    connection = parse_url(server.url("shop"))
    with access(connection, Credentials()) as reach, ExitStack() as stack:
        prepared = prepare_database(stack, reach)
    facts = prepared.facts
    assert facts.server.startswith("PostgreSQL 15")
    assert "pg_dump (PostgreSQL)" in facts.tool
    assert server.psql(f"SELECT '{facts.lsn}'::pg_lsn >= '{before}'").strip() == "t"
    assert facts.system_id == server.psql("SELECT system_identifier FROM pg_control_system()").strip()
    assert prepared.origin == f"postgresql://postgres@/shop?host={server.folder}"


def test_the_same_database_again_costs_next_to_nothing(server: PostgresServer, place: Place) -> None:
    place.ok("backup", server.url("shop"))
    again = place.json("backup", server.url("shop"))
    assert again["new"] < again["size"] / 4


def test_the_custom_format_is_accepted_by_pg_restore(
    server: PostgresServer, place: Place, tmp_path: Path
) -> None:
    place.ok("backup", server.url("shop"), "--db-format", "custom", "--name", "c", "--no-globals")
    target = tmp_path / "out.pgdump"
    place.ok("restore", "c@latest:dump.pgdump", "--target", target)
    assert b"TABLE DATA public orders" in run([postgres_tool("pg_restore"), "-l", str(target)])


def test_a_password_is_seen_by_nobody(
    server: PostgresServer, place: Place, secret: Path, tmp_path: Path
) -> None:
    url = server.url("shop").replace("postgres@", "bob@")
    seen = []
    for tool in ("psql", "pg_dump", "pg_dumpall"):
        path, log = recorder(tmp_path, postgres_tool(tool))
        env = place.environment | {"PATH": path, "HOME": str(tmp_path), "HOLDFAST_DUMMY": "1"}
        done = place.execute("backup", url, "--db-password-file", secret, "--json", env=env)
        assert done.code == 0, done.err
        seen.append(log.read_text() + done.out.decode() + done.err)
        assert "--no-password" in log.read_text()
    text = "".join(seen)
    assert PASSWORD not in text
    assert json.dumps(PASSWORD)[1:-1] not in text
    assert "correct horse" not in text
    assert "HOLDFAST" not in text.replace("holdfast ", "")


def test_a_wrong_password_says_so_without_saying_it(
    server: PostgresServer, place: Place, tmp_path: Path
) -> None:
    wrong = place.write("wrong", "hunter2\n")
    result = place.run("backup", server.url("shop").replace("postgres@", "bob@"), "--db-password-file", wrong)
    assert result.exit_code == 1
    assert "password authentication failed" in result.stderr
    assert "hunter2" not in result.stderr
    assert place.json("snapshots")["snapshots"] == []


def test_last_words_of_a_tool_are_told_without_the_password(
    server: PostgresServer, place: Place, secret: Path, tmp_path: Path
) -> None:
    path, _ = recorder(tmp_path, postgres_tool("pg_dump"))
    script = '#!/bin/sh\ncat "$PGPASSFILE" >&2; echo "no luck" >&2; exit 1\n'
    (tmp_path / "bin" / "pg_dump").write_text(script)
    url = server.url("shop").replace("postgres@", "bob@")
    env = place.environment | {"PATH": path}
    done = place.execute("backup", url, "--db-password-file", secret, env=env)
    assert done.code == 1
    assert "*:*:*:*:***" in done.err
    assert "no luck" in done.err
    assert 'cr"et' not in done.err


def test_a_whole_cluster_is_taken_by_its_identity(server: PostgresServer, place: Place) -> None:
    summary = place.json("backup", server.url("shop"), "--physical", "--name", "main")
    assert summary["engine"] == "postgresql"
    system = server.psql("SELECT system_identifier FROM pg_control_system()").strip()
    assert summary["uuid"] == f"postgresql-{system}"
    assert summary["source"] == f"postgresql://postgres@/?host={server.folder}"


def test_a_password_in_the_environment_or_by_descriptor_works_too(
    server: PostgresServer, place: Place
) -> None:
    url = server.url("shop").replace("postgres@", "bob@")
    done = place.execute(
        "backup", url, env=place.environment | {"PGPASSWORD": PASSWORD, "PATH": os.environ["PATH"]}
    )
    assert done.code == 0, done.err
    reader, writer = os.pipe()
    os.write(writer, PASSWORD.encode() + b"\n")
    os.close(writer)
    done = place.execute("backup", url, "--db-password-fd", str(reader), pass_fds=(reader,))
    os.close(reader)
    assert done.code == 0, done.err


def test_who_may_not_read_role_passwords_gets_the_roles_and_a_warning(
    server: PostgresServer, place: Place
) -> None:
    summary = place.json("backup", server.url("shop").replace("postgres@", "reader@"))
    assert any("without their passwords" in warning for warning in summary["warnings"])
    globals_ = place.ok("dump", "shop@latest:globals.sql")
    assert "CREATE ROLE owner" in globals_
    assert "SCRAM" not in globals_


def test_all_databases_become_a_snapshot_each_and_roles_one_of_their_own(
    server: PostgresServer, place: Place
) -> None:
    hostile = "a/b: 'c\\d\" e=f"
    server.psql(f"""CREATE DATABASE "{hostile.replace('"', '""')}" """)
    try:
        lines = place.ok("backup", server.url(), "--all-databases", "--name", "main", "--json").splitlines()
    finally:
        server.psql(f"""DROP DATABASE "{hostile.replace('"', '""')}" """)
    summaries = [line for line in map(json.loads, lines) if line["message_type"] == "summary"]
    names = {summary["name"] for summary in summaries}
    assert len(names) == len(summaries)
    assert {"main-globals", "main-shop", "main-postgres"} <= names
    assert any(name.startswith("main-a%2Fb%3A") for name in names)
    assert "main-template1" not in names
    assert "CREATE ROLE owner" in place.ok("dump", "main-globals@latest:globals.sql")


def test_hooks_hold_all_databases_and_what_fails_in_them_is_told(
    server: PostgresServer, place: Place, tmp_path: Path
) -> None:
    mark = tmp_path / "frozen"
    result = place.run(
        "backup", server.url(), "--all-databases", "--before", f"touch {mark}", "--after", "false"
    )
    assert result.exit_code == 3, result.stderr
    assert mark.exists()
    assert "`false` exited with 1" in result.stderr


def test_a_database_that_fails_fails_the_whole_and_the_others_are_kept(
    server: PostgresServer, place: Place
) -> None:
    server.psql("CREATE TABLE secret (n int); REVOKE ALL ON secret FROM PUBLIC", "postgres")
    server.psql("CREATE ROLE weak LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak", "shop")
    (server.data / "pg_hba.conf").write_text("local replication,all all trust\n")
    server.psql("SELECT pg_reload_conf()")
    result = place.run("backup", server.url().replace("postgres@", "weak@"), "--all-databases", "--json")
    assert result.exit_code == 1
    assert "database postgres" in result.stderr
    assert "the others are kept" in result.stderr
    kept = {snapshot["name"] for snapshot in place.json("snapshots")["snapshots"]}
    assert "shop" in kept
    assert "postgres" not in kept


def test_a_dump_tool_that_is_killed_commits_nothing(
    server: PostgresServer, place: Place, tmp_path: Path
) -> None:
    path, _ = recorder(tmp_path, postgres_tool("pg_dump"))
    (tmp_path / "bin" / "pg_dump").write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec echo 'pg_dump (PostgreSQL) 15'\n"
        "printf -- '--\\n-- PostgreSQL database dump\\n--\\n\\n'; echo doomed >&2; kill -9 $$\n"
    )
    done = place.execute("backup", server.url("shop"), env=place.environment | {"PATH": path})
    assert done.code == 1
    assert "killed by signal 9: doomed" in done.err
    assert place.json("snapshots")["snapshots"] == []


def test_a_dump_without_its_trailer_commits_nothing_though_the_tool_ends_well(
    server: PostgresServer, place: Place, tmp_path: Path
) -> None:
    path, _ = recorder(tmp_path, postgres_tool("pg_dump"))
    (tmp_path / "bin" / "pg_dump").write_text(
        "#!/bin/sh\nprintf -- '--\\n-- PostgreSQL database dump\\n--\\n\\nSELECT 1;\\n'\n"
    )
    done = place.execute("backup", server.url("shop"), env=place.environment | {"PATH": path})
    assert done.code == 1
    assert "end mark" in done.err
    assert place.json("snapshots")["snapshots"] == []


def test_a_server_that_dies_half_way_commits_nothing(place: Place, tmp_path: Path) -> None:
    with open_folder() as folder:
        with postgres_server(folder / "s") as server:
            server.psql(
                "CREATE TABLE big AS SELECT repeat(md5(n::text), 20) FROM generate_series(1, 60000) n"
            )
            tool = postgres_tool("pg_dump")
            path, _ = recorder(tmp_path, tool)
            master = int((server.data / "postmaster.pid").read_text().split()[0])
            # The tool's output stops after 8 MB until the server is gone.
            rest = f"{{ head -c 8000000; kill -QUIT {master}; cat; }}"
            script = f'#!/bin/bash\nset -o pipefail\n{tool} "$@" | {rest}\n'
            (tmp_path / "bin" / "pg_dump").write_text(script)
            done = place.execute("backup", server.url(), env=place.environment | {"PATH": path})
        assert done.code == 1
        assert re.search("server closed the connection|terminating connection|connection", done.err)
        assert place.json("snapshots")["snapshots"] == []


def test_a_server_that_is_not_there_is_named(place: Place, tmp_path: Path) -> None:
    result = place.run("backup", f"postgres://bob@/shop?host={tmp_path}")
    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr


def test_writers_that_commit_during_the_dump_are_not_in_it(
    server: PostgresServer, place: Place, tmp_path: Path
) -> None:
    tool = postgres_tool("pg_dump")
    path, _ = recorder(tmp_path, tool)
    psql = f"{postgres_tool('psql')} -Xq -h {server.folder} -U postgres -d shop -c 'DELETE FROM late'"
    server.psql("CREATE TABLE late AS SELECT 42 AS answer", "shop")
    (tmp_path / "bin" / "pg_dump").write_text(f'#!/bin/sh\n{psql} >&2\nexec {tool} "$@"\n')
    try:
        done = place.execute("backup", server.url("shop"), env=place.environment | {"PATH": path})
        assert done.code == 0, done.err
        assert "\n42\n" in place.ok("dump", "shop@latest:dump.sql")
    finally:
        server.psql("DROP TABLE late", "shop")


def test_a_standby_can_be_read_too(server: PostgresServer) -> None:
    folder = server.folder.parent / "b"
    folder.mkdir(mode=0o755)
    if server.user:
        shutil.chown(folder, server.user)
    data = folder / "data"
    argv = [postgres_tool("pg_basebackup"), "-D", str(data), "-R", "-c", "fast"]
    run([*argv, "-h", str(server.folder), "-U", "postgres"], user=server.user)
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(f"\nunix_socket_directories = '{folder}'\n")
    standby = PostgresServer(folder, data, server.user)
    standby.start()
    try:
        with access(parse_url(standby.url("shop")), Credentials()) as reach, ExitStack() as stack:
            prepared = prepare_database(stack, reach, with_globals=False)
            buffer = memoryview(bytearray(4 << 20))
            count = prepared.items[0].source.read_into(buffer, 0)
            assert b"COPY public.orders" in bytes(buffer[:count])
            assert prepared.items[0].source.finish() == ""
        replayed = standby.psql("SELECT pg_last_wal_replay_lsn()").strip()
        assert standby.psql(f"SELECT '{prepared.facts.lsn}'::pg_lsn <= '{replayed}'").strip() == "t"
    finally:
        standby.stop("immediate")
