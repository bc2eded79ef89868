"""Incremental ingest of a disk: reads the changed ranges and copies the rest of the parent's recipe.

The recipe equals the one that reading the whole disk would give; `changes_plan` explains why.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, runtime_checkable

from holdfast.ingest.pipeline.changes_plan import ParentExtents, ReadRange, plan
from holdfast.ingest.pipeline.pieces import Stored, cut_pieces, enter_pieces, store_pieces
from holdfast.ingest.pipeline.pipeline import IngestResult, Pipeline
from holdfast.ingest.sources.source import Source
from holdfast.repo.chunks.chunker import Chunker, ChunkerKind, ChunkerSpec
from holdfast.repo.chunks.recipe import Recipe, RecipeBuilder

_LOOK_AHEAD = 32
"""Units that are planned, and announced to the source, before they are read."""


@runtime_checkable
class Announced(Protocol):
    """A source that reads ahead the ranges that it is told of."""

    def will_read(self, offset: int, length: int) -> None: ...


class _RangeUnit(NamedTuple):
    """A part of a ReadRange that fits into a buffer."""

    run: ReadRange
    start: int
    length: int

    @property
    def begins(self) -> bool:
        return self.start == self.run.start

    @property
    def ends(self) -> bool:
        return self.start + self.length == self.run.stop


class _TakeOver(NamedTuple):
    """A range whose extents are copied from the parent's recipe."""

    start: int
    end: int


def ingest_changes(
    pipeline: Pipeline,
    source: Source,
    spec: ChunkerSpec,
    parent_recipe: Recipe,
    changed: Iterable[tuple[int, int]],
) -> IngestResult:
    """Store a disk that differs from its parent in `changed` at most: (start, end) in bytes, by start.

    Only these ranges are read, up to the extents of the parent around them. The caller guarantees what this
    cannot see: that the parent's recipe was cut by `spec` (aligned), that it is free of bad ranges, and that
    its chunks, which are not looked up, are in the repository (`index.is_known_complete(parent.id)`).
    `find_bitmap_parent` checks all of it.

    Raises what the source and the writer raise, ValueError for impossible ranges, and Damaged when the
    parent's recipe cannot be read: then read all of the source instead.
    """
    if spec.kind is not ChunkerKind.ALIGNED or source.size != parent_recipe.size:
        raise ValueError("changes can be followed on disks that kept their size only")
    with ThreadPoolExecutor(pipeline.threads, "holdfast-ingest") as pool:
        return _IncrementalIngest(pipeline, pool, source, spec, parent_recipe).run(
            plan(parent_recipe, changed)
        )


