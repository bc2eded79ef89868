"""The process that makes the confinement and starts programs in it: `python -m ...warden FD`.

It is made once for all programs of a confinement, because that takes longer than a program. It gets requests
on a socket: argv, environment and descriptors. It runs nothing of a stranger itself: each program gets a
keeper, first process of a namespace of processes, which gives up every right before it starts the program.

    asker's process -> outer (waits) -> warden, first of the outer namespace of processes
                                          -> keeper, first of an inner one -> the program -> what it starts
"""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from holdfast.base.confinement import kernel
from holdfast.base.confinement.deny_list import SERVER_MACHINES, deny_list
from holdfast.base.confinement.empty_root import enter_empty_root, own_processes
from holdfast.base.confinement.keeper import keep, limit_resources
from holdfast.base.confinement.plan import Plan

REQUEST_LIMIT: Final = 128 << 10
DESCRIPTORS: Final = 5
"""Of a request: standard input, output and error, the keeper's socket, one that is closed at the end."""


class _LayerMissing(Exception):
    """A layer cannot be had; the message names it."""


def _layer(name: str, act: Callable[[], None]) -> None:
    try:
        act()
    except OSError as error:
        raise _LayerMissing(f"{name}: {error.strerror or error}") from error


def main() -> None:
    """Run the warden; never returns."""
    asker = socket.socket(fileno=int(sys.argv[1]))
    plan = Plan.unpack(asker.recv(REQUEST_LIMIT).decode())
    kernel.die_with_parent()
    try:
        if plan.confined:
            _leave_namespaces()
            _continue_in_child(asker)
            _layer("an empty root directory", lambda: enter_empty_root(plan))
            probe = os.fork()
            if not probe:
                _try_layers(asker, plan)
            if os.waitpid(probe, 0)[1]:
                os._exit(1)
    except _LayerMissing as missing:
        asker.send(json.dumps({"missing": str(missing)}).encode())
        os._exit(1)
    asker.send(b"{}")
    _serve(asker, plan)


def _leave_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid:
        _layer("a namespace of users", lambda: kernel.unshare(kernel.NEW_USERS))
        _layer("a namespace of users", lambda: _map_self(uid, gid))
    for name, kind in (
        ("mounts", kernel.NEW_MOUNTS),
        ("networks", kernel.NEW_NETWORK),
        ("System V objects", kernel.NEW_IPC),
        ("host names", kernel.NEW_NAMES),
        ("processes", kernel.NEW_PIDS),
    ):
        _layer(f"a namespace of {name}", partial(kernel.unshare, kind))


def _map_self(uid: int, gid: int) -> None:
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _continue_in_child(asker: socket.socket) -> None:
    """Be the first process of the new namespace; the one outside ends with it."""
    child = os.fork()
    if child:
        asker.close()
        os._exit(1 if os.waitpid(child, 0)[1] else 0)
    kernel.die_with_parent()


def _try_layers(asker: socket.socket, plan: Plan) -> None:
    """In a child that ends at once: what every keeper will do. Exits with 0 when all of it works."""
    code = 1
    try:
        with suppress(OSError):
            _layer("a namespace of processes in another", lambda: kernel.unshare(kernel.NEW_PIDS))
            child = os.fork()
            if not child:
                try:
                    _give_up(plan)
                except _LayerMissing as missing:
                    asker.send(json.dumps({"missing": str(missing)}).encode())
                    os._exit(1)
                os._exit(0)
            code = 1 if os.waitpid(child, 0)[1] else 0
    except _LayerMissing as missing:
        asker.send(json.dumps({"missing": str(missing)}).encode())
    os._exit(code)


def _give_up(plan: Plan) -> None:
    """Every right, for good: mounts of the own processes, user, capabilities, limits, system calls."""
    user, limits = plan.user, plan.limits
    others = 0 if os.getuid() == 0 else len(list(Path("/proc").iterdir()))
    if plan.confined:
        _layer("a namespace of mounts in another", lambda: kernel.unshare(kernel.NEW_MOUNTS))
        _layer("a /proc of its own", own_processes)
    if os.getuid() == 0:
        _layer("a user of its own", lambda: _drop_to(user.uid, user.gid))
    else:
        _layer("no capabilities", lambda: kernel.drop_capabilities(bounding=plan.confined))
    _layer("limits", lambda: limit_resources(limits, others))
    _layer("no new rights", kernel.gain_nothing)
    if plan.confined:
        _layer("a filter of system calls", _filter_calls)


def _drop_to(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    kernel.drop_capabilities_from_bounding_set()
    os.setresuid(uid, uid, uid)
    kernel.drop_capabilities(bounding=False)


def _filter_calls() -> None:
    machine = SERVER_MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(f"no list of system calls for {platform.machine()}")
    kernel.filter_calls(deny_list(machine))


def _serve(asker: socket.socket, plan: Plan) -> None:
    """Start what is asked for until nobody is left to ask."""
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if plan.confined else -1
    poll = select.poll()
    poll.register(asker.fileno(), select.POLLIN)
    running: dict[int, tuple[int, int]] = {}
    while True:
        for fd in [fd for fd, _ in poll.poll()]:
            if fd == asker.fileno():
                request, given = _receive(asker)
                if not request:
                    os._exit(0)
                pid = _start(plan, home, request, given, asker)
                watched = os.pidfd_open(pid)
                poll.register(watched, select.POLLIN)
                running[watched] = pid, given[-1]
                for each in given[:-1]:
                    os.close(each)
            elif fd in running:
                poll.unregister(fd)
                pid, gone = running.pop(fd)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)
                os.close(fd)
                os.close(gone)


def _receive(asker: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, given, _, _ = socket.recv_fds(asker, REQUEST_LIMIT, DESCRIPTORS)
    return (json.loads(data), given) if data else ({}, given)


def _start(plan: Plan, home: int, request: dict[str, Any], given: list[int], asker: socket.socket) -> int:
    """The keeper's process ID."""
    if plan.confined:
        kernel.unshare(kernel.NEW_PIDS)
    pid = os.fork()
    if pid:
        if plan.confined:
            kernel.enter(home, kernel.NEW_PIDS)
        return pid
    try:
        os.setsid()
        kernel.die_with_parent()
        os.close(asker.fileno())
        kept = set(given[:-1])
        for fd in range(3, 4 + max(given)):
            if fd not in kept:
                with suppress(OSError):
                    os.close(fd)
        with suppress(OSError):  # the first to go when the machine has no memory left
            Path("/proc/self/oom_score_adj").write_text("1000")
        if not plan.confined:
            kernel.adopt_orphans()
        _give_up(plan)
        kernel.die_with_parent()  # becoming another user has taken it back
        if plan.confined:
            kernel.be_opaque()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        keep(plan, request["argv"], request["env"], socket.socket(fileno=given[3]), given[:3])
    except BaseException as error:  # noqa: BLE001  nothing of the warden may go on here
        with suppress(OSError):
            os.write(given[2], f"cannot be confined: {error}\n".encode())
    os._exit(1)


if __name__ == "__main__":
    main()
