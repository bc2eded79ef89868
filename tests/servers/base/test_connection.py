"""URLs of databases, programs and their environment, secrets on their way."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import NotFound, Refused
from holdfast.cli.base.exits import advice_for
from holdfast.formats.dumps.engines import ENGINES
from holdfast.servers.base.connection import Connection
from holdfast.servers.base.errors import PasswordInUrl
from holdfast.servers.base.programs import find_program
from holdfast.servers.base.secrets import Credentials
from holdfast.servers.mysql import connection as mysql
from holdfast.servers.postgresql import connection as postgres
from holdfast.servers.postgresql.connection import conninfo
from holdfast.servers.postgresql.programs import find_client
from holdfast.servers.sqlite.engine import path_in


def parse_url(url: str) -> Connection:
    if url.lower().startswith("postgres"):
        return postgres.parse_url(url)
    return mysql.parse_url(url)


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://backup@db1/shop", "host='db1' user='backup' dbname='shop'"),
        (
            "postgresql://db1:5433/shop?sslmode=require",
            "host='db1' port='5433' dbname='shop' sslmode='require'",
        ),
        ("postgres://bob@/shop?host=/run/pg", "host='/run/pg' user='bob' dbname='shop'"),
        ("postgres://[::1]:5433/shop", "host='::1' port='5433' dbname='shop'"),
        ("postgres://a:1,b/shop", "host='a,b' port='1,' dbname='shop'"),
        ("POSTGRES:///?service=prod", "service='prod'"),
        ("postgres://a%40b@/x%2Fy%27%5C", r"user='a@b' dbname='x/y\'\\'"),
    ],
)
def test_a_postgresql_url_becomes_a_connection_string(url: str, expected: str) -> None:
    assert conninfo(parse_url(url)) == expected


def test_a_mysql_url_becomes_options() -> None:
    connection = parse_url("mysql://root@db2:3307/shop?ssl-ca=/etc/ca.pem&skip-ssl")
    expected = ["--host=db2", "--port=3307", "--user=root", "--ssl-ca=/etc/ca.pem", "--skip-ssl"]
    assert mysql.mysql_options(connection) == expected
    assert mysql.mysql_options(parse_url("mariadb://root@localhost/?socket=/run/x"))[-1] == "--socket=/run/x"


@given(NAMES, NAMES)
def test_any_name_survives_a_url(user: str, database: str) -> None:
    connection = parse_url(f"postgres://{quote(user, safe='')}@h/{quote(database, safe='')}")
    assert (connection.user, connection.database) == (user, database)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://bob:hunter2@db1/shop",
        "postgres://db1/shop?password=hunter2",
        "postgres://db1/shop?sslpassword=hunter2",
        "mysql://bob:hunter2@db1/shop",
        "mysql://bob:@db1/shop",
        "mariadb://db1/shop?Password=hunter2",
        "postgres://bob:hun@ter2@db1/shop",
    ],
)
def test_a_password_in_a_url_is_refused_with_the_ways_to_give_it_and_not_repeated(url: str) -> None:
    with pytest.raises(PasswordInUrl) as raised:
        parse_url(url)
    told = f"{raised.value}; {advice_for(raised.value)}"
    assert "--db-password-file or --db-password-fd" in told
    assert "hunter2" not in told
    assert "~/.pgpass" in told or "~/.my.cnf" in told


@pytest.mark.parametrize(
    "url",
    [
        "postgres://h/a/b",
        "postgres://h:0/x",
        "postgres://h:99999/x",
        "postgres://[::1/x",
        "postgres://h/%zz",
        "postgres://h/%00",
        "postgres://h/%ff",
        "postgres://h/x?dbname=y",
        "postgres://h/x?replication=1",
        "postgres://h/x?a=1&a=2",
        "postgres://h/x?A-B=1",
        "mysql://a,b/x",
        "mysql://h/x?init-command=drop",
        "postgres://" + "x" * 9000,
    ],
)
def test_what_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        parse_url(url)


def test_sqlite_paths_stand_as_they_are() -> None:
    assert path_in("sqlite:/srv/a b%20.db") == "/srv/a b%20.db"
    with pytest.raises(Refused):
        path_in("sqlite:")


def test_a_url_is_known_by_its_first_letters() -> None:
    urls = ("mysql://x", "MariaDB://x", "postgres://", "postgresql://x", "sqlite:x")
    entries = [ENGINES.entry_for_url(url) for url in urls]
    assert [entry.name if entry else "" for entry in entries] == [
        *("mysql", "mariadb", "postgresql", "postgresql", "sqlite")
    ]
    for path in ("postgres.sql", "mysql:x", "nbd://x", "/srv/sqlite:x", ""):
        assert ENGINES.entry_for_url(path) is None


def test_what_people_are_told_has_no_parameters() -> None:
    url = "postgres://bob@/shop?host=/run/pg&sslkey=/secret"
    assert parse_url(url).origin == "postgresql://bob@/shop?host=/run/pg"
    assert parse_url("mysql://root@[::1]:33/x").origin == "mysql://root@[::1]:33/x"


# ---- programs ---------------------------------------------------------------------------------------------


def test_programs_get_no_secrets_and_nothing_that_changes_a_dump() -> None:
    ours = {"HOLDFAST_PASSWORD": "x", "HOLDFAST_REPOSITORY": "/r", "PGPASSWORD": "x", "MYSQL_PWD": "x"}
    kept = {"PGHOST": "h", "PGPASSFILE": "/f", "HOME": "/root", "PATH": "/bin"}
    given_ = ours | kept | {"PGCLIENTENCODING": "LATIN1", "AWS_SECRET": "x"}
    with postgres.access(parse_url("postgres://h/x"), Credentials(), given_ | {"PGPASSWORD": ""}) as reach:
        assert reach.environment == kept | {"LC_ALL": "C"}
    with mysql.access(parse_url("mysql://h/x"), Credentials(), given_ | {"MYSQL_PWD": ""}) as reach:
        assert reach.environment == {"HOME": "/root", "PATH": "/bin", "LC_ALL": "C"}


def test_a_program_on_path_goes_before_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "pg_dump"
    mine.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.1'\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert find_client("pg_dump") == str(mine)


def test_a_program_that_is_not_installed_is_named() -> None:
    with pytest.raises(NotFound, match="neither-here or there is not installed"):
        find_program("neither-here", "there")
    with pytest.raises(NotFound, match="pg_nothing is not installed"):
        find_client("pg_nothing")


def test_a_password_reaches_programs_through_memory_alone() -> None:
    password = 'p\\a:s"s'
    for engine, url, variable in (
        (postgres, "postgres://h/x", "PGPASSWORD"),
        (mysql, "mysql://h/x", "MYSQL_PWD"),
    ):
        for given_, environ in ((password, {}), (None, {variable: password})):
            with engine.access(parse_url(url), Credentials(given_), environ) as reach:
                (fd,) = reach.descriptors
                assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
                assert not os.get_inheritable(fd)
                assert "memfd" in str(Path(f"/proc/self/fd/{fd}").readlink())
                told = repr(reach) + repr(reach.environment) + repr(reach.first) + repr(Credentials(given_))
                assert password not in told
                assert repr(password)[1:-1] not in told
                seen = subprocess.run(
                    [sys.executable, "-c", f"print(open('/proc/self/fd/{fd}').read())"],
                    pass_fds=reach.descriptors,
                    capture_output=True,
                    check=True,
                ).stdout.decode()
                assert seen.strip().endswith(('p\\\\a\\:s"s', 'password="p\\\\a:s\\"s"'))
                assert reach.scrub(f"bad {password}!") == "bad ***!"
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(fd)


def test_a_password_that_no_file_can_hold_is_refused() -> None:
    with (
        pytest.raises(Refused, match="line break"),
        postgres.access(parse_url("postgres://h/x"), Credentials("a\nb"), {}),
    ):
        pass


def test_an_option_file_and_a_password_exclude_each_other() -> None:
    with (
        pytest.raises(Refused, match="not both"),
        mysql.access(parse_url("mysql://h/x"), Credentials("a", "/f")),
    ):
        pass
