"""Scanned sources: chunks end where sections do, whatever way the stream came; the catalogue beside it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.types import Buffer, ChunkID
from holdfast.formats.dumps.core.catalogue import Catalogue, Section, decode
from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.postgresql.plain.scan import PostgresVisitor
from holdfast.ingest.pipeline.pipeline import IngestResult, Pipeline
from holdfast.ingest.sources.source import FileSource, Source, StreamSource
from holdfast.ingest.sources.wrapped import Peeked, ScannedSource, Wrapped, innermost
from holdfast.repo.chunks.chunker import DUMP, ChunkerKind, ChunkerSpec
from holdfast.repo.chunks.recipe import Recipe, RecipeBuilder, RecipeNode, decode_node
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import Keys, Suite
from holdfast.repo.snapshots.histories import HistoryChoice
from holdfast.repo.snapshots.snapshot import BadRange, Item
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth, check
from holdfast.repo.upkeep.forget import forget
from holdfast.repo.upkeep.prune import execute
from holdfast.repo.upkeep.prune_plan import make_plan
from support.basics import NOW, MemorySource, backup, ignore, new_repository, random_bytes, read_item

KEYS = Keys.of(bytes(range(32)), {1: bytes(range(32))}, bytes(16), Suite.AES_256_GCM)
SPEC = ChunkerSpec(ChunkerKind.GEAR, 4 << 10)
UNIT = 64 << 10
AHEAD = 16 << 10


@dataclass
class Marks:
    """A scanner whose sections end at these offsets; each is known `delay` bytes later, or at the next."""

    ends: Sequence[int]
    delay: int = 0
    seen: bytearray = field(default_factory=bytearray)
    told: int = 0

    def feed(self, data: Buffer) -> list[int]:
        self.seen += data
        known = [end for end in self.ends if end + self.delay <= len(self.seen)]
        new = known[self.told :]
        self.told = len(known)
        return new

    def finish(self) -> Catalogue:
        return Catalogue("sqlite", "sql", (Section(0, len(self.seen), "ALL"),))


class Chunks:
    """Takes chunks and nodes as a Writer does."""

    def __init__(self) -> None:
        self.chunks: dict[ChunkID, bytes] = {}
        self.nodes: dict[ChunkID, bytes] = {}

    def put(self, chunks: Sequence[Buffer], ids: Sequence[ChunkID]) -> None:
        self.chunks.update((id_, bytes(chunk)) for chunk, id_ in zip(chunks, ids, strict=True))

    def put_node(self, node: bytes) -> ChunkID:
        id_ = KEYS.node_chunk_id(node)
        self.nodes[id_] = node
        return id_

    def load(self, id_: ChunkID) -> RecipeNode:
        return decode_node(self.nodes[id_], id_.hex())

    def recipe(self, found: IngestResult) -> Recipe:
        return Recipe(found.recipe, found.size, self.load)

    def content(self, found: IngestResult) -> bytes:
        return b"".join(self.chunks[e.id] for e in self.recipe(found).extents() if e.id)


def ingest(chunks: Chunks, source: Source, *, unit: int = UNIT) -> IngestResult:
    return Pipeline(chunks, KEYS, ignore, threads=2, unit=unit).ingest(source, SPEC, None)


def scanned(source: Source, scanner: Marks) -> ScannedSource:
    return ScannedSource(source, scanner, ahead=AHEAD)


def section_by_section(content: bytes, ends: Sequence[int]) -> ChunkID:
    """Every section stored by itself, and all their chunks in one recipe: what every way must give."""
    chunks = Chunks()
    whole = RecipeBuilder(chunks.put_node)
    for start, end in zip([0, *ends], [*ends, len(content)], strict=True):
        part = ingest(chunks, MemorySource(content[start:end]))
        for extent in chunks.recipe(part).extents():
            assert extent.id is not None
            whole.add_chunk(extent.id, extent.length)
    return whole.finish()


@contextmanager
def piped(content: bytes, sizes: Sequence[int]) -> Iterator[StreamSource]:
    """A pipe that gives a few bytes at a time."""
    ours, theirs = os.pipe()

    def feed() -> None:
        with os.fdopen(theirs, "wb", buffering=0) as file:
            at = turn = 0
            while at < len(content):
                at += file.write(content[at : at + sizes[turn % len(sizes)]])
                turn += 1

    feeder = threading.Thread(target=feed)
    feeder.start()
    source = StreamSource(os.fdopen(ours, "rb", buffering=0), "stdin")
    yield source
    feeder.join()
    source.close()


lengths = st.sampled_from([0, 1, 100, 4096, UNIT - AHEAD, UNIT - 1, UNIT, UNIT + 1, 2 * UNIT, 3 * UNIT]) | (
    st.integers(0, 150_000)
)
cuts = st.lists(st.integers(0, 1 << 20), max_size=10)


def content_and_ends(length: int, places: Sequence[int]) -> tuple[bytes, list[int]]:
    """Noise with zeros and repetitions in it, as dumps have them, and where its sections end."""
    content = random_bytes(length // 2, length) + bytes(length // 4) + b"row\n" * (length // 4 + 1)
    content = content[:length]
    return content, sorted({place % length for place in places} - {0}) if length else []


# ---- the law ------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(lengths, cuts, st.integers(0, AHEAD), st.lists(st.integers(1, 70_000), min_size=1, max_size=4))
def test_the_recipe_is_that_of_its_sections_however_the_stream_comes(
    length: int, places: list[int], delay: int, sizes: list[int]
) -> None:
    content, ends = content_and_ends(length, places)
    expected = section_by_section(content, [end for end in ends if end + delay <= length])
    chunks = Chunks()
    for source in (MemorySource(content), MemorySource(content, is_stream=True)):
        scanner = Marks(ends, delay)
        found = ingest(chunks, scanned(source, scanner))
        assert (found.recipe, found.size, chunks.content(found)) == (expected, length, content)
        assert scanner.seen == content
    with piped(content, sizes) as stream:
        assert ingest(chunks, scanned(stream, Marks(ends, delay))).recipe == expected


@pytest.mark.parametrize("length", [0, 1, UNIT, 3 * UNIT, 3 * UNIT + 5])
def test_a_file_has_the_recipe_of_the_stream(tmp_path: Path, length: int) -> None:
    content, ends = content_and_ends(length, [1, 5000, UNIT, UNIT + 1, 2 * UNIT - 1])
    path = tmp_path / "shop.sql"
    path.write_bytes(content)
    with FileSource(path) as source:
        found = ingest(Chunks(), scanned(source, Marks(ends)))
    assert found.recipe == section_by_section(content, ends)


@given(lengths, cuts, st.integers(AHEAD + 1, 6 * UNIT))
def test_a_border_that_is_known_too_late_costs_deduplication_and_no_byte(
    length: int, places: list[int], delay: int
) -> None:
    content, ends = content_and_ends(length, places)
    chunks = Chunks()
    found = ingest(chunks, scanned(MemorySource(content, is_stream=True), Marks(ends, delay)))
    assert chunks.content(found) == content


@given(lengths, cuts, st.lists(st.integers(0, 2 * UNIT), min_size=1, max_size=5), st.booleans())
def test_any_reads_give_the_bytes_and_each_border_once(
    length: int, places: list[int], reads: list[int], is_stream: bool
) -> None:
    content, ends = content_and_ends(length, places)
    source = scanned(MemorySource(content, is_stream=is_stream), Marks(ends, 100))
    found, turn = bytearray(), 0
    told: list[int] = []
    while len(found) < length:
        buffer = memoryview(bytearray(reads[turn % len(reads)] + turn % 2))
        count = source.read_into(buffer, len(found))
        assert count == min(len(buffer), length - len(found))
        found += buffer[:count]
        told += source.borders(len(found))
        turn += 1
    assert found == content
    assert told == [end for end in ends if end + 100 <= length]
    assert source.borders(length) == []


def test_holes_are_read_like_data() -> None:
    content = bytes(1 << 20)
    inner = MemorySource(content, holes=[(0, 1 << 20)])
    scanner = Marks([])
    assert ingest(Chunks(), ScannedSource(inner, scanner), unit=4 << 20).size == len(scanner.seen) == 1 << 20


def test_what_is_wrapped_speaks_for_itself() -> None:
    closed: list[str] = []
    inner = MemorySource(b"x" * 5000, "a.sql", note="written to", bad=[BadRange(0, 5, "no")], mtime=7)
    inner.close = lambda: closed.append("a.sql")  # type: ignore[method-assign]
    source = ScannedSource(Peeked(inner, 10), Marks([]))
    assert (source.name, source.size, source.mtime, source.bad) == ("a.sql", 5000, 7, inner.bad)
    assert source.finish() == "written to"
    source.close()
    assert closed == ["a.sql"]
    assert innermost(source) is innermost(inner) is inner
    assert [e.length for e in Wrapped(inner).extents(holes=True)] == [5000]


@given(lengths, st.integers(0, 1 << 18), st.lists(st.integers(1, UNIT), min_size=1, max_size=4))
def test_what_was_read_before_its_time_comes_again(length: int, peek: int, reads: list[int]) -> None:
    content = random_bytes(length, 1)
    with piped(content, [50_000]) as stream:
        source = Peeked(stream, peek)
        assert source.head == content[:peek]
        found, turn = bytearray(), 0
        while True:
            buffer = memoryview(bytearray(reads[turn % len(reads)]))
            count = source.read_into(buffer, len(found))
            found += buffer[:count]
            turn += 1
            if count < len(buffer):
                break
    assert found == content


# ---- what it is for -----------------------------------------------------------------------------------

HEAD = b"--\n-- PostgreSQL database dump\n--\n\n"
TAIL = b"--\n-- PostgreSQL database dump complete\n--\n\n"


def table(name: str, rows: int, seed: int) -> bytes:
    noise = random_bytes(rows * 20, seed)
    lines = b"".join(b"%d\t%s\n" % (n, noise[20 * n : 20 * n + 20].hex().encode()) for n in range(rows))
    return (
        b"CREATE TABLE public.%s (n integer, x text);\nCOPY public.%s (n, x) FROM stdin;\n"
        % (name.encode(), name.encode())
        + lines
        + b"\\.\n\n"
    )


def dump(first: int, *, tables: int = 12, rows: int = 200) -> bytes:
    """A first table of so many rows, and others that are shorter than the chunker's own chunks."""
    return HEAD + table("first", first, 99) + b"".join(table(f"t{n}", rows, n) for n in range(tables)) + TAIL


