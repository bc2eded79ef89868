"""The disk as a worker has it: bytes asked of the parent in blocks, kept, and read ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.base.lru import Lru
from holdfast.formats.guests.values.values import Extent, GuestDamaged
from holdfast.formats.guests.worker.protocol import WANT_LIMIT, Want

BLOCK: Final = 64 << 10
"""Bytes that are asked for at a time: parsers read inodes and nodes of 256 bytes to 16 KiB, and a stored
chunk, which has to be decoded whole, is as large."""
_KEPT: Final = (32 << 20) // BLOCK
_AHEAD: Final = (1 << 20) // BLOCK
_LONGEST: Final = 64 << 20
"""Bytes that a parser may want at once."""

Fetch = Callable[[Want], bytes | None]
"""Asks the parent; None when it could not deliver."""


class CachedDisk:
    """The BlockDevice that is the whole disk. Reading on and on doubles what is asked for, to 1 MiB."""

    def __init__(self, size: int, fetch: Fetch) -> None:
        self.size = size
        self._fetch = fetch
        self._blocks: Lru[int, bytes] = Lru(_KEPT)
        self._next = -1
        self._window = 1

    def extents(self, offset: int, length: int) -> tuple[Extent, ...] | None:
        return (Extent(offset, length, offset),)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes. Raises GuestDamaged outside of the disk, for more than 64 MiB, and for what the
        repository could not deliver."""
        end = offset + length
        if offset < 0 or length < 0 or end > self.size:
            raise GuestDamaged(f"{length} bytes at {offset} are not inside the disk of {self.size} bytes")
        if length > _LONGEST:
            raise GuestDamaged(f"{length} bytes at {offset} are wanted at once")
        first, at = divmod(offset, BLOCK)
        if at + length <= BLOCK:  # most reads of parsers
            block = self._blocks.get(first)
            if block is not None:
                return block[at : at + length]
            if not length:
                return b""
        parts = []
        for index in range(first, -(-end // BLOCK)):
            block = self._block(index, -(-end // BLOCK))
            if block is None:
                return self._read_exactly(offset, length)
            parts.append(block)
        parts[-1] = parts[-1][: end - (first + len(parts) - 1) * BLOCK]
        parts[0] = parts[0][at:]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _block(self, index: int, wanted_to: int) -> bytes | None:
        block = self._blocks.get(index)
        if block is not None:
            return block
        self._window = min(2 * self._window, _AHEAD) if index == self._next else 1
        stop = min(max(wanted_to, index + self._window), index + WANT_LIMIT // BLOCK, -(-self.size // BLOCK))
        stop = next((i for i in range(index + 1, stop) if i in self._blocks), stop)
        start, end = index * BLOCK, min(stop * BLOCK, self.size)
        data = self._fetch(Want(start, end - start, is_exact=False))
        if data is None:
            return None
        self._next = stop
        for i in range(stop - 1, index - 1, -1):  # the one that is wanted comes last: it stays longest
            at = i * BLOCK - start
            self._blocks.put(i, data[at : at + BLOCK])
        return self._blocks.get(index)

    def _read_exactly(self, offset: int, length: int) -> bytes:
        """After a failure: these bytes and no others, so that damage beside them costs nothing."""
        parts = []
        for start in range(offset, offset + length, WANT_LIMIT):
            part = self._fetch(Want(start, min(WANT_LIMIT, offset + length - start), is_exact=True))
            if part is None:
                raise GuestDamaged(f"the repository could not deliver {length} bytes at {offset}")
            parts.append(part)
        return b"".join(parts)
