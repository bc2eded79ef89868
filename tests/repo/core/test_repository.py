"""Repositories as a whole: making, opening, refusing; configs and snapshots stored twice."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, HoldfastError, NoRepository, Unsupported, WrongPassword
from holdfast.repo.core.mirrored import delete_mirrored, trash_mirrored, untrash_mirrored
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import Suite
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.local import LocalStore
from holdfast.repo.store.memory import MemoryStore
from support.basics import CHEAP, NOW, PASSWORD, new_repository, open_repository, read_item, store_file
from support.faulty_store import Crash, FaultyStore, crash_at


def fresh(suite: Suite = Suite.AES_256_GCM) -> MemoryStore:
    store = MemoryStore()
    Repository.create(store, PASSWORD, created=NOW, cost=CHEAP, suite=suite, label="first")
    return store


@pytest.mark.parametrize("suite", Suite)
def test_a_repository_is_what_it_was_made_as(tmp_path: Path, suite: Suite) -> None:
    with open_repository(fresh(suite), tmp_path) as repository:
        assert (repository.config.suite, repository.config.created) == (suite, NOW)
        assert repository.keys.suite is suite
        assert repository.slot.label == "first"
        item = store_file(repository, [b"content"])
        assert read_item(repository, item) == b"content"


def test_the_secret_is_asked_for_only_when_there_is_something_to_open(tmp_path: Path) -> None:
    with pytest.raises(NoRepository):
        Repository.open(MemoryStore(), lambda: pytest.fail("asked"), cache=tmp_path)
    with pytest.raises(WrongPassword, match="wrong password"):
        open_repository(fresh(), tmp_path, password="wrong")


def test_nothing_of_the_content_or_its_names_can_be_read_without_the_key(tmp_path: Path) -> None:
    store = fresh()
    with open_repository(store, tmp_path) as repository:
        store_file(repository, [b"very secret content"])
    for (kind, name), data in store.files.items():
        for secret in (b"secret", b"INSERT", b"etc", b"host"):
            assert secret not in data, (kind, name)


def change_head(
    store: MemoryStore, *, only: tuple[str, ...] = ("config", "config.2"), **changes: Any
) -> None:
    for copy in only:
        public, _, sealed = store.files[FileKind.CONFIG, copy].partition(b"\n")
        head = json.dumps(json.loads(public) | changes).encode()
        store.files[FileKind.CONFIG, copy] = head + b"\n" + sealed


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"version": 3}, Unsupported),
        ({"features": ["parity"]}, Unsupported),
        ({"features": [["x"]]}, Damaged),
        ({"features": 7}, Damaged),
        ({"features": [1]}, HoldfastError),
        ({"format": "something else"}, Damaged),
        ({"suite": 9}, Damaged),
        ({"suite": 2}, Damaged),
        ({"id": "00"}, Damaged),
        ({"id": "00" * 16}, Damaged),
        ({"id": None}, Damaged),
        ({"more": 1}, Damaged),
    ],
    ids=str,
)
def test_a_changed_config_is_refused_and_either_copy_will_do(
    tmp_path: Path, changes: dict[str, Any], error: type[HoldfastError]
) -> None:
    store = fresh()
    good = dict(store.files)
    change_head(store, **changes)
    with pytest.raises(error):
        open_repository(store, tmp_path)
    for copy in ("config", "config.2"):
        store.files = dict(good)
        change_head(store, only=(copy,), **changes)
        open_repository(store, tmp_path).close()


def test_newer_repositories_and_unknown_features_are_named(tmp_path: Path) -> None:
    store = fresh()
    change_head(store, version=3)
    with pytest.raises(Unsupported, match="format version 3; this program reads version 2"):
        open_repository(store, tmp_path)
    store = fresh()
    change_head(store, features=["parity", "moon"])
    with pytest.raises(Unsupported, match="moon, parity"):
        open_repository(store, tmp_path)


@given(st.sampled_from(["config", "config.2"]), st.data())
def test_any_flipped_byte_of_one_config_costs_nothing(copy: str, data: st.DataObject) -> None:
    store = fresh()
    content = bytearray(store.files[FileKind.CONFIG, copy])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    store.files[FileKind.CONFIG, copy] = bytes(content)
    open_repository(store, Path("/nowhere")).close()


@given(st.binary(max_size=200))
def test_any_bytes_as_config_are_refused(content: bytes) -> None:
    store = fresh()
    for copy in ("config", "config.2"):
        store.files[FileKind.CONFIG, copy] = content
    with pytest.raises((Damaged, Unsupported)):
        open_repository(store, Path("/nowhere"))


def test_a_deeply_nested_or_endless_config_is_damage() -> None:
    for content in (b"[" * 200_000, bytes((64 << 20) + 1)):
        store = fresh()
        for copy in ("config", "config.2"):
            store.files[FileKind.CONFIG, copy] = content
        with pytest.raises(Damaged):
            open_repository(store, Path("/nowhere"))


def test_a_config_of_another_repository_does_not_fit_the_keys() -> None:
    one, two = fresh(), fresh()
    for copy in ("config", "config.2"):
        one.files[FileKind.CONFIG, copy] = two.files[FileKind.CONFIG, copy]
    with pytest.raises(Damaged):
        open_repository(one, Path("/nowhere"))


def test_a_crash_while_it_is_made_leaves_a_repository_that_opens_or_none(tmp_path: Path) -> None:
    number, finished = 0, False
    while not finished:
        number += 1
        inner = MemoryStore()
        try:
            Repository.create(FaultyStore(inner, before=crash_at(number)), PASSWORD, created=NOW, cost=CHEAP)
            finished = True
        except Crash:
            pass
        try:
            open_repository(inner, tmp_path).close()
        except NoRepository:
            assert not finished
    assert number > 6


# ---- snapshots ----------------------------------------------------------------------------------------


def test_snapshots_are_listed_oldest_first(memory_repository: Repository) -> None:
    for hours in (3, 1, 2):
        store_file(memory_repository, [b"content"], hours=hours)
    found = memory_repository.snapshots()
    assert [stored.snapshot.time.hour for stored in found.good] == [3, 4, 5]
    assert found.damaged == ()


@given(st.data())
def test_either_copy_of_a_snapshot_may_be_damaged_or_lost(data: st.DataObject) -> None:
    store = MemoryStore()
    with tempfile.TemporaryDirectory() as cache, new_repository(store, Path(cache)) as repository:
        store_file(repository, [b"content"])
        (stored,) = repository.snapshots().good
        good = dict(store.files)
        for copy in (stored.id, stored.id + ".2"):
            content = bytearray(good[FileKind.SNAPSHOT, copy])
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
            store.files = good | {(FileKind.SNAPSHOT, copy): bytes(content)}
            assert repository.snapshots().good == (stored,)
            del store.files[FileKind.SNAPSHOT, copy]
            assert repository.snapshots().good == (stored,)


def test_a_snapshot_with_both_copies_damaged_is_reported_beside_the_others(
    memory_repository: Repository,
) -> None:
    store = memory_repository.store
    assert isinstance(store, MemoryStore)
    for hours in (1, 2):
        store_file(memory_repository, [b"content"], hours=hours)
    first, second = memory_repository.snapshots().good
    for copy in (first.id, first.id + ".2"):
        store.files[FileKind.SNAPSHOT, copy] = b"garbage"
    found = memory_repository.snapshots()
    assert found.good == (second,)
    (error,) = found.damaged
    assert first.id in str(error)


def test_a_snapshot_under_another_name_is_damaged_and_one_of_another_repository_is_passed_over(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository, new_repository(MemoryStore(), tmp_path) as other:
        store_file(repository, [b"content"])
        store_file(other, [b"content"])
        (stored,), (foreign,) = repository.snapshots().good, other.snapshots().good
        store.files[FileKind.SNAPSHOT, "ab" * 32] = store.files[FileKind.SNAPSHOT, stored.id]
        store.files[FileKind.SNAPSHOT, foreign.id] = other.store.read(FileKind.SNAPSHOT, foreign.id)
        found = repository.snapshots()
        assert found.good == (stored,)
        assert ["ab" * 32 in str(error) for error in found.damaged] == [True]


def test_snapshots_move_to_the_trash_and_back_in_pairs(memory_repository: Repository) -> None:
    store_file(memory_repository, [b"content"])
    (stored,) = memory_repository.snapshots().good
    store = memory_repository.store
    trash_mirrored(store, FileKind.SNAPSHOT, stored.id)
    assert memory_repository.snapshots().good == ()
    assert memory_repository.snapshots(trashed=True).good == (stored,)
    with pytest.raises(FileNotFoundError):
        trash_mirrored(store, FileKind.SNAPSHOT, "ab" * 32)
    store.delete(FileKind.SNAPSHOT, stored.id + ".2", trashed=True)
    untrash_mirrored(store, FileKind.SNAPSHOT, stored.id)
    assert memory_repository.snapshots().good == (stored,)
    delete_mirrored(store, FileKind.SNAPSHOT, stored.id)
    assert memory_repository.snapshots().good == ()


def test_snapshots_that_are_being_committed_are_listed_apart(memory_repository: Repository) -> None:
    store = memory_repository.store
    assert isinstance(store, MemoryStore)
    store_file(memory_repository, [b"content"])
    (stored,) = memory_repository.snapshots().good
    store.files[FileKind.PENDING, stored.id] = store.files[FileKind.SNAPSHOT, stored.id]
    assert memory_repository.snapshots(pending=True).good == (stored,)


# ---- the index's place --------------------------------------------------------------------------------


def test_the_index_is_kept_in_the_cache_and_may_be_dropped(
    local_repository: Repository, tmp_path: Path
) -> None:
    item = store_file(local_repository, [b"content"])
    folder = local_repository.index_folder
    assert folder
    assert folder.is_relative_to(tmp_path / "cache" / local_repository.config.hex_id)
    assert list(folder.iterdir())
    local_repository.drop_index()
    assert not folder.exists()
    assert local_repository.refresh().rebuilt
    assert read_item(local_repository, item) == b"content"


def a_file(cache: Path) -> str:
    cache.touch()
    return "Not a directory"


def writable_by_all(cache: Path) -> str:
    cache.mkdir()
    cache.chmod(0o777)
    return "another user could write there"


@pytest.mark.parametrize("hinder", [a_file, writable_by_all])
def test_without_a_cache_a_command_makes_an_index_of_its_own(
    hinder: Callable[[Path], str], local_store: LocalStore, tmp_path: Path
) -> None:
    reason = hinder(tmp_path / "cache")
    with new_repository(local_store, tmp_path / "cache") as repository:
        item = store_file(repository, [b"content"])
        assert read_item(repository, item) == b"content"
        assert reason in repository.refresh().no_cache
        assert repository.index_folder is None


def test_nothing_but_repository_files_lies_in_the_repository(local_repository: Repository) -> None:
    store_file(local_repository, [b"content"])
    assert isinstance(local_repository.store, LocalStore)
    known = {kind.value for kind in FileKind} | {"config.2", "lock", "claims", "trash"}
    assert {path.name for path in local_repository.store.root.iterdir()} <= known


def test_a_damaged_directory_costs_no_chunk_that_opens(tmp_path: Path) -> None:
    store = MemoryStore()
    with new_repository(store, tmp_path) as repository:
        item = store_file(repository, [b"one", b"two"])
        ((key, content),) = [(k, v) for k, v in store.files.items() if k[0] is FileKind.PACK]
        store.files[key] = content[:-64] + bytes(64)
        repository.drop_index()
        assert read_item(repository, item) == b"onetwo"