def ids(repository: Repository, item: Item) -> list[ChunkID | None]:
    return [extent.id for extent in Reader(repository).recipe(item).extents()]


def catalogue_of(repository: Repository, item: Item) -> Catalogue:
    assert item.catalogue is not None
    reader = Reader(repository)
    return decode(reader.read(reader.recipe(item.catalogue), 0, item.catalogue.size), "", item.size)


def test_an_unchanged_table_costs_nothing_when_the_one_before_it_grew(
    memory_repository: Repository,
) -> None:
    before, after = dump(300), dump(450)
    (old,) = backup(memory_repository, MemorySource(before, "shop.sql")).stored.snapshot.items
    second = backup(memory_repository, MemorySource(after, "shop.sql")).stored.snapshot
    (new,) = second.items
    assert read_item(memory_repository, new) == after
    rows = [s for s in catalogue_of(memory_repository, new).sections if s.type == "TABLE DATA"]
    borders = Scanner(PostgresVisitor()).feed(after)
    assert len(borders) == len(rows), "one behind each table: the next begins too near for another"
    assert set(borders) <= {extent.start for extent in Reader(memory_repository).recipe(new).extents()}
    first = rows[0].start + rows[0].length
    for extent in Reader(memory_repository).recipe(new).extents():
        if extent.start >= first:
            assert extent.id in ids(memory_repository, old), extent
    written = [e for e in Reader(memory_repository).recipe(new).extents() if e.start < first]
    assert second.stats.new_chunks <= len(written) + 3, "one node of each recipe, and the catalogue"


