"""A file that is restored to: it looks complete only when it is, and nobody else had a hand in it."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from contextlib import suppress
from types import TracebackType
from typing import Final

from holdfast.base.durable_files import (
    PARTIAL_SUFFIX,
    read_at,
    rename_unless_taken,
    sync_if_possible,
    write_all_at,
)
from holdfast.base.errors import Refused, TargetError
from holdfast.base.target_folder import TargetFolder, refusals
from holdfast.base.types import Buffer

_NAME_LIMIT: Final = 255
"""Bytes, of Linux."""
_PARTIAL: Final = 0o600 | stat.S_ISVTX
"""Mode of a file that is not whole. The sticky bit means nothing for a file and no file that is whole has it
of us, so it tells what a killed restore left from an item that happens to have such a name."""
_WHOLE: Final = 0o600
"""A disk or a dump shows all that is in it, and no snapshot knows who might read it where it came from."""
_TRIES: Final = 8


class SameFile(Refused):
    """Two names of one restore are one file here."""


class FileTarget:
    """A regular file of `size` bytes. A context manager; `write` may be called from several threads.

    Bytes go to `<name>.holdfast-partial` of mode 0600, made anew; what a killed restore of ours left under
    that name is used again; anything else is left alone and another name taken. When the block ends well the
    file is made durable, gets its `mtime` (ns) and takes its name; when it does not, it is removed. So
    nothing that looks complete is ever incomplete, even after a power cut. What is not written is a hole, or
    zeros without `sparse`.

    `written` collects the files of one restore: where the file system takes two of their names for one
    (letters' case, accents) the second one is refused, even with `overwrite`. Raises Refused when the name is
    taken and the folder is not for overwriting, SameFile, TargetError.
    """

    def __init__(
        self,
        folder: TargetFolder,
        name: str,
        size: int,
        *,
        sparse: bool = True,
        mtime: int | None = None,
        written: set[tuple[int, int]] | None = None,
    ) -> None:
        self.path = folder.path / name
        self._folder = folder
        self._name = os.fsencode(name)
        self._partial = b""
        self._size = size
        self._sparse = sparse
        self._mtime = mtime
        self._written = set() if written is None else written

    def __enter__(self) -> FileTarget:
        with refusals("write", self.path):
            self._check_free()
            self._fd = self._claimed()
        try:
            with refusals("write", self.path):
                os.ftruncate(self._fd, 0)  # what an interrupted restore left
                os.ftruncate(self._fd, self._size)
                if not self._sparse and self._size:
                    os.posix_fallocate(self._fd, 0, self._size)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._remove()
            return
        try:
            with refusals("write", self.path):
                _set_mode(self._fd, _WHOLE)
                if self._mtime is not None:
                    os.utime(self._fd, ns=(self._mtime, self._mtime))
                os.fsync(self._fd)
                self._take_name()
                sync_if_possible(self._folder.fd)
        except BaseException:
            self._remove()
            raise
        status = os.fstat(self._fd)
        self._written.add((status.st_dev, status.st_ino))
        os.close(self._fd)

    def write(self, offset: int, data: Buffer) -> None:
        with refusals("write", self.path):
            write_all_at(self._fd, offset, data)

    def read(self, offset: int, length: int) -> bytes:
        """What is there now; for reading back."""
        with refusals("read", self.path):
            return read_at(self._fd, offset, length)

    def settle(self) -> None:
        """Bring everything to the disk and forget it, so that `read` comes from there."""
        with refusals("write", self.path):
            os.fsync(self._fd)
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _check_free(self) -> None:
        """Raises Refused when the file may not take its name."""
        try:
            there = self._folder.status(self._name)
        except FileNotFoundError:
            return
        if (there.st_dev, there.st_ino) in self._written:
            raise SameFile(
                f"{self.path} is the same file as one that was restored just now: this file system makes no "
                "difference between their names"
            )
        check_replaceable(self.path, there, overwrite=self._folder.overwrite)

    def _claimed(self) -> int:
        """The descriptor of a partial file that is ours alone; `_partial` is its name."""
        self._partial = _partial_name(self._name)
        for _ in range(_TRIES):
            fd = self._made_or_left()
            if fd is None:  # somebody else's, or an item's: it stays
                self._partial = _partial_name(self._name, b"." + secrets.token_hex(4).encode())
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise Refused(f"another restore is writing {self.path} right now") from None
            if self._is_ours(os.fstat(fd)):
                return fd
            os.close(fd)  # another restore was just finishing it
        raise TargetError(f"cannot write {self.path}: no name for the file while it is not whole")

    def _made_or_left(self) -> int | None:
        """A new partial file, or what a killed restore left; None when the name is anything else's."""
        flags = os.O_RDWR | os.O_NONBLOCK
        with suppress(FileExistsError):
            fd = self._folder.open(self._partial, flags | os.O_CREAT | os.O_EXCL, _PARTIAL)
            _set_mode(fd, _PARTIAL)  # whatever the umask says
            return fd
        try:
            if not _is_partial(self._folder.status(self._partial)):
                return None
            return self._folder.open(self._partial, flags)
        except OSError:
            return None

    def _is_ours(self, opened: os.stat_result) -> bool:
        """Whether the opened file is under the partial name still, and under no other."""
        return self._has_name(self._partial, opened) and stat.S_ISREG(opened.st_mode) and opened.st_nlink == 1

    def _has_name(self, name: bytes, opened: os.stat_result) -> bool:
        try:
            return os.path.samestat(self._folder.status(name), opened)
        except OSError:
            return False

    def _take_name(self) -> None:
        opened = os.fstat(self._fd)
        if not self._has_name(self._partial, opened):
            raise TargetError(f"cannot write {self.path}: somebody took it away while it was written")
        folder = self._folder.fd
        if self._folder.overwrite:
            self._check_free()
            os.rename(self._partial, self._name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            try:
                rename_unless_taken(self._partial, self._name, folder)
            except FileExistsError:
                self._check_free()
                raise
        if not self._has_name(self._name, opened):
            raise TargetError(f"cannot write {self.path}: somebody put another file there meanwhile")

    def _remove(self) -> None:
        with suppress(OSError):
            if self._has_name(self._partial, os.fstat(self._fd)):
                os.unlink(self._partial, dir_fd=self._folder.fd)
        os.close(self._fd)


def _set_mode(fd: int, mode: int) -> None:
    with suppress(OSError):  # a file system without modes
        os.fchmod(fd, mode)


def _is_partial(status: os.stat_result) -> bool:
    """Whether this is what a killed restore of ours left: nobody else can make such a file."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and status.st_nlink == 1
        and bool(status.st_mode & stat.S_ISVTX)
    )


def _partial_name(name: bytes, more: bytes = b"") -> bytes:
    """The name while it is written; a long one is cut, so that every name that can be can be written."""
    suffix = more + os.fsencode(PARTIAL_SUFFIX)
    return name[: _NAME_LIMIT - len(suffix)] + suffix


def check_replaceable(path: object, there: os.stat_result, *, overwrite: bool) -> None:
    """Raises Refused when what is there (a link itself, not what it leads to) may not be replaced."""
    if stat.S_ISDIR(there.st_mode):
        raise Refused(f"{path} is a directory")
    if not (stat.S_ISREG(there.st_mode) or stat.S_ISLNK(there.st_mode)):
        raise Refused(f"{path} is neither a file nor a block device; nothing was written")
    if not overwrite:
        raise Refused(f"{path} exists already; nothing was written")
