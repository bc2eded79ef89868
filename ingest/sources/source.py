"""Sources of the bytes to back up.

A source yields its extents in order and fills buffers. It raises nothing for unreadable bytes: it fills them
with zeros and lists them in `bad`, and the snapshot becomes partial. It raises only if nothing can be read.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

from holdfast.base.errors import StreamFailed
from holdfast.base.processes import how_it_ended, last_words
from holdfast.base.ranges import joined
from holdfast.formats.disks.base.files import OpenFile
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.ingest.sources.bad_ranges import TolerantReader
from holdfast.repo.chunks.chunker import BLOCK
from holdfast.repo.snapshots.snapshot import BadRange, Consistency, Origin

HEAD_SIZE = 64 << 10
"""Most bytes at the start of a source that recognition uses."""
_PIPE_SIZE = 1 << 20


def origin_of(path: Path) -> Origin:
    """Where a file or folder is. Links stay: `current` is the same place, whatever it leads to today."""
    return Origin(place=os.path.abspath(path))  # noqa: PTH100  resolve() would follow links


@dataclass(frozen=True, slots=True)
class SourceExtent:
    """A range of a source, data or hole. `length` is None for a stream, whose end is not known yet."""

    start: int
    length: int | None
    is_hole: bool


class Source(Protocol):
    """A sequence of bytes that is read once, front to back. `mtime` is in ns, `size` None for a stream."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int | None: ...

    @property
    def mtime(self) -> int: ...

    @property
    def head(self) -> bytes: ...

    @property
    def bad(self) -> list[BadRange]:
        """The ranges that could not be read so far."""
        ...

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        """The extents in order, holes at multiples of 4 KiB; only data if `holes` is false."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from `offset`; fewer bytes only at the end of a stream."""
        ...

    def finish(self) -> str:
        """Call once after all reads. Returns a note for the user or "". Raises StreamFailed on failure."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Graded(Protocol):
    """A source that knows its consistency, provided that `finish` raised nothing, and the evidence."""

    @property
    def grade(self) -> Consistency: ...

    @property
    def evidence(self) -> str: ...


@runtime_checkable
class ContentJudge(Protocol):
    """A source that checks the facts that were found in its content."""

    def judge(self, fault: str, facts: DumpFacts) -> None:
        """Called before the commit with the content's fault ("" for none) and facts. Raises StreamFailed to
        prevent the commit."""
        ...


class FileSource:
    """A regular file or block device. A context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self._file = OpenFile(path)
        self.size: int | None = self._file.size
        self.mtime = self._file.status.st_mtime_ns
        self.head = b""
        with suppress(OSError):  # `read_into` will say which blocks cannot be read
            self.head = self._read_head()
        self._file.read_ahead()
        self._reader = TolerantReader(str(path), self._file.read_once)

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def _read_head(self) -> bytes:
        head = bytearray(min(HEAD_SIZE, self._file.size))
        return bytes(head[: self._file.read_into(memoryview(head), 0)])

    @property
    def bad(self) -> list[BadRange]:
        return self._reader.bad

    @property
    def is_device(self) -> bool:
        return self._file.is_device

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        """Uses holes only of file systems that are known to report them correctly. On others all is data,
        and the chunker finds the zeros."""
        yield from extents_between(self._file.holes() if holes else (), self._file.size)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return self._reader.fill(buffer, offset)

    def finish(self) -> str:
        return f"{self.path} was written to while it was read" if self._file.changed() else ""


def extents_between(holes: Iterable[tuple[int, int]], size: int) -> Iterator[SourceExtent]:
    """The extents of a source of `size` bytes with these holes (start, end), which ascend.

    Merges adjacent holes and shrinks each to multiples of 4 KiB.
    """
    at = 0
    for start, end in joined(holes):
        first, last = -(-start // BLOCK) * BLOCK, end // BLOCK * BLOCK
        if last > first:
            if first > at:
                yield SourceExtent(at, first - at, is_hole=False)
            yield SourceExtent(first, last - first, is_hole=True)
            at = last
    if at < size:
        yield SourceExtent(at, size - at, is_hole=False)


class StreamSource:
    """A pipe that the caller opened, such as standard input."""

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
        """Fill the buffer, first from the head. Each read must start where the one before ended."""
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
    """The output of a command that is run without a shell and must exit with 0.

    Its standard error goes to a temporary file, whose last lines are part of errors and notes.
    """

    def __init__(
        self,
        argv: Sequence[str],
        name: str,
        *,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """The command inherits this environment (None: ours) and these descriptors. Raises StreamFailed."""
        self._argv = list(argv)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in close()
        try:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=None if environment is None else dict(environment),
                pass_fds=descriptors,
            )
        except OSError as error:
            self._errors.close()
            raise StreamFailed(f"cannot run {argv[0]}: {error.strerror}; nothing was stored") from error
        assert self._process.stdout is not None
        try:
            super().__init__(self._process.stdout, name)
        except BaseException:
            self.close()
            raise

    def finish(self) -> str:
        code = self._process.wait()
        if code:
            said = self._last_words()
            detail = f": {said}" if said else ""
            raise StreamFailed(f"`{self._argv[0]}` {how_it_ended(code)}{detail}; nothing was committed")
        return self._last_words()

    def _last_words(self) -> str:
        return last_words(self._errors)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        super().close()
        self._errors.close()
