"""Image files: an open file, a part of one, and exact reads of either."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from holdfast.base.errors import NotSeekable, SourceError
from holdfast.base.filesystems import reports_holes_honestly
from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.image import ImageFile


class OpenFile:
    """A regular file or block device, open for reading. A context manager."""

    def __init__(self, path: Path, *, name: str | None = None, follow_links: bool = True) -> None:
        self.path = path
        self.name = name or path.name
        # O_NONBLOCK: opening a named pipe would wait for its writer; files do not care.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
        try:
            self._fd = os.open(path, flags)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
        try:
            self.status = os.fstat(self._fd)
            if not (stat.S_ISREG(self.status.st_mode) or stat.S_ISBLK(self.status.st_mode)):
                raise NotSeekable(path)
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
            self._honest = stat.S_ISREG(self.status.st_mode) and reports_holes_honestly(path)
        except OSError as error:
            os.close(self._fd)
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
        except SourceError:
            os.close(self._fd)
            raise

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        done = 0
        while done < len(buffer):
            count = self.read_once(buffer[done:], offset + done)
            if count == 0:
                break
            done += count
        return done

    def read_once(self, buffer: memoryview, offset: int) -> int:
        """One system call: returns the bytes before a bad sector; raises OSError if there are none."""
        try:
            return os.preadv(self._fd, [buffer], offset)
        except OSError as error:
            error.filename = self.name
            raise

    def read_ahead(self) -> None:
        """Tell the kernel that the file will be read sequentially."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def holes(self) -> Iterator[tuple[int, int]]:
        at = 0
        while self._honest and at < self.size:
            try:
                hole = os.lseek(self._fd, at, os.SEEK_HOLE)
            except OSError:
                return
            if hole >= self.size:
                return
            try:
                at = os.lseek(self._fd, hole, os.SEEK_DATA)
            except OSError as error:
                if (
                    error.errno == errno.ENXIO
                ):  # no data after this hole; where the file was truncated is no hole
                    yield hole, max(hole, min(self.size, os.fstat(self._fd).st_size))
                return
            yield hole, min(at, self.size)

    @property
    def is_device(self) -> bool:
        return stat.S_ISBLK(self.status.st_mode)

    def changed(self) -> bool:
        """Whether a regular file was written to since it was opened."""
        now = os.fstat(self._fd)
        same = (now.st_size, now.st_mtime_ns) == (self.status.st_size, self.status.st_mtime_ns)
        return stat.S_ISREG(now.st_mode) and not same


class FilePart:
    """Bytes [start, start + size) of another file, shown as a file: a member of an archive."""

    def __init__(self, file: ImageFile, start: int, size: int, name: str) -> None:
        self._file = file
        self._start = start
        self.size = size
        self.name = name

    def read_into(self, buffer: memoryview, offset: int) -> int:
        left = max(0, min(len(buffer), self.size - offset))
        return self._file.read_into(buffer[:left], self._start + offset)

    def holes(self) -> Iterator[tuple[int, int]]:
        for start, end in self._file.holes():
            first, last = max(start - self._start, 0), min(end - self._start, self.size)
            if first < last:
                yield first, last


class BytesFile:
    """A file in memory."""

    def __init__(self, data: bytes, name: str = "memory") -> None:
        self._data = data
        self.size = len(data)
        self.name = name

    def read_into(self, buffer: memoryview, offset: int) -> int:
        part = self._data[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)

    def holes(self) -> Iterator[tuple[int, int]]:
        yield from ()


class Scratch:
    """A buffer for compressed data, page-aligned: on Zen 3, reads into a large bytearray are five times
    slower."""

    def __init__(self) -> None:
        self._space: mmap.mmap | None = None

    def take(self, length: int) -> memoryview:
        """A buffer of `length` bytes, which the next call overwrites."""
        if self._space is None or len(self._space) < length:
            self._space = mmap.mmap(-1, max(1, length))
        return memoryview(self._space)[:length]


def read_exactly(file: ImageFile, offset: int, length: int, what: str) -> bytes:
    """Read `length` bytes at `offset`. Raises ImageDamaged when the file ends before that; `what` names
    the bytes in its message. The caller has checked that the format allows this length."""
    buffer = bytearray(length)
    fill_exactly(file, memoryview(buffer), offset, what)
    return bytes(buffer)


def fill_exactly(file: ImageFile, buffer: memoryview, offset: int, what: str) -> None:
    """Fill the whole buffer from `offset`; raises ImageDamaged as `read_exactly` does."""
    if offset < 0 or offset + len(buffer) > file.size:
        raise ImageDamaged(
            file.name,
            f"{what} reaches to {offset + len(buffer)}, the file ends at {file.size}",
            offset=offset,
        )
    if file.read_into(buffer, offset) != len(buffer):
        raise ImageDamaged(file.name, f"the file ended inside {what}: it shrank", offset=offset)
