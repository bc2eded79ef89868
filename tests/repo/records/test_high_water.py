"""Snapshots that vanish are missed; those that were forgotten on purpose are not."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.base.types import SnapshotID
from holdfast.repo.core.mirrored import delete_mirrored, mirrored_names, trash_mirrored
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.forgotten import read_forgotten, record_forgotten
from holdfast.repo.records.high_water import (
    OtherRepository,
    SnapshotsVanished,
    Vanished,
    accept_place,
    accept_vanished,
    check_place,
    find_vanished,
    remember_snapshot,
)
from holdfast.repo.snapshots.heads import heads_of
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth
from holdfast.repo.upkeep.forget import forget, undelete
from holdfast.repo.upkeep.prune import execute
from holdfast.repo.upkeep.prune_plan import make_plan
from support.fault import backup, copy_memory, create, data, findings, later, open_repository

NOTHING = Vanished((), ())


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    create(store)
    return store


@pytest.fixture
def repository(store: MemoryStore, tmp_path: Path) -> Iterator[Repository]:
    with open_repository(store, tmp_path / "cache") as opened:
        yield opened


@pytest.fixture
def other(store: MemoryStore, tmp_path: Path) -> Iterator[Repository]:
    """The same repository, as another user opened it."""
    with open_repository(store, tmp_path / "others") as opened:
        yield opened


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 0x20]) + data[offset + 1 :]


def make(repository: Repository, n: int) -> SnapshotID:
    return backup(repository, {"a.sql": data(n, 50_000)}, time=later(n)).stored.id


def look(repository: Repository) -> Vanished:
    return find_vanished(repository, repository.snapshots())


def remove(repository: Repository, id_: SnapshotID) -> None:
    """As somebody who can write to the store, and knows no password."""
    delete_mirrored(repository.store, FileKind.SNAPSHOT, id_)


def prune(repository: Repository, *, now: float = 4e9) -> None:
    execute(repository, make_plan(repository), quarantine=timedelta(0), now=lambda: now)


def test_the_newest_snapshot_is_missed_by_who_made_it(repository: Repository) -> None:
    make(repository, 0)
    newest = make(repository, 1)
    assert look(repository) == NOTHING
    remove(repository, newest)
    assert look(repository) == Vanished((newest,), ())
    assert look(repository) == Vanished((newest,), ()), "an alarm is not forgotten by looking"


def test_a_snapshot_is_missed_that_was_just_made_and_never_listed(repository: Repository) -> None:
    first = make(repository, 0)
    remove(repository, first)
    assert look(repository) == Vanished((first,), ())


def test_an_older_one_is_missed_by_who_never_saw_it(store: MemoryStore, tmp_path: Path) -> None:
    with open_repository(store, tmp_path / "mine") as mine:
        first, second, third = (make(mine, n) for n in range(3))
        remove(mine, second)
    with open_repository(store, tmp_path / "yours") as yours:
        named = {stored.id: stored.snapshot.heads for stored in yours.snapshots().good}
        assert named == {first: (), third: (second,)}
        assert look(yours) == Vanished((second,), ())


def test_a_repository_that_is_rolled_back_is_noticed(store: MemoryStore, tmp_path: Path) -> None:
    with open_repository(store, tmp_path / "cache") as repository:
        make(repository, 0)
        before = copy_memory(store)
        newest = make(repository, 1)
    with open_repository(before, tmp_path / "cache") as rolled_back:
        assert look(rolled_back) == Vanished((newest,), ())


def test_what_is_forgotten_is_not_missed_by_anybody(
    store: MemoryStore, repository: Repository, other: Repository
) -> None:
    first, second = make(repository, 0), make(repository, 1)
    assert look(other) == NOTHING
    forget(repository, [first])
    assert look(repository) == look(other) == NOTHING
    prune(repository)
    assert not mirrored_names(store, FileKind.SNAPSHOT, trashed=True)
    assert look(repository) == look(other) == NOTHING
    forget(repository, [second])
    prune(repository)
    assert look(repository) == look(other) == NOTHING


def test_what_was_brought_back_is_missed_again(repository: Repository) -> None:
    first = make(repository, 0)
    make(repository, 1)
    forget(repository, [first])
    undelete(repository, [first])
    assert look(repository) == NOTHING
    remove(repository, first)
    assert look(repository) == Vanished((first,), ())


def test_what_others_move_to_the_trash_is_missed_kept_and_brought_back(repository: Repository) -> None:
    first = make(repository, 0)
    trash_mirrored(repository.store, FileKind.SNAPSHOT, first)
    assert look(repository) == Vanished((), (first,))
    with pytest.raises(SnapshotsVanished, match=f"{first[:8]} is in the trash"):
        prune(repository)
    undelete(repository, [first])
    assert look(repository) == NOTHING


def test_a_prune_deletes_from_the_trash_only_what_a_record_names(store: MemoryStore, tmp_path: Path) -> None:
    with open_repository(store, tmp_path / "mine") as mine:
        first = make(mine, 0)
    trash_mirrored(store, FileKind.SNAPSHOT, first)
    with open_repository(store, tmp_path / "yours") as yours:  # has seen nothing
        prune(yours)
    assert mirrored_names(store, FileKind.SNAPSHOT, trashed=True) == {first: 2}


def test_forget_and_prune_refuse_while_snapshots_are_missed(repository: Repository) -> None:
    first, second = make(repository, 0), make(repository, 1)
    remove(repository, first)
    packs = list(repository.store.listing(FileKind.PACK))
    with pytest.raises(SnapshotsVanished):
        forget(repository, [second])
    with pytest.raises(SnapshotsVanished):
        prune(repository)
    assert list(repository.store.listing(FileKind.PACK)) == packs
    assert not read_forgotten(repository).times


def test_the_present_state_can_be_accepted_for_all(repository: Repository, other: Repository) -> None:
    first = make(repository, 0)
    make(repository, 1)
    assert look(other) == NOTHING
    remove(repository, first)
    accept_vanished(repository, look(repository), 1.0)
    assert look(repository) == look(other) == NOTHING
    prune(repository)


def test_a_backup_is_made_all_the_same_and_tells(repository: Repository) -> None:
    first = make(repository, 0)
    remove(repository, first)
    outcome = backup(repository, {"a.sql": b"x"}, time=later(1))
    assert outcome.vanished == Vanished((first,), ())
    assert outcome.stored.id in {stored.id for stored in repository.snapshots().good}


def test_a_removed_or_damaged_record_is_an_alarm_and_no_more(store: MemoryStore, tmp_path: Path) -> None:
    with open_repository(store, tmp_path / "cache") as repository:
        first = make(repository, 0)
        make(repository, 1)
        forget(repository, [first])
        prune(repository)
        (record,) = mirrored_names(store, FileKind.FORGOTTEN)
        for copy in (record, f"{record}.2"):
            whole = store.files[FileKind.FORGOTTEN, copy]
            store.files[FileKind.FORGOTTEN, copy] = flipped(whole, len(whole) // 2)
            assert len(findings(repository, Depth.STRUCTURE)) >= 1
        assert read_forgotten(repository).damaged
        assert look(repository) == Vanished((first,), ())


def test_a_snapshot_that_cannot_be_read_is_there(store: MemoryStore, tmp_path: Path) -> None:
    with open_repository(store, tmp_path / "cache") as repository:
        first = make(repository, 0)
        whole = {copy: store.files[FileKind.SNAPSHOT, copy] for copy in (first, f"{first}.2")}
        for copy, plain in whole.items():
            store.files[FileKind.SNAPSHOT, copy] = flipped(plain, 100)
        assert look(repository) == NOTHING
        for copy in whole:
            del store.files[FileKind.SNAPSHOT, copy]
        assert look(repository) == Vanished((first,), ()), "it was still known"


def test_what_is_in_the_cache_counts_only_if_it_was_sealed_here(repository: Repository) -> None:
    first = make(repository, 0)
    file = repository.cache_folder / "seen"
    sealed = file.read_bytes()
    assert bytes.fromhex(first) not in sealed
    for forged in (b"", secrets.token_bytes(len(sealed)), flipped(sealed, 70)):
        file.write_bytes(forged)
        assert look(repository) == NOTHING
        assert file.read_bytes() != forged


def test_many_records_become_one_without_what_is_long_gone(repository: Repository) -> None:
    day = 86_400.0
    named = make(repository, 0)
    make(repository, 1)
    forget(repository, [named])
    for n in range(20):
        record_forgotten(repository, [SnapshotID(f"{n:064x}")], now=n * 40 * day)
    assert len(read_forgotten(repository).records) == 21
    prune(repository, now=801 * day)
    left = read_forgotten(repository)
    assert len(left.records) == 1
    old = {SnapshotID(f"{n:064x}") for n in range(11)}  # up to 400 days ago
    assert not old & left.times.keys()
    assert named in left.times
    assert len(left.times) == 1 + 20 - 11


def test_heads_are_those_that_nobody_names(repository: Repository) -> None:
    first = make(repository, 0)
    snapshots = repository.snapshots().good
    assert heads_of(snapshots) == (first,)
    second = make(repository, 1)
    assert heads_of(repository.snapshots().good) == (second,)
    assert heads_of([s for s in repository.snapshots().good if s.id == first]) == (first,)


def test_another_repository_at_the_same_path_is_noticed(tmp_path: Path) -> None:
    here, cache = tmp_path / "backup", tmp_path / "cache"
    stores = [MemoryStore(), MemoryStore()]
    for each in stores:
        create(each)
    with open_repository(stores[0], cache) as one, open_repository(stores[1], cache) as other:
        check_place(one, here, cache)
        check_place(other, tmp_path / "elsewhere", cache)
        with pytest.raises(OtherRepository, match=f"{one.config.hex_id[:8]} before"):
            check_place(other, here, cache)
        accept_place(other, here, cache)
        check_place(other, here, cache)
        check_place(one, here, cache)  # two disks that take turns


def test_an_id_that_was_remembered_stays_remembered(repository: Repository) -> None:
    first = make(repository, 0)
    lost = SnapshotID("ab" * 32)
    remember_snapshot(repository, lost)
    assert look(repository) == Vanished((lost,), ())
    assert first not in look(repository).gone
