"""Throw-away database servers for tests: real ones, on private sockets, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from support.basics import need
from support.scratch import made_once

_START_LIMIT = 200.0


def database_user(name: str) -> str | None:
    """Whom a server must run as when we are root: its own user, else nobody. None: as we are."""
    if os.geteuid():
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        return "nobody"


def postgres_tool(name: str) -> str:
    """A program of the newest PostgreSQL here: Debian keeps servers' outside of PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which(name, path=":".join(map(str, versions[::-1]))) or shutil.which(name)
    need(found, f"{name} (PostgreSQL)")
    assert found
    return found


def run(
    argv: Sequence[str], *, user: str | None = None, stdin: bytes = b"", env: dict[str, str] | None = None
) -> bytes:
    """A command's output. Fails the test with its last words unless it exits with 0."""
    environment = os.environ | {"LC_ALL": "C.UTF-8"} | (env or {})
    done = subprocess.run(
        argv, input=stdin, capture_output=True, user=user, env=environment, check=False, cwd="/"
    )
    assert done.returncode == 0, f"{argv[0]} exited with {done.returncode}: {done.stderr.decode()[-2000:]}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running cluster. Superuser "postgres", no password, socket in `folder`, nothing on the network."""

    folder: Path
    data: Path
    user: str | None

    @property
    def environment(self) -> dict[str, str]:
        """The environment for libpq's programs."""
        return {"PGHOST": str(self.folder), "PGUSER": "postgres", "PGPORT": "5432"}

    def url(self, database: str = "postgres") -> str:
        return f"postgres://postgres@/{database}?host={self.folder}"

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Rows, unaligned, without headers; any error fails the test."""
        argv = [postgres_tool("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"]
        return run(argv, stdin=sql.encode(), env=self.environment).decode()

    def tool(self, name: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """The output of pg_dump and its like."""
        return run([postgres_tool(name), *arguments], stdin=stdin, env=self.environment)

    def stop(self, mode: str = "fast") -> None:
        run([postgres_tool("pg_ctl"), "-D", str(self.data), "-m", mode, "-w", "stop"], user=self.user)

    def start(self) -> None:
        log = self.folder / "log"
        argv = [postgres_tool("pg_ctl"), "-D", str(self.data), "-w", "-l", str(log), "start"]
        # No pipes: a server that was started would hold them open.
        done = subprocess.run(
            argv,
            user=self.user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
            check=False,
            cwd="/",
        )
        assert done.returncode == 0, log.read_text()[-2000:]


def _copy_of_new_cluster(data: Path, user: str | None, arguments: Sequence[str]) -> None:
    """A cluster as initdb makes it. All of one run have the same system identifier."""

    def make(folder: Path) -> None:
        if user:
            shutil.chown(folder, user)
        initdb = [postgres_tool("initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust"]
        run([*initdb, "-E", "UTF8", "--locale=C.UTF-8", "-N", *arguments], user=user)

    name = "-".join(["cluster", *(argument.strip("-").replace("/", "_") for argument in arguments)])
    run(["cp", "-a", str(made_once(name, make) / "data"), str(data)])


@contextmanager
def postgres_server(
    folder: Path, settings: Sequence[str] = (), initdb: Sequence[str] = ()
) -> Iterator[PostgresServer]:
    """A fresh cluster in `folder` (short: a socket's path has 107 bytes at most), stopped at the end.

    `settings` are lines of postgresql.conf. Durability is off: nothing of this outlives a crash.
    """
    user = database_user("postgres")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    _copy_of_new_cluster(data, user, initdb)
    lines = [
        "listen_addresses = ''",
        f"unix_socket_directories = '{folder}'",
        "fsync = off",
        "shared_buffers = 16MB",
        "max_wal_senders = 4",
        "log_min_messages = warning",
        *settings,
    ]
    with (data / "postgresql.conf").open("a") as file:
        file.write("\n".join(lines) + "\n")
    server = PostgresServer(folder, data, user)
    server.start()
    try:
        yield server
    finally:
        if (data / "postmaster.pid").exists():
            server.stop("immediate")


@dataclass(frozen=True, slots=True)
class MariaServer:
    """A running MariaDB. User "root" without a password over the socket, nothing on the network."""

    folder: Path
    data: Path
    socket: Path

    def url(self, database: str = "") -> str:
        return f"mysql://root@localhost/{database}?socket={self.socket}"

    def sql(self, statements: str | bytes, database: str = "") -> str:
        """Rows, tab-separated, without headers; any error fails the test."""
        text = statements.encode() if isinstance(statements, str) else statements
        return self.tool("mariadb", "-N", "-B", *([database] if database else []), stdin=text).decode(
            errors="surrogateescape"
        )

    def tool(self, name: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """The output of mariadb-dump and its like."""
        found = shutil.which(name)
        need(found, f"{name} (MariaDB)")
        assert found
        return run(
            [found, "--no-defaults", "--user=root", f"--socket={self.socket}", *arguments], stdin=stdin
        )


def _install_maria(user: str | None, folder: Path) -> None:
    if user:
        shutil.chown(folder, user)
    run(
        [
            shutil.which("mariadb-install-db") or "mariadb-install-db",
            "--no-defaults",
            f"--datadir={folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=16M",
            "--skip-name-resolve",
        ],
        user=user,
    )


@contextmanager
def maria_server(folder: Path, options: Sequence[str] = ()) -> Iterator[MariaServer]:
    """A fresh MariaDB in `folder`, killed at the end. `options` are mariadbd's."""
    daemon = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    need(daemon, "mariadbd")
    assert daemon
    user = database_user("mysql")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if user:
        shutil.chown(folder, user)
    data, socket = folder / "data", folder / "socket"
    run(["cp", "-a", str(made_once("maria", partial(_install_maria, user)) / "data"), str(data)])
    argv = [
        daemon,
        "--no-defaults",
        f"--datadir={data}",
        f"--socket={socket}",
        "--skip-networking",
        f"--pid-file={folder / 'pid'}",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-buffer-pool-size=32M",
        "--innodb-log-file-size=16M",
        "--sync-binlog=0",
        *options,
    ]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(argv, user=user, stdout=log, stderr=log, cwd="/") as process,
    ):
        try:
            server = MariaServer(folder, data, socket)
            deadline = time.monotonic() + _START_LIMIT
            while not _answers(server):
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < deadline, "mariadbd does not answer"
                time.sleep(0.1)
            yield server
        finally:
            process.kill()


def _answers(server: MariaServer) -> bool:
    argv = ["mariadb-admin", "--no-defaults", "--user=root", f"--socket={server.socket}", "ping"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


RECORDER = """#!/bin/sh
{{ tr '\\0' '\\n' < /proc/self/cmdline; tr '\\0' '\\n' < /proc/self/environ; }} >> {log}
exec {tool} "$@"
"""


def recorder(tmp_path: Path, tool: str) -> tuple[str, Path]:
    """(a PATH whose first folder has a program that notes its arguments and environment, the notes)."""
    folder, log = tmp_path / "bin", tmp_path / "seen"
    folder.mkdir(exist_ok=True)
    path = folder / Path(tool).name
    path.write_text(RECORDER.format(log=log, tool=tool))
    path.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}", log
