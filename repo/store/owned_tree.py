"""The directories of a repository, reached from one open descriptor and never by path, as their owner.

Whoever may write to a repository's directory could plant links, pipes or other users' files in it for the
next user who opens it, above all for root. So no link below the directory is followed, an opened file's type
and owner are checked before it is used, and root works as the directory's owner (`base.other_user`).
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final

from holdfast.base.durable_files import preallocate, rename_unless_taken, sync_folder, write_all
from holdfast.base.errors import Damaged
from holdfast.base.other_user import OtherUser
from holdfast.base.types import Buffer
from holdfast.repo.store.layout import TEMPORARY

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not make us wait
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LARGE: Final = 8 << 20
"""Bytes from which on room is reserved before a file is written."""
_KINDS: Final = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Foreign(Damaged):
    """Something in a repository that belongs neither to its owner nor to us. `owner` is the repository's."""

    def __init__(self, path: Path, uid: int, owner: int) -> None:
        super().__init__(str(path), f"belongs to user {uid}, and the repository to user {owner}")
        self.path = path
        self.owner = owner


class OwnedTree:
    """A repository's directory. Opened when it is first used; thread-safe.

    All methods raise OSError, and Damaged when a name of ours is something else than our file or directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._top: _Top | None = None

    @property
    def syncs_folders(self) -> bool:
        """Whether names of files were made durable whenever that was wanted: not all file systems can."""
        return self._top is None or self._top.syncs_folders

    def close(self) -> None:
        """Let go of the directory; the next use opens it anew."""
        with self._lock:
            if self._top is not None:
                self._top.close()
                self._top = None

    @contextmanager
    def folder(self, *parts: str) -> Iterator[OwnedFolder]:
        """A folder below, or the directory itself. Raises FileNotFoundError."""
        top = self._opened()
        path = self.root.joinpath(*parts)
        with top.acting():
            fd = os.open(".", _FOLDER, dir_fd=top.fd)  # of our own: a listing has one place in each
            for number, part in enumerate(parts):
                try:
                    deeper = _open_checked(fd, part, _FOLDER, self.root.joinpath(*parts[: number + 1]), top)
                finally:
                    os.close(fd)
                fd = deeper
        try:
            yield OwnedFolder(fd, path, top)
        finally:
            os.close(fd)

    def _opened(self) -> _Top:
        with self._lock:
            if self._top is None:
                self._top = _Top(self.root)
            self._top.look()
            return self._top


class _Top:
    """The open directory, whose owner says who we are below it."""

    def __init__(self, root: Path) -> None:
        self.fd = os.open(root, _FOLDER & ~os.O_NOFOLLOW)  # the user's word, links and all
        self.close = weakref.finalize(self, os.close, self.fd)
        self.owner = -1
        self.syncs_folders = True
        self.look()

    def look(self) -> None:
        """See to whom the directory belongs: it may be given away while it is open."""
        status = os.fstat(self.fd)
        if status.st_uid != self.owner:
            self.owner = status.st_uid
            self._user = OtherUser.owning(status)
            self.owners = {self.owner} if self._user else {self.owner, os.geteuid()}

    def acting(self) -> AbstractContextManager[None]:
        return self._user.acting() if self._user else nullcontext()


class OwnedFolder:
    """A folder of the repository, open. Names are single components, and no method follows a link."""

    def __init__(self, fd: int, path: Path, top: _Top) -> None:
        self._fd = fd
        self._top = top
        self.path = path

    @contextmanager
    def below(self, name: str) -> Iterator[OwnedFolder]:
        """A folder in it. Raises FileNotFoundError, Damaged."""
        path = self.path / name
        with self._top.acting():
            fd = _open_checked(self._fd, name, _FOLDER, path, self._top)
        try:
            yield OwnedFolder(fd, path, self._top)
        finally:
            os.close(fd)

    def files(self) -> list[tuple[str, os.stat_result]]:
        """Name and status of each regular file; what else there is is passed over."""
        found = []
        with self._top.acting(), os.scandir(self._fd) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # deleted since; the rest of the folder still counts
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
        return found

    def names(self) -> list[str]:
        """The names of all entries of the directory."""
        with self._top.acting():
            return os.listdir(self._fd)  # noqa: PTH208  a descriptor, no path

    def has(self, name: str) -> bool:
        """Whether a file of ours has the name. Raises Damaged when anything else has."""
        try:
            with self._top.acting():
                status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        _look(status, stat.S_IFREG, self.path / name, self._top)
        return True

    def open(self, name: str, flags: int) -> int:
        """Open a regular file of the repository's; with O_CREAT it is made, mode 0600, if it is not there."""
        with self._top.acting():
            return _open_checked(self._fd, name, flags | _FILE, self.path / name, self._top)

    def make(self, name: str) -> None:
        """Make a folder, mode 0700, if it is not there."""
        with self._top.acting(), suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._fd)

    def write(self, name: str, data: Buffer) -> bool:
        """Write a file durably, then give it its name. Returns False when that is taken."""
        temporary = self._write_durably(data)
        try:
            with self._top.acting():
                rename_unless_taken(temporary, name, self._fd)
        except FileExistsError:
            self.unlink(temporary)
            return False
        except BaseException:
            self.unlink(temporary)
            raise
        return True

    def _write_durably(self, data: Buffer) -> str:
        """Write a temporary file and fsync it. Returns its name.

        After a failed fsync the kernel may call the lost pages clean, so that a second fsync of the
        same file succeeds and lies (Rebello et al., USENIX ATC 2020): it is dropped and a new one is
        written from memory, once.
        """
        for attempt in (1, 2):
            name = f"{TEMPORARY}{secrets.token_hex(8)}"
            with self._top.acting():
                fd = os.open(name, _NEW, 0o600, dir_fd=self._fd)
            try:
                if len(data) > _LARGE:
                    preallocate(fd, len(data))
                write_all(fd, data)
                os.fsync(fd)
            except OSError as error:
                self.unlink(name)
                if attempt == 2 or error.errno != errno.EIO:
                    raise
            else:
                return name
            finally:
                os.close(fd)
        raise AssertionError("unreachable")

    def move(self, name: str, target: OwnedFolder) -> None:
        """Give a file the present time and move it to another folder, under the same name."""
        with self._top.acting():
            os.utime(name, dir_fd=self._fd, follow_symlinks=False)
            os.rename(name, name, src_dir_fd=self._fd, dst_dir_fd=target._fd)

    def rename(self, name: str, new: str) -> None:
        """Give a file another name in the same folder, which replaces what has it."""
        with self._top.acting():
            os.rename(name, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def unlink(self, name: str) -> None:
        """Remove a file. A missing one is no error."""
        with self._top.acting(), suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    def sync(self) -> None:
        """Make durable which names are in it, where the file system can: see `OwnedTree.syncs_folders`."""
        if not sync_folder(self._fd):
            self._top.syncs_folders = False


def _open_checked(folder: int, name: str, flags: int, path: Path, top: _Top) -> int:
    """Open what has the name if it is of the kind that `flags` ask for, and belongs to whom it must."""
    wanted = stat.S_IFDIR if flags & os.O_DIRECTORY else stat.S_IFREG
    try:
        fd = os.open(name, flags, 0o600, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:
        _look(os.stat(name, dir_fd=folder, follow_symlinks=False), wanted, path, top)  # says more
        raise
    try:
        _look(os.fstat(fd), wanted, path, top)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _look(status: os.stat_result, wanted: int, path: Path, top: _Top) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != wanted:
        noun = "folder" if wanted == stat.S_IFDIR else "file"
        raise Damaged(str(path), f"is {_KINDS.get(kind, 'a file')} and no {noun}")
    if status.st_uid not in top.owners:
        raise Foreign(path, status.st_uid, top.owner)
