"""The pipeline's law: with a parent, without one, or cut in one call, a file has the same recipe."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, SourceError, StoreError
from holdfast.base.types import Buffer, ChunkID
from holdfast.ingest.pipeline.pipeline import Pipeline
from holdfast.ingest.sources.source import FileSource, StreamSource
from holdfast.repo.chunks.chunker import BLOCK, Chunker, ChunkerKind, ChunkerSpec
from holdfast.repo.chunks.recipe import Recipe, RecipeNode
from support.basics import MemorySource, random_bytes
from support.pipeline import KEYS, UNIT, MemoryWriter, cut_directly, ingest, same_recipe

ALIGNED = ChunkerSpec(ChunkerKind.ALIGNED, 16 << 10)
GEAR = ChunkerSpec(ChunkerKind.GEAR, 4 << 10)
SPECS = [ALIGNED, GEAR]


# ---- contents and edits -------------------------------------------------------------------------------


def text(length: int, seed: int) -> bytes:
    line = b"INSERT INTO t VALUES (%d, 'row');\n" % seed
    return (line * (length // len(line) + 1))[:length]


makers = st.sampled_from([random_bytes, random_bytes, text, lambda length, seed: bytes(length)])
lengths = st.one_of(st.integers(0, 30).map(lambda n: n * BLOCK), st.integers(0, 90_000))
segments = st.builds(lambda make, length, seed: make(length, seed), makers, lengths, st.integers(0, 99))
contents = st.lists(segments, max_size=7).map(b"".join)

places = st.one_of(st.integers(0, 100).map(lambda n: n * BLOCK), st.integers(0, 400_000))
actions = st.sampled_from(["insert", "delete", "overwrite", "zero", "fill", "truncate", "append"])
edits = st.lists(st.tuples(actions, places, segments), max_size=4)


def edited(content: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for action, place, data in changes:
        at = min(place, len(content))
        if action == "fill":
            at, data = into_hole(content, at, data)  # noqa: PLW2901
        before, after = content[:at], content[at:]
        behind = content[at + len(data) :]
        content = {
            "insert": before + data + after,
            "delete": before + behind,
            "overwrite": before + data + behind,
            "fill": before + data + behind,
            "zero": before + bytes(len(data)) + behind,
            "truncate": before,
            "append": content + data,
        }[action]
    return content


def into_hole(content: bytes, place: int, data: bytes) -> tuple[int, bytes]:
    """Where the first run of zero blocks behind `place` begins, and as much of `data` as goes in there: the
    chunk before it ended for no other reason than the run."""
    blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
    first = -(-place // BLOCK)
    while first < len(blocks) and (any(blocks[first]) or not first or not any(blocks[first - 1])):
        first += 1
    last = first
    while last < len(blocks) and not any(blocks[last]):
        last += 1
    return first * BLOCK, data[: (last - first) * BLOCK]


# ---- the law ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind.value)
@settings(max_examples=150)
@given(contents, edits)
def test_the_recipe_is_the_same_with_a_parent_without_one_and_cut_directly(
    spec: ChunkerSpec, old: bytes, changes: list[tuple[str, int, bytes]]
) -> None:
    new = edited(old, changes)
    expected = cut_directly(new, spec)
    writer = MemoryWriter()
    before = ingest(writer, MemorySource(old), spec)
    assert same_recipe(before, cut_directly(old, spec))
    for parent, present in ((None, False), (writer.recipe(before), False), (writer.recipe(before), True)):
        found = ingest(writer, MemorySource(new), spec, parent, present=present)
        assert writer.content(found) == new
        assert same_recipe(found, expected)
        assert writer.content(found) == new


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind.value)
@settings(max_examples=30)
@given(contents, contents)
def test_a_parent_that_has_nothing_to_do_with_it_changes_nothing(
    spec: ChunkerSpec, old: bytes, new: bytes
) -> None:
    writer = MemoryWriter()
    parent = writer.recipe(ingest(writer, MemorySource(old), spec))
    assert same_recipe(ingest(writer, MemorySource(new), spec, parent), cut_directly(new, spec))


def first_unnatural_end(content: bytes, spec: ChunkerSpec) -> int:
    """Where a chunk ends because a hole follows, and not because of its bytes."""
    at = 0
    chunker = Chunker(spec, KEYS.cut)
    pieces = chunker.cut(content, final=True)
    for piece, after in zip(pieces, [*pieces[1:], 0], strict=True):
        part = content[at : at + abs(piece)]
        at += abs(piece)
        if piece > 0 and after <= 0 and chunker.cut(part, final=False) != [piece]:
            return at
    raise AssertionError("no such chunk: choose other bytes")


def test_a_chunk_that_ended_at_a_hole_goes_on_when_the_hole_is_filled() -> None:
    old = random_bytes(50 * BLOCK, 3) + bytes(10 * BLOCK) + random_bytes(50 * BLOCK, 4)
    end = first_unnatural_end(old, ALIGNED)
    new = old[:end] + random_bytes(10 * BLOCK, 5) + old[end + 10 * BLOCK :]
    writer = MemoryWriter()
    parent = writer.recipe(ingest(writer, MemorySource(old), ALIGNED))
    found = ingest(writer, MemorySource(new), ALIGNED, parent)
    assert same_recipe(found, cut_directly(new, ALIGNED))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind.value)
def test_a_chunk_that_ended_with_the_file_goes_on_when_the_file_grows(spec: ChunkerSpec) -> None:
    old = random_bytes(200_000, 3)
    new = old + random_bytes(100_000, 4)
    writer = MemoryWriter()
    parent = writer.recipe(ingest(writer, MemorySource(old), spec))
    assert same_recipe(ingest(writer, MemorySource(new), spec, parent), cut_directly(new, spec))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind.value)
def test_an_unchanged_file_is_hardly_cut_at_all(spec: ChunkerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parent is for. Only around the borders of two units something is cut anew."""
    content = random_bytes(128 * UNIT, 1)
    writer = MemoryWriter()
    before = ingest(writer, MemorySource(content), spec, unit=16 * UNIT)
    seen: list[int] = []
    real = Chunker.cut

    def cut(self: Chunker, data: Buffer, *, final: bool) -> list[int]:
        seen.append(sum(map(abs, pieces := real(self, data, final=final))))
        return pieces

    monkeypatch.setattr(Chunker, "cut", cut)
    again = ingest(writer, MemorySource(content), spec, writer.recipe(before), unit=16 * UNIT)
    assert same_recipe(again, before)
    assert sum(seen) < len(content) // 2


