"""Confines the worker before it sees the first byte of a guest's disk.

There are several layers. Each alone would stop most attacks by a parser that was taken over. Seccomp is the
one that counts: with it alone no file can be opened and no process started. The worker reports which layers
hold, and the parent decides whether they suffice.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from holdfast.formats.guests.worker.protocol import Layer
from holdfast.formats.guests.worker.seccomp import MACHINES, allow_list

_NOBODY: Final = 65534
_DESCRIPTORS: Final = 1 << 16
"""Descriptors from this number on are not closed. The parent passes one, and imported modules open few."""
# linux/sched.h: IPC, UTS, network. Not mounts: a copy of the mount table would keep every mount alive that is
# unmounted outside. The daemon of our own mount would then wait for ever.
_NAMESPACES: Final = 0x08000000 | 0x04000000 | 0x40000000
_USER_NAMESPACE: Final = 0x10000000
# linux/prctl.h
_SET_DUMPABLE, _SET_NO_NEW_PRIVILEGES = 4, 38
# linux/seccomp.h
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
# linux/landlock.h
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ASK_VERSION = 1
_CAPABILITY_VERSION_3: Final = 0x20080522


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def lock_in(keep: int, memory: int) -> frozenset[Layer]:
    """Give up everything but the descriptor `keep` and `memory` bytes of address space, for good.

    Call it once, with a single thread, after all modules are imported: nothing can be opened afterwards.
    Returns the layers that hold.
    """
    with suppress(OSError):  # the kernel kills the worker first when the machine has no memory left
        Path("/proc/self/oom_score_adj").write_text("1000")
    layers = {
        layer
        for layer, act in (
            (Layer.NAMESPACES, _leave_namespaces),
            (Layer.NO_ROOT, _drop_root),
            (Layer.LANDLOCK, _close_file_systems),
        )
        if _holds(act)
    }
    sys.stdin = sys.stdout = sys.stderr = None  # `print` does nothing then
    os.closerange(0, keep)
    os.closerange(keep + 1, _DESCRIPTORS)
    for layer, act in ((Layer.LIMITS, lambda: _limit(memory)), (Layer.SECCOMP, _filter_calls)):
        if _holds(act):
            layers.add(layer)
    return frozenset(layers)


def _holds(act: Callable[[], None]) -> bool:
    try:
        act()
    except (OSError, ValueError):
        return False
    return True


_libc: Final = ctypes.CDLL(None, use_errno=True)


def _call(function: Callable[..., int], *arguments: object) -> int:
    result = function(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _leave_namespaces() -> None:
    """Leave the network and the System V objects of others. An ordinary user needs a user namespace for it,
    which some distributions forbid."""
    extra = 0 if os.geteuid() == 0 else _USER_NAMESPACE
    _call(_libc.unshare, ctypes.c_int(_NAMESPACES | extra))


def _drop_root() -> None:
    """Become nobody if this is root, and give up all capabilities, also those in the user namespace."""
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    finally:
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        _call(_libc.capset, header, (ctypes.c_uint32 * 6)())


def _close_file_systems() -> None:
    """Set up Landlock without a rule: no path can be opened, read, made or removed, no TCP port used (from
    ABI 4 on), no signal sent to others (from ABI 6 on)."""
    _call(_libc.prctl, ctypes.c_int(_SET_NO_NEW_PRIVILEGES), *map(ctypes.c_ulong, (1, 0, 0, 0)))
    version = _call(
        _libc.syscall, ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION)
    )
    rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    network = 3 if version >= 4 else 0
    scopes = 3 if version >= 6 else 0
    attributes = (ctypes.c_uint64 * 3)((1 << rights) - 1, network, scopes)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(
        _libc.syscall, ctypes.c_long(_CREATE_RULESET), attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    try:
        _call(_libc.syscall, ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _limit(memory: int) -> None:
    for what, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(what, (value, value))


def _filter_calls() -> None:
    """Make the process not dumpable, so that no other process of this user can read its memory; then install
    the filter in all threads."""
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(f"no list of system calls for {platform.machine()}")
    _call(_libc.prctl, ctypes.c_int(_SET_NO_NEW_PRIVILEGES), *map(ctypes.c_ulong, (1, 0, 0, 0)))
    _call(_libc.prctl, ctypes.c_int(_SET_DUMPABLE), *map(ctypes.c_ulong, (0, 0, 0, 0)))
    code = allow_list(machine)
    program = _Program(len(code) // 8, code)
    if _call(
        _libc.syscall,
        ctypes.c_long(machine.seccomp),
        ctypes.c_uint(_SET_MODE_FILTER),
        ctypes.c_uint(_ALL_THREADS),
        ctypes.byref(program),
    ):
        raise OSError("a thread could not be put under the filter")
