"""A throw-away PostgreSQL: a fresh cluster, or a data directory that was written before."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from holdfast.base.types import Buffer
from holdfast.formats.dumps.postgresql.plain.quoting import conninfo_value, setting_value
from holdfast.servers.base.errors import SeveralDatabases
from holdfast.servers.base.proof import QueryResult, TableCount
from holdfast.servers.confined.clients import ANSWER, QUERY_BYTES, ask, failure, feed, parse_csv
from holdfast.servers.confined.confined import Confinement
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.private import read_inside, write_new
from holdfast.servers.confined.program import Program
from holdfast.servers.postgresql.programs import PostgresPrograms
from holdfast.servers.postgresql.psql import FIELDS, psql_arguments
from holdfast.servers.postgresql.script import Needs

SUPERUSER: Final = "holdfast_rehearsal"
"""Of a fresh cluster: no name that a dump's roles have."""
DATA_FOLDER: Final = "data"
SETTINGS_FILE: Final = "postgresql.conf"
"""Names in the private directory."""
_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "port": "5432",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "64MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "archive_mode": "off",
    "autovacuum": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "fatal",
    "log_min_error_statement": "panic",
    "dynamic_shared_memory_type": "mmap",
    "huge_pages": "off",
    "ssl": "off",
}
_DATABASES: Final = b"""SELECT datname FROM pg_database
WHERE datallowconn AND datname <> 'template1' ORDER BY 1;
"""
_COUNT: Final = rb"""
SET statement_timeout = 0;
SELECT format('SELECT %L, %L, count(*) FROM ONLY %I.%I', nspname, relname, nspname, relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p') AND relpersistence <> 't' AND nspname NOT IN ('pg_catalog', 'information_schema')
AND nspname !~ '^pg_(toast|temp)'
ORDER BY nspname, relname
\gexec
"""
_START_SECONDS: Final = 60.0


class ThrowawayPostgres:
    """A server that answers. Made by `running`."""

    def __init__(
        self, confinement: Confinement, programs: PostgresPrograms, process: Program, superuser: str
    ) -> None:
        self._confinement = confinement
        self._programs = programs
        self._process = process
        self._superuser = superuser
        self._filled: list[str] = []

    def load(self, parts: Iterable[Buffer]) -> None:
        """Run a script, beginning in the database `postgres`. Raises RehearsalFailed at its first error."""
        script = self._needs.provided(parts)
        feed(self._confinement, self._psql("postgres"), script, env=self._environment)

    @property
    def _needs(self) -> Needs:
        known = self._lines(b"SELECT rolname FROM pg_roles;\n")
        spaces = self._lines(b"SELECT spcname FROM pg_tablespace;\n")
        return Needs(self._make, known, spaces)

    def _make(self, roles: list[bytes], tablespaces: list[bytes]) -> None:
        lines = [b"CREATE ROLE %s NOLOGIN;\n" % role for role in roles]
        lines += [b"CREATE TABLESPACE %s LOCATION '';\n" % space for space in tablespaces]
        ask(self._confinement, self._psql("postgres"), b"".join(lines), env=self._environment)

    def databases(self) -> list[str]:
        return [name.decode(errors="surrogateescape") for name in self._lines(_DATABASES)]

    def count(self) -> list[TableCount]:
        counts = [table for database in self.databases() for table in self._count(database)]
        self._filled = list(dict.fromkeys(table.database for table in counts))
        return counts

    def _count(self, database: str) -> Iterator[TableCount]:
        argv = self._psql(database, *FIELDS)
        answer, more = ask(self._confinement, argv, _COUNT, env=self._environment)
        if more:
            raise RehearsalFailed(
                f"database {database}: its list of tables is longer than {ANSWER >> 20} MiB, the limit"
            )
        fields = iter(answer.split(b"\0")[:-1])
        for schema, name, rows in zip(fields, fields, fields, strict=False):
            yield TableCount(database, _text(schema), _text(name), int(rows))

    def query(self, sql: str, database: str) -> QueryResult:
        if not database:
            if len(self._filled) > 1:
                there = ", ".join(self._filled[:10])
                raise SeveralDatabases(f"a query needs the name of its database; there are {there}")
            database = self._filled[0] if self._filled else "postgres"
        null = secrets.token_hex(8)
        argv = self._psql(database, "--csv", "-P", f"null={null}", "-v", "FETCH_COUNT=200")
        answer, more = ask(
            self._confinement,
            argv,
            sql.encode(errors="surrogateescape") + b"\n;\n",
            env=self._environment,
            limit=4 * QUERY_BYTES,
        )
        table = parse_csv(answer, more=more, null=null)
        return QueryResult(sql, database, table.columns, table.rows, table.more)

    def inspect(self) -> str:
        """A load builds everything anew: there is nothing more to check."""
        return ""

    def _lines(self, sql: bytes) -> list[bytes]:
        argv = self._psql("postgres", "-A", "-t", "-0")
        return ask(self._confinement, argv, sql, env=self._environment)[0].split(b"\0")[:-1]

    def _psql(self, database: str, *options: str) -> list[str]:
        return psql_arguments(self._programs.path("psql"), f"dbname={conninfo_value(database)}", *options)

    @property
    def _environment(self) -> dict[str, str]:
        return environment(self._confinement.folder, self._superuser)


