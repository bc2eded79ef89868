"""Working as another user in one thread, for as long as a few system calls take.

Root who works in a folder of somebody else can be led astray by whatever that one plants there. As that user
he can not: what the other may not open, read or write is refused by the kernel, and what is made belongs to
him from the first moment. Linux keeps for each thread the user that counts for files alone (setfsuid(2),
made for file servers): with it go the powers over others' files, and nobody can send the process signals for
it. Other threads are not concerned.
"""

from __future__ import annotations

import ctypes
import os
import platform
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

_NOGROUP: Final = 65534
_SETGROUPS: Final = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}
"""Number of the system call. The C library's function is no use: it sets the groups of all threads."""
_LIBC: Final = ctypes.PyDLL(None, use_errno=True)  # not CDLL: nothing here waits, so the GIL may stay
_ASK: Final = ctypes.c_uint(-1)
"""As a user number: change nothing, return the present one."""


@dataclass(frozen=True, slots=True)
class OtherUser:
    """A user whom a thread can be. `gid` and `groups` are his own, of which files that he makes get `gid`."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @staticmethod
    def owning(folder: os.stat_result) -> OtherUser | None:
        """Whom to be in a folder: its owner, when that is not us and we may; else None: we are who we are."""
        if os.geteuid() != 0 or folder.st_uid == 0:
            return None
        user = _known(folder.st_uid, folder.st_gid)
        try:
            with user.acting():
                return user
        except PermissionError:  # root without CAP_SETUID: whatever he is, he is that user neither way
            return None

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Be this user in the block, for files. The block does no more than open, name or list files: it
        starts neither a process nor a thread, which would be him too, and yields nothing to a caller.

        Raises PermissionError.
        """
        ours = os.getgroups()
        try:
            _be(self.uid, self.gid, self.groups)
            yield
        finally:
            try:
                _be(os.geteuid(), os.getegid(), ours)
            except KeyboardInterrupt:  # it may have come in the middle
                _be(os.geteuid(), os.getegid(), ours)
                raise


def _known(uid: int, gid: int) -> OtherUser:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:  # of another machine, or a container: the folder's group, but for root's
        own = gid or _NOGROUP
        return OtherUser(uid, own, (own,))
    return OtherUser(uid, user.pw_gid, tuple(os.getgrouplist(user.pw_name, user.pw_gid)))


def _be(uid: int, gid: int, groups: tuple[int, ...] | list[int]) -> None:
    """Groups while we have the power to set them: as root, before or after. Raises PermissionError."""
    number = _SETGROUPS.get(platform.machine()) if sys.maxsize > 1 << 32 else None
    if number is not None:  # elsewhere ours stay; what only those open is refused for its owner
        array = (ctypes.c_uint * len(groups))(*groups)
        if _LIBC.syscall(number, len(groups), array) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    _LIBC.setfsgid(gid)
    _LIBC.setfsuid(uid)
    if _LIBC.setfsuid(_ASK) != uid or _LIBC.setfsgid(_ASK) != gid:
        raise PermissionError(f"cannot act as user {uid}")
