"""The writer: each chunk once, packs before pending before snapshot, and nothing when something is lost."""

from __future__ import annotations

import errno
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Locked, MissingChunk, NoSpace, StoreError
from holdfast.base.types import ChunkID
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.index.opening import remove_index
from holdfast.repo.snapshots.snapshot import Snapshot
from holdfast.repo.store.interface import FileKind, LockMode
from holdfast.repo.store.local import LocalStore
from holdfast.repo.store.memory import MemoryStore
from support.basics import (
    make_snapshot,
    new_repository,
    open_repository,
    put_item,
    random_bytes,
    read_item,
    store_file,
)
from support.fault import index_of
from support.faulty_store import Crash, FaultyStore, Operation, crash_at, fail_at

TEXT = b"INSERT INTO orders VALUES (1, 'one');\n" * 100


def fail_after(repository: Repository, parts: Sequence[bytes]) -> None:
    """A backup that ends before its commit."""
    with Writer(repository) as writer:
        put_item(writer, repository, parts)
        raise ValueError("mine")


def count_packs(repository: Repository) -> int:
    return len(list(repository.store.listing(FileKind.PACK)))


def ids_of(repository: Repository, chunks: list[bytes]) -> list[ChunkID]:
    return [repository.keys.data_chunk_id(chunk) for chunk in chunks]


def test_a_chunk_is_stored_once_whoever_puts_it_how_often(memory_repository: Repository) -> None:
    chunks = [random_bytes(5000, n) for n in range(50)]
    ids = ids_of(memory_repository, chunks)
    with Writer(memory_repository) as writer:
        start = threading.Barrier(8)

        def put(n: int) -> None:
            start.wait()
            for at in range(50):
                k = (at * (n + 1)) % 50
                writer.put([chunks[k], chunks[k]], [ids[k], ids[k]])
                writer.put_node(b"node %d" % k)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, range(8)))
        written = writer.written
        writer.commit(make_snapshot())
    assert written.chunks == 8 * 50 * 3
    assert len(memory_repository.index) == written.new_chunks <= 100
    memory_repository.refresh()
    assert all(len(memory_repository.index.locations(id_)) == 1 for id_ in ids[:1])
    assert None not in memory_repository.index.lookup(ids)


def test_the_second_backup_of_the_same_stores_nothing(memory_repository: Repository) -> None:
    parts = [random_bytes(9000, n) for n in range(20)]
    first = store_file(memory_repository, parts)
    packs = count_packs(memory_repository)
    with Writer(memory_repository) as writer:
        assert put_item(writer, memory_repository, parts) == first
        assert (writer.written.new_chunks, writer.written.new) == (0, 0)
        writer.commit(make_snapshot(first))
        assert writer.stored == 0
    assert count_packs(memory_repository) == packs


def test_what_compresses_is_compressed_and_what_does_not_is_stored_as_it_is(
    memory_repository: Repository,
) -> None:
    with Writer(memory_repository) as writer:
        writer.put([TEXT], ids_of(memory_repository, [TEXT]))
        writer.put([noise := random_bytes(4000, 1)], ids_of(memory_repository, [noise]))
        writer.commit(make_snapshot())
        assert writer.stored < len(TEXT) + 4000
    item = store_file(memory_repository, [TEXT, noise])
    assert read_item(memory_repository, item) == TEXT + noise


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=200), st.integers(1, 10_000)), max_size=20))
def test_what_is_written_is_read(parts: list[bytes | int]) -> None:
    with tempfile.TemporaryDirectory() as name, new_repository(MemoryStore(), Path(name)) as repository:
        item = store_file(repository, parts)
        assert read_item(repository, item) == b"".join(bytes(p) if isinstance(p, int) else p for p in parts)
        (stored,) = repository.snapshots().good
        assert stored.snapshot.items == (item,)


