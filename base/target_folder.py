"""A folder that is restored into, held open: nothing in it can redirect a write to another place.

Everything goes by descriptor and name, never by path; names are single components; links are not followed;
files are made anew. So neither links that a guest holds nor links that wait in the target redirect a write.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from holdfast.base.durable_files import PARTIAL_SUFFIX
from holdfast.base.errors import TargetError
from holdfast.base.named_paths import open_folder

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TargetFolder:
    """A folder by its descriptor. Close it once. Methods raise OSError; FileExistsError when something has
    the name already and `overwrite` is false.

    `path` is for messages. `made` tells a folder that was not there before. With `overwrite` what has a name
    is replaced in one step when its successor is complete; folders are never replaced.
    """

    def __init__(self, fd: int, path: Path, *, overwrite: bool, made: bool) -> None:
        self.fd = fd
        self.path = path
        self.made = made
        self.overwrite = overwrite

    @staticmethod
    def top(path: Path, *, overwrite: bool, make: bool = True) -> TargetFolder:
        """The folder the user named, made if need be. The one path in which links are followed, if nobody
        else made them. Raises ForeignLink."""
        fd, made = open_folder(path, make=make)
        return TargetFolder(fd, path, overwrite=overwrite, made=made)

    def close(self) -> None:
        os.close(self.fd)

    def folder(self, name: bytes) -> TargetFolder:
        """A folder inside, made if it is not there; its mode is 0700 until somebody sets it."""
        _check(name)
        made = True
        try:
            os.mkdir(name, 0o700, dir_fd=self.fd)
        except FileExistsError:
            made = False
        return self._deeper(_open_folder(self.fd, name), name, made=made)

    def within(self, parts: list[bytes]) -> TargetFolder:
        """A folder further down, made where it is not there, each step as careful as `folder`."""
        folder = self.below([])
        for part in parts:
            with closing(folder):
                folder = folder.folder(part)
        return folder

    def status(self, name: bytes) -> os.stat_result:
        """The status of what has the name; of a link itself, not of what it leads to."""
        _check(name)
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def has_device(self, name: bytes) -> bool:
        """Whether a block device has the name."""
        try:
            return stat.S_ISBLK(self.status(name).st_mode)
        except OSError:
            return False

    def open(self, name: bytes, flags: int, mode: int = 0o600) -> int:
        """Open a file, never through a link."""
        _check(name)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self.fd)

    @contextmanager
    def new_file(self, name: bytes) -> Iterator[int]:
        """The descriptor of a new file of mode 0600, to be filled. It is gone if the block fails."""
        opened: list[int] = []

        def make(as_name: bytes) -> None:
            opened.append(os.open(as_name, _NEW, 0o600, dir_fd=self.fd))

        used = self._make(name, make)
        try:
            yield opened[0]
            self._take_name(used, name)
        except BaseException:
            with suppress(OSError):
                os.unlink(used, dir_fd=self.fd)
            raise
        finally:
            os.close(opened[0])

    def link(self, name: bytes, target: bytes) -> None:
        """Make a symbolic link. Its target is not looked at."""
        self._place(name, lambda as_name: os.symlink(target, as_name, dir_fd=self.fd))

    def node(self, name: bytes, mode: int, device: int) -> None:
        """Make a FIFO, socket or device; `mode` holds the type."""
        self._place(name, lambda as_name: os.mknod(as_name, mode, device, dir_fd=self.fd))

    def second_name(
        self, name: bytes, source: TargetFolder, source_name: bytes, same: os.stat_result
    ) -> None:
        """A hard link to a file restored before. Raises FileNotFoundError when that is not `same` now."""

        def make(as_name: bytes) -> None:
            os.link(*(source_name, as_name), src_dir_fd=source.fd, dst_dir_fd=self.fd, follow_symlinks=False)
            if not os.path.samestat(os.stat(as_name, dir_fd=self.fd, follow_symlinks=False), same):
                os.unlink(as_name, dir_fd=self.fd)
                raise FileNotFoundError(errno.ENOENT, "its other name was moved away meanwhile")

        self._place(name, make)

    def below(self, parts: list[bytes]) -> TargetFolder:
        """A folder further down, each step as careful as `folder`."""
        fd = os.dup(self.fd)
        for part in parts:
            _check(part)
            try:
                deeper = _open_folder(fd, part)
            finally:
                os.close(fd)
            fd = deeper
        return self._deeper(fd, b"/".join(parts), made=False)

    def _deeper(self, fd: int, name: bytes, *, made: bool) -> TargetFolder:
        return TargetFolder(fd, self.path / os.fsdecode(name), overwrite=self.overwrite, made=made)

    @contextmanager
    def peek(self, name: bytes) -> Iterator[int]:
        """A descriptor (O_PATH) of something inside, which can be neither read nor written by it."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def _place(self, name: bytes, make: Callable[[bytes], None]) -> None:
        self._take_name(self._make(name, make), name)

    def _make(self, name: bytes, make: Callable[[bytes], None]) -> bytes:
        """Make something called `name`, or by the temporary name that is returned if it shall replace."""
        _check(name)
        try:
            make(name)
        except FileExistsError:
            if not self.overwrite or self._is_folder(name):
                raise
        else:
            return name
        passing = os.fsencode(PARTIAL_SUFFIX) + b"-" + secrets.token_hex(8).encode()
        make(passing)
        return passing

    def _take_name(self, used: bytes, name: bytes) -> None:
        if used == name:
            return
        try:
            os.rename(used, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        finally:
            with suppress(OSError):  # there still if both were names of one file
                os.unlink(used, dir_fd=self.fd)

    def _is_folder(self, name: bytes) -> bool:
        return stat.S_ISDIR(os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode)


@contextmanager
def refusals(action: str, path: Path) -> Iterator[None]:
    """Raise TargetError for every OSError of the block."""
    try:
        yield
    except OSError as error:
        raise TargetError(f"cannot {action} {path}: {error.strerror or error}") from error


def possible_name(name: bytes) -> bool:
    """Whether a file can have this name: one component, not "", "." or ".."."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name


def _open_folder(above: int, name: bytes) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=above)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "a link stands where a folder is needed") from None
        raise


def _check(name: bytes) -> None:
    if not possible_name(name):
        raise TargetError(f"no file can have the name {name!r}")
