"""Reading what cannot be read everywhere: the lost blocks become zeros and are listed, the rest is kept."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.repo.cutter import BLOCK
from holdfast.repo.errors import SourceError
from holdfast.repo.snapshot import BadRange

_BAD_LIMIT = 10_000
"""Bad ranges that are listed; a source with more of them is not worth calling read."""

ReadFunction = Callable[[memoryview, int], int]
"""Read into a buffer from an offset: how many bytes came, 0 at the end. Raises OSError."""


class TolerantReader:
    """Fills buffers from `read`. `where` names the source in messages."""

    def __init__(self, where: str, read: ReadFunction) -> None:
        self._where = where
        self._read = read
        self.bad: list[BadRange] = []

    def fill(self, buffer: memoryview, offset: int) -> int:
        """The length of the buffer: it is always filled. Raises SourceError when too much is bad."""
        done = 0
        while done < len(buffer):
            try:
                count = self._read(buffer[done:], offset + done)
            except OSError as error:
                done += self._read_around(buffer[done:], offset + done, error)
                continue
            if count == 0:
                missing = len(buffer) - done
                self._mark(offset + done, missing, "the source ended early: it shrank while it was read")
                buffer[done:] = bytes(missing)
                break
            done += count
        return len(buffer)

    def _read_around(self, buffer: memoryview, offset: int, error: OSError) -> int:
        """After a read error: one block at a time, so that only what cannot be read is lost."""
        length = min(BLOCK - offset % BLOCK, len(buffer))
        try:
            count = self._read(buffer[:length], offset)
        except OSError:
            count = 0
        if not count:
            self._mark(offset, length, error.strerror or str(error))
            buffer[:length] = bytes(length)
            return length
        return count

    def _mark(self, offset: int, length: int, reason: str) -> None:
        last = self.bad[-1] if self.bad else None
        if last is not None and last.reason == reason and last.offset + last.length == offset:
            self.bad[-1] = BadRange(last.offset, last.length + length, reason)
        elif len(self.bad) < _BAD_LIMIT:
            self.bad.append(BadRange(offset, length, reason))
        else:
            raise SourceError(f"{self._where}: more than {_BAD_LIMIT} separate ranges cannot be read")