def test_the_order_of_a_commit_makes_every_crash_harmless(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore())
    with new_repository(store, tmp_path) as repository:
        store.operations.clear()
        store_file(repository, [b"content"])
    assert store.did("put", "sync", "list", "delete") == [
        ("list", FileKind.KEYRING),  # which key epoch it is
        ("list", FileKind.DAMAGE),  # what is known to be damaged
        ("list", FileKind.PACK),  # which packs are there
        ("list", FileKind.PACK),  # and which are in the trash
        ("put", FileKind.PACK),
        ("sync", None),
        ("put", FileKind.PENDING),
        ("sync", None),
        ("put", FileKind.PENDING),
        ("sync", None),
        ("list", FileKind.PACK),  # are they still
        ("put", FileKind.SNAPSHOT),
        ("sync", None),
        ("put", FileKind.SNAPSHOT),
        ("sync", None),
        ("list", FileKind.PACK),  # and are they still
        ("delete", FileKind.PENDING),
        ("delete", FileKind.PENDING),
        ("sync", None),
    ]
    assert store.operations[0].action == "lock"


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_crash_at_any_operation_leaves_a_whole_snapshot_or_none(tmp_path: Path, late: bool) -> None:
    noise = random_bytes(3000, 1)
    parts: list[bytes | int] = [noise, 4096, b"end"]
    content = noise + bytes(4096) + b"end"
    number, finished = 0, False
    while not finished:
        number += 1
        inner = MemoryStore()
        new_repository(inner, tmp_path / f"{number}").close()
        fault = crash_at(number)
        store = FaultyStore(inner, after=fault) if late else FaultyStore(inner, before=fault)
        try:
            with open_repository(store, tmp_path / f"{number}") as repository:
                store_file(repository, parts)
            finished = True
        except Crash:
            pass
        with open_repository(inner, tmp_path / f"{number}b") as repository:
            found = repository.snapshots()
            assert not found.damaged
            for stored in found.good:
                assert read_item(repository, stored.snapshot.items[0]) == content
            item = store_file(repository, parts, hours=1)
            assert read_item(repository, item) == content
    assert number > 15


