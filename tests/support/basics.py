"""Small repositories, bytes from seeds, sources and targets in memory, for several test modules."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast.base.types import Buffer, ChunkID, SnapshotID
from holdfast.ingest.backup.backup import BackupOutcome, BackupRequest, back_up
from holdfast.ingest.backup.plan import plan_items
from holdfast.ingest.sources.source import (
    Source,
    SourceExtent,
)
from holdfast.repo.chunks.chunker import BLOCK, STREAM, ChunkerSpec
from holdfast.repo.chunks.recipe import RecipeBuilder
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.format.crypto import Argon2Cost
from holdfast.repo.format.format import PACK_TARGET
from holdfast.repo.snapshots.snapshot import (
    BadRange,
    Consistency,
    Item,
    ItemKind,
    Snapshot,
    StoredSnapshot,
    Subject,
    SubjectKind,
)
from holdfast.repo.store.interface import Store

PASSWORD = "correct horse"
CHEAP = Argon2Cost(64, 1, 1)
"""Argon2id that takes no time; what it costs is no subject of these tests."""
NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def need(condition: object, reason: str) -> None:
    """Skip a test that cannot run here. In continuous integration nothing may be missing: fail."""
    if condition:
        return
    if os.environ.get("HOLDFAST_CI"):
        pytest.fail(f"missing here: {reason}")
    pytest.skip(reason)


def random_bytes(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


def ignore(count: int) -> None:
    """A progress function."""


# ---- repositories -------------------------------------------------------------------------------------


def new_repository(
    store: Store, cache: Path, *, password: str = PASSWORD, pack_target: int = PACK_TARGET
) -> Repository:
    """Make a repository and open it. Close it before another one is opened over the same index."""
    Repository.create(store, password, created=NOW, cost=CHEAP)
    return open_repository(store, cache, password=password, pack_target=pack_target)


def open_repository(
    store: Store, cache: Path, *, password: str = PASSWORD, pack_target: int = PACK_TARGET
) -> Repository:
    return Repository.open(store, lambda: password, cache=cache, pack_target=pack_target)


def put_item(
    writer: Writer, repository: Repository, parts: Sequence[bytes | int], path: str = "file"
) -> Item:
    """Store a file made of chunks (bytes) and holes (their length), cut as given."""
    recipe = RecipeBuilder(writer.put_node)
    for part in parts:
        if isinstance(part, int):
            recipe.add_hole(part)
            continue
        id_ = repository.keys.data_chunk_id(part)
        writer.put([part], [id_])
        recipe.add_chunk(id_, len(part))
    return make_item(recipe.finish(), recipe.size, path=path, allocated=recipe.allocated)


def make_item(
    recipe: ChunkID, size: int, *, path: str = "file", allocated: int = 0, chunker: ChunkerSpec = STREAM
) -> Item:
    return Item(path, ItemKind.FILE, size, allocated, 0, chunker, recipe)


def make_snapshot(*items: Item, name: str = "etc", hours: float = 0) -> Snapshot:
    return Snapshot(
        subject=Subject(SubjectKind.FILES, name),
        time=NOW + timedelta(hours=hours),
        host="host",
        source="source",
        consistency=Consistency.UNKNOWN,
        evidence="",
        items=items,
        program="test",
    )


def make_stored(*items: Item, number: int = 1, hours: float = 0) -> StoredSnapshot:
    """A snapshot with a made-up ID, which begins with `number`."""
    return StoredSnapshot(SnapshotID(f"{number:08x}".ljust(64, "0")), make_snapshot(*items, hours=hours))


def store_file(repository: Repository, parts: Sequence[bytes | int], *, hours: float = 0) -> Item:
    """Commit a snapshot with one file and return its item."""
    with Writer(repository) as writer:
        item = put_item(writer, repository, parts)
        writer.commit(make_snapshot(item, hours=hours))
    return item


def read_item(repository: Repository, item: Item) -> bytes:
    reader = Reader(repository)
    return reader.read(reader.recipe(item), 0, item.size)


def backup(repository: Repository, *sources: Source, **changes: object) -> BackupOutcome:
    """`back_up` with a request that `changes` fields of."""
    settings: dict[str, object] = {
        "name": "subject",
        "host": "host",
        "program": "test",
        "time": NOW,
    } | changes
    items = plan_items(sources, settings.get("kind"))  # type: ignore[arg-type]  # a field by name
    request = BackupRequest(items=items, **settings)  # type: ignore[arg-type]  # fields by name
    return back_up(repository, request, progress=ignore, clock=lambda: 0.0)


# ---- sources and targets ------------------------------------------------------------------------------


@dataclass
class MemorySource:
    """A source in memory. `holes` are (start, end) at 4 KiB edges; `size` None makes it a stream, handed
    out in pieces that only end when a buffer is full. `before` is called with each offset that is read.
    """

    content: bytes
    name: str = "file"
    is_stream: bool = False
    holes: Sequence[tuple[int, int]] = ()
    mtime: int = 0
    note: str = ""
    before: Callable[[int], None] = lambda offset: None
    bad: list[BadRange] = field(default_factory=list)

    @property
    def size(self) -> int | None:
        return None if self.is_stream else len(self.content)

    @property
    def head(self) -> bytes:
        return self.content[: 64 << 10]

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        if self.is_stream:
            yield SourceExtent(0, None, is_hole=False)
            return
        at = 0
        for start, end in self.holes if holes else ():
            if start > at:
                yield SourceExtent(at, start - at, is_hole=False)
            yield SourceExtent(start, end - start, is_hole=True)
            at = end
        if at < len(self.content):
            yield SourceExtent(at, len(self.content) - at, is_hole=False)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        self.before(offset)
        part = self.content[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)

    def finish(self) -> str:
        return self.note

    def close(self) -> None: ...


@dataclass
class MemoryTarget:
    """A restore target in memory that remembers what was written where."""

    size: int
    content: bytearray = field(init=False)
    writes: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.content = bytearray(self.size)

    def write(self, offset: int, data: Buffer) -> None:
        self.content[offset : offset + len(data)] = data
        self.writes.append((offset, len(data)))


def read_all(source: Source, *, holes: bool = True, unit: int = 64 << 10) -> bytes:
    """Read as the pipeline does: unit by unit, holes not at all."""
    found = bytearray()
    for extent in source.extents(holes=holes):
        assert extent.start == len(found)
        if extent.is_hole:
            assert extent.length
            assert extent.start % BLOCK == 0
            found += bytes(extent.length)
            continue
        end = None if extent.length is None else extent.start + extent.length
        while end is None or len(found) < end:
            buffer = bytearray(b"?" * (unit if end is None else min(unit, end - len(found))))
            count = source.read_into(memoryview(buffer), len(found))
            found += buffer[:count]
            if count < len(buffer):
                assert end is None
                break
    return bytes(found)