# ---- ways to read the same ----------------------------------------------------------------------------

hole_maps = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30)), max_size=5)


@settings(max_examples=40)
@given(contents, hole_maps, st.sampled_from(SPECS), edits)
@example(b"", [(0, 3)], ALIGNED, [])
def test_a_sparse_file_has_the_recipe_of_the_same_bytes_without_holes(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    holes: list[tuple[int, int]],
    spec: ChunkerSpec,
    changes: list[tuple[str, int, bytes]],
) -> None:
    sparse = bytearray(content)
    for block, count in holes:
        start, end = block * BLOCK, min((block + count) * BLOCK, len(sparse))
        sparse[start:end] = bytes(max(0, end - start))
    folder = tmp_path_factory.mktemp("sparse")
    full, thin = folder / "full", folder / "thin"
    full.write_bytes(sparse)
    with thin.open("wb") as file:
        file.truncate(len(sparse))
        for at in range(0, len(sparse), BLOCK):
            if any(sparse[at : at + BLOCK]):
                os.pwrite(file.fileno(), sparse[at : at + BLOCK], at)
    expected = cut_directly(bytes(sparse), spec)
    writer = MemoryWriter()
    parent = writer.recipe(ingest(writer, MemorySource(edited(bytes(sparse), changes)), spec))
    for path in (full, thin):
        for guide in (None, parent):
            with FileSource(path) as source:
                assert same_recipe(ingest(writer, source, spec, guide), expected)


@settings(max_examples=60)
@given(contents, st.sets(st.integers(0, 90), max_size=12), edits)
def test_holes_anywhere_between_data_change_nothing(
    content: bytes, blocks: set[int], changes: list[tuple[str, int, bytes]]
) -> None:
    holes = [(b * BLOCK, b * BLOCK + BLOCK) for b in sorted(blocks) if (b + 1) * BLOCK <= len(content)]
    sparse = bytearray(content)
    for start, end in holes:
        sparse[start:end] = bytes(BLOCK)
    writer = MemoryWriter()
    parent = writer.recipe(ingest(writer, MemorySource(edited(bytes(sparse), changes)), ALIGNED))
    expected = cut_directly(bytes(sparse), ALIGNED)
    for guide in (None, parent):
        found = ingest(writer, MemorySource(bytes(sparse), holes=holes), ALIGNED, guide)
        assert same_recipe(found, expected)


