"""The reader: any range of any file; damage is an error and never other bytes."""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, MissingChunk
from holdfast.base.types import ChunkID, PackID, RecordType
from holdfast.repo.chunks.recipe import encode_node
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.format.crypto import Keys
from holdfast.repo.index.locations import Location
from holdfast.repo.snapshots.snapshot import Item
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.memory import MemoryStore
from support.basics import (
    make_item,
    make_snapshot,
    new_repository,
    open_repository,
    put_item,
    random_bytes,
    read_item,
    store_file,
)
from support.faulty_store import FaultyStore

PARTS: list[bytes | int] = [random_bytes(5000, 1), 12_288, b"short", random_bytes(70_000, 2), 1, b"end"]
CONTENT = b"".join(bytes(part) if isinstance(part, int) else part for part in PARTS)


def spoil(store: MemoryStore, location: Location, at: int = 100) -> None:
    """Flip a bit of the record there."""
    pack = bytearray(store.files[FileKind.PACK, location.pack])
    pack[location.offset + at % location.length] ^= 0x10
    store.files[FileKind.PACK, location.pack] = bytes(pack)


def places(repository: Repository, part: bytes) -> tuple[ChunkID, list[Location]]:
    id_ = repository.keys.data_chunk_id(part)
    return id_, repository.index.locations(id_)


def stored_twice(store: MemoryStore, cache: Path) -> Item:
    """A file that is whole in two packs: two backups that did not know of one another."""
    with new_repository(store, cache) as repository, Writer(repository) as one, Writer(repository) as two:
        item = put_item(one, repository, PARTS)
        put_item(two, repository, PARTS)
        two.commit(make_snapshot(hours=1))
        one.commit(make_snapshot(item))
    return item


@pytest.mark.parametrize("cache", [0, 1 << 20])
def test_every_range_is_what_was_written(memory_repository: Repository, cache: int) -> None:
    item = store_file(memory_repository, PARTS)
    reader = Reader(memory_repository, chunk_cache=cache)
    recipe = reader.recipe(item)
    assert recipe.size == len(CONTENT)

    @settings(max_examples=200)
    @given(st.integers(0, len(CONTENT) + 5), st.integers(0, len(CONTENT)))
    def check(start: int, length: int) -> None:
        assert reader.read(recipe, start, length) == CONTENT[start : start + length]

    check()


def test_threads_read_side_by_side_and_load_each_chunk_once(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore())
    with new_repository(store, tmp_path) as repository:
        item = store_file(repository, PARTS)
        reader = Reader(repository, chunk_cache=1 << 20)
        recipe = reader.recipe(item)
        store.operations.clear()
        start = threading.Barrier(8)

        def read(n: int) -> bytes:
            start.wait()
            return reader.read(recipe, 0, recipe.size)

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(read, range(8))) == {CONTENT}
        records = [o for o in store.operations if o.action == "read"]
        chunks = [part for part in PARTS if isinstance(part, bytes)]
        assert len(records) <= 1 + len(chunks) + 8  # and heads may come twice


def test_the_other_place_is_used_when_one_pack_is_damaged(tmp_path: Path) -> None:
    store = MemoryStore()
    item = stored_twice(store, tmp_path)
    assert isinstance(PARTS[0], bytes)
    with open_repository(store, tmp_path) as repository:
        id_, found = places(repository, PARTS[0])
        assert len({location.pack for location in found}) == 2
        spoil(store, found[0])
        assert read_item(repository, item) == CONTENT
        reader = Reader(repository)
        assert reader.chunk(id_) == PARTS[0]
        assert reader.chunk_if_ready(id_) in (PARTS[0], None)
        spoil(store, found[1])
        with pytest.raises(Damaged, match=id_.hex()) as caught:
            Reader(repository).chunk(id_)
        assert not isinstance(caught.value, MissingChunk)


def test_the_other_pack_is_used_when_one_is_gone_or_has_no_head(tmp_path: Path) -> None:
    store = MemoryStore()
    item = stored_twice(store, tmp_path)
    packs = {
        PackID(entry.name): store.read(FileKind.PACK, entry.name) for entry in store.listing(FileKind.PACK)
    }
    for pack, content in packs.items():
        for damaged in (None, bytes(64) + content[64:]):
            with open_repository(store, tmp_path) as repository:
                assert len(places(repository, b"short")[1]) == 2
                if damaged is None:
                    del store.files[FileKind.PACK, pack]
                else:
                    store.files[FileKind.PACK, pack] = damaged
                repository.ciphers = type(repository.ciphers)(store, repository.keys)
                assert read_item(repository, item) == CONTENT
                store.files[FileKind.PACK, pack] = content


