"""Killed at every call that changes a file: nothing lost, nothing to unlock, the next command works."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.base.errors import NoRepository, WrongPassword
from holdfast.base.types import SnapshotID
from holdfast.repo.core.key_changes import add_slot, remove_slot, replace_slot, rotate, slot_use
from holdfast.repo.core.mirrored import mirrored_names
from holdfast.repo.core.repository import Repository
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.local import LocalStore
from holdfast.repo.upkeep.check import Depth
from holdfast.repo.upkeep.epochs import stored_by_epoch
from holdfast.repo.upkeep.forget import forget, undelete
from holdfast.repo.upkeep.prune import execute
from holdfast.repo.upkeep.prune_plan import make_plan
from support.basics import NOW, PASSWORD, need
from support.fault import (
    COST,
    LAST,
    LONG,
    NEXT,
    OLD,
    Content,
    add_key,
    all_contents,
    backup,
    contents,
    copy_repository,
    create,
    damage,
    findings,
    forget_seen,
    in_child,
    kill_at_every_call,
    kill_me,
    later,
    leftovers,
    local,
    open_repository,
    restored,
)
from support.faulty_store import FaultyStore, Operation
from support.scratch import fast_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200 if LONG else 300)]


@dataclass
class Base:
    """A repository to copy for every kill. `ids` are its snapshots, oldest first."""

    folder: Path
    root: Path
    ids: list[SnapshotID]
    expected: dict[SnapshotID, Content]

    def copy(self, k: int) -> Path:
        target = self.folder / f"copy-{k}"
        shutil.rmtree(self.folder / f"copy-{k - 1}", ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        forget_seen(self.folder / "cache")
        return copy_repository(self.root, target)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Base]:
    """Two snapshots with parts in common, in packs of 160 KiB."""
    with fast_folder() as folder:
        root = folder / "base"
        create(LocalStore.create(root))
        with local(root) as store, open_repository(store, folder / "cache") as repository:
            ids = [backup(repository, OLD).stored.id, backup(repository, NEXT, time=later(1)).stored.id]
            expected = all_contents(repository)
            assert len(list(store.listing(FileKind.PACK))) >= 3
        yield Base(folder, root, ids, expected)


def opened(root: Path, work: Callable[[Repository], object], *, password: str = PASSWORD) -> None:
    with (
        local(root) as store,
        open_repository(store, root.parent / f"cache-{root.name}", password=password) as repository,
    ):
        work(repository)


def prune(
    repository: Repository,
    *,
    quarantine: timedelta = timedelta(0),
    max_unused: float = 0.0,
    reseal_all: bool = False,
) -> None:
    execute(
        repository,
        make_plan(repository, max_unused=max_unused, reseal_all=reseal_all),
        quarantine=quarantine,
        now=lambda: time.time() + 1,  # file times come from a coarser clock
        lock_timeout=0.0,
    )


def assert_sound(repository: Repository, expected: dict[SnapshotID, Content], k: int) -> None:
    """What was there is there, check finds nothing, and the next backup and prune work and clean up.

    The short run prunes after every third kill: two prunes and what they leave are most of the time.
    """
    root = Path(repository.store.describe(FileKind.CONFIG, "config")).parent
    found = repository.snapshots()
    assert not found.damaged
    for stored in found.good:
        if stored.id in expected:
            assert contents(repository, stored.snapshot) == expected[stored.id]
    assert {stored.id for stored in found.good} >= expected.keys()
    depth = Depth.READ_DATA if LONG or k % 5 == 0 else Depth.REACHABLE
    assert findings(repository, depth) == []
    new = backup(repository, LAST, time=later(9)).stored
    assert restored(repository, new.snapshot) == LAST
    if not LONG and k % 3:
        return
    prune(repository)
    prune(repository)  # what a crash had claimed is free after the first
    assert leftovers(root) == []
    assert not mirrored_names(repository.store, FileKind.PENDING)
    assert list(repository.store.listing(FileKind.PACK, trashed=True)) == []
    assert findings(repository, Depth.READ_DATA) == []
    assert make_plan(repository, max_unused=0.0).remove == ()
    for stored in repository.snapshots().good:
        if stored.id in expected:
            assert contents(repository, stored.snapshot) == expected[stored.id]


def test_a_backup_killed_at_any_call_loses_nothing(base: Base) -> None:
    def run(k: int) -> tuple[Path, Callable[[], None]]:
        root = base.copy(k)
        return root, lambda: opened(root, lambda repository: backup(repository, LAST, time=later(2)))

    def verify(k: int) -> None:
        def look(repository: Repository) -> None:
            for stored in repository.snapshots().good:
                if stored.id not in base.expected:  # killed after the commit point
                    assert contents(repository, stored.snapshot) == LAST
            assert_sound(repository, base.expected, k)

        opened(base.folder / f"copy-{k}", look)

    assert kill_at_every_call(run, verify) > 30


def test_a_forget_killed_at_any_call_forgets_or_does_not(base: Base) -> None:
    def run(k: int) -> tuple[Path, Callable[[], None]]:
        root = base.copy(k)
        return root, lambda: opened(
            root, lambda repository: forget(repository, base.ids[:1], lock_timeout=0.0)
        )

    def verify(k: int) -> None:
        def look(repository: Repository) -> None:
            there = {s.id for s in repository.snapshots().good}
            trashed = {s.id for s in repository.snapshots(trashed=True).good}
            assert there | trashed == set(base.ids)
            if base.ids[0] not in there:
                undelete(repository, base.ids[:1], lock_timeout=0.0)
            assert_sound(repository, base.expected, k)

        opened(base.folder / f"copy-{k}", look)

    assert kill_at_every_call(run, verify) >= 4


def test_an_undelete_killed_at_any_call_can_be_repeated(base: Base) -> None:
    def prepare(repository: Repository) -> None:
        forget(repository, base.ids[:1])
        prune(repository, quarantine=timedelta(days=7))
        assert list(repository.store.listing(FileKind.PACK, trashed=True))

    opened(base.root, prepare)

    def run(k: int) -> tuple[Path, Callable[[], None]]:
        root = base.copy(k)
        return root, lambda: opened(
            root, lambda repository: undelete(repository, base.ids[:1], lock_timeout=0.0)
        )

    def verify(k: int) -> None:
        def look(repository: Repository) -> None:
            assert findings(repository, Depth.REACHABLE) == []
            if base.ids[0] not in {s.id for s in repository.snapshots().good}:
                undelete(repository, base.ids[:1], lock_timeout=0.0)
            assert_sound(repository, base.expected, k)

        opened(base.folder / f"copy-{k}", look)

    assert kill_at_every_call(run, verify) >= 6


@pytest.mark.parametrize("quarantine", [timedelta(0), timedelta(days=7)], ids=["no quarantine", "a week"])
def test_a_prune_killed_at_any_call_loses_no_snapshot(base: Base, quarantine: timedelta) -> None:
    opened(base.root, lambda repository: forget(repository, base.ids[:1]))

    def age(store: LocalStore) -> None:
        """As if all had been made long ago: only the time of trashing may count."""
        for path in store.root.rglob("packs/??/*"):
            os.utime(path, (0, 0))

    def run(k: int) -> tuple[Path, Callable[[], None]]:
        root = base.copy(k)
        with local(root) as store:
            age(store)
        return root, lambda: opened(root, lambda repository: prune(repository, quarantine=quarantine))

    kept = {base.ids[1]: base.expected[base.ids[1]]}

    def verify(k: int) -> None:
        def look(repository: Repository) -> None:
            if quarantine:  # the week is not over, whatever a crash did to the times
                prune(repository, quarantine=quarantine)
                undelete(repository, base.ids[:1], lock_timeout=0.0)
                assert_sound(repository, base.expected, k)
            else:
                assert_sound(repository, kept, k)

        opened(base.folder / f"copy-{k}", look)

    assert kill_at_every_call(run, verify) > 12


def test_a_prune_that_seals_all_packs_anew_may_be_killed_at_any_call(base: Base) -> None:
    def prepare(repository: Repository) -> None:
        rotate(repository, slot_use(repository), created=NOW.isoformat())

    opened(base.root, prepare)

    def run(k: int) -> tuple[Path, Callable[[], None]]:
        root = base.copy(k)
        return root, lambda: opened(root, lambda repository: prune(repository, reseal_all=True))

    def verify(k: int) -> None:
        def look(repository: Repository) -> None:
            assert_sound(repository, base.expected, k)
            prune(repository, reseal_all=True)
            assert stored_by_epoch(repository.store).keys() == {2}
            for stored in repository.snapshots().good:
                if stored.id in base.expected:
                    assert contents(repository, stored.snapshot) == base.expected[stored.id]

        opened(base.folder / f"copy-{k}", look)

    assert kill_at_every_call(run, verify) > 20


@pytest.mark.parametrize("command", ["add", "passwd", "remove", "rotate"])
def test_a_key_command_killed_at_any_call_leaves_a_way_in(base: Base, command: str) -> None:
    extra: list[str] = []
    opened(base.root, lambda repository: extra.append(add_key(repository, "spare")))

    def do(repository: Repository) -> None:
        if command == "add":
            add_slot(repository, "new", label="", created=NOW.isoformat(), cost=COST)
        elif command == "passwd":
            replace_slot(repository, "new", label="", created=NOW.isoformat(), cost=COST)
        elif command == "rotate":
            rotate(repository, slot_use(repository), created=NOW.isoformat())
        else:
            remove_slot(repository, extra[0])

    def run(k: int) -> tuple[Path, Callable[[], None]]:
        root = base.copy(k)
        return root, lambda: opened(root, do)

    def verify(k: int) -> None:
        ways = 0
        for secret in (PASSWORD, "new"):
            with suppress(WrongPassword):
                opened(base.folder / f"copy-{k}", look, password=secret)
                ways += 1
        assert ways

    def look(repository: Repository) -> None:
        assert damage(repository, Depth.STRUCTURE) == []
        assert all_contents(repository) == base.expected
        add_key(repository, "after")
        assert findings(repository, Depth.STRUCTURE) == []

    assert kill_at_every_call(run, verify) >= 3


def test_an_init_killed_at_any_call_can_be_repeated_or_was_done(base: Base) -> None:
    def target(k: int) -> Path:
        return base.folder / f"fresh-{k}"

    def run(k: int) -> tuple[Path, Callable[[], None]]:
        return target(k), lambda: create(LocalStore.create(target(k)))

    def verify(k: int) -> None:
        root = target(k)
        try:
            LocalStore.open(root).close()
        except NoRepository:
            create(LocalStore.create(root))  # the same command again

        def look(repository: Repository) -> None:
            assert damage(repository) == []
            new = backup(repository, {"dump.sql": b"SELECT 1;"}).stored
            prune(repository)
            assert findings(repository) == []
            assert contents(repository, new.snapshot) == {"dump.sql": b"SELECT 1;"}

        opened(root, look)
        shutil.rmtree(root)

    # The first 527 calls make folders.
    skip = 1 if LONG else 75
    assert kill_at_every_call(run, verify, step=lambda k: k + (skip if k < 525 else 1)) > 20


# ---- Before and after store operations -------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_backup_killed_around_any_store_operation_loses_nothing(base: Base, moment: str) -> None:
    k = 0
    while True:
        k += 1
        root = base.copy(k)

        def work(root: Path = root, k: int = k) -> None:
            def die(operation: Operation) -> None:
                if operation.number == k:
                    kill_me()

            faults: dict[str, Any] = {moment: die}
            store = FaultyStore(LocalStore.open(root), **faults)
            with open_repository(store, base.folder / "cache") as repository:
                backup(repository, LAST, time=later(2))

        code = in_child(work)
        assert code in (0, -signal.SIGKILL)
        opened(root, lambda repository, k=k: assert_sound(repository, base.expected, k))  # type: ignore[misc]
        if code == 0:
            break
    assert k > 25


# ---- The same seen from the kernel -------------------------------------------------------------------------

_SCRIPT = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from support.fault import LAST, backup, later, local, open_repository
root = Path(sys.argv[1])
with local(root) as store, open_repository(store, root.parent / "cache") as repository:
    print("begin", flush=True)
    backup(repository, LAST, time=later(2))
"""

