"""Opens places that a user names, and follows a link on the way only when nobody else made it.

A path on the command line is the user's word, and a link in it is whose it belongs to: where another user may
write, he can plant one that leads to our files. So a path is walked by descriptor, a component at a time, and
a link is followed only when it belongs to us or to root. What is below a place that was named is not walked
here and follows no link at all (`target_folder`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from pathlib import Path
from typing import Final

from holdfast.base.errors import Refused

_PASSING: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOKING: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS: Final = 40
"""Most links in one path; the kernel has the same limit."""


class ForeignLink(Refused):
    """A path leads through a symbolic link of somebody else. `leads_to` is what the link holds."""

    def __init__(self, path: Path, leads_to: str, uid: int) -> None:
        super().__init__(f"{path} is a link to {leads_to!r} that user {uid} made; nothing was written")
        self.path = path
        self.leads_to = leads_to


class NotOurFolder(Refused):
    """A folder for files of our own that somebody else could put things into."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}: what is kept there must be ours alone; nothing was changed")
        self.path = path


def make_own_folder(path: Path) -> None:
    """Make a folder for files of our own, mode 0700, unless it is there. What is in it may be used by path.

    It and all above it belong to us or to root, and nobody else may write to them but where the sticky bit
    keeps him from what is others'. A folder that cannot be made is none. Raises NotOurFolder, ForeignLink.
    """
    walk = _Walk(path)
    try:
        while walk.parts:
            walk.enter(walk.parts.popleft(), make=True)
            status = os.fstat(walk.fd)
            if not _trusted(status.st_uid):
                raise NotOurFolder(walk.seen, f"belongs to user {status.st_uid}")
            if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
                raise NotOurFolder(walk.seen, "can be written to by everybody")
    except OSError:
        return  # whoever uses it says what cannot be done
    finally:
        os.close(walk.fd)


def open_folder(path: Path, *, make: bool = False) -> tuple[int, bool]:
    """(descriptor, whether it was made just now) of a folder; `make`: mode 0700, with those above.

    One that may not be read is opened for passing through only (O_PATH). Raises ForeignLink, OSError.
    """
    walk = _Walk(path)
    try:
        made = False
        while walk.parts:
            made = walk.enter(walk.parts.popleft(), make=make)
        try:
            return os.open(".", _OPEN, dir_fd=walk.fd), made
        except PermissionError:
            return os.dup(walk.fd), made
    finally:
        os.close(walk.fd)


def without_links(path: Path) -> Path:
    """The path with its last component replaced by what it leads to, as long as that is a link.

    Raises ForeignLink; OSError when there are too many links, or a folder above is not there.
    """
    for _ in range(_MOST_LINKS):
        try:
            folder, _made = open_folder(path.parent)
        except FileNotFoundError:
            return path
        try:
            held = os.open(path.name, _LOOKING, dir_fd=folder)
        except FileNotFoundError:
            return path
        finally:
            os.close(folder)
        try:
            if not stat.S_ISLNK(os.fstat(held).st_mode):
                return path
            path = path.parent / _followed(held, path)
        finally:
            os.close(held)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


class _Walk:
    """A descriptor that goes down a path; `parts` are those that are still to come."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open("/" if path.is_absolute() else ".", _PASSING)
        self.parts = deque(path.parts[1:] if path.is_absolute() else path.parts)
        self.seen = Path("/" if path.is_absolute() else "")
        self._links = 0

    def enter(self, part: str, *, make: bool) -> bool:
        """Go one folder down, or take a link's path in its place. Returns whether the folder was made."""
        made = False
        try:
            deeper = os.open(part, _PASSING, dir_fd=self.fd)
        except FileNotFoundError:
            if not make:
                raise
            try:
                os.mkdir(part, 0o700, dir_fd=self.fd)
                made = True
            except FileExistsError:
                made = False
            deeper = os.open(part, _PASSING, dir_fd=self.fd)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            self._follow(part)
            return False
        os.close(self.fd)
        self.fd = deeper
        self.seen /= part
        return made

    def _follow(self, part: str) -> None:
        held = os.open(part, _LOOKING, dir_fd=self.fd)
        try:
            if not stat.S_ISLNK(os.fstat(held).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.seen / part))
            to = _followed(held, self.seen / part)
        finally:
            os.close(held)
        self._links += 1
        if self._links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(self.seen / part))
        if to.is_absolute():
            top = os.open("/", _PASSING)
            os.close(self.fd)
            self.fd, self.seen = top, Path("/")
        self.parts.extendleft(reversed(to.parts[1:] if to.is_absolute() else to.parts))


def _followed(link: int, path: Path) -> Path:
    """The target of an opened link. Raises ForeignLink when it belongs neither to us nor to root."""
    uid = os.fstat(link).st_uid
    leads_to = os.readlink("", dir_fd=link)
    if not _trusted(uid):
        raise ForeignLink(path, leads_to, uid)
    return Path(leads_to)


def _trusted(uid: int) -> bool:
    """Us, or root. Inside of a user namespace what is root's outside belongs to whom / belongs to."""
    return uid in (0, os.geteuid(), os.stat("/").st_uid)  # noqa: PTH116  beside os.fstat
