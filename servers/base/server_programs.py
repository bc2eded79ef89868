"""The servers' programs: where they are and which version they have."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.base.errors import Refused

_POSTGRESQL: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/*/bin")
"""Where PostgreSQL's servers are: Debian and Red Hat keep several releases side by side, outside of PATH."""
_SERVERS: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/bin")
_SECONDS: Final = 30.0
_VERSION: Final = re.compile(r"(\d+)(?:\.(\d+))?[^\s,()]*")


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """The programs of one release of PostgreSQL."""

    folder: Path
    major: int
    version: str

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def has(self, name: str) -> bool:
        return os.access(self.folder / name, os.X_OK)


@dataclass(frozen=True, slots=True)
class MariaPrograms:
    """A server of MySQL or MariaDB (`engine`) and its client. `install` is "" where the server does that."""

    engine: str
    version: str
    server: str
    client: str
    install: str


def find_postgres(wanted: int | None, *, exactly: bool = False) -> PostgresPrograms:
    """The newest release here that is at least `wanted`, or `exactly` that one. Raises Refused."""
    found = sorted(_postgres_releases(), key=lambda programs: programs.major)
    fit = [p for p in found if wanted is None or (p.major == wanted if exactly else p.major >= wanted)]
    if fit:
        return fit[-1]
    need = f"PostgreSQL {wanted or ''}".strip() + ("" if exactly or wanted is None else " or newer")
    there = f"; here is {', '.join(str(p.major) for p in found)}" if found else ""
    package = f"postgresql-{wanted}" if wanted else "postgresql"
    raise Refused(
        f"a rehearsal of this snapshot needs the server of {need}{there}; install it (Debian: {package})"
    )


def _postgres_releases() -> Iterator[PostgresPrograms]:
    folders = [path for pattern in _POSTGRESQL for path in Path("/").glob(pattern[1:])]
    folders += [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    seen: set[Path] = set()
    for folder in folders:
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres", "psql")):
            real = folder.resolve()
            match = None if real in seen else _VERSION.search(ask_version(str(folder / "postgres")))
            seen.add(real)
            if match:
                yield PostgresPrograms(folder, int(match[1]), match[0])


def find_maria(engine: str) -> MariaPrograms:
    """A server of that engine ("mysql", "mariadb"), else of its relative. Raises Refused."""
    found: dict[str, MariaPrograms] = {}
    for names in (("mariadbd", "mariadb", "mariadb-install-db"), ("mysqld", "mysql", "mysql_install_db")):
        server, client, install = (_program(name) for name in names)
        if server and client:
            said = ask_version(server)
            match = re.search(r"Ver (\S+)", said)
            kind = "mariadb" if "mariadb" in said.lower() else "mysql"
            version = match[1].partition("-")[0] if match else ""
            if kind == "mysql":
                found.setdefault(kind, MariaPrograms(kind, version, server, client, ""))
            elif install:
                found.setdefault(kind, MariaPrograms(kind, version, server, client, install))
    if found:
        return found.get(engine) or next(iter(found.values()))
    raise Refused(
        "a rehearsal of this snapshot needs the server of MariaDB or MySQL; install it "
        "(Debian: mariadb-server)"
    )


def find_sqlite() -> str:
    """The path of `sqlite3`. Raises Refused."""
    found = _program("sqlite3")
    if found is None:
        raise Refused("a rehearsal of this snapshot needs the program sqlite3; install it (Debian: sqlite3)")
    return found


def ask_version(program: str) -> str:
    """What it says to `--version`, "" for nothing."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env={"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip()


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_SERVERS))
