"""The disk inside a worker: blocks fetched from the parent, a cache of them, and read-ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.base.lru import Lru
from holdfast.formats.guests.values.damage import GuestUnsupported, StructureDamaged
from holdfast.formats.guests.values.values import DiskExtent
from holdfast.formats.guests.worker.protocol import WANT_LIMIT, Want

BLOCK: Final = 64 << 10
"""Bytes of a block. Parsers read inodes and nodes of 256 bytes to 16 KiB; a stored chunk, which must be
decoded whole, is about as large as a block."""
_KEPT: Final = (32 << 20) // BLOCK
"""Blocks that are kept."""
_AHEAD: Final = (1 << 20) // BLOCK
"""Most blocks that read-ahead fetches at once."""
_LONGEST: Final = 64 << 20
"""Most bytes that a parser may read at once."""

Fetch = Callable[[Want], bytes | None]
"""Asks the parent for bytes; None when it cannot deliver them."""


class CachedDisk:
    """The whole disk as a BlockDevice. Sequential reads double what is fetched at once, up to 1 MiB."""

    def __init__(self, size: int, fetch: Fetch) -> None:
        self.size = size
        self._fetch = fetch
        self._blocks: Lru[int, bytes] = Lru(_KEPT)
        self._next = -1
        self._window = 1

    def extents(self, offset: int, length: int) -> tuple[DiskExtent, ...] | None:
        return (DiskExtent(offset, length, offset),)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes. Raises GuestDamaged when they are outside of the disk, when they are more
        than 64 MiB, and when the repository cannot deliver them."""
        end = offset + length
        if offset < 0 or length < 0 or end > self.size:
            limit = f"inside the disk's {self.size} bytes"
            raise StructureDamaged("disk", "range to read", f"{offset} to {end}", limit)
        if length > _LONGEST:
            raise StructureDamaged(
                "disk", f"length of a read at {offset}", length, f"at most {_LONGEST} bytes"
            )
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
        for i in range(stop - 1, index - 1, -1):  # the wanted block is put last, so it is dropped last
            at = i * BLOCK - start
            self._blocks.put(i, data[at : at + BLOCK])
        return self._blocks.get(index)

    def _read_exactly(self, offset: int, length: int) -> bytes:
        """Fetch exactly these bytes, after a block failed: the damage may lie outside of them."""
        parts = []
        for start in range(offset, offset + length, WANT_LIMIT):
            part = self._fetch(Want(start, min(WANT_LIMIT, offset + length - start), is_exact=True))
            if part is None:
                reason = f"the repository cannot deliver {length} bytes at {offset}"
                raise GuestUnsupported("disk", reason)
            parts.append(part)
        return b"".join(parts)
