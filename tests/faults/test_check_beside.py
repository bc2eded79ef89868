"""A check beside commands that are at work: what they are about to finish is no damage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.base.errors import StoreError
from holdfast.repo.core.mirrored import copies
from holdfast.repo.core.repository import Repository
from holdfast.repo.store.interface import FileKind, LockMode
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth, check
from holdfast.repo.upkeep.findings import Weight
from holdfast.repo.upkeep.forget import forget
from holdfast.repo.upkeep.prune import execute
from holdfast.repo.upkeep.prune_plan import make_plan
from support.fault import NEXT, OLD, backup, copy_memory, create, findings, later, open_repository
from support.faulty_store import FaultyStore, Operation, no_fault


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """Two snapshots in use, one in the trash."""
    store = MemoryStore()
    create(store)
    with open_repository(store, tmp_path / "cache") as repository:
        first = backup(repository, OLD).stored
        backup(repository, NEXT, time=later(1))
        backup(repository, OLD, time=later(2))
        forget(repository, [first.id])
    return store


def halve(store: MemoryStore, kind: FileKind, copy: int) -> None:
    name = min(name for k, name in store.files if k is kind)
    del store.files[kind, copies(name)[copy]]


@pytest.mark.parametrize("copy", [0, 1])
@pytest.mark.parametrize("kind", [FileKind.KEY, FileKind.KEYRING, FileKind.SNAPSHOT])
def test_half_a_pair_is_told_unless_somebody_holds_the_lock(
    store: MemoryStore, tmp_path: Path, kind: FileKind, copy: int
) -> None:
    halve(store, kind, copy)
    with open_repository(store, tmp_path / "cache") as repository:
        with store.lock(LockMode.SHARED, 0):
            assert findings(repository, Depth.STRUCTURE) == []
        assert [each.weight for each in findings(repository, Depth.STRUCTURE)] == [Weight.MEND]

        def refuse(operation: Operation) -> None:
            if operation.action == "lock":
                raise StoreError("lock", "lock", OSError(30, "Read-only file system"))

        repository.store = FaultyStore(store, refuse)
        assert [each.weight for each in findings(repository, Depth.STRUCTURE)] == [Weight.MEND]


def test_a_pair_that_becomes_whole_while_a_check_runs_is_not_told(store: MemoryStore, tmp_path: Path) -> None:
    whole = dict(store.files)
    halve(store, FileKind.SNAPSHOT, 0)

    def finish(operation: Operation) -> None:
        if (operation.action, operation.kind) == ("list", FileKind.PACK):
            store.files |= whole

    with open_repository(FaultyStore(store, finish), tmp_path / "cache") as repository:
        assert findings(repository, Depth.REACHABLE) == []


def test_at_any_moment_of_a_backup_a_check_finds_nothing(store: MemoryStore, tmp_path: Path) -> None:
    """The check sees the store as it is before each operation of the backup, whose lock it holds."""
    states: list[MemoryStore] = []

    def look(operation: Operation) -> None:
        states.append(copy_memory(store))

    with open_repository(FaultyStore(store, look), tmp_path / "cache") as repository:
        backup(repository, NEXT, time=later(5))
    assert len(states) > 20
    for number, state in enumerate(states):
        with (
            state.lock(LockMode.SHARED, 0),
            open_repository(state, tmp_path / f"cache-{number}") as repository,
        ):
            assert check(repository, Depth.REACHABLE).findings == [], number


def pruned(repository: Repository) -> None:
    plan = make_plan(repository, max_unused=0.0)
    execute(repository, plan, quarantine=timedelta(0), now=lambda: 1e12, lock_timeout=0.0)


def forgotten(repository: Repository) -> None:
    forget(repository, [repository.snapshots().good[0].id])
    pruned(repository)


@pytest.mark.parametrize("work", [pruned, forgotten])
def test_a_check_does_not_miss_what_a_prune_moves_or_frees_meanwhile(
    store: MemoryStore, tmp_path: Path, work: Callable[[Repository], None]
) -> None:
    at = 0
    while _check_beside(copy_memory(store), tmp_path / str(at := at + 1), at, work):
        assert at < 200
    assert at > 10


def _check_beside(state: MemoryStore, folder: Path, at: int, work: Callable[[Repository], None]) -> bool:
    """A check, while before its operation number `at` somebody else works. Whether he did."""
    did: list[bool] = []

    def rival(operation: Operation) -> None:
        if operation.number == at:
            faulty.before, did[:] = no_fault, [True]
            with open_repository(state, folder / "rival") as other:
                work(other)

    faulty = FaultyStore(state, rival)
    with open_repository(faulty, folder / "cache") as repository:
        assert check(repository, Depth.READ_DATA).findings == [], at
    return bool(did)
