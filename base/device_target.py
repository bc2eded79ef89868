"""A block device that a disk is restored to. No byte of its old content stays inside of the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from types import TracebackType
from typing import Final

from holdfast.base.durable_files import read_at, write_all_at
from holdfast.base.errors import Refused
from holdfast.base.target_folder import TargetFolder, refusals
from holdfast.base.types import Buffer

_BLKZEROOUT: Final = 0x127F
_SECTOR: Final = 512
_ZEROS: Final = 1 << 20
_ZERO_STEP: Final = 256 << 20
"""Bytes the kernel is asked to zero at a time: the call cannot be interrupted."""


class DeviceTarget:
    """A block device. A context manager; `write` may be called from several threads.

    The device is opened for this process alone, which fails when it is mounted or otherwise in use.
    The caller must call `clear` for every range that it does not write, or the device keeps its old content
    there. What lies behind `size` stays as it is. Raises Refused when the device is too small.
    """

    def __init__(self, folder: TargetFolder, name: str, size: int) -> None:
        self.path = folder.path / name
        self._folder = folder
        self._name = name
        self.capacity = 0
        self._size = size
        self._offload = True

    def __enter__(self) -> DeviceTarget:
        name = os.fsencode(self._name)
        with refusals("open", self.path):
            if not stat.S_ISBLK(self._folder.status(name).st_mode):
                raise Refused(f"{self.path} is not a block device")
            try:
                self._fd = self._folder.open(name, os.O_RDWR | os.O_EXCL)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise Refused(
                    f"{self.path} is in use: mounted, or part of a volume; nothing was written"
                ) from None
        try:
            if not stat.S_ISBLK(os.fstat(self._fd).st_mode):
                raise Refused(f"{self.path} is not a block device")
            with refusals("open", self.path):
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
                with refusals("write", self.path):
                    os.fsync(self._fd)
        finally:
            os.close(self._fd)

    def write(self, offset: int, data: Buffer) -> None:
        with refusals("write", self.path):
            write_all_at(self._fd, offset, data)

    def read(self, offset: int, length: int) -> bytes:
        """Read back what the device holds now."""
        with refusals("read", self.path):
            return read_at(self._fd, offset, length)

    def settle(self) -> None:
        """Flush all writes to the device and drop the page cache, so that `read` reads the device."""
        with refusals("write", self.path):
            os.fsync(self._fd)
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def clear(self, offset: int, length: int) -> None:
        """Zero a range: the device does it if it can, else zeros are written."""
        end = offset + length
        first, last = -(-offset // _SECTOR) * _SECTOR, end // _SECTOR * _SECTOR
        with refusals("write", self.path):
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