@settings(max_examples=30)
@given(contents, st.lists(st.integers(1, 70_000), min_size=1, max_size=6), st.sampled_from(SPECS))
def test_a_stream_in_odd_pieces_has_the_recipe_of_the_file(
    content: bytes, sizes: list[int], spec: ChunkerSpec
) -> None:
    ours, theirs = os.pipe()

    def feed() -> None:
        with os.fdopen(theirs, "wb", buffering=0) as file:
            at = turn = 0
            while at < len(content):
                size = sizes[turn % len(sizes)]
                file.write(content[at : at + size])
                at, turn = at + size, turn + 1

    feeder = threading.Thread(target=feed)
    feeder.start()
    source = StreamSource(os.fdopen(ours, "rb", buffering=0), "stdin")
    writer = MemoryWriter()
    found = ingest(writer, source, spec)
    feeder.join()
    source.close()
    assert same_recipe(found, cut_directly(content, spec))
    parent = writer.recipe(found)
    stream = MemorySource(content, is_stream=True)
    assert same_recipe(ingest(writer, stream, spec, parent), found)


@pytest.mark.parametrize("size", [0, 1, UNIT - 1, UNIT, UNIT + 1, 3 * UNIT])
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind.value)
def test_sizes_around_the_unit(spec: ChunkerSpec, is_stream: bool, size: int) -> None:
    content = random_bytes(size, size)
    found = ingest(MemoryWriter(), MemorySource(content, is_stream=is_stream), spec)
    assert same_recipe(found, cut_directly(content, spec))


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_any_number_of_workers_gives_the_same(threads: int) -> None:
    content = random_bytes(20 * UNIT + 5, 1) + bytes(3 * UNIT) + random_bytes(5 * UNIT, 2)
    progress: list[int] = []
    writer = MemoryWriter()
    pipeline = Pipeline(writer, KEYS, progress.append, threads=threads, unit=UNIT, pause=1)
    found = pipeline.ingest(MemorySource(content), ALIGNED, None)
    assert same_recipe(found, cut_directly(content, ALIGNED))
    assert sum(progress) == len(content)


# ---- when something fails -----------------------------------------------------------------------------


def test_a_damaged_parent_only_costs_time() -> None:
    content = random_bytes(20 * UNIT, 1)
    writer = MemoryWriter()
    before = ingest(writer, MemorySource(content), GEAR)
    loads = 0

    def load(id_: ChunkID) -> RecipeNode:
        nonlocal loads
        loads += 1
        if loads > 3:
            raise Damaged(id_.hex(), "worn out")
        return writer.load(id_)

    for broken in (Recipe(before.recipe, before.size, load), Recipe(before.recipe, 5, writer.load)):
        assert same_recipe(ingest(writer, MemorySource(content), GEAR, broken), before)
    assert loads == 4


def test_a_chunk_that_the_parent_has_is_still_put_so_that_damage_heals() -> None:
    content = random_bytes(10 * UNIT, 1)
    writer = MemoryWriter()
    before = ingest(writer, MemorySource(content), GEAR)
    parent = writer.recipe(before)
    writer.chunks.clear()
    assert writer.content(ingest(writer, MemorySource(content), GEAR, parent)) == content


def test_what_the_parent_is_known_to_have_is_neither_cut_nor_looked_up() -> None:
    content = random_bytes(10 * UNIT, 1)
    writer = MemoryWriter()
    before = ingest(writer, MemorySource(content), GEAR)
    parent = writer.recipe(before)
    writer.chunks.clear()
    assert same_recipe(ingest(writer, MemorySource(content), GEAR, parent, present=True), before)
    put_again = sum(map(len, writer.chunks.values()))
    assert put_again < len(content) / 2  # only what lies across the borders of the small units


def test_an_error_of_the_repository_ends_it() -> None:
    writer = MemoryWriter(fail=StoreError("write", "packs/x", OSError(5, "no")))
    with pytest.raises(StoreError):
        ingest(writer, MemorySource(random_bytes(40 * UNIT, 1)), GEAR)


def test_an_error_of_the_source_ends_it() -> None:
    def before(offset: int) -> None:
        if offset > 10 * UNIT:
            raise SourceError("gone")

    with pytest.raises(SourceError, match="gone"):
        ingest(MemoryWriter(), MemorySource(random_bytes(40 * UNIT, 1), before=before), GEAR)


def test_memory_does_not_grow_with_the_source() -> None:
    """The reader waits for buffers: it is never more than a few units ahead of what is stored."""
    stored, ahead = [0], [0]

    class Counting(MemoryWriter):
        def put(self, chunks: Sequence[Buffer], ids: Sequence[ChunkID]) -> None:
            stored[0] += sum(map(len, chunks))

    source = MemorySource(random_bytes(100 * UNIT, 1), before=lambda offset: ahead.append(offset - stored[0]))
    ingest(Counting(), source, GEAR)
    assert max(ahead) <= 10 * UNIT


def test_sources_in_files_are_left_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(random_bytes(3 * UNIT, 1))
    before = path.stat()
    with FileSource(path) as source:
        ingest(MemoryWriter(), source, GEAR)
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
