"""The system calls that a database server, its clients and what they start do not get.

A list of what is refused: servers use too many calls for a list of what is allowed, and empty root, user and
namespaces hold without it. It closes what the kernel offers anybody and nobody here needs: every socket that
is no Unix socket, namespaces, mounts, tracing, io_uring, keys, BPF, memory that no limit counts. Calls newer
than the list do not exist here. A call by the rules of another architecture ends the process.
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from holdfast.base.confinement.bpf import (
    ALLOW,
    KILL,
    MACHINE_AT,
    NUMBER_AT,
    answer,
    assemble,
    load,
    low_half,
    returning,
    unless_equal,
    when,
)

_FAMILY_UNIX: Final = 1
_NEW_NAMESPACES: Final = 0x7E020000
"""All CLONE_NEW flags of clone(2)."""
_SHARED_MEMORY: Final = 64 << 10
"""Bytes of a System V segment: PostgreSQL takes 56 as an interlock; no limit counts what is in segments."""
_TYPE_INTO_TERMINAL: Final = 0x5412
_X32: Final = 0x40000000


class ServerMachine(NamedTuple):
    """An architecture: its number for the kernel's audit, the last call that is known, refused calls by
    name."""

    audit: int
    last: int
    calls: dict[str, int]


_BOTH: Final = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447,
}  # fmt: skip

SERVER_MACHINES: Final = {
    "x86_64": ServerMachine(
        0xC000003E,
        451,
        {
            **_BOTH,
            "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "ptrace": 101,
            "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "bpf": 321,
            "perf_event_open": 298, "userfaultfd": 323, "keyctl": 250, "add_key": 248, "request_key": 249,
            "init_module": 175, "finit_module": 313, "delete_module": 176, "kexec_load": 246,
            "kexec_file_load": 320, "open_by_handle_at": 304, "name_to_handle_at": 303, "unshare": 272,
            "setns": 308, "memfd_create": 319, "personality": 135, "quotactl": 179, "acct": 163,
            "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171,
            "syslog": 103, "settimeofday": 164, "clock_settime": 227, "clock_adjtime": 305, "adjtimex": 159,
            "iopl": 172, "ioperm": 173, "modify_ldt": 154, "vhangup": 153, "fanotify_init": 300,
            "lookup_dcookie": 212, "uselib": 134, "ustat": 136, "sysfs": 139, "migrate_pages": 256,
            "move_pages": 279, "socket": 41, "socketpair": 53, "clone": 56, "shmget": 29, "ioctl": 16,
        },
    ),
    "aarch64": ServerMachine(
        0xC00000B7,
        451,
        {
            **_BOTH,
            "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "ptrace": 117,
            "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "bpf": 280,
            "perf_event_open": 241, "userfaultfd": 282, "keyctl": 219, "add_key": 217, "request_key": 218,
            "init_module": 105, "finit_module": 273, "delete_module": 106, "kexec_load": 104,
            "kexec_file_load": 294, "open_by_handle_at": 265, "name_to_handle_at": 264, "unshare": 97,
            "setns": 268, "memfd_create": 279, "personality": 92, "quotactl": 60, "acct": 89,
            "swapon": 224, "swapoff": 225, "reboot": 142, "sethostname": 161, "setdomainname": 162,
            "syslog": 116, "settimeofday": 170, "clock_settime": 112, "clock_adjtime": 266, "adjtimex": 171,
            "vhangup": 58, "fanotify_init": 262, "lookup_dcookie": 18, "migrate_pages": 238,
            "move_pages": 239, "socket": 198, "socketpair": 199, "clone": 220, "shmget": 194, "ioctl": 29,
        },
    ),
}  # fmt: skip
_LOOKED_INTO: Final = frozenset({"socket", "socketpair", "clone", "shmget", "ioctl"})
_ABSENT: Final = frozenset(
    {"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_create"}
)
"""ENOSYS instead of EPERM: then the C library and servers use what came before."""


def deny_list(machine: ServerMachine) -> bytes:
    """A classic BPF program for `kernel.filter_calls`."""
    calls = machine.calls
    refused, absent = answer(returning(errno.EPERM)), answer(returning(errno.ENOSYS))
    no_family, allowed = answer(returning(errno.EAFNOSUPPORT)), answer(ALLOW)
    program = load(MACHINE_AT) + unless_equal(machine.audit, answer(KILL))
    program += load(NUMBER_AT) + when("over", _X32 - 1, refused) + when("over", machine.last, absent)
    for name, number in sorted(calls.items()):
        if name not in _LOOKED_INTO:
            program += when("equal", number, absent if name in _ABSENT else refused)
    only_unix = load(low_half(0)) + unless_equal(_FAMILY_UNIX, no_family) + allowed
    size = low_half(1)
    looks = {
        "socket": only_unix,
        "socketpair": only_unix,
        "clone": load(low_half(0)) + when("bits", _NEW_NAMESPACES, refused) + allowed,
        "ioctl": load(low_half(1)) + when("equal", _TYPE_INTO_TERMINAL, refused) + allowed,
        "shmget": load(size + 4)
        + unless_equal(0, refused)
        + load(size)
        + when("over", _SHARED_MEMORY, refused)
        + allowed,
    }
    for name, look in looks.items():
        program += when("equal", calls[name], look)
    return assemble([*program, *allowed])
