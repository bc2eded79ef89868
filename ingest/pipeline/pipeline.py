"""Stores a source and makes its recipe: one thread reads, workers hash, compress and seal; memory is bounded.

The caller's thread reads units of a few MiB and splits them into chunks; workers do the rest. With a parent
(the same item in the previous snapshot) workers first hash the bytes of a unit where the parent has chunks.
A chunk with the same hash as the parent's, which ends in a *natural* cut (another chunk follows it in the
parent), would be cut there again whatever bytes follow now, so it needs no chunking. The chunker runs only on
the gaps between such chunks, until it meets the next one: the recipe is the same as without a parent.

In a dump whose sections a scanner found (`sources.wrapped`), chunks also end at the edges of sections, and no
parent is followed.

    read unit n+2 | scan units n+1, n+2 (workers) | join unit n: cut the gaps | store units <= n (workers)
"""

from __future__ import annotations

import mmap
import os
import queue
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from holdfast.base.types import ChunkID, ProgressFunction
from holdfast.ingest.pipeline.parent_chunks import PAUSE, Guess, ParentChunks, ParentRecipe
from holdfast.ingest.pipeline.pieces import (
    ChunkOrHole,
    ChunkSink,
    Stored,
    cut_pieces,
    enter_pieces,
    store_pieces,
)
from holdfast.ingest.sources.source import Source
from holdfast.ingest.sources.wrapped import SectionedSource
from holdfast.repo.chunks.chunker import Chunker, ChunkerKind, ChunkerSpec
from holdfast.repo.chunks.recipe import RecipeBuilder
from holdfast.repo.format.crypto import Keys

UNIT = 4 << 20
"""Bytes of one read; a multiple of 4 KiB."""
_MOST_THREADS = 8
"""Most workers. Each needs two units of memory; eight of them are as fast as one disk writes."""
_GAP_UNIT = 4
"""Gaps between chunks of the parent are chunked in parts of this many maximal chunks."""


@dataclass(slots=True)
class _ReadUnit:
    """A unit of the source. Its bytes are buffer[headroom:headroom + length]; undecided bytes of the unit
    before go in front of them. The unit of a hole has no buffer."""

    start: int
    length: int
    is_hole: bool
    last: bool
    buffer: mmap.mmap | None = None
    borders: Sequence[int] = ()
    scan: Future[dict[int, Guess]] | None = None
    guessed: int = 0


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The stored source: its recipe's root node, its size and its bytes that are not holes."""

    recipe: ChunkID
    size: int
    allocated: int


@dataclass(slots=True)
class Pipeline:
    """Reads sources into a sink, one after another. `threads` workers share it.

    `unit`: bytes read at a time, a multiple of 4 KiB. `pause`: units without guesses behind one where less
    than half of them held.
    """

    writer: ChunkSink
    keys: Keys
    progress: ProgressFunction
    threads: int = field(default_factory=lambda: min(_MOST_THREADS, max(2, os.cpu_count() or 1)))
    unit: int = UNIT
    pause: int = PAUSE

    def ingest(self, source: Source, spec: ChunkerSpec, parent: ParentRecipe | None) -> IngestResult:
        """Store one source. A `parent` of another spec changes nothing in the result but costs time."""
        with ThreadPoolExecutor(self.threads, "holdfast-ingest") as pool:
            return _SourceIngest(self, pool, source, spec, parent).run()


