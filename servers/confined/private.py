"""The private directory of a throw-away server: made, written to, looked into and removed by descriptor.

Who runs in it is not trusted: no link in it leads us anywhere, and nothing that waits there is written to.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from holdfast.base.confinement.plan import Limits, User
from holdfast.servers.base.errors import BadScratch
from holdfast.servers.confined.confined import without_interrupt

PREFIX: Final = "holdfast-rehearsal-"
_LONGEST: Final = 80
"""Bytes of its path: a socket's may have 107, its name included."""
_REMOVE_SECONDS: Final = 10.0
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LEAST_FILE: Final = 1 << 30
_SPARE: Final = 1 << 30


@contextmanager
def private_folder(base: Path, user: User, *, keep: bool = False, shown: bool = False) -> Iterator[Path]:
    """A new folder in `base` that only `user` may enter, removed at the end whatever happens; with `keep`
    only when the block raises. `shown`: the user is shown the folder itself, whoever may enter `base`.

    Raises BadScratch when `base` cannot serve.
    """
    base = base.resolve()
    path = base / f"{PREFIX}{secrets.token_hex(4)}"
    if len(os.fsencode(path)) > _LONGEST:
        raise BadScratch(f"the path {base} is too long for a server's socket")
    if os.geteuid() == 0 and not shown:
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


def write_new(folder: Path, name: str, content: str) -> None:
    """A new file in it, mode 0644. Raises FileExistsError for whatever has the name."""
    top = os.open(folder, _FOLDER)
    try:
        with os.fdopen(os.open(name, _NEW, 0o600, dir_fd=top), "w", encoding="utf-8") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
    finally:
        os.close(top)


def read_inside(folder: Path, names: Sequence[str], limit: int) -> bytes:
    """The start of the regular file at `names` below it. Raises OSError, for a link or a pipe on the way
    too."""
    at = os.open(folder, _FOLDER)
    for name in names[:-1]:
        try:
            deeper = os.open(name, _FOLDER, dir_fd=at)
        finally:
            os.close(at)
        at = deeper
    try:
        fd = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{names[-1]} is no regular file")
        return file.read(limit)


def give_to(folder: Path, names: Sequence[str]) -> None:
    """As root give what is kept to the first of these users there is: who ran in it has no name."""
    if os.geteuid():
        return
    for name in names:
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            for _, folders, files, at in os.fwalk(folder, follow_symlinks=False):
                for each in (*folders, *files):
                    os.chown(each, found.pw_uid, found.pw_gid, dir_fd=at, follow_symlinks=False)
                os.fchown(at, found.pw_uid, found.pw_gid)
            return


def limits_in(base: Path, seconds: float) -> Limits:
    """Limits for a server whose folder is made in `base`, which takes no longer than `seconds`."""
    space = os.statvfs(base)
    total, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
    return Limits(
        seconds=seconds,
        cpu=int(seconds) * (os.cpu_count() or 1) + 60,
        spare=min(_SPARE, total // 20, free // 2),
        file=max(free, _LEAST_FILE),
    )
