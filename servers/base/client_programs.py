"""The databases' own programs: where they are, and what of our environment they get."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from holdfast.base.errors import NotFound

_DEBIAN: Final = Path("/usr/lib/postgresql")
"""Debian keeps several releases side by side here, outside of PATH."""
_WRAPPER: Final = "pg_wrapper"
"""Debian's programs on PATH choose a release by the clusters of this machine, whatever server is meant."""
_SERVERS: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/libexec")
"""Where servers are that are not on a user's PATH."""

_KEPT: Final = re.compile(
    r"PG.*|HOME|PATH|USER|LOGNAME|LANG|TZ|TMPDIR|KRB5.*|SSL_CERT_.*|OPENSSL_CONF|LD_LIBRARY_PATH"
    r"|MYSQL_.*|MARIADB_.*|SYSTEMD_.*|XDG_RUNTIME_DIR|DYLD_.*|RES_OPTIONS|LOCALDOMAIN"
)
_TAKEN: Final = frozenset({"PGPASSWORD", "MYSQL_PWD", "PGCLIENTENCODING", "PGDATESTYLE"})
"""Secrets go another way; the others would change what a dump says."""


def find_program(*names: str, release: str = "") -> str:
    """The path of the first of these programs that is installed.

    `release` is PostgreSQL's major release ("15") when it must be that one; else the newest is taken, which
    can read from older servers. Raises NotFound.
    """
    for name in names:
        for found in _places(name, release):
            if not release or _is_release(found, release):
                return found
    which = f" of PostgreSQL {release}" if release else ""
    raise NotFound(f"{' or '.join(names)}{which} is not installed here, or not on PATH; nothing was done")


def _places(name: str, release: str) -> list[str]:
    """Where a program is, best first."""
    folders = sorted(_DEBIAN.glob("*/bin"), key=_release, reverse=True)
    debian = [shutil.which(name, path=str(folder)) for folder in folders]
    on_path = shutil.which(name)
    wrapped = on_path is not None and Path(on_path).resolve().name == _WRAPPER
    places = [*debian, on_path] if wrapped or release else [on_path, *debian]
    return [place for place in (*places, shutil.which(name, path=":".join(_SERVERS))) if place]


def _is_release(program: str, release: str) -> bool:
    """Whether `pg_ctl --version` and its like say "pg_ctl (PostgreSQL) 15.3"."""
    try:
        said = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return re.search(rf" {re.escape(release)}(?:\D|$)", said.stdout.decode(errors="replace")) is not None


def _release(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0.0


def program_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the databases' programs get of our environment: how to reach servers, no secrets, and messages
    in English, because some are read."""
    found = os.environ if environ is None else environ
    kept = {k: v for k, v in found.items() if _KEPT.fullmatch(k) and k not in _TAKEN}
    return kept | {"LC_ALL": "C"}