class RestoredCluster(ThrowawayPostgres):
    """A cluster started from restored files instead of a loaded dump."""

    def inspect(self) -> str:
        """Let pg_amcheck read all tables and indexes; returns what was done, for a note. Raises
        RehearsalFailed."""
        if not self._programs.has("pg_amcheck"):
            return "indexes were not checked: pg_amcheck is not installed"
        argv = [self._programs.path("pg_amcheck"), "--all", "--install-missing", "--no-password"]
        answer, _ = ask(self._confinement, argv, b"", env=self._environment, limit=1 << 20)
        if answer.strip():
            raise RehearsalFailed(f"pg_amcheck: {_text(answer)[:2000].strip()}")
        return "pg_amcheck read all tables and B-tree indexes and found nothing wrong"


def environment(folder: Path, user: str) -> dict[str, str]:
    """Environment variables for libpq's programs."""
    return {
        "PGHOST": str(folder),
        "PGPORT": "5432",
        "PGUSER": user,
        "PGCLIENTENCODING": "UTF8",
        "PGOPTIONS": "",
    }


def initialise(confinement: Confinement, programs: PostgresPrograms, encoding: str = "UTF8") -> Path:
    """A fresh cluster in the private folder; returns its data directory. Raises RehearsalFailed."""
    data = confinement.folder / DATA_FOLDER
    argv = [programs.path("initdb"), "-D", str(data), "-U", SUPERUSER, "-A", "trust", "-N"]
    locale = "C.UTF-8" if encoding == "UTF8" else "C"
    program = confinement.start([*argv, "-E", encoding, f"--locale={locale}"])
    if program.wait():
        raise failure(program)
    return data


@contextmanager
def running(
    confinement: Confinement,
    programs: PostgresPrograms,
    data: Path,
    *,
    superuser: str = SUPERUSER,
    settings: Mapping[str, str] | None = None,
    patience: float = _START_SECONDS,
    kind: type[ThrowawayPostgres] = ThrowawayPostgres,
) -> Iterator[ThrowawayPostgres]:
    """A server on `data`, with settings of our own and none of the cluster's. `patience`: seconds that it
    may take until it answers; a recovery takes as long as it takes, so the caller bounds that.

    Raises RehearsalFailed with the server's last words.
    """
    folder = confinement.folder
    config, access = folder / SETTINGS_FILE, folder / "pg_hba.conf"
    values = {
        **_SETTINGS,
        "hba_file": str(access),
        "unix_socket_directories": str(folder),
        **(settings or {}),
    }
    if programs.major >= 15:
        values.setdefault("allow_in_place_tablespaces", "on")
    lines = "".join(f"{name} = {setting_value(value)}\n" for name, value in values.items())
    write_new(folder, config.name, lines)
    write_new(folder, access.name, "local all all trust\nlocal replication all trust\n")
    process = confinement.start([programs.path("postgres"), "-D", str(data), "-c", f"config_file={config}"])
    try:
        server = kind(confinement, programs, process, superuser)
        _await(confinement, programs, process, patience)
        yield server
        if confinement.keep:
            process.shut_down(signal.SIGINT)
    finally:
        process.end()


def _await(confinement: Confinement, programs: PostgresPrograms, process: Program, patience: float) -> None:
    deadline = time.monotonic() + patience
    while process.poll() is None:
        if _is_ready(confinement.folder):
            return
        if time.monotonic() >= deadline:
            raise RehearsalFailed(f"the server does not answer: {process.last_words()}")
        time.sleep(0.05)
    process.end()
    raise failure(process)


def _is_ready(folder: Path) -> bool:
    """Whether the server takes writes: the last line of its file says so ("standby" while it recovers)."""
    try:
        lines = (
            read_inside(folder, (DATA_FOLDER, "postmaster.pid"), 4096).decode(errors="replace").splitlines()
        )
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
