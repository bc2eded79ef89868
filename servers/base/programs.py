"""Programs of database engines: where they are, which version they have, what of our environment they get."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from holdfast.base.errors import NotFound

_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/libexec")
"""Where servers are that are not on a user's PATH."""
_SECONDS: Final = 30.0
_KEPT: Final = re.compile(
    r"HOME|PATH|USER|LOGNAME|LANG|TZ|TMPDIR|KRB5.*|SSL_CERT_.*|OPENSSL_CONF|LD_LIBRARY_PATH"
    r"|SYSTEMD_.*|XDG_RUNTIME_DIR|DYLD_.*|RES_OPTIONS|LOCALDOMAIN"
)


def look_up(name: str) -> str | None:
    """The path of a program: on PATH, else where servers are."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_FOLDERS))


def find_program(*names: str) -> str:
    """The path of the first of these programs that is installed. Raises NotFound."""
    found = next((path for name in names if (path := look_up(name))), None)
    if found is None:
        raise not_installed(*names)
    return found


def not_installed(*names: str) -> NotFound:
    """The error for programs of which none is installed."""
    return NotFound(f"{' or '.join(names)} is not installed here, or not on PATH; nothing was done")


def ask_version(program: str) -> str:
    """The output of a program's `--version`; "" when it prints nothing."""
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


def program_environment(environ: Mapping[str, str], own: str, secret: frozenset[str]) -> dict[str, str]:
    """The environment for an engine's programs: variables that say how to reach servers, no secrets, and
    messages in English, because some are parsed.

    `own` is a pattern of the names that the engine's programs know, `secret` the names among them that are
    left out because they hold secrets or change what a dump says.
    """
    pattern = re.compile(own)
    kept = {
        name: value
        for name, value in environ.items()
        if _KEPT.fullmatch(name) or (pattern.fullmatch(name) and name not in secret)
    }
    return kept | {"LC_ALL": "C"}
