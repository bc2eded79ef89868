"""Restoring whole files: in pack order into a target, in file order into a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.base.errors import Damaged, MissingChunk
from holdfast.repo.chunks.recipe import RecipeBuilder
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import Item
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.memory import MemoryStore
from support.basics import MemoryTarget, make_item, make_snapshot, new_repository, random_bytes, store_file
from support.faulty_store import FaultyStore

PARTS: list[bytes | int] = [
    *(random_bytes(3000 + n, n % 40) for n in range(60)),  # every chunk of the first 20 is there twice
    3 << 20,
    bytes(5000),
    *(random_bytes(4000, n) for n in range(20, 0, -1)),
    17,
]
CONTENT = b"".join(bytes(part) if isinstance(part, int) else part for part in PARTS)


@pytest.fixture
def memory_repository(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(MemoryStore(), tmp_path / "cache", pack_target=64 << 10) as repository:
        yield repository


@pytest.fixture
def stored(memory_repository: Repository) -> Item:
    item = store_file(memory_repository, PARTS)
    assert len(list(memory_repository.store.listing(FileKind.PACK))) > 3
    return item


def restored(
    repository: Repository, item: Item, *, threads: int = 2, window: int = 1000
) -> tuple[MemoryTarget, list[int]]:
    reader = Reader(repository)
    progress: list[int] = []
    target = MemoryTarget(item.size)
    restorer = Restorer(repository, reader, threads=threads, window=window)
    restorer.to_target(reader.recipe(item), target, progress.append)
    return target, progress


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_restored_file_is_the_file(memory_repository: Repository, stored: Item, threads: int) -> None:
    target, progress = restored(memory_repository, stored, threads=threads)
    assert target.content == CONTENT
    assert sum(progress) == len(CONTENT)


def test_holes_and_zeros_are_not_written_and_nothing_twice(
    memory_repository: Repository, stored: Item
) -> None:
    target, _ = restored(memory_repository, stored)
    at = 0
    for start, length in sorted(target.writes):
        assert start >= at
        assert any(CONTENT[start : start + length])
        at = start + length
    zeros = 5000 + (3 << 20) + 17
    assert sum(length for _, length in target.writes) == len(CONTENT) - zeros


@pytest.mark.parametrize("window", [1, 7, 1 << 18])
def test_windows_of_any_size_give_the_file(memory_repository: Repository, stored: Item, window: int) -> None:
    assert restored(memory_repository, stored, window=window)[0].content == CONTENT


def test_neighbouring_records_are_read_at_once(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore())
    with new_repository(store, tmp_path) as repository:
        item = store_file(repository, [random_bytes(3000, n) for n in range(200)])
        repository.refresh()
        store.operations.clear()
        restored(repository, item)
    assert len([o for o in store.operations if o.action == "read"]) < 10


@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (0, 0), (5, 6), (2990, 3010), (100_000, 4_000_000), (4_000_000, 1 << 40)]
)
def test_a_pipe_gets_the_bytes_in_order(
    memory_repository: Repository, stored: Item, start: int, end: int | None
) -> None:
    reader = Reader(memory_repository)
    parts = Restorer(memory_repository, reader, threads=2).in_order(reader.recipe(stored), start, end)
    assert b"".join(bytes(part) for part in parts) == CONTENT[start:end]


def test_a_reader_of_a_pipe_may_stop_early(memory_repository: Repository, stored: Item) -> None:
    reader = Reader(memory_repository)
    parts = Restorer(memory_repository, reader, threads=2).in_order(reader.recipe(stored))
    assert bytes(next(parts)) == PARTS[0]
    parts.close()  # type: ignore[attr-defined]  # it is a generator


def spoil(repository: Repository, part: bytes) -> str:
    """Flip a bit in every copy of a chunk; returns its ID."""
    assert isinstance(repository.store, MemoryStore)
    id_ = repository.keys.data_chunk_id(part)
    for location in repository.index.locations(id_):
        pack = bytearray(repository.store.files[FileKind.PACK, location.pack])
        pack[location.offset + 80] ^= 1
        repository.store.files[FileKind.PACK, location.pack] = bytes(pack)
    return id_.hex()


def test_damage_ends_a_restore_with_the_chunks_id(memory_repository: Repository, stored: Item) -> None:
    assert isinstance(PARTS[30], bytes)
    id_ = spoil(memory_repository, PARTS[30])
    with pytest.raises(Damaged, match=id_):
        restored(memory_repository, stored)
    reader = Reader(memory_repository)
    served = bytearray()
    parts = Restorer(memory_repository, reader, threads=2).in_order(reader.recipe(stored))
    with pytest.raises(Damaged, match=id_):
        served.extend(byte for part in parts for byte in part)
    assert CONTENT.startswith(served)


def test_a_missing_pack_ends_a_restore(memory_repository: Repository, stored: Item) -> None:
    first = next(iter(memory_repository.store.listing(FileKind.PACK)))
    memory_repository.store.delete(FileKind.PACK, first.name)
    with pytest.raises(MissingChunk):
        restored(memory_repository, stored)


def test_a_chunk_whose_content_is_not_its_id_is_not_restored(memory_repository: Repository) -> None:
    """Authentic and at its place, but hashed or stored wrongly: seen before it is written."""
    with Writer(memory_repository) as writer:
        wrong = memory_repository.keys.data_chunk_id(b"something else")
        writer.put([b"content"], [wrong])
        recipe = RecipeBuilder(writer.put_node)
        recipe.add_chunk(wrong, 7)
        item = make_item(recipe.finish(), 7)
        writer.commit(make_snapshot(item))
    with pytest.raises(Damaged, match="does not match its ID"):
        restored(memory_repository, item)
