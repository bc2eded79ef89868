"""Where restored bytes go: a file that looks complete only when it is, or a block device."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from holdfast.base.durable_files import (
    PARTIAL_SUFFIX,
    rename_unless_taken,
    sync_directory_if_possible,
    write_all_at,
)
from holdfast.base.errors import HoldfastError, Refused
from holdfast.base.types import Buffer

_NAME_LIMIT: Final = 255
"""Bytes, of Linux."""
_BLKZEROOUT: Final = 0x127F
_SECTOR: Final = 512
_ZEROS: Final = 1 << 20
_ZERO_STEP: Final = 256 << 20
"""Bytes the kernel is asked to zero at a time: the call cannot be interrupted."""


class TargetError(HoldfastError):
    """The operating system refused an operation on what is restored to."""


@contextmanager
def _translate(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetError(f"cannot {action} {path}: {error.strerror or error}") from error


class FileTarget:
    """A regular file of `size` bytes. A context manager; `write` may be called from several threads.

    Bytes go to `<name>.holdfast-partial`. When the block ends well the file is made durable, gets its
    `mtime` (ns) and takes its name; when it does not, it is removed. So nothing that looks complete is
    ever incomplete, even after a power cut. What is not written is a hole, or zeros without `sparse`.
    Raises Refused when the name is taken and `overwrite` is false.
    """

    def __init__(
        self, path: Path, size: int, *, sparse: bool = True, overwrite: bool = False, mtime: int | None = None
    ) -> None:
        self.path = path.resolve()  # through a link, so that --overwrite replaces the file and not the link
        self._partial = self.path.with_name(_partial_name(self.path.name))
        self._size = size
        self._sparse = sparse
        self._overwrite = overwrite
        self._mtime = mtime

    def __enter__(self) -> FileTarget:
        check_free(self.path, overwrite=self._overwrite)
        with _translate("write", self._partial):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._partial, flags, 0o666)
        try:
            with _translate("write", self._partial):
                self._claim()
                os.ftruncate(self._fd, 0)  # what an interrupted restore left
                os.ftruncate(self._fd, self._size)
                if not self._sparse and self._size:
                    os.posix_fallocate(self._fd, 0, self._size)
        except Refused:
            os.close(self._fd)
            raise
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
            with _translate("write", self._partial):
                if self._mtime is not None:
                    os.utime(self._fd, ns=(self._mtime, self._mtime))
                os.fsync(self._fd)
            self._take_name()
        except BaseException:
            self._remove()
            raise
        os.close(self._fd)

    def write(self, offset: int, data: Buffer) -> None:
        with _translate("write", self._partial):
            write_all_at(self._fd, offset, data)

    def read(self, offset: int, length: int) -> bytes:
        """What is there now; for reading back."""
        with _translate("read", self._partial):
            return _read(self._fd, offset, length)

    def settle(self) -> None:
        """Bring everything to the disk and forget it, so that `read` comes from there."""
        with _translate("write", self._partial):
            os.fsync(self._fd)
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _claim(self) -> None:
        """Two restores must not write into one file; the kernel frees the lock of one that was killed."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another restore is writing {self.path} right now") from None
        found, opened = self._partial.stat(), os.fstat(self._fd)
        if not os.path.samestat(found, opened) or not stat.S_ISREG(opened.st_mode):
            raise Refused(f"{self._partial} is in the way; remove it")

    def _take_name(self) -> None:
        with _translate("write", self.path):
            if self._overwrite:
                self._partial.replace(self.path)
            else:
                self._rename_unless_taken()
            sync_directory_if_possible(self.path.parent)

    def _rename_unless_taken(self) -> None:
        try:
            rename_unless_taken(self._partial, self.path)
        except FileExistsError:
            check_free(self.path, overwrite=False)
            raise

    def _remove(self) -> None:
        with suppress(OSError):
            self._partial.unlink()
        os.close(self._fd)


def _partial_name(name: str) -> str:
    """The name while it is written; a long one is cut, so that every name that can be can be written."""
    short = os.fsencode(name)[: _NAME_LIMIT - len(PARTIAL_SUFFIX)]
    return os.fsdecode(short) + PARTIAL_SUFFIX


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raises Refused when a file may not be written there."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise TargetError(f"cannot write {path}: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise Refused(f"{path} is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{path} is neither a file nor a block device; nothing was written")
    if not overwrite:
        raise Refused(f"{path} exists already; nothing was written")


class DeviceTarget:
    """A block device. A context manager; `write` may be called from several threads.

    The device is opened for this process alone, which fails when it is mounted or otherwise in use.
    `clear` must be called for every stretch that is not written: what the device held before would show
    through. What lies behind `size` stays as it is. Raises Refused when the device is too small.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.capacity = 0
        self._size = size
        self._offload = True

    def __enter__(self) -> DeviceTarget:
        with _translate("open", self.path):
            try:
                self._fd = os.open(self.path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise Refused(
                    f"{self.path} is in use: mounted, or part of a volume; nothing was written"
                ) from None
        try:
            if not stat.S_ISBLK(os.fstat(self._fd).st_mode):
                raise Refused(f"{self.path} is not a block device")
            with _translate("open", self.path):
                self.capacity = os.lseek(self._fd, 0, os.SEEK_END)
            if self.capacity < self._size:
                raise Refused(
                    f"{self.path} has {self.capacity} bytes, {self._size} are needed; nothing was written"
                )
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with _translate("write", self.path):
                    os.fsync(self._fd)
        finally:
            os.close(self._fd)

    def write(self, offset: int, data: Buffer) -> None:
        with _translate("write", self.path):
            write_all_at(self._fd, offset, data)

    def read(self, offset: int, length: int) -> bytes:
        """What is there now; for reading back."""
        with _translate("read", self.path):
            return _read(self._fd, offset, length)

    def settle(self) -> None:
        """Bring everything to the disk and forget it, so that `read` comes from there."""
        with _translate("write", self.path):
            os.fsync(self._fd)
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def clear(self, offset: int, length: int) -> None:
        """Make a stretch zeros: by the device itself when it can, else by writing them."""
        end = offset + length
        first, last = -(-offset // _SECTOR) * _SECTOR, end // _SECTOR * _SECTOR
        with _translate("write", self.path):
            if first >= last:
                _write_zeros(self._fd, offset, length)
                return
            _write_zeros(self._fd, offset, first - offset)
            for at in range(first, last, _ZERO_STEP):
                self._zero_out(at, min(_ZERO_STEP, last - at))
            _write_zeros(self._fd, last, end - last)

    def _zero_out(self, offset: int, length: int) -> None:
        if self._offload:
            try:
                fcntl.ioctl(self._fd, _BLKZEROOUT, struct.pack("=QQ", offset, length))
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM):
                    raise
                self._offload = False
            else:
                return
        _write_zeros(self._fd, offset, length)


def _write_zeros(fd: int, offset: int, length: int) -> None:
    zeros = memoryview(bytes(min(length, _ZEROS)))
    while length > 0:
        part = zeros[: min(length, len(zeros))]
        write_all_at(fd, offset, part)
        offset += len(part)
        length -= len(part)


def _read(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data


def is_device(path: Path) -> bool:
    """Whether there is a block device at the path."""
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except OSError:
        return False
