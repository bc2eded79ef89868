"""Log archives: nothing is lost and nothing is replaced, whoever pushes, prunes or dies at the same time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.base.errors import Damaged, Locked, NotFound, Refused, SourceError
from holdfast.ingest.sources.source import FileSource
from holdfast.repo.core.mirrored import delete_mirrored
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.records.log_archive import BATCH, LogReading, drop, open_archive, snapshots_to_merge
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.local import LocalStore
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth, check
from holdfast.repo.upkeep.prune import execute
from holdfast.repo.upkeep.prune_plan import make_plan
from holdfast.tasks.push_logs import push
from support.basics import new_repository, open_repository
from support.faulty_store import Crash, Fault, FaultyStore, Operation, crash_at
from support.log import (
    PUSHER,
    SUBJECT,
    archive_of,
    assert_holds,
    bytes_of,
    content,
    file_name,
    push_files,
)

OLD = [file_name(n) for n in range(1, 4)]
NEW = file_name(9)


@pytest.fixture
def repository(memory_repository: Repository) -> Repository:
    return memory_repository


@contextmanager
def opened(store: object, cache: Path) -> Iterator[Repository]:
    with open_repository(store, cache) as repository:  # type: ignore[arg-type]  # a store, faulty or not
        yield repository


def filled(cache: Path) -> MemoryStore:
    """A store with an archive that holds OLD, made by one push a file."""
    store = MemoryStore()
    with new_repository(store, cache) as repository:
        for name in OLD:
            push_files(repository, cache / "files", name)
    return store


def log_snapshots(repository: Repository) -> int:
    return len(repository.snapshots().good)


def test_many_pushes_make_one_snapshot_that_holds_all(repository: Repository, tmp_path: Path) -> None:
    for name in OLD:
        assert push_files(repository, tmp_path / "f", name).new == (name,)
    assert log_snapshots(repository) == 1
    assert_holds(repository, *OLD)
    assert not list(repository.store.listing(FileKind.SNAPSHOT, trashed=True))


def test_a_full_batch_is_left_alone(repository: Repository, tmp_path: Path) -> None:
    push_files(repository, tmp_path / "f", *OLD)
    archive = archive_of(repository)
    (stored,) = archive.snapshots
    snapshots = tuple(
        replace(stored, snapshot=replace(stored.snapshot, items=stored.snapshot.items[:1] * count))
        for count in (1, BATCH - 1, BATCH, BATCH + 1)
    )
    replaced, _ = snapshots_to_merge(replace(archive, snapshots=snapshots))
    assert [len(stored.snapshot.items) for stored in replaced] == [1, BATCH - 1]


def test_the_same_file_again_is_a_success_that_writes_nothing(repository: Repository, tmp_path: Path) -> None:
    push_files(repository, tmp_path / "f", *OLD)
    before = dict(repository.store.files)  # type: ignore[attr-defined]  # a MemoryStore
    again = push_files(repository, tmp_path / "f", OLD[1])
    assert (again.new, again.there) == ((), (OLD[1],))
    assert repository.store.files == before  # type: ignore[attr-defined]


def test_a_different_file_of_the_same_name_is_refused_and_nothing_changes(
    repository: Repository, tmp_path: Path
) -> None:
    push_files(repository, tmp_path / "f", *OLD)
    before = dict(repository.store.files)  # type: ignore[attr-defined]
    with pytest.raises(Refused, match="a different file of this name"):
        push_files(repository, tmp_path / "f", NEW, OLD[1], seed=1)
    assert repository.store.files == before  # type: ignore[attr-defined]
    assert NEW not in archive_of(repository).files


def test_a_file_whose_chunks_were_lost_is_stored_again(local_store: LocalStore, tmp_path: Path) -> None:
    with new_repository(local_store, tmp_path / "cache") as repository:
        push_files(repository, tmp_path / "f", *OLD)
        for entry in list(local_store.listing(FileKind.PACK)):
            local_store.delete(FileKind.PACK, entry.name)
        push_files(repository, tmp_path / "f", *OLD)
        assert_holds(repository, *OLD)


def test_what_another_push_left_unsynced_is_made_durable_before_it_is_called_there(tmp_path: Path) -> None:
    store = FaultyStore(filled(tmp_path / "a"))
    with opened(store, tmp_path / "b") as repository:
        push_files(repository, tmp_path / "f", OLD[0])
    did = store.did("delete", "sync")
    assert did[-2:] == [("delete", FileKind.SNAPSHOT), ("sync", None)]


def test_a_file_that_changes_while_it_is_read_is_not_stored(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / NEW
    path.write_bytes(content(NEW))
    with FileSource(path) as source:
        path.write_bytes(content(NEW) + b"more")
        with pytest.raises(SourceError, match="written to while it was read"):
            push(repository, LogReading(repository), SUBJECT, [source], PUSHER)
    assert log_snapshots(repository) == 0


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_push_that_dies_anywhere_loses_nothing_and_can_be_done_again(tmp_path: Path, moment: str) -> None:
    k = 1
    while True:
        store = filled(tmp_path / f"{moment}{k}")
        faulty = FaultyStore(store, **{moment: crash_at(k)})  # type: ignore[arg-type]  # before or after
        died = False
        with ExitStack() as stack:
            try:
                repository = stack.enter_context(opened(faulty, tmp_path / f"{moment}{k}c"))
                push_files(repository, tmp_path / "f", NEW)
            except Crash:
                died = True
        with opened(store, tmp_path / f"{moment}{k}d") as repository:
            assert_holds(repository, *OLD)
            push_files(repository, tmp_path / "f", NEW)
            assert_holds(repository, *OLD, NEW)
            assert not [f for f in check(repository, Depth.READ_DATA).findings if f.affects]
            assert log_snapshots(repository) <= 2
        if not died:
            return
        k += 1


def at(number: int, work: Callable[[], None]) -> Fault:
    """Do something else just before the `number`th operation."""

    def fault(operation: Operation) -> None:
        if operation.number == number:
            work()

    return fault


def operations_of_a_push(tmp_path: Path) -> int:
    store = FaultyStore(filled(tmp_path / "count"))
    with opened(store, tmp_path / "countc") as repository:
        push_files(repository, tmp_path / "f", NEW)
    return len(store.operations)


@pytest.mark.parametrize("seed", [0, 1])
def test_of_two_pushes_of_one_name_at_once_equal_ones_succeed_and_different_ones_do_not(
    tmp_path: Path, seed: int
) -> None:
    for k in range(1, operations_of_a_push(tmp_path) + 1):
        store = filled(tmp_path / f"{k}")
        done: list[int] = []

        def other(store: MemoryStore = store, k: int = k, done: list[int] = done) -> None:
            with opened(store, tmp_path / f"{k}o") as second, suppress(Refused):
                push_files(second, tmp_path / "g", NEW, seed=seed)
                done.append(seed)

        ours = 7 if seed else 0
        with opened(FaultyStore(store, before=at(k, other)), tmp_path / f"{k}c") as first, suppress(Refused):
            push_files(first, tmp_path / "f", NEW, seed=ours)
            done.append(ours)
        with opened(store, tmp_path / f"{k}d") as repository:
            assert_holds(repository, *OLD)
            assert len(done) == (1 if seed else 2), k
            assert_holds(repository, NEW, seed=done[0])


def test_pushes_at_once_of_different_names_both_stay_and_the_next_push_merges_them(tmp_path: Path) -> None:
    third, fourth = file_name(10), file_name(11)
    for k in range(1, operations_of_a_push(tmp_path) + 1):
        store = filled(tmp_path / f"{k}")

        def other(store: MemoryStore = store, k: int = k) -> None:
            with opened(store, tmp_path / f"{k}o") as second:
                push_files(second, tmp_path / "g", third)

        with opened(FaultyStore(store, before=at(k, other)), tmp_path / f"{k}c") as first:
            push_files(first, tmp_path / "f", NEW)
        with opened(store, tmp_path / f"{k}d") as repository:
            assert_holds(repository, *OLD, NEW, third)
            push_files(repository, tmp_path / "f", fourth)
            assert_holds(repository, *OLD, NEW, third, fourth)
            assert log_snapshots(repository) == 1


def test_a_file_that_was_taken_over_and_then_withdrawn_does_not_come_back_as_a_conflict(
    tmp_path: Path,
) -> None:
    """A commits; C lists it; B commits another file of A's name and A withdraws; then C commits."""
    store = filled(tmp_path / "s")
    rival = FaultyStore(store)
    with opened(store, tmp_path / "b") as b, opened(store, tmp_path / "a") as a:
        push_files(a, tmp_path / "f", NEW)
        theirs = next(s for s in a.snapshots().good if any(i.path == NEW for i in s.snapshot.items))

        def withdraw_and_replace(operation: Operation) -> None:
            if operation.action == "put" and operation.kind is FileKind.SNAPSHOT and not seen:
                seen.append(operation)
                kept = [item for item in theirs.snapshot.items if item.path != NEW]
                with Writer(a) as writer:
                    writer.commit(replace(theirs.snapshot, items=tuple(kept)))
                delete_mirrored(store, FileKind.SNAPSHOT, theirs.id)
                push_files(b, tmp_path / "g", NEW, seed=5)

        seen: list[Operation] = []
        rival.before = withdraw_and_replace
        with opened(rival, tmp_path / "c") as c:
            push_files(c, tmp_path / "f", file_name(10))
    with opened(store, tmp_path / "d") as repository:
        assert seen
        assert_holds(repository, *OLD, file_name(10))
        assert_holds(repository, NEW, seed=5)