class _IncrementalIngest:
    """State of one incremental ingest; belongs to the calling thread.

    `_covered` is the end of the last chunk or hole. Within a range `_carry` holds the undecided bytes after
    it, up to `_frontier`; `_end` is the end of the range's changes.
    """

    def __init__(
        self, pipeline: Pipeline, pool: ThreadPoolExecutor, source: Source, spec: ChunkerSpec, recipe: Recipe
    ) -> None:
        self._writer = pipeline.writer
        self._make_id = pipeline.keys.data_chunk_id
        self._progress = pipeline.progress
        self._unit = pipeline.unit
        self._pool = pool
        self._source = source
        self._chunker = Chunker(spec, pipeline.keys.cut)
        self._longest = spec.maximum
        self._recipe = recipe
        self._parent = ParentExtents(recipe)
        self._builder = RecipeBuilder(pipeline.writer.put_node)
        self._headroom = -(-spec.maximum // mmap.PAGESIZE) * mmap.PAGESIZE
        self._in_flight = 2 * pipeline.threads + 2
        self._free: list[mmap.mmap] = []
        self._storing: deque[tuple[Future[Stored] | _TakeOver, mmap.mmap | None]] = deque()
        self._covered = self._frontier = self._end = 0
        self._carry = b""

    def run(self, runs: Iterator[ReadRange]) -> IngestResult:
        try:
            for unit in self._looking_ahead(runs):
                if unit.begins:
                    self._advance_to(unit.start)
                self._end = unit.run.end
                self._cut_unit(unit.start, unit.length, final=unit.run.final and unit.ends)
            self._advance_to(self._recipe.size)
            while self._storing:
                self._collect()
        finally:
            for stored, _ in self._storing:
                if isinstance(stored, Future):
                    stored.cancel()
        return IngestResult(self._builder.finish(), self._builder.size, self._builder.allocated)

    def _looking_ahead(self, runs: Iterator[ReadRange]) -> Iterator[_RangeUnit]:
        """The units of all ranges; announces each to the source some units before it is read."""
        will_read = self._source.will_read if isinstance(self._source, Announced) else _not_announced
        ahead: deque[_RangeUnit] = deque()
        for run in runs:
            for start in range(run.start, run.stop, self._unit):
                unit = _RangeUnit(run, start, min(self._unit, run.stop - start))
                will_read(unit.start, unit.length)
                ahead.append(unit)
                if len(ahead) > _LOOK_AHEAD:
                    yield ahead.popleft()
        yield from ahead

    def _advance_to(self, until: int) -> None:
        """Advance to `until`, the start of the next range: finish the last one, then copy from the parent.

        While the last cut is not one of the parent's, reads on, if necessary into the next range.
        """
        while self._frontier < until and not self._may_take_up():
            stop = self._frontier
            while (
                stop < until and stop - self._frontier < self._longest and not self._parent.is_hole_at(stop)
            ):
                extent = self._parent.find(stop)
                stop = extent.start + extent.length
            self._cut_unit(self._frontier, stop - self._frontier, final=self._parent.is_hole_at(stop))
        if self._may_take_up():
            self._take_over(until)

    def _may_take_up(self) -> bool:
        return self._covered >= self._end and self._parent.may_continue_at(self._covered)

    def _take_over(self, until: int) -> None:
        self._carry = b""
        if until > self._covered:
            self._storing.append((_TakeOver(self._covered, until), None))
        self._covered = self._frontier = until

    def _cut_unit(self, start: int, length: int, *, final: bool) -> None:
        """Read from the frontier on, and submit the chunks that are decided for storage."""
        assert start == self._frontier
        while len(self._storing) >= self._in_flight:
            self._collect()
        # Page-aligned reads: five times faster than into malloc'ed memory on Zen 3.
        buffer = (
            self._free.pop()
            if self._free
            else mmap.mmap(-1, self._headroom + max(self._unit, 2 * self._longest))
        )
        first = self._headroom - len(self._carry)
        whole = memoryview(buffer)
        self._source.read_into(whole[self._headroom : self._headroom + length], start)
        whole[first : self._headroom] = self._carry
        view = whole[first : self._headroom + length]
        pieces = list(cut_pieces(self._chunker, view, final=final))
        at = sum(piece.length for piece in pieces)
        self._covered += at
        self._frontier = start + length
        self._carry = bytes(view[at:])
        self._progress(at)
        self._storing.append(
            (self._pool.submit(store_pieces, self._writer, self._make_id, view, pieces), buffer)
        )

    def _collect(self) -> None:
        """Enter the oldest pending range in the recipe: its new chunks, once stored, or the parent's."""
        stored, buffer = self._storing.popleft()
        if isinstance(stored, _TakeOver):
            self._enter_parent(stored.start, stored.end)
            return
        enter_pieces(self._builder, stored.result())
        if buffer is not None:
            self._free.append(buffer)

    def _enter_parent(self, start: int, end: int) -> None:
        """Copy the parent's extents of [start, end): chunks are whole, holes may be clipped."""
        for base, leaf in self._recipe.leaves(start, end):
            starts, ids = leaf.starts, leaf.ids
            first = leaf.find(start - base) if start > base else 0
            last = bisect_left(starts, end - base, hi=len(ids))
            for at in range(first, last):
                id_ = ids[at]
                if id_ is None:
                    self._builder.add_hole(min(base + starts[at + 1], end) - max(base + starts[at], start))
                else:
                    self._builder.add_chunk(id_, starts[at + 1] - starts[at])
            self._progress(min(base + leaf.size, end) - max(base, start))


def _not_announced(offset: int, length: int) -> None:
    """Ignore the announcement, for sources that do not read ahead."""
