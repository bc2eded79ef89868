"""What every store must do. A subclass gives a fixture `store`: an empty one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.base.errors import Locked
from holdfast.repo.store.interface import FileKind, LockMode, Store
from support.basics import random_bytes

NAME = "ab" * 32
OTHER = "cd" * 32
KINDS = [FileKind.KEY, FileKind.PACK, FileKind.PENDING, FileKind.SNAPSHOT, FileKind.PROOF]
TRASHABLE = [FileKind.PACK, FileKind.SNAPSHOT]


def names(store: Store, kind: FileKind, *, trashed: bool = False) -> list[str]:
    return sorted(entry.name for entry in store.listing(kind, trashed=trashed))


class StoreConformance:
    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not FileKind.PACK])
    @pytest.mark.parametrize("name", [".DS_Store", f".{NAME}.Ab12Cd", f"{NAME}.sync-conflict-1", f"{NAME}~"])
    def test_what_is_not_named_like_a_file_of_its_kind_is_not_listed_but_told(
        self, store: Store, kind: FileKind, name: str
    ) -> None:
        store.put(kind, NAME, b"content")
        assert list(store.strangers()) == []
        store.put(kind, name, b"x")
        assert names(store, kind) == [NAME]
        assert list(store.strangers()) == [store.describe(kind, name)]

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_is_put_is_read_and_listed_with_its_size(self, store: Store, kind: FileKind) -> None:
        assert names(store, kind) == []
        assert store.put(kind, NAME, b"content")
        assert store.read(kind, NAME) == b"content"
        assert [(e.name, e.size) for e in store.listing(kind)] == [(NAME, 7)]
        assert names(store, kind, trashed=True) == []
        assert all(names(store, other) == [] for other in KINDS if other is not kind)

    def test_the_config_lives_beside_its_second_copy_and_nothing_else_is_listed_there(
        self, store: Store
    ) -> None:
        store.put(FileKind.CONFIG, "config", b"one")
        store.put(FileKind.CONFIG, "config.2", b"two")
        store.put(FileKind.KEY, NAME, b"key")
        assert names(store, FileKind.CONFIG) == ["config", "config.2"]
        assert store.read(FileKind.CONFIG, "config.2") == b"two"

    @pytest.mark.parametrize(
        "data", [b"", bytearray(b"abc"), memoryview(b"xabcx")[1:4]], ids=["bytes", "bytearray", "memoryview"]
    )
    def test_any_buffer_can_be_put(self, store: Store, data: bytes) -> None:
        store.put(FileKind.PACK, NAME, data)
        assert store.read(FileKind.PACK, NAME) == bytes(data)

    def test_a_large_file_comes_back_whole(self, store: Store) -> None:
        data = random_bytes((9 << 20) + 7, 1)
        store.put(FileKind.PACK, NAME, memoryview(data))
        assert store.read(FileKind.PACK, NAME) == data
        assert store.read(FileKind.PACK, NAME, 9 << 20, 100) == data[9 << 20 :]

    def test_a_taken_name_keeps_its_first_content(self, store: Store) -> None:
        assert store.put(FileKind.SNAPSHOT, NAME, b"first")
        assert not store.put(FileKind.SNAPSHOT, NAME, b"second")
        assert store.read(FileKind.SNAPSHOT, NAME) == b"first"

    def test_of_many_that_put_a_name_at_once_one_wins(self, store: Store) -> None:
        start = threading.Barrier(8)

        def put(n: int) -> bool:
            start.wait()
            return store.put(FileKind.PACK, NAME, bytes([n]) * 10_000)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(put, range(8)))
        assert won.count(True) == 1
        assert store.read(FileKind.PACK, NAME) == bytes([won.index(True)]) * 10_000
        assert names(store, FileKind.PACK) == [NAME]

    def test_ranges_are_short_only_at_the_end(self, store: Store) -> None:
        store.put(FileKind.PACK, NAME, b"0123456789")
        assert store.read(FileKind.PACK, NAME, 3, 4) == b"3456"
        assert store.read(FileKind.PACK, NAME, 8, 4) == b"89"
        assert store.read(FileKind.PACK, NAME, 4) == b"456789"
        assert store.read(FileKind.PACK, NAME, 0, 0) == b""
        for beyond in (10, 11, 1000):
            assert store.read(FileKind.PACK, NAME, beyond, 4) == b""
            assert store.read(FileKind.PACK, NAME, beyond) == b""

    def test_cached_reads_are_the_bytes_or_nothing(self, store: Store) -> None:
        store.put(FileKind.PACK, NAME, b"0123456789")
        store.read(FileKind.PACK, NAME)
        assert store.read_cached(FileKind.PACK, NAME, 3, 4) in (b"3456", None)
        assert store.read_cached(FileKind.PACK, NAME, 8, 4) in (b"89", None)
        with pytest.raises(FileNotFoundError):
            store.read_cached(FileKind.PACK, OTHER, 0, 1)

    @pytest.mark.parametrize("kind", KINDS)
    def test_reading_what_is_not_there_is_file_not_found(self, store: Store, kind: FileKind) -> None:
        with pytest.raises(FileNotFoundError):
            store.read(kind, NAME)
        with pytest.raises(FileNotFoundError):
            store.read(kind, NAME, 0, 10)

    @pytest.mark.parametrize("kind", KINDS)
    def test_deleting_what_is_gone_is_no_error(self, store: Store, kind: FileKind) -> None:
        store.put(kind, NAME, b"content")
        store.delete(kind, NAME)
        store.delete(kind, NAME)
        assert names(store, kind) == []
        with pytest.raises(FileNotFoundError):
            store.read(kind, NAME)
        assert store.put(kind, NAME, b"again")
        assert store.read(kind, NAME) == b"again"

    @pytest.mark.parametrize("kind", TRASHABLE)
    def test_a_trashed_file_is_out_of_use_but_can_be_read(self, store: Store, kind: FileKind) -> None:
        store.put(kind, NAME, b"content")
        assert store.read(kind, NAME) == b"content"
        store.trash(kind, NAME)
        assert names(store, kind) == []
        assert [(e.name, e.size) for e in store.listing(kind, trashed=True)] == [(NAME, 7)]
        assert store.read(kind, NAME) == b"content"
        assert store.read(kind, NAME, 3, 2) == b"te"

    @pytest.mark.parametrize("kind", TRASHABLE)
    def test_an_untrashed_file_is_in_use_again(self, store: Store, kind: FileKind) -> None:
        store.put(kind, NAME, b"content")
        store.trash(kind, NAME)
        store.untrash(kind, NAME)
        assert names(store, kind) == [NAME]
        assert names(store, kind, trashed=True) == []
        assert store.read(kind, NAME) == b"content"

    @pytest.mark.parametrize("kind", TRASHABLE)
    def test_deleting_from_the_trash_is_for_good(self, store: Store, kind: FileKind) -> None:
        store.put(kind, NAME, b"content")
        store.put(kind, OTHER, b"stays")
        store.trash(kind, NAME)
        store.delete(kind, NAME, trashed=True)
        store.delete(kind, NAME, trashed=True)
        assert names(store, kind, trashed=True) == []
        assert names(store, kind) == [OTHER]
        with pytest.raises(FileNotFoundError):
            store.read(kind, NAME)
        with pytest.raises(FileNotFoundError):
            store.untrash(kind, NAME)

    @pytest.mark.parametrize("kind", TRASHABLE)
    def test_deleting_in_use_leaves_the_trash_alone(self, store: Store, kind: FileKind) -> None:
        store.put(kind, NAME, b"content")
        store.trash(kind, NAME)
        store.delete(kind, NAME)
        assert names(store, kind, trashed=True) == [NAME]

    @pytest.mark.parametrize("kind", TRASHABLE)
    def test_moves_that_somebody_else_made_first_are_no_errors(self, store: Store, kind: FileKind) -> None:
        store.put(kind, NAME, b"content")
        store.trash(kind, NAME)
        store.trash(kind, NAME)
        store.untrash(kind, NAME)
        store.untrash(kind, NAME)
        assert names(store, kind) == [NAME]

    @pytest.mark.parametrize("kind", TRASHABLE)
    def test_moving_what_is_nowhere_is_file_not_found(self, store: Store, kind: FileKind) -> None:
        for move in (store.trash, store.untrash):
            with pytest.raises(FileNotFoundError):
                move(kind, NAME)

    def test_a_file_that_is_deleted_during_a_listing_hides_no_other(self, store: Store) -> None:
        wanted = {f"{n:064x}" for n in range(20)}
        for name in wanted:
            store.put(FileKind.PENDING, name, b"x")
        seen = set()
        deleted = 0
        for entry in store.listing(FileKind.PENDING):
            seen.add(entry.name)
            left = sorted(wanted - seen)
            if left and deleted < 5:
                store.delete(FileKind.PENDING, left[0])
                wanted.discard(left[0])
                deleted += 1
        assert seen >= wanted

    def test_sync_can_be_called_at_any_time(self, store: Store) -> None:
        store.sync()
        store.put(FileKind.PACK, NAME, b"content")
        store.sync()
        store.trash(FileKind.PACK, NAME)
        store.delete(FileKind.PACK, NAME, trashed=True)
        store.sync()
        store.sync()
        assert names(store, FileKind.PACK) == []

    def test_clean_touches_no_whole_file(self, store: Store) -> None:
        for kind in KINDS:
            store.put(kind, NAME, b"content")
        store.trash(FileKind.PACK, NAME)
        assert store.clean() == 0
        assert store.read(FileKind.PACK, NAME) == b"content"
        assert all(names(store, kind) == [NAME] for kind in KINDS if kind is not FileKind.PACK)

    def test_shared_locks_go_together(self, store: Store) -> None:
        with store.lock(LockMode.SHARED, 0), store.lock(LockMode.SHARED, 0):
            pass
        with store.lock(LockMode.EXCLUSIVE, 0):
            pass

    @pytest.mark.parametrize(
        ("held", "wanted"),
        [
            (LockMode.SHARED, LockMode.EXCLUSIVE),
            (LockMode.EXCLUSIVE, LockMode.SHARED),
            (LockMode.EXCLUSIVE, LockMode.EXCLUSIVE),
        ],
    )
    def test_an_exclusive_lock_stands_alone(self, store: Store, held: LockMode, wanted: LockMode) -> None:
        with store.lock(held, 0):
            with pytest.raises(Locked), store.lock(wanted, 0):
                pytest.fail("locked twice")
            with pytest.raises(Locked), store.lock(wanted, 0.01):
                pytest.fail("locked twice")
        with store.lock(wanted, 0):
            pass

    def test_a_lock_is_given_up_when_its_holder_fails(self, store: Store) -> None:
        with pytest.raises(ValueError, match="mine"), store.lock(LockMode.EXCLUSIVE, 0):
            raise ValueError("mine")
        with store.lock(LockMode.EXCLUSIVE, 0):
            pass

    def test_who_waits_for_a_lock_gets_it(self, store: Store) -> None:
        held, waiting = threading.Event(), threading.Event()

        def hold() -> None:
            with store.lock(LockMode.SHARED, 0):
                held.set()
                waiting.wait(120)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(120)
        with pytest.raises(Locked), store.lock(LockMode.EXCLUSIVE, 0):
            pytest.fail("the holder is still there")
        waiting.set()
        with store.lock(LockMode.EXCLUSIVE, 10):
            holder.join()

    def test_messages_name_the_file(self, store: Store) -> None:
        assert NAME in store.describe(FileKind.PACK, NAME)
