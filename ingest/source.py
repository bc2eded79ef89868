"""Sources: where bytes to back up come from.

A source gives extents in order and fills buffers. It never raises for bytes it cannot read: they are
zero-filled and listed in `bad`, and the snapshot becomes partial. It raises only when nothing can be read.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from holdfast.repo.cutter import BLOCK
from holdfast.repo.errors import SourceError, StreamFailed
from holdfast.repo.filesystems import reports_holes_honestly
from holdfast.repo.snapshot import BadRange

HEAD_SIZE = 64 << 10
"""Bytes at the start of a source that recognition may look at."""
_PIPE_SIZE = 1 << 20
_BAD_LIMIT = 10_000
"""Bad ranges that are listed; a source with more of them is not worth calling read."""


@dataclass(frozen=True, slots=True)
class SourceExtent:
    """A run of a source. `length` is None for data whose end is not known yet (a stream)."""

    start: int
    length: int | None
    is_hole: bool


class Source(Protocol):
    """One thing that is read once, front to back. `mtime` is in ns."""

    name: str
    size: int | None
    mtime: int
    head: bytes
    bad: list[BadRange]

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        """The runs in order, holes at 4 KiB edges; one run of data when `holes` is false."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from `offset`; fewer bytes only at the end of a stream."""
        ...

    def finish(self) -> str:
        """Call it at the end. What of note happened, "" if nothing; StreamFailed if it was no success."""
        ...

    def close(self) -> None: ...


class FileSource:
    """A regular file or block device. A context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.bad: list[BadRange] = []
        try:
            # O_NONBLOCK: opening a named pipe would wait for its writer; files do not care.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
        try:
            self._status = os.fstat(self._fd)
            self.size: int | None = self._find_size()
            self.mtime = self._status.st_mtime_ns
            self.head = b""
            with suppress(OSError):  # `read_into` will say which blocks cannot be read
                self.head = os.pread(self._fd, HEAD_SIZE, 0)
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        except OSError as error:
            os.close(self._fd)
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
        except SourceError:
            os.close(self._fd)
            raise

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    @property
    def is_device(self) -> bool:
        return stat.S_ISBLK(self._status.st_mode)

    def _find_size(self) -> int:
        if stat.S_ISREG(self._status.st_mode):
            return self._status.st_size
        if stat.S_ISBLK(self._status.st_mode):
            return os.lseek(self._fd, 0, os.SEEK_END)
        raise SourceError(
            f"{self.path} is neither a file nor a block device; a pipe can be read with --stdin"
        )

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        """Holes are believed only where the file system is known to report them honestly; elsewhere all
        is data, and the cutter finds the zeros."""
        assert self.size is not None
        if not holes or self.is_device or not reports_holes_honestly(self.path):
            if self.size:
                yield SourceExtent(0, self.size, is_hole=False)
            return
        at = 0
        for start, end in self._holes():
            start, end = -(-start // BLOCK) * BLOCK, end // BLOCK * BLOCK  # noqa: PLW2901  inward to 4 KiB edges
            if end > start:
                if start > at:
                    yield SourceExtent(at, start - at, is_hole=False)
                yield SourceExtent(start, end - start, is_hole=True)
                at = end
        if at < self.size:
            yield SourceExtent(at, self.size - at, is_hole=False)

    def _holes(self) -> Iterator[tuple[int, int]]:
        assert self.size is not None
        at = 0
        while at < self.size:
            try:
                hole = os.lseek(self._fd, at, os.SEEK_HOLE)
            except OSError:
                return
            if hole >= self.size:
                return
            try:
                at = os.lseek(self._fd, hole, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data behind this hole; what the file lost is no hole
                    yield hole, max(hole, min(self.size, os.fstat(self._fd).st_size))
                return
            yield hole, min(at, self.size)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer[done:]], offset + done)
            except OSError as error:
                done += self._read_around(buffer[done:], offset + done, error)
                continue
            if count == 0:
                missing = len(buffer) - done
                self._mark_bad(offset + done, missing, "the source ended early: it shrank while it was read")
                buffer[done:] = bytes(missing)
                break
            done += count
        return len(buffer)

    def _read_around(self, buffer: memoryview, offset: int, error: OSError) -> int:
        """After a read error: one block at a time, so that only what cannot be read is lost."""
        length = min(BLOCK - offset % BLOCK, len(buffer))
        try:
            count = os.preadv(self._fd, [buffer[:length]], offset)
        except OSError:
            count = 0
        if not count:
            self._mark_bad(offset, length, error.strerror or str(error))
            buffer[:length] = bytes(length)
            return length
        return count

    def _mark_bad(self, offset: int, length: int, reason: str) -> None:
        if self.bad and self.bad[-1].reason == reason and self.bad[-1].offset + self.bad[-1].length == offset:
            self.bad[-1] = BadRange(self.bad[-1].offset, self.bad[-1].length + length, reason)
        elif len(self.bad) < _BAD_LIMIT:
            self.bad.append(BadRange(offset, length, reason))
        else:
            raise SourceError(f"{self.path}: more than {_BAD_LIMIT} separate ranges cannot be read")

    def finish(self) -> str:
        now = os.fstat(self._fd)
        changed = (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns)
        if stat.S_ISREG(now.st_mode) and changed:
            return f"{self.path} was written to while it was read"
        return ""


class StreamSource:
    """A pipe that somebody else opened, such as standard input."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self.name = name
        self.size: int | None = None
        self.mtime = time.time_ns()
        self.bad: list[BadRange] = []
        with suppress(OSError):  # not a pipe, or more than this user may have
            fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        head = bytearray(HEAD_SIZE)
        self.head = bytes(head[: self._fill(memoryview(head))])

    def close(self) -> None:
        self._stream.close()

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        yield SourceExtent(0, None, is_hole=False)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Offsets must follow one another; the head is handed out again first."""
        again = self.head[offset : offset + len(buffer)]
        buffer[: len(again)] = again
        return len(again) + self._fill(buffer[len(again) :])

    def _fill(self, buffer: memoryview) -> int:
        done = 0
        while done < len(buffer):
            try:
                count = os.readv(self._stream.fileno(), [buffer[done:]])
            except OSError as error:
                raise StreamFailed(
                    f"cannot read {self.name}: {error.strerror}; nothing was stored"
                ) from error
            if count == 0:
                break
            done += count
        return done

    def finish(self) -> str:
        return ""


class CommandSource(StreamSource):
    """The output of a command, which must exit with 0.

    No shell is involved. Its standard error goes to a file of ours, so that a failure can be told with
    its last lines, and on to ours when it is done.
    """

    def __init__(self, argv: Sequence[str], name: str) -> None:
        self._argv = list(argv)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        try:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            self._errors.close()
            raise StreamFailed(f"cannot run {argv[0]}: {error.strerror}; nothing was stored") from error
        assert self._process.stdout is not None
        super().__init__(self._process.stdout, name)

    def finish(self) -> str:
        code = self._process.wait()
        if code:
            how = f"exited with {code}" if code > 0 else f"was killed by signal {-code}"
            said = self._last_words()
            detail = f": {said}" if said else ""
            raise StreamFailed(f"`{self._argv[0]}` {how}{detail}; nothing was committed")
        return self._last_words()

    def _last_words(self) -> str:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 1000))
        return self._errors.read().decode(errors="replace").strip()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        super().close()
        self._errors.close()
