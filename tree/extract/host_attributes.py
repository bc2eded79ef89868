"""Giving restored files the attributes they had in the guest: owner, mode, attributes, times."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from holdfast.base.target_folder import TargetFolder
from holdfast.formats.guests.values.naming import to_text
from holdfast.formats.guests.values.values import Entry

_BEYOND_LAST_ID: Final = 0xFFFF_FFFF
"""As a user ID it means "leave it as it is"."""
_LAST_SECOND: Final = 1 << 40
_ACLS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")


class Attributes:
    """Sets attributes of restored files; each method returns those it could not set, in words.

    `owners`: also set user and group numbers, and ACLs, which contain such numbers; this takes root.
    `setuid`: also set the setuid and setgid bits, with which a guest's program acts for its owner *here*.
    """

    def __init__(self, *, owners: bool, setuid: bool) -> None:
        self._owners = owners
        self._setuid = setuid

    def of_open(self, fd: int, entry: Entry, xattrs: Mapping[bytes, bytes]) -> list[str]:
        """Set attributes of a file or directory, in an order that matters.

        A new owner clears mode bits, and each change touches the times.
        """
        flaws: list[str] = []
        if self._owners:
            with _noted(flaws, "owner"):
                os.fchown(fd, *_owner(entry))
        with _noted(flaws, "mode"):
            os.fchmod(fd, self._mode(entry))
        for name, value in xattrs.items():
            if not self._allowed(name):
                continue
            with _noted(flaws, f"attribute {to_text(name)}"):
                os.setxattr(fd, name, value)
        with _noted(flaws, "times"):
            os.utime(fd, ns=_times(entry))
        return flaws

    def of_link(self, folder: TargetFolder, name: bytes, entry: Entry) -> list[str]:
        """Set attributes of a symbolic link, which has no mode."""
        flaws: list[str] = []
        if self._owners:
            with _noted(flaws, "owner"):
                os.chown(name, *_owner(entry), dir_fd=folder.fd, follow_symlinks=False)
        with _noted(flaws, "times"):
            os.utime(name, ns=_times(entry), dir_fd=folder.fd, follow_symlinks=False)
        return flaws

    def of_special(self, folder: TargetFolder, name: bytes, entry: Entry) -> list[str]:
        """Set attributes of FIFOs, sockets and devices, which must not be opened."""
        flaws = self.of_link(folder, name, entry)
        with _noted(flaws, "mode"), folder.peek(name) as fd:
            # Python has no fchmodat2, and a descriptor of this kind no fchmod.
            os.chmod(f"/proc/self/fd/{fd}", self._mode(entry))  # noqa: PTH101  no path, a descriptor
        with _noted(flaws, "times"):
            os.utime(name, ns=_times(entry), dir_fd=folder.fd, follow_symlinks=False)
        return flaws

    def drops(self, entry: Entry) -> bool:
        """Whether bits of the mode are left away."""
        return self._mode(entry) != entry.mode & 0o7777

    def _mode(self, entry: Entry) -> int:
        return entry.mode & (0o7777 if self._setuid else 0o7777 & ~(stat.S_ISUID | stat.S_ISGID))

    def _allowed(self, name: bytes) -> bool:
        """The parser is not trusted: `security.capability` would be as good as setuid."""
        return name.startswith(b"user.") or (self._owners and name in _ACLS)


def _owner(entry: Entry) -> tuple[int, int]:
    if not (0 <= entry.uid < _BEYOND_LAST_ID and 0 <= entry.gid < _BEYOND_LAST_ID):
        raise OSError(errno.EINVAL, f"no user can have the number {entry.uid}:{entry.gid}")
    return entry.uid, entry.gid


def _times(entry: Entry) -> tuple[int, int]:
    limit = _LAST_SECOND * 1_000_000_000
    return max(-limit, min(entry.atime, limit)), max(-limit, min(entry.mtime, limit))


@contextmanager
def _noted(flaws: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        flaws.append(f"{what} not set: {error.strerror or error}")
