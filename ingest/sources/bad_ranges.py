"""Reads sources with unreadable blocks: fills those with zeros, lists them and reads all others."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.base.errors import SourceError
from holdfast.repo.chunks.chunker import BLOCK
from holdfast.repo.snapshots.snapshot import BadRange

_BAD_LIMIT = 10_000
"""Most bad ranges of a source; with more of them its backup fails."""

ReadFunction = Callable[[memoryview, int], int]
"""Reads into a buffer from an offset; returns the number of bytes, 0 at the end. Raises OSError."""


class BadRanges:
    """The unreadable ranges of a source, in order, `limit` at most. `where` names the source in messages."""

    def __init__(self, where: str, *, limit: int = _BAD_LIMIT) -> None:
        self._where = where
        self._limit = limit
        self.found: list[BadRange] = []

    def mark(self, start: int, end: int, reason: str) -> None:
        """Add the part of [start, end) after the last range. Raises SourceError if there are too many."""
        last = self.found[-1] if self.found else BadRange(0, 0, "")
        start = max(start, last.start + last.length)
        if start >= end:
            return
        if last.reason == reason and last.start + last.length == start:
            self.found[-1] = BadRange(last.start, end - last.start, reason)
        elif len(self.found) < self._limit:
            self.found.append(BadRange(start, end - start, reason))
        else:
            raise SourceError(f"{self._where}: more than {self._limit} separate ranges cannot be read")


class TolerantReader:
    """Fills buffers by `read`, with zeros for unreadable blocks. `where` names the source in messages."""

    def __init__(self, where: str, read: ReadFunction) -> None:
        self._read = read
        self._lost = BadRanges(where)

    @property
    def bad(self) -> list[BadRange]:
        return self._lost.found

    def fill(self, buffer: memoryview, offset: int) -> int:
        """Fill the whole buffer and return its length. Raises SourceError for too many bad ranges."""
        done = 0
        most = len(buffer)
        while done < len(buffer):
            part = buffer[done : done + most]
            try:
                count = self._read(part, offset + done)
            except OSError as error:
                done += self._read_around(part, offset + done, error)
                # A failed read does not tell which sector is bad, and a disk retries a bad sector for
                # seconds: halve the reads to find it.
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
        """After a read error: read one block alone, so that only unreadable blocks are lost."""
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
