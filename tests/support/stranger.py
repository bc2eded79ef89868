"""Another user of the machine, who plants what he likes where he may write."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from support.basics import need

STRANGER: Final = 65534
"""His user and group number: nobody's."""


def give(*paths: Path) -> None:
    """Make things, and all in them, the stranger's. Needs root."""
    need(os.geteuid() == 0, "root")
    for path in paths:
        for one in (path, *path.rglob("*")):
            os.chown(one, STRANGER, STRANGER, follow_symlinks=False)


def as_stranger(folder: Path, act: Callable[[], object]) -> None:
    """Run `act` as the stranger, in a folder that he need not be able to reach; it must end well."""
    pid = _start(folder, act)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@contextmanager
def stranger_loops(folder: Path, act: Callable[[], object]) -> Iterator[None]:
    """While the block runs the stranger does `act` over and over; what the kernel refuses him he ignores."""

    def forever() -> None:
        while True:
            try:
                act()
            except OSError:
                continue

    pid = _start(folder, forever)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _start(folder: Path, act: Callable[[], object]) -> int:
    need(os.geteuid() == 0, "root")
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.chdir(folder)
            os.setgroups([])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
            act()
            code = 0
        finally:
            os._exit(code)
    return pid


def state(*paths: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """What nobody else may touch: owner, group, mode and content, by path, of everything there."""
    found: dict[str, tuple[int, int, int, bytes]] = {}
    for path in paths:
        for one in (path, *sorted(path.rglob("*"))):
            status = one.lstat()
            content = one.read_bytes() if stat.S_ISREG(status.st_mode) else b""
            found[str(one)] = status.st_uid, status.st_gid, status.st_mode, content
    return found
