"""A throw-away PostgreSQL with real load: on a private socket, durability off, gone at the end."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{folder}'
fsync = off
wal_keep_size = 4GB
max_wal_size = 4GB
shared_buffers = 256MB
autovacuum = off
"""
# Finished segments stay in pg_wal; neither checkpoints nor cleaning fall into what is measured.


@dataclass(frozen=True, slots=True)
class Server:
    """A running cluster. Superuser "postgres" without a password; the socket is in `folder`."""

    folder: Path
    data: Path
    user: str | None

    @property
    def url(self) -> str:
        return f"postgres://postgres@/?host={self.folder}"

    def client(self, name: str, *arguments: str) -> str:
        """The output of psql, pgbench and their like."""
        environment = os.environ | {"PGHOST": str(self.folder), "PGUSER": "postgres", "PGPORT": "5432"}
        command = [program(name), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    def query(self, sql: str) -> str:
        return self.client("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", sql).strip()

    def control(self, *words: str) -> None:
        """pg_ctl, as the server's own user."""
        log = str(self.folder / "log")
        command = [program("pg_ctl"), "-D", str(self.data), "-l", log, "-w", "-s", *words]
        # Without pipes: the server would hold them open.
        nothing = subprocess.DEVNULL
        subprocess.run(
            command, user=self.user, cwd="/", stdin=nothing, stdout=nothing, stderr=nothing, check=True
        )


def program(name: str) -> str:
    """The newest version's: Debian keeps the server's programs outside of PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which(name, path=":".join(map(str, folders[::-1]))) or shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not installed (apt-get install postgresql)")
    return found


@contextlib.contextmanager
def postgresql() -> Iterator[Server]:
    """A fresh cluster in a temporary folder: its path is short, as a socket's must be, and open to the user
    that the server runs as, who is not root."""
    user = None
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
    with tempfile.TemporaryDirectory(prefix="hf-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        command = [program("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run(
            [*command, "--locale=C.UTF-8"], user=user, cwd="/", stdout=subprocess.DEVNULL, check=True
        )
        with (data / "postgresql.conf").open("a") as file:
            file.write(SETTINGS.format(folder=folder))
        server = Server(folder, data, user)
        server.control("start")
        try:
            yield server
        finally:
            server.control("-m", "immediate", "stop")
