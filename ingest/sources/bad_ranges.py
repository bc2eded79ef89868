"""Reading what cannot be read everywhere: the lost blocks become zeros and are listed, the rest is kept."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.base.errors import SourceError
from holdfast.repo.chunks.chunker import BLOCK
from holdfast.repo.snapshots.snapshot import BadRange

_BAD_LIMIT = 10_000
"""Bad ranges that are listed; a source with more of them is not worth calling read."""

ReadFunction = Callable[[memoryview, int], int]
"""Read into a buffer from an offset: how many bytes came, 0 at the end. Raises OSError."""


class BadRanges:
    """What could not be read of a source, in order. `where` names the source in messages."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.found: list[BadRange] = []

    def mark(self, start: int, end: int, reason: str) -> None:
        """Enter [start, end), or what of it lies behind the last one. Raises SourceError when it is one too
        many."""
        last = self.found[-1] if self.found else BadRange(0, 0, "")
        start = max(start, last.offset + last.length)
        if start >= end:
            return
        if last.reason == reason and last.offset + last.length == start:
            self.found[-1] = BadRange(last.offset, end - last.offset, reason)
        elif len(self.found) < _BAD_LIMIT:
            self.found.append(BadRange(start, end - start, reason))
        else:
            raise SourceError(f"{self._where}: more than {_BAD_LIMIT} separate ranges cannot be read")


class TolerantReader:
    """Fills buffers from `read`. `where` names the source in messages."""

    def __init__(self, where: str, read: ReadFunction) -> None:
        self._read = read
        self._lost = BadRanges(where)

    @property
    def bad(self) -> list[BadRange]:
        return self._lost.found

    def fill(self, buffer: memoryview, offset: int) -> int:
        """The length of the buffer: it is always filled. Raises SourceError when too much is bad."""
        done = 0
        most = len(buffer)
        while done < len(buffer):
            part = buffer[done : done + most]
            try:
                count = self._read(part, offset + done)
            except OSError as error:
                done += self._read_around(part, offset + done, error)
                # A read that gives all or nothing does not say where the bad sector is, and a disk tries
                # for seconds before it gives one up: close in on it by halves.
                most = max(BLOCK, len(part) // 2 // BLOCK * BLOCK)
                continue
            if count == 0:
                reason = "the source ended early: it shrank while it was read"
                self._lost.mark(offset + done, offset + len(buffer), reason)
                buffer[done:] = bytes(len(buffer) - done)
                break
            done += count
            most *= 2
        return len(buffer)

    def _read_around(self, buffer: memoryview, offset: int, error: OSError) -> int:
        """After a read error: one block by itself, so that only what cannot be read is lost."""
        length = min(BLOCK - offset % BLOCK, len(buffer))
        try:
            count = self._read(buffer[:length], offset)
        except OSError:
            count = 0
        if not count:
            self._lost.mark(offset, offset + length, error.strerror or str(error))
            buffer[:length] = bytes(length)
            return length
        return count