class _SourceIngest:
    """State of the ingest of one source; used by the calling thread only."""

    def __init__(
        self,
        pipeline: Pipeline,
        pool: ThreadPoolExecutor,
        source: Source,
        spec: ChunkerSpec,
        parent: ParentRecipe | None,
    ) -> None:
        self._writer = pipeline.writer
        self._keys = pipeline.keys
        self._progress = pipeline.progress
        self._threads = pipeline.threads
        self._unit = pipeline.unit
        self._pool = pool
        self._source = source
        self._spec = spec
        self._chunker = Chunker(spec, pipeline.keys.cut)
        self._parent_chunks = ParentChunks(parent, pause=pipeline.pause)
        self._recipe = RecipeBuilder(pipeline.writer.put_node)
        self._headroom = -(-spec.maximum // mmap.PAGESIZE) * mmap.PAGESIZE
        self._buffers = 2 * self._threads + 2
        self._made = 0
        self._free: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()
        self._scanned: deque[_ReadUnit] = deque()
        self._storing: deque[tuple[Future[Stored], mmap.mmap | None]] = deque()
        self._carry = b""

    def run(self) -> IngestResult:
        try:
            for unit in self._units():
                self._scanned.append(unit)
                if len(self._scanned) > self._threads:
                    self._join(self._scanned.popleft())
            while self._scanned:
                self._join(self._scanned.popleft())
            while self._storing:
                self._collect()
        finally:
            for future, _ in self._storing:
                future.cancel()
        root = self._recipe.finish()
        return IngestResult(root, self._recipe.size, self._recipe.allocated)

    def _units(self) -> Iterator[_ReadUnit]:
        """Read the source in units. A unit is `last` if a hole or the end of the source follows it."""
        for extent in self._source.extents(holes=self._spec.kind is ChunkerKind.ALIGNED):
            if extent.is_hole:
                assert extent.length is not None
                self._progress(extent.length)
                yield _ReadUnit(extent.start, extent.length, is_hole=True, last=True)
            elif extent.length is None:
                yield from self._stream_units(extent.start)
            else:
                end = extent.start + extent.length
                for start in range(extent.start, end, self._unit):
                    yield self._read_unit(start, min(self._unit, end - start), last=start + self._unit >= end)

    def _stream_units(self, start: int) -> Iterator[_ReadUnit]:
        while True:
            unit = self._read_unit(start, self._unit, last=False)
            unit.last = unit.length < self._unit
            yield unit
            if unit.last:
                return
            start += unit.length

    def _read_unit(self, start: int, length: int, *, last: bool) -> _ReadUnit:
        buffer = self._take_buffer()
        view = memoryview(buffer)[self._headroom : self._headroom + length]
        count = self._source.read_into(view, start)
        self._progress(count)
        unit = _ReadUnit(start, count, is_hole=False, last=last, buffer=buffer)
        if isinstance(self._source, SectionedSource):
            unit.borders = self._source.borders(start + count)
        guesses = self._parent_chunks.guesses(start, start + count)
        if guesses:
            unit.scan = self._pool.submit(self._scan, view, start, guesses)
            unit.guessed = sum(guess.length for guess in guesses)
        return unit

    def _take_buffer(self) -> mmap.mmap:
        if self._made < self._buffers:
            self._made += 1
            # Page-aligned reads: five times faster than into malloc'ed memory on Zen 3.
            return mmap.mmap(-1, self._headroom + self._unit)
        while self._free.empty():
            if self._storing:
                self._collect()
            else:
                self._join(self._scanned.popleft())
        return self._free.get()

    def _scan(self, view: memoryview, start: int, guesses: Sequence[Guess]) -> dict[int, Guess]:
        """Worker: the parent's chunks that are unchanged here, by offset."""
        make_id = self._keys.data_chunk_id
        return {
            guess.start: guess
            for guess in guesses
            if make_id(view[guess.start - start : guess.start - start + guess.length]) == guess.id
        }

    def _join(self, unit: _ReadUnit) -> None:
        """Continue the chunking through the next unit and submit its chunks for storage."""
        if unit.is_hole:
            assert not self._carry  # the unit before was `last`: it left nothing
            self._storing.append((_done([(None, unit.length)]), None))
            return
        assert unit.buffer is not None
        known = unit.scan.result() if unit.scan else {}
        if unit.scan:
            self._parent_chunks.report(sum(guess.length for guess in known.values()), unit.guessed)
        begin = unit.start - len(self._carry)
        first = self._headroom - len(self._carry)
        whole = memoryview(unit.buffer)
        whole[first : self._headroom] = self._carry
        view = whole[first : self._headroom + unit.length]
        if unit.borders:
            pieces, covered = self._cut_at(view, begin, unit.borders, final=unit.last)
        else:
            pieces, covered = self._cut(view, begin, known, final=unit.last)
        self._carry = bytes(view[covered:])
        if self._parent_chunks.present and all(piece.id is not None or piece.is_hole for piece in pieces):
            self._storing.append((_done(self._store(view, pieces)), unit.buffer))
        else:
            self._storing.append((self._pool.submit(self._store, view, pieces), unit.buffer))

    def _cut(
        self, view: memoryview, begin: int, known: dict[int, Guess], *, final: bool
    ) -> tuple[list[ChunkOrHole], int]:
        """The pieces of `view`, whose first byte is at `begin`, and how much of it they cover."""
        pieces: list[ChunkOrHole] = []
        at = 0
        while at < len(view):
            guess = known.get(begin + at)
            if guess is not None:
                pieces.append(ChunkOrHole(at, guess.length, is_hole=False, id=guess.id))
                at += guess.length
                continue
            part = view[at : at + _GAP_UNIT * self._spec.maximum] if known else view[at:]
            to_end = at + len(part) == len(view)
            for piece in cut_pieces(self._chunker, part, at, final=final and to_end):
                pieces.append(piece)
                at += piece.length
                if begin + at in known:
                    break
            else:
                if to_end:
                    break
        return pieces, at

    def _cut_at(
        self, view: memoryview, begin: int, borders: Sequence[int], *, final: bool
    ) -> tuple[list[ChunkOrHole], int]:
        """The same with chunks that end at these offsets of the stream, whatever the chunker says."""
        pieces: list[ChunkOrHole] = []
        at = 0
        for border in (*borders, None):
            end = len(view) if border is None else border - begin
            if at < end:
                made = list(cut_pieces(self._chunker, view[at:end], at, final=final or border is not None))
                pieces += made
                at += sum(piece.length for piece in made)
        return pieces, at

    def _store(self, view: memoryview, pieces: Sequence[ChunkOrHole]) -> Stored:
        """Worker: hash what is not known yet, store what is not there. A chunk of the parent is looked up
        only when something was lost since: then it may have to be stored again."""
        make_id = self._keys.data_chunk_id
        return store_pieces(self._writer, make_id, view, pieces, known_are_there=self._parent_chunks.present)

    def _collect(self) -> None:
        """Wait for the oldest unit being stored, enter it in the recipe, free its buffer."""
        future, buffer = self._storing.popleft()
        enter_pieces(self._recipe, future.result())
        if buffer is not None:
            self._free.put(buffer)


def _done(result: Stored) -> Future[Stored]:
    future: Future[Stored] = Future()
    future.set_result(result)
    return future
