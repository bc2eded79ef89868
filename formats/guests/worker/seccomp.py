"""The system calls that a worker may make, as a filter for the kernel.

All others fail with EPERM, so that a library that looks for a file, or for the number of processors, goes on
without. A call by the convention of another architecture, where the numbers mean other calls, ends the
process.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import Final, NamedTuple


class Machine(NamedTuple):
    """An architecture: its number for the kernel's audit, and the calls by name."""

    audit: int
    seccomp: int
    """The call that installs the filter."""
    calls: dict[str, int]


_FREE: Final = (
    "brk", "munmap", "mremap", "madvise",  # memory; mmap and mprotect are below
    "futex", "sched_yield", "restart_syscall", "rt_sigprocmask", "rt_sigreturn",
    "sendto", "recvfrom", "close",  # on the one descriptor that is left, which is a connected socket
    "clock_gettime", "clock_getres", "gettimeofday", "setitimer", "getrandom", "getpid", "gettid",
    "exit", "exit_group",
)  # fmt: skip
_WITHOUT_CODE: Final = ("mmap", "mprotect")
"""Calls that are allowed unless they ask for executable memory."""

MACHINES: Final = {
    "x86_64": Machine(
        0xC000003E,
        317,
        {
            "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigprocmask": 14, "rt_sigreturn": 15,
            "sched_yield": 24, "mremap": 25, "madvise": 28, "close": 3, "setitimer": 38, "getpid": 39,
            "sendto": 44, "recvfrom": 45, "exit": 60, "gettimeofday": 96, "gettid": 186, "futex": 202,
            "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "exit_group": 231,
            "getrandom": 318,
        },
    ),
    "aarch64": Machine(
        0xC00000B7,
        277,
        {
            "close": 57, "exit": 93, "exit_group": 94, "futex": 98, "setitimer": 103, "clock_gettime": 113,
            "clock_getres": 114, "sched_yield": 124, "restart_syscall": 128, "rt_sigprocmask": 135,
            "rt_sigreturn": 139, "gettimeofday": 169, "getpid": 172, "gettid": 178, "sendto": 206,
            "recvfrom": 207, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226,
            "madvise": 233, "getrandom": 278,
        },
    ),
}  # fmt: skip

# linux/filter.h, linux/seccomp.h
_INSTRUCTION: Final = Struct("<HBBI")
_LOAD, _JUMP_EQUAL, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM
_NUMBER_AT, _MACHINE_AT, _PROTECTION_AT = 0, 4, 16 + 2 * 8  # in struct seccomp_data; the low half of args[2]
_PROT_EXEC = 4


def allow_list(machine: Machine) -> bytes:
    """A classic BPF program: `struct sock_filter` after `struct sock_filter`."""
    free = [machine.calls[name] for name in _FREE]
    checked = [machine.calls[name] for name in _WITHOUT_CODE]
    refuse = 4 + len(free) + len(checked)  # then allow, then the look at the protection
    allow, look = refuse + 1, refuse + 2
    program = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for number in free:
        program.append((_JUMP_EQUAL, allow - len(program) - 1, 0, number))
    for number in checked:
        program.append((_JUMP_EQUAL, look - len(program) - 1, 0, number))
    program += [
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _PROTECTION_AT),
        (_JUMP_BITS, 0, 1, _PROT_EXEC),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(_INSTRUCTION.pack(*line) for line in program)
