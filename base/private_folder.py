"""A folder of this user alone, for what only speeds things up and must not be another user's word."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

_LINKS: Final = 40
"""Most links in one path; the kernel has the same limit."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_private_folder(path: Path) -> int:
    """A descriptor of the folder. Makes it, and folders above it that are missing, with mode 0700.

    No other user but root can change what is in it or put another folder in its place: every folder on the
    way belongs to this user or root and nobody else may write to it (or it is sticky, as /tmp is), links are
    followed only when this user or root made them, and the folder itself is this user's. All of that is
    asked of what was opened. Raises OSError; PermissionError when it is not so, before anything is made
    behind the folder in question.
    """
    ahead = list(reversed(path.absolute().parts[1:]))
    here, way, links = os.open("/", _FOLDER), Path("/"), 0
    try:
        _check_on_the_way(os.fstat(here), way)
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            target = _link_target(here, part, way / part)
            if target is None:
                here, way = _enter(here, part), way / part
                _check_on_the_way(os.fstat(here), way)
                continue
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            ahead += reversed(Path(target).parts)
            if os.path.isabs(target):  # noqa: PTH117  the link's text
                ahead.pop()
                here, way = _enter(here, "/"), Path("/")
        status = os.fstat(here)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise _not_private(path, status)
    except BaseException:
        os.close(here)
        raise
    return here


def _link_target(folder: int, name: str, where: Path) -> str | None:
    """The target of a link; None when the name is no link or was not there. Makes a missing folder."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:  # another process was quicker
            return _link_target(folder, name, where)
        return None
    if not stat.S_ISLNK(status.st_mode):
        return None
    if status.st_uid not in (0, os.geteuid()):
        raise _not_private(where, status)
    return os.readlink(name, dir_fd=folder)


def _enter(folder: int, name: str) -> int:
    """The descriptor of a folder in this one, whose own descriptor is closed."""
    inside = os.open(name, _FOLDER, dir_fd=folder)
    os.close(folder)
    return inside


def _check_on_the_way(status: os.stat_result, where: Path) -> None:
    mode = status.st_mode
    shared = mode & 0o002 or (mode & 0o020 and status.st_gid not in (0, os.getegid()))
    if status.st_uid not in (0, os.geteuid()) or (shared and not mode & stat.S_ISVTX):
        raise _not_private(where, status)


def _not_private(where: Path, status: os.stat_result) -> PermissionError:
    reason = f"another user could write there (owner {status.st_uid}, mode {status.st_mode & 0o7777:04o})"
    return PermissionError(errno.EPERM, reason, str(where))
