"""A store whose lock does not keep everybody out: nothing is lost, and what is at risk is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.base.errors import Locked, MissingChunk, Refused, StoreError
from holdfast.base.process_identity import ProcessIdentity
from holdfast.repo.core.key_changes import remove_slot
from holdfast.repo.core.mirrored import delete_mirrored, mirrored_names
from holdfast.repo.core.repository import Repository
from holdfast.repo.store.interface import FileKind, LockMode
from holdfast.repo.store.local import LocalStore
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth, check
from holdfast.repo.upkeep.findings import Weight
from holdfast.repo.upkeep.forget import forget
from holdfast.repo.upkeep.prune import PruneResult, execute
from holdfast.repo.upkeep.prune_plan import make_plan
from support.fault import (
    NEXT,
    OLD,
    add_key,
    all_contents,
    backup,
    contents,
    create,
    findings,
    later,
    local,
    open_repository,
    restored,
)
from support.faulty_store import Clock, FaultyStore, Operation

WEEK = timedelta(days=7)
DAY = 86400.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a snapshot that was forgotten, one that is in use, and what a killed commit left."""
    root = tmp_path / "repository"
    with closing(LocalStore.create(root)) as store:
        create(store)
    with local(root) as store, open_repository(store, tmp_path / "cache") as repository:
        first = backup(repository, OLD).stored
        backup(repository, NEXT, time=later(1))
        for copy in ("", ".2"):
            content = (root / "snapshots" / (first.id + copy)).read_bytes()
            (root / "pending" / (first.id + copy)).write_bytes(content)
        forget(repository, [first.id])
    return root


@pytest.fixture
def repository(root: Path, tmp_path: Path) -> Iterator[Repository]:
    with local(root) as store, open_repository(store, tmp_path / "cache") as repository:
        yield repository


def prune(repository: Repository, quarantine: timedelta, clock: Clock | None = None) -> PruneResult:
    plan = make_plan(repository, max_unused=0.0)
    return execute(repository, plan, quarantine=quarantine, now=clock or Clock(), lock_timeout=0.0)


def no_flock(monkeypatch: pytest.MonkeyPatch, code: int = 0) -> None:
    """As where locks are of one machine only, or there are none."""

    def flock(fd: int, flags: int) -> None:
        if code:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


def plant(root: Path, who: ProcessIdentity, mode: LockMode = LockMode.SHARED) -> Path:
    """The claim that a process has or left."""
    path = root / "claims" / f"{mode.value}-0123456789abcdef"
    path.write_text(json.dumps(asdict(who)))
    return path


MINE = ProcessIdentity.of_this_process()
FAR = replace(MINE, machine="another", boot="another")


