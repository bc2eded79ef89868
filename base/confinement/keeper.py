"""The first process of each confined program's namespace: it starts the program, watches it, ends it.

The program is a child, so nothing in it can take back what ends it: the kernel kills a namespace of processes
with its first one, which a process inside can neither signal nor trace. This one ends when the program
does, when the warden or the program that asked is gone, and when a limit is met.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from holdfast.base.confinement.plan import Ended, Limits, Plan

_PERIOD: Final = 0.2
"""Seconds between two looks at memory and disk."""
_POLITE_SECONDS: Final = 8.0
"""PostgreSQL kills its own processes, and removes its shared memory, 5 s after an immediate shutdown."""


def keep(
    plan: Plan, argv: Sequence[str], env: Mapping[str, str], asker: socket.socket, standard: Sequence[int]
) -> None:
    """Start the program with these three descriptors and stay until it has ended; never returns."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    child = os.fork()
    if not child:
        _become(plan, argv, env, standard)
    for fd in standard:
        os.close(fd)
    watched = os.pidfd_open(child)
    poll = select.poll()
    for fd in (asker.fileno(), watched):
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + plan.limits.seconds
    while True:
        ready = {fd for fd, _ in poll.poll(_PERIOD * 1000)}
        if watched in ready:
            _leave(asker, {"code": _exit_code(child)}, plan, child)
        if asker.fileno() in ready:
            asked = asker.recv(64)
            if not asked:
                _leave(asker, {}, plan, child)
            for wanted in asked:
                with suppress(OSError):
                    os.kill(child, wanted)
        _reap(child)
        met = _limit_met(plan, deadline)
        if met is not None:
            _leave(asker, {"limit": met}, plan, child)


def _become(plan: Plan, argv: Sequence[str], env: Mapping[str, str], standard: Sequence[int]) -> None:
    """Be the program."""
    try:
        os.setsid()
        os.umask(0o077)
        high = [os.dup(fd) for fd in standard]
        for number, fd in enumerate(high):
            os.dup2(fd, number)
        os.closerange(3, 1 << 16)
        os.chdir(plan.folder)
        os.execve(argv[0], list(argv), dict(env))
    except BaseException as error:  # noqa: BLE001  nothing of this process may go on
        with suppress(OSError):
            os.write(2, f"{argv[0]} cannot be started: {error}\n".encode())
        os._exit(127)


def limit_resources(limits: Limits, others: int) -> None:
    """`others`: processes that this user has already, where it is no user of our own."""
    for what, value in (
        (resource.RLIMIT_AS, limits.memory + (4 << 30)),
        (resource.RLIMIT_NPROC, limits.processes + others),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_CPU, limits.cpu),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        most = resource.getrlimit(what)[1]
        allowed = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(what, (allowed, allowed))


def _exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _reap(child: int) -> None:
    """Those that the program has left to us."""
    with suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if found.si_pid == child:
                return
            os.waitpid(found.si_pid, 0)


def _limit_met(plan: Plan, deadline: float) -> str | None:
    if time.monotonic() >= deadline:
        return Ended.TIME
    space = os.statvfs(plan.folder)
    if space.f_bavail * space.f_frsize < plan.limits.spare:
        return Ended.DISK
    if plan.confined and _memory() > plan.limits.memory:
        return Ended.MEMORY
    return None


def _memory() -> int:
    """Bytes that all processes in our /proc have of their own; what they share counts once."""
    pids = [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    own, shared = 0, 0
    for pid in pids:
        with suppress(OSError, ValueError):
            lines = (pid / "status").read_text().splitlines()
            found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
            own += int(found.get("RssAnon", 0)) << 10
            shared = max(shared, int(found.get("RssShmem", 0)) << 10)
    return own + shared


def _leave(asker: socket.socket, status: dict[str, object], plan: Plan, child: int) -> None:
    """Tell how it ended, and end all that is left of it."""
    with suppress(OSError):
        asker.send(json.dumps(status).encode())
    if not plan.confined:
        _end_descendants(child)
    os._exit(0)


def _end_descendants(child: int) -> None:
    """Where no namespace does it: the program may clean up first, then all that it started is killed."""
    with suppress(OSError):
        os.kill(child, signal.SIGQUIT)
    deadline = time.monotonic() + _POLITE_SECONDS
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
                continue
        break
    while time.monotonic() < deadline + _POLITE_SECONDS:
        mine = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for pid in mine:
            with suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)
            continue
        return
