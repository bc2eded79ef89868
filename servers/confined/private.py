"""The private directory of a throw-away server."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from holdfast.servers.base.errors import BadScratch
from holdfast.servers.confined.confined import User, without_interrupt

PREFIX: Final = "holdfast-rehearsal-"
_LONGEST: Final = 80
"""Bytes of its path: a socket's may have 107, its name included."""
_REMOVE_SECONDS: Final = 10.0


@contextmanager
def private_folder(base: Path, user: User, *, keep: bool = False) -> Iterator[Path]:
    """A new folder in `base` that only `user` may enter, removed at the end whatever happens; with `keep`
    only when the block raises.

    Raises BadScratch when `base` cannot serve.
    """
    base = base.resolve()
    path = base / f"{PREFIX}{secrets.token_hex(4)}"
    if len(os.fsencode(path)) > _LONGEST:
        raise BadScratch(f"the path {base} is too long for a server's socket")
    if os.geteuid() == 0:
        for folder in (base, *base.parents):
            status = folder.stat()
            if not (status.st_mode & 0o001 or (status.st_uid == user.uid and status.st_mode & 0o100)):
                raise BadScratch(f"{folder} lets only its owner in, and the server runs as {user.name}")
    try:
        try:
            path.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(path, user.uid, user.gid)
        except OSError as error:
            raise BadScratch(f"cannot make a directory in {base}: {error.strerror}") from error
        yield path
    except BaseException:
        without_interrupt(lambda: _remove(path))
        raise
    if not keep:
        without_interrupt(lambda: _remove(path))


def _remove(path: Path) -> None:
    """Again, when something that is being killed wrote into it meanwhile."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while True:
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)