def test_what_two_dead_pushes_left_under_one_name_is_never_merged_nor_read(
    repository: Repository, tmp_path: Path
) -> None:
    push_files(repository, tmp_path / "f", NEW)
    with Writer(repository) as writer:
        ours = archive_of(repository).snapshots[0].snapshot
        other = replace(ours.items[0], size=ours.items[0].size + 1)
        writer.commit(replace(ours, items=(other,)))
    for _ in range(2):
        push_files(repository, tmp_path / "f", *OLD)
        archive = archive_of(repository)
        assert set(archive.conflicts) == {NEW}
        with pytest.raises(Damaged, match="different files"):
            archive.get(NEW)
        with pytest.raises(Refused, match="a different file of this name"):
            push_files(repository, tmp_path / "f", NEW)


def test_a_reader_never_misses_files_while_they_are_pushed(tmp_path: Path) -> None:
    store = filled(tmp_path / "s")
    count = FaultyStore(store)
    with opened(count, tmp_path / "c") as repository:
        before = len(count.operations)
        LogReading(repository).snapshots()
        operations = range(before + 1, len(count.operations) + 1)
    for k in operations:
        inner = filled(tmp_path / f"s{k}")

        def pushes(inner: MemoryStore = inner, k: int = k) -> None:
            with opened(inner, tmp_path / f"{k}o") as other:
                push_files(other, tmp_path / "g", NEW)

        with opened(FaultyStore(inner, before=at(k, pushes)), tmp_path / f"{k}c") as repository:
            assert set(archive_of(repository).files) >= set(OLD)


