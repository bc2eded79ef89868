"""System calls that confinement is made of, which Python has no function for. All raise OSError."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from pathlib import Path
from typing import Final

# linux/sched.h
NEW_MOUNTS, NEW_NAMES, NEW_IPC, NEW_USERS, NEW_PIDS, NEW_NETWORK = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
# linux/mount.h
READ_ONLY, NO_SETUID, NO_DEVICES, NO_PROGRAMS = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 32, 4096, 16384, 1 << 18
_DETACH: Final = 2
_ATTRIBUTES_RECURSIVE: Final = 0x8000
# linux/prctl.h
_SET_PARENT_DEATH_SIGNAL, _SET_DUMPABLE, _DROP_FROM_BOUNDING_SET = 1, 4, 24
_SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVILEGES = 36, 38
_SIGKILL: Final = 9
_MODE_FILTER, _ALL_THREADS = 1, 1
_CAPABILITY_VERSION_3: Final = 0x20080522
_LAST_CAPABILITY: Final = 63
_CALLS: Final = {
    "x86_64": {"pivot_root": 155, "seccomp": 317, "mount_setattr": 442},
    "aarch64": {"pivot_root": 41, "seccomp": 277, "mount_setattr": 442},
}

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _number(name: str) -> ctypes.c_long:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        raise OSError(errno.ENOSYS, f"system calls of {platform.machine()} are not known")
    return ctypes.c_long(calls[name])


def _prctl(what: int, first: int = 0) -> None:
    rest = map(ctypes.c_ulong, (first, 0, 0, 0))
    _check(_libc.prctl(ctypes.c_int(what), *rest))


def unshare(kinds: int) -> None:
    """Leave the namespaces of these kinds for new ones; of process IDs, the children do."""
    _check(_libc.unshare(ctypes.c_int(kinds)))


def enter(namespace: int, kind: int) -> None:
    """Enter the namespace that the descriptor is of."""
    _check(_libc.setns(ctypes.c_int(namespace), ctypes.c_int(kind)))


def make_mounts_private() -> None:
    """Nothing that is mounted from now on is seen in other namespaces, and the other way round."""
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_RECURSIVE | _PRIVATE), None))


def mount(kind: str, target: Path | str, flags: int, options: str = "") -> None:
    """Mount a new file system of this kind."""
    words = kind.encode()
    _check(_libc.mount(words, os.fsencode(target), words, ctypes.c_ulong(flags), options.encode()))


def bind(source: Path | str, target: Path | str, flags: int) -> None:
    """Show what is at `source` at `target` too, with everything mounted below, with these flags in addition.

    Kernels before 5.12 cannot set flags below: there what is mounted below is left out.
    """
    where = os.fsencode(target)
    _check(_libc.mount(os.fsencode(source), where, None, ctypes.c_ulong(_BIND | _RECURSIVE), None))
    attributes = (ctypes.c_uint64 * 4)(flags, 0, 0, 0)
    try:
        _check(
            _libc.syscall(
                *(_number("mount_setattr"), ctypes.c_int(-100), where),
                *(ctypes.c_uint(_ATTRIBUTES_RECURSIVE), attributes, ctypes.c_size_t(32)),
            )
        )
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _check(_libc.umount2(where, ctypes.c_int(_DETACH)))
        _check(_libc.mount(os.fsencode(source), where, None, ctypes.c_ulong(_BIND), None))
        kept = os.statvfs(target).f_flag & (READ_ONLY | NO_SETUID | NO_DEVICES | NO_PROGRAMS | 0x1C00)
        restrict(target, flags | kept)


def restrict(target: Path | str, flags: int) -> None:
    """Give the mount at `target` these flags."""
    all_flags = ctypes.c_ulong(_REMOUNT | _BIND | flags)
    _check(_libc.mount(None, os.fsencode(target), None, all_flags, None))


def pivot_root(new_root: str) -> None:
    """Make `new_root`, a mount, the root directory; what was the root is gone from this namespace."""
    os.chdir(new_root)
    _check(_libc.syscall(_number("pivot_root"), b".", b"."))
    _check(_libc.umount2(b".", ctypes.c_int(_DETACH)))
    os.chdir("/")


def die_with_parent() -> None:
    """Be killed when the thread ends that started this process. A change of user takes that back."""
    _prctl(_SET_PARENT_DEATH_SIGNAL, _SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parents end."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def gain_nothing() -> None:
    """No program that is started has more rights than this process: setuid and the like do nothing."""
    _prctl(_SET_NO_NEW_PRIVILEGES, 1)


def be_opaque() -> None:
    """No process of the same user can look into this one."""
    _prctl(_SET_DUMPABLE)


def drop_capabilities_from_bounding_set() -> None:
    """No program that is started can have a capability again. Takes one."""
    for number in range(_LAST_CAPABILITY + 1):
        try:
            _prctl(_DROP_FROM_BOUNDING_SET, number)
        except OSError as error:
            if error.errno != errno.EINVAL:  # no such capability
                raise


def drop_capabilities(*, bounding: bool) -> None:
    """Have no capability any more; with `bounding` no program can have one again."""
    if bounding:
        drop_capabilities_from_bounding_set()
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()))


def filter_calls(code: bytes) -> None:
    """Put all threads under this filter of system calls; there is no way back."""
    program = _Program(len(code) // 8, code)
    if _check(
        _libc.syscall(
            *(_number("seccomp"), ctypes.c_uint(_MODE_FILTER)),
            *(ctypes.c_uint(_ALL_THREADS), ctypes.byref(program)),
        )
    ):
        raise OSError(errno.EPERM, "a thread could not be put under the filter")