class FullAt:
    """The `number`th put finds no space."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, operation: Operation) -> None:
        if operation.action == "put":
            self._left -= 1
            if not self._left:
                fail_at(operation.number, errno.ENOSPC)(operation)


def test_a_full_disk_at_any_write_is_an_error_and_no_snapshot_without_its_data(tmp_path: Path) -> None:
    number, finished = 0, False
    while not finished:
        number += 1
        inner = MemoryStore()
        new_repository(inner, tmp_path / f"{number}").close()
        with open_repository(FaultyStore(inner, before=FullAt(number)), tmp_path / f"{number}") as repository:
            try:
                store_file(repository, [b"content"])
                finished = True
            except NoSpace:
                pass
            for stored in repository.snapshots().good:
                assert read_item(repository, stored.snapshot.items[0]) == b"content"
    assert number == 6  # a pack, and pending and snapshot twice each


def test_leaving_without_a_commit_leaves_no_snapshot_and_no_lock(memory_repository: Repository) -> None:
    with pytest.raises(ValueError, match="mine"):
        fail_after(memory_repository, [b"content"])
    assert memory_repository.snapshots().good == ()
    assert not list(memory_repository.store.listing(FileKind.PENDING))
    with memory_repository.store.lock(LockMode.EXCLUSIVE, 0):
        pass


def test_a_writer_waits_for_the_lock_no_longer_than_it_was_told(memory_repository: Repository) -> None:
    with (
        memory_repository.store.lock(LockMode.EXCLUSIVE, 0),
        pytest.raises(Locked),
        Writer(memory_repository, lock_timeout=0),
    ):
        pytest.fail("a prune is running")


class Prune:
    """Takes packs away as a prune would that did not see this backup: after `pending` was written."""

    def __init__(self, store: MemoryStore, *, for_good: bool) -> None:
        self._store = store
        self._for_good = for_good
        self.taken: list[str] = []

    def __call__(self, operation: Operation) -> None:
        if (operation.action, operation.kind) == ("put", FileKind.PENDING) and not self.taken:
            for entry in list(self._store.listing(FileKind.PACK)):
                self._store.trash(FileKind.PACK, entry.name)
                if self._for_good:
                    self._store.delete(FileKind.PACK, entry.name, trashed=True)
                self.taken.append(entry.name)


def test_packs_that_went_to_the_trash_meanwhile_are_brought_back(tmp_path: Path) -> None:
    inner = MemoryStore()
    with new_repository(inner, tmp_path) as repository:
        old = store_file(repository, [b"old"])
    prune = Prune(inner, for_good=False)
    with open_repository(FaultyStore(inner, before=prune), tmp_path) as repository:
        item = store_file(repository, [b"old", b"new"], hours=1)
        assert len(prune.taken) == 2
        assert {name for kind, name in inner.files if kind is FileKind.PACK} == set(prune.taken)
        assert read_item(repository, item) == b"oldnew"
        assert read_item(repository, old) == b"old"


def test_packs_that_are_gone_for_good_end_the_backup_without_a_snapshot(tmp_path: Path) -> None:
    inner = MemoryStore()
    new_repository(inner, tmp_path).close()
    store = FaultyStore(inner, before=Prune(inner, for_good=True))
    with open_repository(store, tmp_path) as repository:
        with pytest.raises(MissingChunk, match="run it again"):
            store_file(repository, [b"content"])
        assert repository.snapshots().good == ()
        store.before = lambda operation: None
        assert read_item(repository, store_file(repository, [b"content"])) == b"content"


def test_packs_that_were_gone_before_are_not_relied_on(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        store_file(repository, [b"content"])
    for entry in list(store.listing(FileKind.PACK)):
        store.delete(FileKind.PACK, entry.name)
    with open_repository(store, tmp_path) as repository:
        item = store_file(repository, [b"content"], hours=1)
        assert read_item(repository, item) == b"content"


def test_packs_of_an_abandoned_backup_are_used_by_the_next(tmp_path: Path) -> None:
    store = MemoryStore()
    parts = [random_bytes(6000, n) for n in range(100)]
    with new_repository(store, tmp_path, pack_target=64 << 10) as repository:
        with pytest.raises(ValueError, match="mine"):
            fail_after(repository, parts)
        left = count_packs(repository)
        assert left > 4
    with open_repository(store, tmp_path) as repository, Writer(repository) as writer:
        put_item(writer, repository, parts)
        assert writer.written.new_chunks < 100


def test_the_index_may_be_deleted_between_runs(local_store: LocalStore, tmp_path: Path) -> None:
    parts = [random_bytes(6000, n) for n in range(20)]
    with new_repository(local_store, tmp_path) as repository:
        first = store_file(repository, parts)
    remove_index(index_of(tmp_path))
    with open_repository(local_store, tmp_path) as repository:
        assert repository.refresh().rebuilt
        with Writer(repository) as writer:
            assert put_item(writer, repository, parts) == first
            assert writer.written.new_chunks == 0
            writer.commit(make_snapshot(first, hours=1))
        assert read_item(repository, first) == b"".join(parts)


def test_claims_are_given_up_when_the_index_answers_for_them(tmp_path: Path) -> None:
    parts = [random_bytes(3000, n) for n in range(300)]
    with (
        new_repository(MemoryStore(), tmp_path, pack_target=64 << 10) as repository,
        Writer(repository, index_batch=30) as writer,
    ):
        put_item(writer, repository, parts)
        item = put_item(writer, repository, parts)
        assert writer.written.new_chunks <= 300 + 10
        assert len(writer._claimed) < 150  # what bounds its memory
        writer.commit(make_snapshot(item))
        assert read_item(repository, item) == b"".join(parts)


def test_a_store_that_fails_in_the_flush_thread_ends_the_backup(tmp_path: Path) -> None:
    inner = MemoryStore()
    new_repository(inner, tmp_path).close()

    def fault(operation: Operation) -> None:
        if (operation.action, operation.kind) == ("put", FileKind.PACK):
            fail_at(operation.number)(operation)

    with open_repository(FaultyStore(inner, before=fault), tmp_path, pack_target=64 << 10) as repository:
        with pytest.raises(StoreError):
            store_file(repository, [random_bytes(6000, n) for n in range(100)])
        assert not [
            kind for kind, _ in inner.files if kind in (FileKind.PENDING, FileKind.SNAPSHOT, FileKind.PACK)
        ]


def test_the_record_may_be_completed_when_all_packs_are_written(memory_repository: Repository) -> None:
    seen: list[int] = []

    def finish(snapshot: Snapshot, stored: int) -> Snapshot:
        seen.append(stored)
        return make_snapshot(name="completed")

    with Writer(memory_repository) as writer:
        put_item(writer, memory_repository, [b"content"])
        stored = writer.commit(make_snapshot(), finish=finish)
        assert seen == [writer.stored]
        assert seen[0] > 0
    assert memory_repository.snapshots().good == (stored,)
    assert stored.snapshot.subject.name == "completed"


def test_two_writers_side_by_side_both_commit(memory_repository: Repository) -> None:
    parts = [random_bytes(4000, n) for n in range(10)]
    with Writer(memory_repository) as one, Writer(memory_repository) as two:
        items = [put_item(writer, memory_repository, parts) for writer in (one, two)]
        one.commit(make_snapshot(items[0]))
        two.commit(make_snapshot(items[1], hours=1))
    assert items[0] == items[1]
    memory_repository.refresh()
    id_ = memory_repository.keys.data_chunk_id(parts[0])
    assert len(memory_repository.index.locations(id_)) == 2
    assert read_item(memory_repository, items[0]) == b"".join(parts)
