"""Incremental ingest's law: reading what changed gives the recipe that reading everything would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, StreamFailed
from holdfast.base.types import ChunkID, SnapshotID
from holdfast.ingest.pipeline.changes import ingest_changes
from holdfast.ingest.pipeline.changes_plan import ReadRange, find_bitmap_parent, plan
from holdfast.ingest.pipeline.pipeline import IngestResult, Pipeline
from holdfast.repo.chunks.chunker import BLOCK, DISK, STREAM, Chunker, ChunkerKind, ChunkerSpec
from holdfast.repo.chunks.recipe import Recipe
from holdfast.repo.snapshots.snapshot import BadRange, Item, ItemKind, StoredSnapshot
from support.basics import MemorySource, ignore, make_snapshot, random_bytes
from support.pipeline import KEYS, MemoryWriter, cut_directly, ingest, same_recipe

ALIGNED = ChunkerSpec(ChunkerKind.ALIGNED, 16 << 10)
UNIT = 128 << 10


@dataclass
class CountingSource(MemorySource):
    """Remembers what was read, and what was announced before."""

    reads: list[tuple[int, int]] = field(default_factory=list)
    announced: list[tuple[int, int]] = field(default_factory=list)

    def will_read(self, offset: int, length: int) -> None:
        self.announced.append((offset, length))

    def read_into(self, buffer: memoryview, offset: int) -> int:
        self.reads.append((offset, len(buffer)))
        count = super().read_into(buffer, offset)
        assert count == len(buffer)
        return count

    @property
    def count(self) -> int:
        return sum(length for _, length in self.reads)


def ingest_what_changed(
    writer: MemoryWriter,
    parent: IngestResult,
    source: MemorySource,
    changed: Sequence[tuple[int, int]],
    *,
    spec: ChunkerSpec = ALIGNED,
    progress: list[int] | None = None,
) -> IngestResult:
    told = ignore if progress is None else progress.append
    pipeline = Pipeline(writer, KEYS, told, threads=2, unit=UNIT)
    return ingest_changes(pipeline, source, spec, writer.recipe(parent), changed)


def check_law(old: bytes, new: bytes, changed: Sequence[tuple[int, int]]) -> CountingSource:
    writer = MemoryWriter()
    parent = ingest(writer, MemorySource(old), ALIGNED)
    source = CountingSource(new)
    progress: list[int] = []
    found = ingest_what_changed(writer, parent, source, changed, progress=progress)
    assert same_recipe(found, cut_directly(new, ALIGNED))
    assert writer.content(found) == new
    assert sum(progress) == len(new)
    assert all(length <= 2 * UNIT for _, length in source.reads)
    return source


# ---- the law ------------------------------------------------------------------------------------------

sizes = st.one_of(st.integers(0, 40).map(lambda n: n * BLOCK), st.integers(0, 100_000))
parts = st.builds(
    lambda zero, length, seed: bytes(length) if zero else random_bytes(length, seed),
    st.booleans(),
    sizes,
    st.integers(0, 9),
)
contents = st.lists(parts, max_size=9).map(b"".join)

edges = st.one_of(
    st.integers(0, 200).map(lambda n: n * BLOCK), st.integers(0, 400_000), st.just(0), st.just(1 << 30)
)
edits = st.lists(
    st.tuples(edges, st.one_of(st.integers(1, 12).map(lambda n: n * BLOCK), st.integers(1, 60_000)),
              st.sampled_from(["zero", "fill", "same", "hole start", "chunk start"]), st.integers(10, 19)),
    max_size=6,
)  # fmt: skip


def piece_starts(content: bytes, *, holes: bool) -> list[int]:
    at, found = 0, []
    for piece in Chunker(ALIGNED, KEYS.cut).cut(content, final=True):
        if (piece < 0) == holes:
            found.append(at)
        at += abs(piece)
    return found


def apply(old: bytes, changes: list[tuple[int, int, str, int]]) -> tuple[bytes, list[tuple[int, int]]]:
    """The new content, and the ranges of it that may differ from the old."""
    new = bytearray(old)
    ranges: list[tuple[int, int]] = []
    for place, length, how, seed in changes:
        starts = piece_starts(old, holes=how == "hole start")
        at = starts[place % len(starts)] if how.endswith("start") and starts else min(place, len(old))
        end = min(at + length, len(old))
        if place == 1 << 30:
            at = max(0, end - length)
        if how == "zero":
            new[at:end] = bytes(end - at)
        elif how != "same":
            new[at:end] = random_bytes(end - at, seed)
        ranges.append((at, end))
    return bytes(new), sorted(ranges)


@settings(max_examples=400)
@given(contents, edits)
@example(b"", [])
@example(random_bytes(7 * BLOCK, 1), [(0, 1, "zero", 10)])
def test_only_reading_what_changed_gives_the_same_recipe(
    old: bytes, changes: list[tuple[int, int, str, int]]
) -> None:
    new, ranges = apply(old, changes)
    check_law(old, new, ranges)


@settings(max_examples=100)
@given(
    st.integers(0, 1 << 32),
    st.lists(st.tuples(st.integers(0, 299), st.integers(1, 5), st.booleans()), max_size=25),
)
def test_many_small_changes_close_to_each_other_keep_the_law(
    seed: int, changes: list[tuple[int, int, bool]]
) -> None:
    old = b"".join(
        bytes(BLOCK) if seed >> (n % 32) & 1 and n % 3 else random_bytes(BLOCK, n) for n in range(300)
    )
    new = bytearray(old)
    ranges = []
    for block, count, zero in changes:
        start, end = block * BLOCK, min((block + count) * BLOCK, len(old))
        new[start:end] = bytes(end - start) if zero else random_bytes(end - start, block + 1000)
        ranges.append((start, end))
    check_law(old, bytes(new), sorted(ranges))


def test_a_chunk_that_ended_at_a_hole_goes_on_when_the_holes_start_is_filled() -> None:
    old = random_bytes(50 * BLOCK, 3) + bytes(10 * BLOCK) + random_bytes(50 * BLOCK, 4)
    new = old[: 50 * BLOCK] + random_bytes(BLOCK, 5) + old[51 * BLOCK :]
    source = check_law(old, new, [(50 * BLOCK, 51 * BLOCK)])
    last_chunk = piece_starts(old[: 50 * BLOCK], holes=False)[-1]
    assert source.reads == [(last_chunk, 51 * BLOCK - last_chunk)]


def test_a_change_inside_a_hole_reads_its_own_blocks_only() -> None:
    old = random_bytes(BLOCK, 1) + bytes(1000 * BLOCK) + random_bytes(BLOCK, 2)
    new = old[: 500 * BLOCK] + random_bytes(2 * BLOCK, 5) + old[502 * BLOCK :]
    source = check_law(old, new, [(500 * BLOCK + 7, 502 * BLOCK - 7)])
    assert source.reads == [(500 * BLOCK, 2 * BLOCK)]


def test_a_bitmap_that_says_nothing_reads_nothing() -> None:
    assert check_law(random_bytes(500_000, 1), random_bytes(500_000, 1), []).count == 0


def test_a_bitmap_that_says_everything_reads_everything_once() -> None:
    content = random_bytes(500_001, 1)
    assert check_law(bytes(500_001), content, [(0, 500_001)]).count == 500_001


def test_little_more_than_the_changed_chunks_is_read() -> None:
    old = random_bytes(2000 * BLOCK, 1)
    new = bytearray(old)
    ranges = [(at * BLOCK, (at + 1) * BLOCK) for at in range(100, 2000, 100)]
    for start, end in ranges:
        new[start:end] = random_bytes(BLOCK, start)
    source = check_law(old, bytes(new), ranges)
    assert source.count < len(ranges) * 3 * ALIGNED.average
    assert source.announced[: len(ranges)] == [
        (run.start, run.stop - run.start) for run in _plan(old, ranges)
    ]


def _plan(old: bytes, ranges: Sequence[tuple[int, int]]) -> list[ReadRange]:
    writer = MemoryWriter()
    return list(plan(writer.recipe(ingest(writer, MemorySource(old), ALIGNED)), ranges))


def test_the_run_is_read_on_when_no_cut_falls_where_the_parents_did() -> None:
    """The block that ended a chunk changed: whatever comes now, the recipe is right in the end."""
    old = random_bytes(400 * BLOCK, 1)
    further = 0
    for start in piece_starts(old, holes=False)[1:40]:
        new = old[: start - BLOCK] + random_bytes(BLOCK, start) + old[start:]
        source = check_law(old, new, [(start - BLOCK, start)])
        further += len(source.reads) > 1
    assert further > 10


def test_an_unread_run_goes_on_right_into_the_next_one() -> None:
    old = random_bytes(400 * BLOCK, 1)
    for start in piece_starts(old, holes=False)[1:30]:
        for gap in (20, 30, 40):
            second = start + gap * BLOCK
            new = bytearray(old)
            new[start - BLOCK : start] = random_bytes(BLOCK, start)
            new[second : second + BLOCK] = bytes(BLOCK)
            check_law(old, bytes(new), [(start - BLOCK, start), (second, second + BLOCK)])


def test_a_parent_cut_by_another_rule_costs_chunks_and_not_content() -> None:
    other = ChunkerSpec(ChunkerKind.ALIGNED, 64 << 10)
    old = random_bytes(400 * BLOCK, 1)
    for at in range(3, 390, 7):
        writer = MemoryWriter()
        new = old[: at * BLOCK] + random_bytes(BLOCK, 5) + old[(at + 1) * BLOCK :]
        parent = ingest(writer, MemorySource(old), other)
        found = ingest_what_changed(writer, parent, MemorySource(new), [(at * BLOCK, (at + 1) * BLOCK)])
        assert writer.content(found) == new


# ---- what it refuses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [[(5, 9), (4, 8)], [(0, 500_001)], [(-1, 5)], [(9, 5)]])
def test_impossible_ranges_are_refused(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="out of order, or outside"):
        check_law(bytes(500_000), bytes(500_000), ranges)


def test_another_size_or_another_rule_is_refused() -> None:
    writer = MemoryWriter()
    parent = ingest(writer, MemorySource(bytes(8192)), ALIGNED)
    for content, spec in ((bytes(8193), ALIGNED), (bytes(8192), STREAM)):
        with pytest.raises(ValueError, match="kept their size"):
            ingest_what_changed(writer, parent, MemorySource(content), [], spec=spec)


def test_errors_of_source_writer_and_parent_come_through() -> None:
    old = random_bytes(60 * BLOCK, 1)
    writer = MemoryWriter()
    parent = ingest(writer, MemorySource(old), ALIGNED)

    def drop(offset: int) -> None:
        raise StreamFailed("gone")

    with pytest.raises(StreamFailed, match="gone"):
        ingest_what_changed(writer, parent, MemorySource(old, before=drop), [(0, BLOCK)])
    writer.fail = StreamFailed("full")
    with pytest.raises(StreamFailed, match="full"):
        ingest_what_changed(writer, parent, MemorySource(old), [(0, BLOCK)])

    def lost(id_: ChunkID) -> None:
        raise Damaged("node", "lost")

    pipeline = Pipeline(writer, KEYS, ignore, threads=2, unit=UNIT)
    broken = Recipe(parent.recipe, parent.size, lost)  # type: ignore[arg-type]  # never returns
    with pytest.raises(Damaged, match="lost"):
        ingest_changes(pipeline, MemorySource(old), ALIGNED, broken, [(0, BLOCK)])


# ---- what a bitmap is worth ---------------------------------------------------------------------------


def snapshot_of(**changes: object) -> StoredSnapshot:
    settings: dict[str, object] = {
        "path": "disks/sda.raw",
        "kind": ItemKind.DISK,
        "size": 1 << 30,
        "allocated": 0,
        "mtime": 0,
        "chunker": DISK,
        "recipe": ChunkID(bytes(32)),
        "checkpoint": "monday",
    } | changes
    item = Item(**settings)  # type: ignore[arg-type]  # fields by name
    return StoredSnapshot(SnapshotID("ab" * 32), make_snapshot(item))


def test_a_bitmap_is_tied_to_the_snapshot_taken_when_it_began() -> None:
    parent = snapshot_of()
    found = find_bitmap_parent(parent, "disks/sda.raw", "monday", 1 << 30, True)
    assert found.item is parent.snapshot.items[0]
    assert found.reason == ""


@pytest.mark.parametrize(
    ("changes", "bitmap", "size", "known_complete", "reason"),
    [
        ({}, "tuesday", 1 << 30, True, "abababab was not taken at the start of bitmap tuesday: reading all"),
        ({"checkpoint": ""}, "", 1 << 30, True, "was not taken at the start"),
        ({}, "monday", 1 << 31, True, "has disks/sda.raw with 1073741824 bytes, now there are 2147483648"),
        ({"bad": (BadRange(0, 1, "x"),)}, "monday", 1 << 30, True, "lacks parts"),
        ({"chunker": STREAM}, "monday", 1 << 30, True, "cut by another rule"),
        ({"kind": ItemKind.FILE}, "monday", 1 << 30, True, "cut by another rule"),
        ({"path": "disks/b"}, "monday", 1 << 30, True, "has no disks/sda.raw"),
        ({}, "monday", 1 << 30, False, "not known to be complete"),
    ],
)
def test_a_bitmap_that_counts_from_elsewhere_has_everything_read(
    changes: dict[str, object], bitmap: str, size: int, known_complete: bool, reason: str
) -> None:
    found = find_bitmap_parent(snapshot_of(**changes), "disks/sda.raw", bitmap, size, known_complete)
    assert found.item is None
    assert reason in found.reason


def test_without_a_parent_everything_is_read() -> None:
    assert "no earlier snapshot" in find_bitmap_parent(None, "disks/sda.raw", "monday", 1, True).reason