_TRACED = ("fsync", "linkat", "unlinkat", "write", "pwrite64", "fdatasync", "fallocate")


@pytest.mark.parametrize("call", _TRACED)
def test_a_backup_killed_in_the_kernel_loses_nothing(base: Base, call: str) -> None:
    need(shutil.which("strace") is not None, "strace")
    script = _SCRIPT.format(tests=str(Path(__file__).parents[1]))
    k, killed = 1, 0
    while True:
        root = base.copy(k)
        done = subprocess.run(
            [
                *("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"),
                *("-e", f"inject={call}:signal=SIGKILL:when={k}"),
                *(sys.executable, "-B", "-c", script, str(root)),
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        need("not permitted" not in done.stderr, "leave to trace processes")
        opened(root, lambda repository, k=k: assert_sound(repository, base.expected, k))  # type: ignore[misc]
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        killed += 1
        if not LONG and killed == 2:
            break
        k += 1 if LONG else 5
    assert killed > 0


def test_the_lock_of_a_killed_process_is_free_at_once(base: Base) -> None:
    def hold() -> None:
        with local(base.root) as store, open_repository(store, base.folder / "cache") as repository:

            def die(operation: Operation) -> None:
                if operation.action == "put" and operation.kind is FileKind.PENDING:
                    kill_me()

            repository.store = FaultyStore(store, die)
            backup(repository, LAST)

    assert in_child(hold) == -signal.SIGKILL
    with local(base.root) as store, open_repository(store, base.folder / "cache") as repository:
        prune(repository)  # the exclusive lock, without waiting
