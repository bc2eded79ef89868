"""An open file of a guest: read from its extents of the disk where these are known, else by the parser."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from holdfast.base.types import Buffer
from holdfast.formats.guests.values.values import DiskExtent, GuestDamaged
from holdfast.repo.snapshots.snapshot import BadRange


class DiskHandle(Protocol):
    """The disk, open for reading."""

    async def read(self, offset: int, length: int) -> Buffer: ...

    def close(self) -> None: ...


class MappedFile:
    """A file whose data is on the disk unchanged. `extents` cover [0, size). Owns `disk`.

    `bad` has the ranges of the disk that could not be read when it was backed up: zeros there are no data.
    """

    def __init__(
        self, extents: Sequence[DiskExtent], size: int, disk: DiskHandle, bad: Sequence[BadRange] = ()
    ) -> None:
        self._extents = extents
        self._starts = [extent.start for extent in extents]
        self._size = size
        self._disk = disk
        self._bad = bad

    def close(self) -> None:
        self._disk.close()

    async def read(self, offset: int, length: int) -> Buffer:
        """Bytes [offset, offset + length) of the file, fewer only at its end."""
        end = min(offset + length, self._size)
        if offset >= end:
            return b""
        at = bisect_right(self._starts, offset) - 1
        extent = self._extents[at]
        if end <= extent.start + extent.length:
            return await self._piece(extent, offset, end)
        answer = bytearray(end - offset)
        while offset < end:
            extent = self._extents[at]
            last = min(end, extent.start + extent.length)
            if extent.disk >= 0:
                # Copied before anything else is awaited: the disk answers out of one buffer.
                answer[len(answer) - (end - offset) : len(answer) - (end - last)] = await self._piece(
                    extent, offset, last
                )
            offset = last
            at += 1
        return answer

    async def _piece(self, extent: DiskExtent, first: int, last: int) -> Buffer:
        if extent.disk < 0:
            return bytes(last - first)
        at, length = extent.disk + first - extent.start, last - first
        if any(bad.overlap(at, at + length) for bad in self._bad):
            raise GuestDamaged(f"part of the disk at {at} could not be read when it was backed up")
        data = await self._disk.read(at, length)
        if len(data) != last - first:
            raise GuestDamaged("a file's data lies behind the end of its disk")
        return data


class ParsedFile:
    """A file that only the parser can read: compressed, encrypted, or inside its inode."""

    def __init__(self, read: Callable[[int, int], Awaitable[bytes]], size: int) -> None:
        self._read = read
        self._size = size

    def close(self) -> None:
        pass

    async def read(self, offset: int, length: int) -> Buffer:
        """As `MappedFile.read`."""
        wanted = min(length, max(0, self._size - offset))
        if not wanted:
            return b""
        data = await self._read(offset, wanted)
        if len(data) != wanted:
            raise GuestDamaged(f"a file ended at {offset + len(data)} that should have {self._size} bytes")
        return data