def test_a_prune_at_the_same_time_takes_nothing(tmp_path: Path) -> None:
    counting = FaultyStore(filled(tmp_path / "s"))
    with opened(counting, tmp_path / "sc") as repository:
        before = len(counting.operations)
        make_plan(repository)
        operations = len(counting.operations) - before
    for k in range(before + 1, before + operations + 1, 2):
        store = filled(tmp_path / f"{k}")

        def pushes(store: MemoryStore = store, k: int = k) -> None:
            with opened(store, tmp_path / f"{k}o") as other:
                push_files(other, tmp_path / "g", NEW)

        faulty = FaultyStore(store, before=at(k, pushes))
        with opened(faulty, tmp_path / f"{k}c") as repository:
            plan = make_plan(repository, max_unused=0.0)
            execute(repository, plan, quarantine=timedelta(0), now=lambda: 1e12)
        with opened(store, tmp_path / f"{k}d") as repository:
            assert_holds(repository, *OLD, NEW)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_dropping_old_files_that_dies_anywhere_keeps_all_others(tmp_path: Path, moment: str) -> None:
    k = 1
    while True:
        store = filled(tmp_path / f"{moment}{k}")
        faulty = FaultyStore(store, **{moment: crash_at(k)})  # type: ignore[arg-type]
        died = False
        with ExitStack() as stack:
            try:
                repository = stack.enter_context(opened(faulty, tmp_path / f"{moment}{k}c"))
                drop(repository, SUBJECT.identity, {OLD[0]}.__contains__)
            except Crash:
                died = True
        with opened(store, tmp_path / f"{moment}{k}d") as repository:
            assert_holds(repository, *OLD[1:])
            drop(repository, SUBJECT.identity, {OLD[0]}.__contains__)
            assert set(archive_of(repository).files) == set(OLD[1:])
        if not died:
            return
        k += 1