def test_a_scanned_dump_follows_no_parent_and_is_none_the_dearer(memory_repository: Repository) -> None:
    content = dump(2000, rows=2000)
    backup(memory_repository, MemorySource(content, "shop.sql"))
    again = backup(memory_repository, MemorySource(content, "shop.sql")).stored.snapshot
    assert (again.stats.new, again.stats.new_chunks) == (0, 0)


def test_real_scanners_know_their_borders_in_time() -> None:
    """An INSERT's border is known when the names in it are: 64 KiB behind it at most."""
    names = b", ".join(b'"%060d"' % n for n in range(950))
    inserts = (b"INSERT INTO public.wide (%s) VALUES (%d);\n" % (names, n) for n in range(3))
    for edge in range((1 << 20) - 70_000, (1 << 20) + 2_000, 8_000):
        padding = b"-- %s\n" % (b"x" * (edge - len(HEAD) - 4))
        content = (
            HEAD + padding + b"".join(table("t", 9000, 1) if n else next(inserts) for n in range(2)) + TAIL
        )
        chunks = Chunks()
        found = ingest(chunks, ScannedSource(MemorySource(content), Scanner(PostgresVisitor())), unit=1 << 20)
        assert edge in {extent.start for extent in chunks.recipe(found).extents()}
        inserts = (b"INSERT INTO public.wide (%s) VALUES (%d);\n" % (names, n) for n in range(3))


