"""PostgreSQL's programs: systems keep several releases side by side, outside of PATH."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.base.errors import Refused
from holdfast.servers.base.programs import ask_version, look_up, not_installed

_FOLDERS: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/*/bin")
"""Of Debian, Red Hat and others."""
_WRAPPER: Final = "pg_wrapper"
"""Debian's programs on PATH choose a release by the clusters of this machine, whatever server is meant."""
_VERSION: Final = re.compile(r"(\d+)(?:\.(\d+))?[^\s,()]*")
_SERVER: Final = ("initdb", "postgres", "psql")


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """The programs of one release."""

    folder: Path
    major: int
    version: str

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def has(self, name: str) -> bool:
        return os.access(self.folder / name, os.X_OK)


def find_client(name: str) -> str:
    """The path of a client program: the one on PATH, else the newest, which can read from older servers.

    Raises NotFound.
    """
    on_path = shutil.which(name)
    newest = next((found for folder in _folders() if (found := shutil.which(name, path=str(folder)))), None)
    wrapped = on_path is not None and Path(on_path).resolve().name == _WRAPPER
    found = (newest or on_path) if wrapped else (on_path or newest)
    program = found or look_up(name)
    if program is None:
        raise not_installed(name)
    return program


def find_release(wanted: int | None, *, exactly: bool = False) -> PostgresPrograms:
    """The newest release with a server that is at least `wanted`, or `exactly` that one. Raises Refused."""
    found = sorted(_releases(), key=lambda programs: programs.major)
    fit = [p for p in found if wanted is None or (p.major == wanted if exactly else p.major >= wanted)]
    if fit:
        return fit[-1]
    need = f"PostgreSQL {wanted or ''}".strip() + ("" if exactly or wanted is None else " or newer")
    there = f"; here is {', '.join(str(p.major) for p in found)}" if found else ""
    package = f"postgresql-{wanted}" if wanted else "postgresql"
    raise Refused(
        f"a rehearsal of this snapshot needs the server of {need}{there}; install it (Debian: {package})"
    )


def server_program(name: str, major: int | None) -> str:
    """The path of a program of that release's server; the name alone where that release is not installed, or
    not known."""
    found = next((p for p in _releases() if p.major == major and p.has(name)), None)
    return found.path(name) if found else name


def _folders() -> list[Path]:
    """Directories of releases, the newest first."""
    found = [path for pattern in _FOLDERS for path in Path("/").glob(pattern[1:])]
    return sorted(found, key=_release_in_path, reverse=True)


def _release_in_path(folder: Path) -> float:
    number = re.search(r"\d+(?:\.\d+)?", str(folder))
    return float(number[0]) if number else 0.0


def _releases() -> Iterator[PostgresPrograms]:
    on_path = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    seen: set[Path] = set()
    for folder in [*_folders(), *on_path]:
        if all(os.access(folder / name, os.X_OK) for name in _SERVER):
            real = folder.resolve()
            match = None if real in seen else _VERSION.search(ask_version(str(folder / "postgres")))
            seen.add(real)
            if match:
                yield PostgresPrograms(folder, int(match[1]), match[0])