@pytest.mark.parametrize("code", [0, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_a_prune_needs_a_quarantine_and_keeps_what_is_claimed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    with open_repository(LocalStore.open(root), tmp_path / "cache") as repository:
        no_flock(monkeypatch, code)
        before = all_contents(repository)
        files = sorted(root.rglob("packs/*/*"))
        with pytest.raises(Refused, match="no locks that keep others out"):
            prune(repository, timedelta(0))
        assert sorted(root.rglob("packs/*/*")) == files
        (root / "pending" / ".tmp-0123").touch()
        prune(repository, WEEK)
        assert mirrored_names(repository.store, FileKind.PENDING)
        assert (root / "pending" / ".tmp-0123").exists()
        assert isinstance(repository.store, LocalStore)
        assert any("no locks" in text for text in repository.store.shortcomings())
        assert all_contents(repository) == before


def test_a_lock_that_the_disk_refuses_is_an_error_that_names_the_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local(root) as store:
        no_flock(monkeypatch, errno.EIO)
        with (
            pytest.raises(StoreError, match=r"cannot lock .*/lock: Input/output"),
            store.lock(LockMode.SHARED, 0),
        ):
            raise AssertionError("it is held")


@pytest.mark.parametrize(
    ("held", "wanted", "both"),
    [
        (LockMode.SHARED, LockMode.SHARED, True),
        (LockMode.SHARED, LockMode.EXCLUSIVE, False),
        (LockMode.EXCLUSIVE, LockMode.SHARED, False),
        (LockMode.EXCLUSIVE, LockMode.EXCLUSIVE, False),
    ],
)
def test_who_is_seen_to_run_is_waited_for_though_flock_does_not_keep_him_out(
    root: Path, monkeypatch: pytest.MonkeyPatch, held: LockMode, wanted: LockMode, both: bool
) -> None:
    no_flock(monkeypatch)
    with local(root) as mine, local(root) as theirs, theirs.lock(held, 0):
        if both:
            with mine.lock(wanted, 0):
                assert len(list((root / "claims").iterdir())) == 2
        else:
            with pytest.raises(Locked, match=f"process {os.getpid()}"), mine.lock(wanted, 0):
                raise AssertionError("both hold it")
    assert list((root / "claims").iterdir()) == []


def test_where_locks_work_they_leave_nothing_and_give_no_doubts(root: Path) -> None:
    with local(root) as store:
        with store.lock(LockMode.SHARED, 0):
            assert len(list((root / "claims").iterdir())) == 1
        with store.lock(LockMode.EXCLUSIVE, 0):
            assert store.doubts() == []
        assert list((root / "claims").iterdir()) == []
        assert store.shortcomings() == []


@pytest.mark.parametrize("who", [replace(MINE, started="1"), replace(MINE, pid=2**22 - 1)])
def test_what_a_killed_process_left_is_removed_by_the_next_one(
    root: Path, repository: Repository, who: ProcessIdentity
) -> None:
    claim = plant(root, who)
    prune(repository, timedelta(0))
    assert not claim.exists()
    assert not mirrored_names(repository.store, FileKind.PENDING)


def test_who_may_be_at_work_elsewhere_is_believed_for_a_week(root: Path, repository: Repository) -> None:
    claim = plant(root, FAR)
    clock = Clock()
    with pytest.raises(Refused, match=r"another machine .* may be at work there: .*shared-0123456789abcdef"):
        prune(repository, timedelta(0), clock)
    for _ in range(7):
        prune(repository, WEEK, clock)
        assert claim.exists()
        assert mirrored_names(repository.store, FileKind.PENDING)
        clock.advance(DAY)
    prune(repository, WEEK, clock)
    assert not claim.exists()
    assert not mirrored_names(repository.store, FileKind.PENDING)
    prune(repository, timedelta(0), clock)
    assert findings(repository) == []


def test_a_claim_that_cannot_be_read_counts_as_one_of_elsewhere(root: Path, repository: Repository) -> None:
    claim = plant(root, FAR)
    for nonsense in (b"", b"{", b"[]", b'{"pid": 1}', b"\xff" * 9000):
        claim.write_bytes(nonsense)
        with pytest.raises(Refused, match="may be at work"):
            prune(repository, timedelta(0))


def test_no_key_is_changed_while_somebody_elsewhere_may_do_so(root: Path, repository: Repository) -> None:
    """Two who remove each other's key on machines whose locks are not shared would leave no way in."""
    other = add_key(repository, "other")
    before = sorted(path.name for path in (root / "keyring").iterdir())
    claim = plant(root, FAR, LockMode.EXCLUSIVE)
    with pytest.raises(Refused, match="may be at work there"):
        remove_slot(repository, other)
    with pytest.raises(Refused, match="may be at work there"):
        add_key(repository, "more")
    assert sorted(path.name for path in (root / "keyring").iterdir()) == before
    claim.unlink()
    assert remove_slot(repository, other) == other


def test_a_claim_tells_no_names_to_who_reads_the_store(root: Path) -> None:
    with local(root) as store, store.lock(LockMode.SHARED, 0):
        (claim,) = (root / "claims").iterdir()
        text = claim.read_text()
    machine = Path("/etc/machine-id")
    secrets = [platform.node(), machine.read_text().strip() if machine.exists() else ""]
    assert not any(secret and secret in text for secret in secrets)


# ---- What a prune that nothing kept out does to a backup ------------------------------------------------


def rivalled(tmp_path: Path, *, deletes: bool) -> tuple[MemoryStore, FaultyStore]:
    """A store in which a prune removes everything that a backup wrote just before its snapshot is put."""
    store = MemoryStore()
    create(store)

    def prune_it(operation: Operation) -> None:
        if (operation.action, operation.kind) == ("put", FileKind.SNAPSHOT) and operation.name.endswith(".2"):
            for name in mirrored_names(store, FileKind.PENDING):
                delete_mirrored(store, FileKind.PENDING, name)
            for entry in list(store.listing(FileKind.PACK)):
                store.trash(FileKind.PACK, entry.name)
                if deletes:
                    store.delete(FileKind.PACK, entry.name, trashed=True)

    return store, FaultyStore(store, prune_it)


def test_a_backup_looks_once_more_after_its_snapshot_is_there(tmp_path: Path) -> None:
    store, faulty = rivalled(tmp_path, deletes=False)
    with open_repository(faulty, tmp_path / "cache") as repository:
        stored = backup(repository, OLD).stored
    assert not store.trashed
    with open_repository(store, tmp_path / "other") as repository:
        assert contents(repository, stored.snapshot) == OLD
        assert findings(repository) == []


def test_a_backup_whose_data_was_deleted_meanwhile_is_not_reported_as_done(tmp_path: Path) -> None:
    store, faulty = rivalled(tmp_path, deletes=True)
    with open_repository(faulty, tmp_path / "cache") as repository, pytest.raises(MissingChunk):
        backup(repository, OLD)
    assert not mirrored_names(store, FileKind.SNAPSHOT)


@pytest.mark.parametrize("cache", ["cache", "other"])
def test_what_a_snapshot_needs_in_the_trash_is_read_and_brought_back(tmp_path: Path, cache: str) -> None:
    """With the index that knew the packs, and with one that never saw them."""
    store = MemoryStore()
    create(store)
    with open_repository(store, tmp_path / "cache") as repository:
        stored = backup(repository, OLD).stored
    packs = [entry.name for entry in store.listing(FileKind.PACK)]
    for name in packs:
        store.trash(FileKind.PACK, name)
    with open_repository(store, tmp_path / cache) as repository:
        assert restored(repository, stored.snapshot) == OLD
        assert contents(repository, stored.snapshot) == OLD
        assert {f.weight for f in check(repository, Depth.REACHABLE).findings} == {Weight.MEND}
        assert any("brought back" in note for note in prune(repository, timedelta(0)).notes)
        assert sorted(entry.name for entry in store.listing(FileKind.PACK)) == sorted(packs)
        assert not store.trashed
        assert findings(repository) == []
        assert restored(repository, stored.snapshot) == OLD