def test_what_was_dropped_is_in_the_trash(repository: Repository, tmp_path: Path) -> None:
    push_files(repository, tmp_path / "f", *OLD)
    assert drop(repository, SUBJECT.identity, lambda name: True) == 3
    assert repository.snapshots().good == ()
    trashed = repository.snapshots(trashed=True).good
    assert [i.path for s in trashed for i in s.snapshot.items] == OLD


def test_files_stay_that_a_backup_needs_which_came_after_the_plan(
    repository: Repository, tmp_path: Path
) -> None:
    push_files(repository, tmp_path / "f", *OLD)
    asked: list[int] = []

    def needed(snapshots: Sequence[StoredSnapshot]) -> Collection[str]:
        asked.append(len(snapshots))
        return {OLD[1]}

    assert drop(repository, SUBJECT.identity, set(OLD[:2]).__contains__, needed=needed) == 1
    assert_holds(repository, *OLD[1:])
    assert set(archive_of(repository).files) == set(OLD[1:])
    assert len(asked) == 2, "once more under the lock that no backup holds"


def test_nothing_is_dropped_when_the_last_look_finds_a_backup_that_needs_it(
    repository: Repository, tmp_path: Path
) -> None:
    push_files(repository, tmp_path / "f", *OLD)
    answers = iter([set[str](), {OLD[0]}])
    with pytest.raises(Refused, match="none was dropped"):
        drop(repository, SUBJECT.identity, set(OLD[:2]).__contains__, needed=lambda _: next(answers))
    assert_holds(repository, *OLD)
    assert drop(repository, SUBJECT.identity, set(OLD[:2]).__contains__) == 2
    assert set(archive_of(repository).files) == {OLD[2]}


def test_nothing_is_dropped_while_a_backup_is_being_taken(repository: Repository, tmp_path: Path) -> None:
    push_files(repository, tmp_path / "f", *OLD)
    with Writer(repository), pytest.raises(Locked):
        drop(repository, SUBJECT.identity, lambda name: True, lock_timeout=0.0)
    assert_holds(repository, *OLD)


def test_nothing_is_dropped_while_a_snapshot_cannot_be_read(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.put(FileKind.SNAPSHOT, "7" * 64, b"damaged")
    with opened(store, tmp_path / "c") as repository:
        with pytest.raises(Refused, match=r"77777777.*none was dropped"):
            drop(repository, SUBJECT.identity, lambda name: True)
        assert_holds(repository, *OLD)


def test_an_archive_is_found_by_name_or_identity(repository: Repository, tmp_path: Path) -> None:
    twin = replace(SUBJECT, uuid="postgresql-88")
    push_files(repository, tmp_path / "f", *OLD)
    push_files(repository, tmp_path / "f", *OLD, subject=twin, seed=2)
    assert bytes_of(repository, open_archive(repository, "postgresql-88"), OLD[0]) == content(OLD[0], 2)
    with pytest.raises(Refused, match="several"):
        open_archive(repository, "shop")
    with pytest.raises(NotFound, match="no log archive 'web'"):
        open_archive(repository, "web")
