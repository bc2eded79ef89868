"""A stored disk as the source of a guest's parser: it decodes each chunk once, and ahead of sequential
reads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Final

from holdfast.base.errors import HoldfastError
from holdfast.base.sequential import SequentialReads
from holdfast.formats.guests.values.damage import GuestUnsupported, StructureDamaged
from holdfast.repo.chunks.recipe import Recipe
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import BadRange, Item

_AHEAD: Final = 4
"""Chunks that are decoded ahead of a sequential reader: inode tables, large folders."""
_SLACK: Final = 256 << 10
"""Most bytes between the end of a read and the start of the next for both to count as sequential."""


class StoredDisk:
    """A DiskSource over a disk in the repository. A context manager; any thread.

    Decoded chunks are kept in the reader's cache: give the reader one (`Reader(repository, chunk_cache=...)`,
    some 32 MiB), or each 4 KiB read costs a chunk.
    """

    def __init__(self, reader: Reader, item: Item) -> None:
        self.size = item.size
        self.recipe: Recipe = reader.recipe(item)
        self.bad: Sequence[BadRange] = item.bad
        self._name = item.path
        self._reader = reader
        self._lock = threading.Lock()
        self._reads = SequentialReads(before=0, behind=_SLACK)
        self._pool = ThreadPoolExecutor(1, "holdfast-guest")
        self._flight: Future[None] | None = None

    def __enter__(self) -> StoredDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset + length) of the disk.

        Raises GuestDamaged outside of the disk and where the source could not be read when it was backed
        up (a parser must not take those zeros for what the guest wrote); Damaged or StoreError.
        """
        end = offset + length
        if offset < 0 or length < 0 or end > self.size:
            limit = f"inside the disk's {self.size} bytes"
            raise StructureDamaged(self._name, "range to read", f"{offset} to {end}", limit)
        for bad in self.bad:
            if bad.overlap(offset, end):
                reason = f"the bytes at {bad.start} could not be read when it was backed up"
                raise GuestUnsupported(self._name, reason)
        data = self._reader.read(self.recipe, offset, length)
        self._notice(offset, end)
        return data

    def _notice(self, offset: int, end: int) -> None:
        with self._lock:
            if self._reads.notice(offset, end) and (self._flight is None or self._flight.done()):
                self._flight = self._pool.submit(self._decode_ahead, end)

    def _decode_ahead(self, start: int) -> None:
        with suppress(HoldfastError):  # a real read of that range raises the error
            for extent in islice(self.recipe.extents(start), 1, 1 + _AHEAD):
                if extent.id is not None:
                    self._reader.chunk(extent.id)
