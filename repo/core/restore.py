"""Reads whole stored files fast: in pack order into a file, or in file order into a pipe."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar

from holdfast.base.errors import Damaged
from holdfast.base.types import Buffer, ChunkID, ProgressFunction, RecordType
from holdfast.repo.chunks.chunker import is_zero
from holdfast.repo.chunks.recipe import Extent, Recipe
from holdfast.repo.core.reader import Reader, slice_extent
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import Keys
from holdfast.repo.index.locations import Location
from holdfast.repo.packs.coalesce import CoalescedRead, coalesce
from holdfast.repo.store.interface import FileKind

_WINDOW = 1 << 18
"""Extents that are sorted by pack together: 16 GiB of a disk, about 60 MB of memory."""
_RUN = 4 << 20
"""Most bytes of a pack in one read."""
_GAP = 256 << 10
"""Most unwanted bytes between two records that are read rather than skipped by a seek."""
_MOST_THREADS = 16
_WRITE = 1 << 20
"""Bytes from which on collected chunks are written."""
_AHEAD = 32 << 20
"""Decoded bytes in flight ahead of a pipe."""


A = TypeVar("A")
B = TypeVar("B")


class Target(Protocol):
    """The destination of a restored file. Several threads call it, once for each offset."""

    def write(self, offset: int, data: Buffer) -> None: ...


class Restorer:
    """Restores stored files of one repository with `threads` decoders, `window` extents at a time."""

    def __init__(
        self, repository: Repository, reader: Reader, *, threads: int | None = None, window: int = _WINDOW
    ) -> None:
        self._repository = repository
        self._keys: Keys = repository.keys
        self._reader = reader
        self._window = window
        self._threads = threads or min(_MOST_THREADS, os.cpu_count() or 1)

    def to_target(self, recipe: Recipe, target: Target, progress: ProgressFunction) -> None:
        """Write every data extent to `target`, but no holes and no chunks of zeros.

        Reads each pack once per window, in order, so that fragmentation costs little. Compares every chunk's
        ID with its plaintext before writing it. Raises Damaged at the first bad chunk.
        """
        extents = recipe.extents()
        with ThreadPoolExecutor(self._threads, "holdfast-restore") as pool:
            while window := list(islice(extents, self._window)):
                progress(sum(extent.length for extent in window if extent.id is None))
                data = [extent for extent in window if extent.id is not None]
                done = _bounded(
                    pool,
                    self._threads * 3,
                    self._runs(data),
                    lambda run: self._write_run(run, target, progress),
                )
                for _ in done:
                    pass

    def in_order(self, recipe: Recipe, start: int = 0, end: int | None = None) -> Iterator[Buffer]:
        """The bytes [start, end) of a stored file in order; worker threads decode ahead. Raises Damaged."""
        end = recipe.size if end is None else min(end, recipe.size)
        depth = max(2, _AHEAD // (1 << 18))
        with ThreadPoolExecutor(self._threads, "holdfast-read") as pool:
            for parts in _bounded(pool, depth, recipe.extents(start, end), self._decode):
                extent, plain = parts
                first, last = max(start, extent.start), min(end, extent.start + extent.length)
                if plain is None:
                    yield from zeros(last - first)
                else:
                    yield slice_extent(extent, plain, first, last)

    def _decode(self, extent: Extent) -> tuple[Extent, bytes | None]:
        if extent.id is None:
            return extent, None
        return extent, self._checked(extent.id, self._reader.read_record(extent.id, RecordType.DATA))

    def _checked(self, id_: ChunkID, plain: bytes) -> bytes:
        if self._keys.data_chunk_id(plain) != id_:
            raise Damaged(f"chunk {id_.hex()}", "its content does not match its ID")
        return plain

    def _runs(self, extents: list[Extent]) -> Iterator[CoalescedRead[Extent]]:
        """Group the records of extents into runs of neighbours, in pack order."""
        ids = [extent.id for extent in extents if extent.id is not None]
        placed: list[tuple[Location, Extent]] = []
        for extent, location in zip(
            extents, self._repository.ask_index(lambda index: index.lookup(ids)), strict=True
        ):
            if location is None:  # perhaps in the trash; raises when it is nowhere
                assert extent.id is not None
                location, _ = self._reader.find_record(extent.id, RecordType.DATA)  # noqa: PLW2901
            placed.append((location, extent))
        return coalesce(placed, longest=_RUN, gap=_GAP)

    def _write_run(self, run: CoalescedRead[Extent], target: Target, progress: ProgressFunction) -> None:
        try:
            data = memoryview(
                self._repository.store.read(FileKind.PACK, run.pack, run.start, run.end - run.start)
            )
        except FileNotFoundError:
            data = memoryview(b"")
        last: tuple[ChunkID, bytes] | None = None
        together = _MergedWrites(target)
        for location, extent in run.records:
            assert extent.id is not None
            if last is None or last[0] != extent.id:
                last = extent.id, self._open(location, run.cut(data, location), extent.id)
            plain = slice_extent(extent, last[1], extent.start, extent.start + extent.length)
            if not is_zero(plain):
                together.add(extent.start, plain)
        together.flush()
        progress(sum(extent.length for _, extent in run.records))

    def _open(self, location: Location, record: memoryview, id_: ChunkID) -> bytes:
        try:
            return self._checked(id_, self._reader.open(location, record, id_, RecordType.DATA))
        except (Damaged, FileNotFoundError):
            # Another pack may hold a good copy; if none does this raises.
            return self._checked(id_, self._reader.read_record(id_, RecordType.DATA))


class _MergedWrites:
    """Writes adjacent chunks of a file in one call.

    With a call for each 13 KiB chunk of a dump, threads queued for the file's lock and took three times as
    long.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._start = self._end = 0
        self._parts: list[memoryview] = []

    def add(self, start: int, data: memoryview) -> None:
        if start != self._end or self._end - self._start >= _WRITE:
            self.flush()
            self._start = start
        self._parts.append(data)
        self._end = start + len(data)

    def flush(self) -> None:
        if self._parts:
            self._target.write(self._start, b"".join(self._parts))
            self._parts = []


def zeros(length: int) -> Iterator[Buffer]:
    """`length` zero bytes, in blocks of at most 1 MiB."""
    block = bytes(min(length, 1 << 20))
    while length > 0:
        yield block[:length] if length < len(block) else block
        length -= len(block)


def _bounded(pool: ThreadPoolExecutor, depth: int, items: Iterator[A], work: Callable[[A], B]) -> Iterator[B]:
    """Results of `work` in order, with at most `depth` calls in flight. Raises the first error."""
    flying: deque[Future[B]] = deque()
    try:
        for item in items:
            flying.append(pool.submit(work, item))
            if len(flying) >= depth:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        for future in flying:
            future.cancel()