@given(st.data())
@settings(max_examples=100)
def test_a_flipped_byte_anywhere_in_the_packs_is_never_served(data: st.DataObject) -> None:
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as name:
        with new_repository(store, Path(name)) as repository:
            item = store_file(repository, [b"first", 100, b"second" * 50])
        ((key, content),) = [(k, v) for k, v in store.files.items() if k[0] is FileKind.PACK]
        bad = bytearray(content)
        bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
        store.files[key] = bytes(bad)
        with open_repository(store, Path(name)) as repository:
            try:
                assert read_item(repository, item) == b"first" + bytes(100) + b"second" * 50
            except Damaged:
                return


def test_a_chunk_in_no_pack_is_missing(memory_repository: Repository) -> None:
    item = store_file(memory_repository, PARTS)
    unknown = memory_repository.keys.data_chunk_id(b"never stored")
    with pytest.raises(MissingChunk, match=unknown.hex()):
        Reader(memory_repository).chunk(unknown)
    for entry in list(memory_repository.store.listing(FileKind.PACK)):
        memory_repository.store.delete(FileKind.PACK, entry.name)
    with pytest.raises(MissingChunk):
        read_item(memory_repository, item)


def test_a_pack_in_the_trash_can_still_be_read_by_whoever_knew_it(memory_repository: Repository) -> None:
    item = store_file(memory_repository, PARTS)
    for entry in list(memory_repository.store.listing(FileKind.PACK)):
        memory_repository.store.trash(FileKind.PACK, entry.name)
    assert read_item(memory_repository, item) == CONTENT


def test_packs_that_came_after_the_last_listing_are_found(tmp_path: Path) -> None:
    store = MemoryStore()
    new_repository(store, tmp_path).close()
    with open_repository(store, tmp_path / "mine") as mine:
        mine.refresh()
        with open_repository(store, tmp_path / "other") as other:
            item = store_file(other, PARTS)
        assert read_item(mine, item) == CONTENT


def test_a_node_is_no_data_and_data_is_no_node(memory_repository: Repository) -> None:
    item = store_file(memory_repository, [b"content"])
    reader = Reader(memory_repository)
    with pytest.raises(Damaged, match="another chunk"):
        reader.chunk(item.recipe)
    with pytest.raises(Damaged, match="another chunk"):
        reader.node(memory_repository.keys.data_chunk_id(b"content"))


def test_an_index_entry_that_points_elsewhere_gives_no_other_bytes(memory_repository: Repository) -> None:
    store_file(memory_repository, [b"one", b"two"])
    (one_id, (one,)), (_, (two,)) = places(memory_repository, b"one"), places(memory_repository, b"two")
    reader = Reader(memory_repository)
    data = memory_repository.store.read(FileKind.PACK, two.pack, two.offset, two.length)
    with pytest.raises(Damaged, match="another chunk"):
        reader.open(two, data, one_id, RecordType.DATA)
    with pytest.raises(Damaged, match="not authentic"):
        reader.open(one, data, one_id, RecordType.DATA)


def test_a_recipe_that_lies_about_lengths_is_damage(memory_repository: Repository) -> None:
    item = store_file(memory_repository, [b"content"])
    with pytest.raises(Damaged, match="describes 7 bytes, not 8"):
        read_item(memory_repository, make_item(item.recipe, 8))
    with Writer(memory_repository) as writer:
        id_ = memory_repository.keys.data_chunk_id(b"content")
        root = writer.put_node(encode_node(0, [9], [id_]))
        writer.commit(make_snapshot(make_item(root, 9)))
    with pytest.raises(Damaged, match="is 7 bytes long, its recipe says 9"):
        read_item(memory_repository, make_item(root, 9))


def test_what_is_ready_needs_no_second_read(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore())
    with new_repository(store, tmp_path) as repository:
        item = store_file(repository, [b"content"])
        id_ = repository.keys.data_chunk_id(b"content")
        reader = Reader(repository, chunk_cache=1000)
        assert reader.chunk_if_ready(id_) == b"content"
        node = reader.node_if_ready(item.recipe)
        assert node is not None
        assert node.ids == (id_,)
        count = len(store.operations)
        assert reader.chunk_if_ready(id_) == reader.chunk(id_) == b"content"
        assert reader.node(item.recipe) is node
        assert len(store.operations) == count
        assert reader.chunk_if_ready(ChunkID(bytes(32))) is None
        assert reader.node_if_ready(ChunkID(bytes(32))) is None


def test_bytes_that_are_ready_and_bad_are_not_served(memory_repository: Repository) -> None:
    store_file(memory_repository, [b"content"])
    assert isinstance(memory_repository.store, MemoryStore)
    id_, (location,) = places(memory_repository, b"content")
    spoil(memory_repository.store, location, at=70)
    reader = Reader(memory_repository)
    assert reader.chunk_if_ready(id_) is None
    with pytest.raises(Damaged, match="not authentic"):
        reader.chunk(id_)


def test_ids_depend_on_the_repository() -> None:
    one, two = (Keys.of(bytes([n]) * 32, {1: bytes([n]) * 32}, bytes(16), 1) for n in (1, 2))  # type: ignore[arg-type]
    assert one.data_chunk_id(b"x") != two.data_chunk_id(b"x")
