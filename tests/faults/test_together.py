"""Several at once: backups side by side, against prunes, and readers that stay while packs go."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.base.errors import Damaged, Locked
from holdfast.base.types import SnapshotID
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.store.interface import FileKind, LockMode
from holdfast.repo.store.local import LocalStore
from holdfast.repo.upkeep.forget import forget
from holdfast.repo.upkeep.prune import execute
from holdfast.repo.upkeep.prune_plan import make_plan
from support.fault import (
    LONG,
    Content,
    all_contents,
    backup,
    contents,
    create,
    data,
    findings,
    later,
    local,
    open_repository,
)
from support.faulty_store import FaultyStore, Operation
from support.scratch import fast_folder

pytestmark = pytest.mark.slow

FIRST: Content = {"a.sql": data(1, 200_000), "b.sql": data(2, 150_000)}
SECOND: Content = {"a.sql": data(1, 100_000) + data(3, 100_000), "b.sql": data(4, 150_000)}
FAR = 4e9
"""A time of day long after any test."""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    with fast_folder() as folder:
        create(LocalStore.create(folder / "repository"))
        yield folder / "repository"


def opened(root: Path, work: Callable[[Repository], object]) -> None:
    with local(root) as store, open_repository(store, root.parent / "cache") as repository:
        work(repository)


def prune(repository: Repository, *, quarantine: timedelta = timedelta(0), timeout: float = 0.0) -> None:
    plan = make_plan(repository, max_unused=0.0)
    execute(repository, plan, quarantine=quarantine, now=lambda: FAR, lock_timeout=timeout)


# ---- Processes -----------------------------------------------------------------------------------------


@dataclass
class Child:
    """A forked process that says where it is and waits to be let on, over two pipes."""

    pid: int
    said: int
    told: int

    @staticmethod
    def start(work: Callable[[Callable[[], None]], None]) -> Child:
        """`work(pause)` runs in the child; `pause()` tells the parent and waits for it."""
        from_child, to_parent = os.pipe()
        from_parent, to_child = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(from_child)
            os.close(to_child)

            def pause() -> None:
                os.write(to_parent, b".")
                if not os.read(from_parent, 1):
                    os._exit(2)

            code = 1
            try:
                work(pause)
                code = 0
            except BaseException:  # noqa: BLE001  it must never return into the test
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(to_parent)
        os.close(from_parent)
        return Child(pid, from_child, to_child)

    def wait_until_paused(self) -> None:
        assert os.read(self.said, 1), "the child ended before its pause"

    def go_on(self) -> None:
        os.write(self.told, b".")

    def end(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.said)
        os.close(self.told)
        return code


def pausing_at(action: str, kind: FileKind | None, pause: Callable[[], None]) -> Callable[[Operation], None]:
    """A fault that pauses once, at the first such operation."""
    waiting = [True]

    def fault(operation: Operation) -> None:
        if waiting and (operation.action, operation.kind) == (action, kind):
            waiting.clear()
            pause()

    return fault


def child_backup(root: Path, content: Content, hours: float, action: str, kind: FileKind | None) -> Child:
    def work(pause: Callable[[], None]) -> None:
        with local(root) as store:
            faulty = FaultyStore(store, pausing_at(action, kind, pause))
            with open_repository(faulty, root.parent / "cache") as repository:
                backup(repository, content, name=f"child{hours}", time=later(hours))

    return Child.start(work)


@pytest.mark.parametrize("kind", [FileKind.PACK, FileKind.PENDING, FileKind.SNAPSHOT])
def test_two_processes_back_up_the_same_content_at_once(root: Path, kind: FileKind) -> None:
    children = [child_backup(root, FIRST, hours, "put", kind) for hours in (1, 2)]
    for child in children:
        child.wait_until_paused()
    for child in children:
        child.go_on()
    assert [child.end() for child in children] == [0, 0]

    def look(repository: Repository) -> None:
        assert list(all_contents(repository).values()) == [FIRST, FIRST]
        assert findings(repository) == []
        prune(repository)  # some chunks are there twice
        assert list(all_contents(repository).values()) == [FIRST, FIRST]
        assert findings(repository) == []

    opened(root, look)


@pytest.mark.parametrize("rounds", [20 if LONG else 2])
def test_threads_of_one_process_back_up_at_once(root: Path, rounds: int) -> None:
    def look(repository: Repository) -> None:
        made: dict[SnapshotID, Content] = {}
        with ThreadPoolExecutor(4) as pool:
            for n in range(rounds):

                def one(m: int, n: int = n) -> None:
                    content = {"a.sql": data(n, 120_000) + data(m % 2, 80_000), "b.sql": data(m, 60_000)}
                    stored = backup(repository, content, name=f"s{m}", time=later(n)).stored
                    made[stored.id] = content

                list(pool.map(one, range(4)))
        assert all_contents(repository) == made
        assert len(made) == 4 * rounds
        assert findings(repository) == []

    opened(root, look)


def test_a_prune_waits_for_a_backup_and_gives_up_in_time(root: Path) -> None:
    child = child_backup(root, FIRST, 1, "put", FileKind.PENDING)
    child.wait_until_paused()

    def try_to_prune(repository: Repository) -> None:
        with pytest.raises(Locked, match="backup"):
            prune(repository)

    opened(root, try_to_prune)
    child.go_on()
    assert child.end() == 0
    opened(root, prune)

    def look(repository: Repository) -> None:
        assert_all(repository, FIRST)
        assert findings(repository) == []

    opened(root, look)


def test_a_backup_waits_for_a_prune_and_gives_up_in_time(root: Path) -> None:
    opened(root, lambda repository: forget(repository, [backup(repository, FIRST).stored.id]))

    def work(pause: Callable[[], None]) -> None:
        with local(root) as store:
            faulty = FaultyStore(store, pausing_at("trash", FileKind.PACK, pause))
            with open_repository(faulty, root.parent / "cache") as repository:
                prune(repository)

    child = Child.start(work)
    child.wait_until_paused()

    def try_to_write(repository: Repository) -> None:
        with pytest.raises(Locked, match="prune"), Writer(repository, lock_timeout=0.0):
            pass

    opened(root, try_to_write)
    child.go_on()
    assert child.end() == 0
    opened(root, lambda repository: backup(repository, FIRST, time=later(1)))
    opened(root, lambda repository: assert_all(repository, FIRST))


@pytest.mark.parametrize("at", [("trash", FileKind.PACK), ("delete", FileKind.PACK), ("put", FileKind.PACK)])
def test_a_prune_that_is_killed_leaves_no_lock_and_the_waiting_backup_goes_on(
    root: Path, at: tuple[str, FileKind]
) -> None:
    def prepare(repository: Repository) -> None:
        one = backup(repository, FIRST).stored
        backup(repository, SECOND, time=later(1))
        forget(repository, [one.id])

    opened(root, prepare)

    def work(pause: Callable[[], None]) -> None:
        with local(root) as store:
            faulty = FaultyStore(store, pausing_at(*at, pause))
            with open_repository(faulty, root.parent / "cache") as repository:
                prune(repository)

    child = Child.start(work)
    child.wait_until_paused()
    os.kill(child.pid, signal.SIGKILL)
    assert child.end() == -signal.SIGKILL

    def look(repository: Repository) -> None:
        stored = backup(repository, FIRST, time=later(2)).stored
        assert contents(repository, stored.snapshot) == FIRST
        assert len(all_contents(repository)) == 2
        assert findings(repository) == []

    opened(root, look)


def assert_all(repository: Repository, *expected: Content) -> None:
    assert list(all_contents(repository).values()) == list(expected)


@pytest.mark.parametrize(
    "quarantine",
    [
        pytest.param(timedelta(days=7), id="trash"),
        pytest.param(timedelta(0), id="no trash"),
    ],
)
def test_a_reader_goes_on_while_its_snapshot_is_forgotten_and_pruned(
    root: Path, quarantine: timedelta
) -> None:
    """Out of the trash the whole of it; when that is emptied an error, and never wrong bytes."""
    ids: list[SnapshotID] = []
    opened(root, lambda repository: ids.append(backup(repository, FIRST).stored.id))

    def work(pause: Callable[[], None]) -> None:
        with local(root) as store, open_repository(store, root.parent / "cache") as repository:
            snapshot = repository.snapshots().good[0].snapshot
            reader = Reader(repository)
            item = snapshot.items[0]
            first = reader.read(reader.recipe(item), 0, 10)
            assert first == FIRST["a.sql"][:10]
            pause()
            for item in snapshot.items:
                try:
                    whole = reader.read(reader.recipe(item), 0, item.size)
                except Damaged:
                    assert not quarantine
                else:
                    assert whole == FIRST[item.path]

    child = Child.start(work)
    child.wait_until_paused()

    def forget_and_prune(repository: Repository) -> None:
        forget(repository, ids)
        plan = make_plan(repository)
        now = (lambda: FAR) if not quarantine else (lambda: 0.0)
        execute(repository, plan, quarantine=quarantine, now=now, lock_timeout=0.0)
        assert not list(repository.store.listing(FileKind.PACK))

    opened(root, forget_and_prune)
    child.go_on()
    assert child.end() == 0


# ---- Locks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "wanted", "free"),
    [
        (LockMode.SHARED, LockMode.SHARED, True),
        (LockMode.SHARED, LockMode.EXCLUSIVE, False),
        (LockMode.EXCLUSIVE, LockMode.SHARED, False),
        (LockMode.EXCLUSIVE, LockMode.EXCLUSIVE, False),
    ],
)
def test_shared_locks_go_together_and_an_exclusive_one_alone(
    root: Path, held: LockMode, wanted: LockMode, free: bool
) -> None:
    with local(root) as one, local(root) as two, one.lock(held, 0.0):
        if free:
            with two.lock(wanted, 0.0):
                pass
        else:
            with pytest.raises(Locked, match=str(root)), two.lock(wanted, 0.0):
                pass


def test_whoever_waits_for_the_lock_gets_it_when_it_is_free(root: Path) -> None:
    with local(root) as one, local(root) as two:
        got = threading.Event()

        def wait() -> None:
            with two.lock(LockMode.EXCLUSIVE, 60.0):
                got.set()

        with one.lock(LockMode.SHARED, 0.0):
            thread = threading.Thread(target=wait)
            thread.start()
            assert not got.is_set()
        thread.join(120)
        assert got.is_set()
