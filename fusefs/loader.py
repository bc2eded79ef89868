"""Chunks for the event loop: from the cache, from the page cache, or from disk by way of the threads.

Each chunk is fetched once however many readers want it. Chunks that lie near one another in a pack are
read in one go: a 64 KiB chunk takes some 25 KB there, far below what a disk wants to be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from holdfast.base.errors import Damaged
from holdfast.base.types import ChunkID, RecordType
from holdfast.fusefs.bridge import Bridge, Flight, Result
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.index.locations import Location
from holdfast.repo.packs.coalesce import CoalescedRead, coalesce
from holdfast.repo.store.interface import FileKind

_RUN = 1 << 20
"""Bytes of a pack that one job reads: large enough for the disk, small enough that all threads get some."""
_GAP = 64 << 10
"""Unwanted bytes that are read rather than seeked over."""

Decoded = dict[ChunkID, Result[bytes]]


class ChunkLoader:
    """Event loop only, but for what runs on the bridge's threads."""

    def __init__(self, repository: Repository, reader: Reader, bridge: Bridge) -> None:
        self._repository = repository
        self._reader = reader
        self._bridge = bridge
        self._flying: dict[ChunkID, Flight[bytes]] = {}

    def ready(self, id_: ChunkID) -> bytes | None:
        """The chunk if no wait is needed: decoded already, or in the page cache and not being decoded.

        Raises Damaged when the bytes are there and bad: ask `fetch`, there may be another copy.
        """
        if id_ in self._flying:
            return self._reader.chunks.get(id_)
        return self._reader.chunk_if_ready(id_)

    def decoded(self, id_: ChunkID) -> bytes | None:
        """The chunk if it is in the chunk cache."""
        return self._reader.chunks.get(id_)

    def fetch(self, ids: Iterable[ChunkID], *, urgent: bool) -> list[Flight[bytes]]:
        """Fetch chunks from disk, joining fetches that run already. One fetch for each ID, in order."""
        flights: list[Flight[bytes]] = []
        new: list[ChunkID] = []
        for id_ in ids:
            flight = self._flying.get(id_)
            if flight is None:
                flight = self._flying[id_] = Flight()
                new.append(id_)
            flights.append(flight)
        if new:
            self._bridge.post(lambda: self._find_and_read(new, urgent=urgent), self._land, urgent=urgent)
        return flights

    def ahead(self, ids: Iterable[ChunkID]) -> None:
        """Get those chunks that are neither decoded nor flying; nobody waits for them yet."""
        self.fetch(
            [id_ for id_ in ids if id_ not in self._flying and self._reader.chunks.get(id_) is None],
            urgent=False,
        )

    def _land(self, result: Result[Decoded]) -> None:
        for id_, chunk in result.get().items():
            if chunk.error is None:
                self._reader.chunks.put(id_, chunk.get())
            self._flying.pop(id_).land(chunk)

    def _find_and_read(self, ids: Sequence[ChunkID], *, urgent: bool) -> Decoded:
        """Thread: read the first run of these chunks here, and have the others read by whoever is free.

        Never raises: each chunk has a result of its own. The index is asked here and not in the event
        loop because its pages, too, may have to come from the disk.
        """
        if len(ids) == 1:  # a random read: nothing to group
            return {ids[0]: self._slowly(ids[0])}
        found = Result(lambda: self._repository.index.lookup(ids))
        locations = found.get() if found.error is None else [None] * len(ids)
        placed = [(place, id_) for place, id_ in zip(locations, ids, strict=True) if place is not None]
        runs = list(coalesce(placed, longest=_RUN, gap=_GAP))
        for run in runs[1:]:
            self._bridge.post(partial(self._read_run, run), self._land, urgent=urgent)
        done = self._read_run(runs[0]) if runs else {}
        for place, id_ in zip(locations, ids, strict=True):
            if place is None:  # perhaps in a pack that came since we listed them: the reader looks again
                done[id_] = self._slowly(id_)
        return done

    def _read_run(self, run: CoalescedRead[ChunkID]) -> Decoded:
        """Thread: read a run and decode its chunks. Never raises."""
        read = Result(
            lambda: self._repository.store.read(FileKind.PACK, run.pack, run.start, run.end - run.start)
        )
        if read.error is not None:
            return {id_: self._slowly(id_) for _, id_ in run.records}
        data = memoryview(read.get())
        return {id_: self._open(location, run.cut(data, location), id_) for location, id_ in run.records}

    def _open(self, location: Location, record: memoryview, id_: ChunkID) -> Result[bytes]:
        chunk = Result(lambda: self._reader.open(location, record, id_, RecordType.DATA))
        if isinstance(chunk.error, Damaged | FileNotFoundError):
            return self._slowly(id_)  # another pack may hold a good copy
        return chunk

    def _slowly(self, id_: ChunkID) -> Result[bytes]:
        return Result(lambda: self._reader.read_record(id_, RecordType.DATA))