# ---- what stands where is stored, kept and checked ----------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[tuple[MemoryStore, Repository, Item]]:
    """Two dumps of one database, the first of which was forgotten, and the item of the second."""
    store = MemoryStore()
    with new_repository(store, tmp_path / "cache") as repository:
        first = backup(repository, MemorySource(dump(5000, rows=5000), "shop.sql")).stored
        second = backup(
            repository,
            MemorySource(dump(10, tables=1500, rows=1), "shop.sql"),
            time=NOW + timedelta(1),
            choice=HistoryChoice.SAME,  # the two have no chunk in common
        ).stored
        forget(repository, [first.id])
        yield store, repository, second.snapshot.items[0]


def test_the_catalogue_survives_prune(stored: tuple[MemoryStore, Repository, Item]) -> None:
    _, repository, item = stored
    before = catalogue_of(repository, item)
    assert len([s for s in before.sections if s.type == "TABLE DATA"]) == 1501
    freed = 0
    for day in range(3):
        plan = make_plan(repository, max_unused=0.0)
        now = 2e9 + day * 86400
        done = execute(repository, plan, quarantine=timedelta(0), now=partial(float, now), lock_timeout=0.0)
        freed += done.freed_bytes
    assert freed > 100_000
    assert catalogue_of(repository, item) == before
    assert check(repository, Depth.READ_DATA).findings == []


def test_damage_in_the_catalogue_is_found(stored: tuple[MemoryStore, Repository, Item]) -> None:
    store, repository, item = stored
    assert check(repository, Depth.READ_DATA).findings == []
    assert item.catalogue
    (extent, *_) = Reader(repository).recipe(item.catalogue).extents()
    assert extent.id
    (place,) = repository.index.lookup([extent.id])
    assert place
    name = FileKind.PACK, place.pack
    pack = bytearray(store.files[name])
    pack[place.offset + place.length // 2] ^= 1
    store.files[name] = bytes(pack)
    findings = check(repository, Depth.READ_DATA).findings
    assert any(name.endswith(":dump.sql") for finding in findings for name in finding.affects), findings


def test_a_dump_that_no_scanner_knows_has_no_catalogue(memory_repository: Repository) -> None:
    content = b"SQLite format 3\0" + random_bytes(50_000, 1)
    (item,) = backup(memory_repository, MemorySource(content, "a.db")).stored.snapshot.items
    assert (item.catalogue, item.chunker) == (None, DUMP)
    assert read_item(memory_repository, item) == content
