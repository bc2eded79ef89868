"""Dumps that want more than to be loaded, beside servers in production that would let them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import PG_HEAD, PG_TAIL, Place
from support.database import MariaServer, PostgresServer, maria_server, postgres_server, postgres_tool
from support.rehearse import put_dump, rehearse
from support.scratch import open_folder

DATA = "customer data"


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def outside(scratch: Path) -> Path:
    """A folder that everybody may write to."""
    folder = scratch / "outside"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture(scope="module")
def production(scratch: Path) -> Iterator[PostgresServer]:
    """It trusts whoever reaches its socket."""
    with postgres_server(scratch / "pg") as server:
        server.psql(f"create table p (s text); insert into p values ('{DATA}')")
        yield server


@pytest.fixture(scope="module")
def maria(scratch: Path) -> Iterator[MariaServer]:
    with maria_server(scratch / "my") as server:
        server.sql(
            f"create database shop; create table shop.t (a varchar(99)); insert into shop.t values ('{DATA}')"
        )
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


POSTGRES = {
    "a command of the client": (
        r"\! {psql} -h {socket} -U postgres -qc {change} postgres; touch {outside}/made"
    ),
    "copy to a program": "COPY (SELECT 1) TO PROGRAM '{psql} -h {socket} -U postgres -qc {change} postgres'",
    "copy to a program that writes": "COPY (SELECT 1) TO PROGRAM 'touch {outside}/made || true';",
    "copy to a file": "COPY (SELECT 1) TO '{outside}/made';",
    "lo_export": "SELECT lo_export(lo_from_bytea(0, 'x'), '{outside}/made');",
    "lo_import": "SELECT lo_import('{secret}');",
    "reading a file": "CREATE TABLE got AS SELECT pg_read_file('{secret}');",
    "an fdw over the socket": (
        "CREATE EXTENSION postgres_fdw; CREATE SERVER x FOREIGN DATA WRAPPER postgres_fdw OPTIONS "
        "(host '{socket}', dbname 'postgres'); CREATE USER MAPPING FOR CURRENT_USER SERVER x OPTIONS (user "
        "'postgres'); CREATE FOREIGN TABLE f (s text) SERVER x OPTIONS (table_name 'p'); "
        "UPDATE f SET s = 'y';"
    ),
    "dblink over the socket": (
        "CREATE EXTENSION dblink; SELECT dblink_exec('host={socket} user=postgres dbname=postgres', "
        "$$update p set s = 'y'$$);"
    ),
    "a check function": (
        "CREATE FUNCTION f(v int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'COPY (SELECT 1) TO "
        "PROGRAM ''touch {outside}/made'''; RETURN true; END $$; CREATE TABLE c (a int CHECK (f(a))); "
        "INSERT INTO c VALUES (1);"
    ),
    "a log file": (
        "ALTER SYSTEM SET logging_collector = on; ALTER SYSTEM SET log_directory = '{outside}'; "
        "ALTER SYSTEM SET log_filename = 'made'; SELECT pg_reload_conf();"
    ),
    "C code": ("COPY (SELECT 1) TO PROGRAM 'cp $(ls /lib/*/libm.so.6) evil.so'; LOAD '{{}}/evil.so';"),
}


@pytest.mark.parametrize("what", POSTGRES)
def test_a_dump_of_postgresql_meets_nothing_outside(
    place: Place, scratch: Path, production: PostgresServer, outside: Path, what: str
) -> None:
    secret = outside / "secret"
    secret.write_text("password of the repository")
    secret.chmod(0o644)
    words = {
        "psql": postgres_tool("psql"), "socket": production.folder, "outside": outside, "secret": secret,
        "change": '"update p set s = 1"',
    }  # fmt: skip
    attack = POSTGRES[what].format(**words)
    put_dump(place, PG_HEAD + attack.encode() + b"\n" + PG_TAIL, "postgresql")
    result = place.run("rehearse", "shop", "--json", "--scratch", scratch, "--allow-meta-commands")
    assert result.exit_code in (0, 1), result.output + result.stderr
    assert "password of the repository" not in result.output + result.stderr
    assert production.psql("select s from p").strip() == DATA
    assert [path.name for path in outside.iterdir()] == ["secret"]


MARIA = {
    "a federated table": (
        "INSTALL SONAME 'ha_federatedx'; CREATE SERVER prod FOREIGN DATA WRAPPER mysql OPTIONS (USER 'root', "
        "SOCKET '{socket}', DATABASE 'shop', HOST 'localhost'); CREATE TABLE pt (a varchar(99)) "
        "ENGINE=FEDERATED CONNECTION='prod/t'; UPDATE pt SET a = 'changed';"
    ),
    "the general log": "SET GLOBAL general_log_file = '{outside}/made'; SET GLOBAL general_log = ON;",
    "the slow log": "SET GLOBAL slow_query_log_file = '{outside}/made'; SET GLOBAL slow_query_log = ON;",
    "the audit log": (
        "INSTALL SONAME 'server_audit'; SET GLOBAL server_audit_file_path = '{outside}/made'; "
        "SET GLOBAL server_audit_logging = ON;"
    ),
    "outfile": "SELECT 1 INTO OUTFILE '{outside}/made';",
    "load data": "CREATE TABLE got (a text); LOAD DATA INFILE '{secret}' INTO TABLE got;",
    "load data local": "CREATE TABLE got (a text); LOAD DATA LOCAL INFILE '{secret}' INTO TABLE got;",
    "a data directory": "CREATE TABLE dd (a int) DATA DIRECTORY = '{outside}';",
    "a command of the client": "\\! touch {outside}/made\nsystem touch {outside}/made\n",
    "a function in C": "CREATE FUNCTION evil RETURNS INTEGER SONAME '../../../../..{outside}/evil.so';",
}


@pytest.mark.parametrize("what", MARIA)
def test_a_dump_of_mariadb_meets_nothing_outside(
    place: Place, scratch: Path, maria: MariaServer, outside: Path, what: str
) -> None:
    secret = outside / "secret"
    secret.write_text("password of the repository")
    secret.chmod(0o644)
    attack = MARIA[what].format(socket=maria.socket, outside=outside, secret=secret)
    head = b"-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)\n--\n"
    head += b"CREATE TABLE x (a int);\n"
    put_dump(place, head + attack.encode() + b"\n-- Dump completed\n", "mariadb")
    words = ["--allow-meta-commands", "--query", "select * from got"]
    result = place.run("rehearse", "shop", "--json", "--scratch", scratch, *words)
    assert result.exit_code == 1, result.output + result.stderr
    assert "password of the repository" not in result.output + result.stderr
    assert maria.sql("select a from shop.t").strip() == DATA
    assert [path.name for path in outside.iterdir()] == ["secret"]


SQLITE = {
    "shell": ".shell touch {outside}/made\n",
    "attach": "ATTACH '{outside}/made' AS x; CREATE TABLE x.t (a);",
    "vacuum into": "COMMIT; VACUUM INTO '{outside}/made'; BEGIN;",
    "load_extension": "SELECT load_extension('{outside}/evil');",
    "writefile": "SELECT writefile('{outside}/made', 'x');",
    "output": ".output {outside}/made\n",
}


@pytest.mark.parametrize("what", SQLITE)
def test_a_dump_of_sqlite_meets_nothing_outside(
    place: Place, scratch: Path, outside: Path, what: str
) -> None:
    attack = SQLITE[what].format(outside=outside)
    dump = f"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE a (b);\n{attack}\nCOMMIT;\n"
    put_dump(place, dump.encode(), "sqlite")
    rehearse(place, scratch, "shop", "--allow-meta-commands", code=1)
    assert [path.name for path in outside.iterdir() if path.name != "secret"] == []


def test_a_bomb_in_sqlite_ends_with_a_verdict_that_says_so(place: Place, scratch: Path) -> None:
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c;"
    dump = f"BEGIN TRANSACTION;\nCREATE TABLE a (b);\n{endless}\nCOMMIT;\n"
    put_dump(place, dump.encode(), "sqlite")
    proof = rehearse(place, scratch, "shop", "--timeout", "3", code=1)
    assert proof["error"] == "it was not done within 3 s, and was ended"


def test_who_is_no_user_of_this_machine_owns_what_is_made(place: Place, scratch: Path) -> None:
    look = b"create table seen (line text);\ncopy seen from program 'id -u';\n"
    put_dump(place, PG_HEAD + look + PG_TAIL, "postgresql")
    proof = rehearse(place, scratch, "shop", "--query", "table seen")
    uid = int(proof["queries"][0]["rows"][0][0])
    assert 61184 <= uid <= 65519 if os.geteuid() == 0 else uid == os.geteuid()
