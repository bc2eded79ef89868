"""Prune: against a model over any sequence of operations and crashes, and case by case."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import MissingChunk, NoSpace, NotFound, Refused, StoreError
from holdfast.base.types import PackID, SnapshotID
from holdfast.repo.core.key_changes import rotate, slot_use
from holdfast.repo.core.mirrored import mirrored_names
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.high_water import find_vanished
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth
from holdfast.repo.upkeep.forget import forget, undelete
from holdfast.repo.upkeep.prune import PruneResult, execute
from holdfast.repo.upkeep.prune_plan import PackUse, make_plan, sort_packs
from support.fault import (
    LONG,
    Content,
    backup,
    contents,
    copy_memory,
    create,
    data,
    findings,
    later,
    open_repository,
)
from support.faulty_store import Clock, Crash, FaultyStore, Operation, crash_at
from support.scratch import fast_folder

WEEK = timedelta(days=7)
DAY = timedelta(days=1).total_seconds()


def prune(
    repository: Repository, clock: Clock, *, quarantine: timedelta = timedelta(0), max_unused: float = 0.0
) -> PruneResult:
    plan = make_plan(repository, max_unused=max_unused)
    return execute(repository, plan, quarantine=quarantine, now=clock, lock_timeout=0.0)


# ---- Against a model ---------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One command. `seed` chooses content or snapshot, `crash` is the operation it dies at."""

    command: Literal["backup", "forget", "undelete", "prune", "rotate", "wait"]
    seed: int
    max_unused: float
    quarantine: timedelta
    crash: int | None


STEPS = st.lists(
    st.builds(
        Step,
        command=st.sampled_from(
            ["backup", "backup", "forget", "undelete", "prune", "prune", "rotate", "wait"]
        ),
        seed=st.integers(0, 7),
        max_unused=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
        quarantine=st.sampled_from([timedelta(0), WEEK]),
        crash=st.none() | st.integers(1, 60),
    ),
    min_size=2,
    max_size=12,
)


@dataclass
class Model:
    """What must be there. `since` is when a snapshot was forgotten, `due` are those that a prune might
    have deleted for good."""

    live: dict[SnapshotID, Content] = field(default_factory=dict)
    trashed: dict[SnapshotID, Content] = field(default_factory=dict)
    since: dict[SnapshotID, float] = field(default_factory=dict)
    due: set[SnapshotID] = field(default_factory=set)

    def forget(self, id_: SnapshotID, now: float) -> None:
        self.trashed[id_] = self.live.pop(id_)
        self.since[id_] = now

    def undelete(self, id_: SnapshotID) -> None:
        self.live[id_] = self.trashed.pop(id_)
        self.due.discard(id_)


def content(seed: int) -> Content:
    """Contents that share parts with their neighbours, so that packs are half needed."""
    return {"a.sql": data(seed // 2, 70_000) + data(100 + seed, 60_000), "b.sql": data(seed % 3, 50_000)}


class Bench:
    """A repository in memory, driven step by step and compared with a `Model`."""

    def __init__(self, folder: Path, fresh: MemoryStore) -> None:
        self.clock = Clock()
        self.store = copy_memory(fresh, self.clock)
        self.folder = folder
        self.model = Model()
        self.hours = 0

    def do(self, step: Step) -> None:
        self.clock.advance(1)
        faulty = FaultyStore(self.store)
        with open_repository(faulty, self.folder) as repository:
            repository.refresh()
            faulty.operations.clear()
            if step.crash is not None:
                faulty.before = crash_at(step.crash)
            with suppress(Crash):
                getattr(self, step.command)(repository, step)
        self.compare()

    def backup(self, repository: Repository, step: Step) -> None:
        self.hours += 1
        stored = backup(repository, content(step.seed), time=later(self.hours)).stored
        self.model.live[stored.id] = content(step.seed)

    def forget(self, repository: Repository, step: Step) -> None:
        if self.model.live:
            id_ = sorted(self.model.live)[step.seed % len(self.model.live)]
            forget(repository, [id_])
            self.model.forget(id_, self.clock())

    def undelete(self, repository: Repository, step: Step) -> None:
        if self.model.trashed:
            id_ = sorted(self.model.trashed)[step.seed % len(self.model.trashed)]
            try:
                undelete(repository, [id_])
            except (Refused, NotFound):
                assert id_ in self.model.due
            else:
                self.model.undelete(id_)

    def prune(self, repository: Repository, step: Step) -> None:
        plan = make_plan(repository, max_unused=step.max_unused, reseal_all=step.seed > 3)
        if step.seed % 2:  # while somebody reads the plan
            self.backup(repository, step)
        before = self.clock() - step.quarantine.total_seconds()
        self.model.due |= {id_ for id_ in self.model.trashed if self.model.since[id_] <= before}
        execute(repository, plan, quarantine=step.quarantine, now=self.clock, lock_timeout=0.0)

    def rotate(self, repository: Repository, step: Step) -> None:
        rotate(repository, slot_use(repository), created=later(self.hours).isoformat())

    def wait(self, repository: Repository, step: Step) -> None:
        self.clock.advance(timedelta(days=step.seed).total_seconds())

    def compare(self) -> None:
        """The model follows the repository where a crash left it a choice, and nowhere else."""
        with open_repository(self.store, self.folder) as repository:
            found = repository.snapshots()
            assert not found.damaged
            assert not find_vanished(repository, found), "a false alarm"
            there = {s.id: s.snapshot for s in found.good}
            gone = self.model.live.keys() - there.keys()
            in_trash = {s.id for s in repository.snapshots(trashed=True).good}
            assert gone <= in_trash, "a snapshot that nobody forgot is gone"
            for id_ in gone:  # a forget that died after its work
                self.model.forget(id_, self.clock())
            for id_, snapshot in there.items():
                plain = contents(repository, snapshot)
                if id_ in self.model.trashed:  # an undelete that died after its work, or half a forget
                    self.model.undelete(id_)
                if id_ not in self.model.live:  # a backup that died after its commit
                    assert plain in [content(seed) for seed in range(8)]
                    self.model.live[id_] = plain
                assert plain == self.model.live[id_]
            # A crash may leave one copy of a snapshot; the next prune makes it whole.
            found_wrong = findings(repository, Depth.REACHABLE)
            assert [f for f in found_wrong if "its other copy is there" not in f.problem] == []

    def finish(self) -> None:
        """Prune to the end: what nothing needs is gone, what is needed is all that is left."""
        with open_repository(self.store, self.folder) as repository:
            self.clock.advance(1)
            prune(repository, self.clock)
            prune(repository, self.clock)
            for _ in range(0 if self.model.live else 8):  # packs of which no snapshot tells wait a week
                self.clock.advance(DAY)
                prune(repository, self.clock)
            assert not self.store.trashed
            assert not mirrored_names(self.store, FileKind.PENDING)
            plan = make_plan(repository, max_unused=0.0)
            assert plan.remove == ()
            assert findings(repository, Depth.READ_DATA) == []
            if not self.model.live:
                assert not list(self.store.listing(FileKind.PACK))
        self.compare()


@pytest.mark.slow
@pytest.mark.timeout(7200 if LONG else 300)
def test_no_sequence_of_commands_and_crashes_loses_a_snapshot_or_keeps_what_nothing_needs(
    tmp_path: Path,
) -> None:
    fresh = MemoryStore()
    create(fresh)  # once: with other keys the same steps would cut elsewhere
    with fast_folder() as folder:

        @settings(max_examples=3000 if LONG else 60)
        @given(steps=STEPS)
        def check_sequence(steps: list[Step]) -> None:
            with tempfile.TemporaryDirectory(dir=folder) as cache:  # what it remembers is of one example
                bench = Bench(Path(cache), fresh)
                for step in steps:
                    bench.do(step)
                bench.finish()

        check_sequence()


# ---- Case by case ------------------------------------------------------------------------------------------


@dataclass
class Pair:
    """A repository with two snapshots that share chunks; `ids` oldest first."""

    store: MemoryStore
    clock: Clock
    repository: Repository
    ids: list[SnapshotID]
    contents: list[Content]

    def packs(self, *, trashed: bool = False) -> set[str]:
        return {entry.name for entry in self.store.listing(FileKind.PACK, trashed=trashed)}

    def read(self, n: int) -> Content:
        found = {s.id: s.snapshot for s in self.repository.snapshots().good}
        return contents(self.repository, found[self.ids[n]])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    clock = Clock()
    store = MemoryStore(clock)
    create(store)
    both = [content(0), content(1)]
    with fast_folder() as folder, open_repository(store, folder) as repository:
        ids = [backup(repository, c, time=later(n)).stored.id for n, c in enumerate(both)]
        yield Pair(store, clock, repository, ids, both)


def test_a_plan_changes_nothing_and_says_what_will_happen(pair: Pair) -> None:
    forget(pair.repository, pair.ids[:1])
    files, trashed = dict(pair.store.files), dict(pair.store.trashed)
    plan = make_plan(pair.repository, max_unused=0.0)
    assert (pair.store.files, pair.store.trashed) == (files, trashed)
    assert plan.repack
    assert {use.pack for part in (plan.keep, plan.repack, plan.remove) for use in part} == pair.packs()
    assert [row[1] for row in plan.lines()] == [len(plan.keep), len(plan.repack), len(plan.remove)]
    before = sum(entry.size for entry in pair.store.listing(FileKind.PACK))
    result = execute(pair.repository, plan, quarantine=timedelta(0), now=pair.clock)
    after = sum(entry.size for entry in pair.store.listing(FileKind.PACK))
    assert before - after == result.freed_bytes - result.repacked_bytes > 0
    assert abs((before - after) - plan.freed) < 4096 * len(plan.repack)  # heads and directories
    assert pair.read(1) == pair.contents[1]


def test_nothing_is_removed_while_all_is_needed(pair: Pair) -> None:
    before = pair.packs()
    result = prune(pair.repository, pair.clock)
    assert pair.packs() == before
    assert (result.trashed, result.deleted, result.repacked_bytes) == (0, 0, 0)


def test_dead_packs_wait_in_the_trash_and_undelete_brings_them_back(pair: Pair) -> None:
    forget(pair.repository, pair.ids[:1])
    prune(pair.repository, pair.clock, quarantine=WEEK)
    assert pair.packs(trashed=True)
    pair.clock.advance(WEEK.total_seconds() - 1)
    prune(pair.repository, pair.clock, quarantine=WEEK)
    assert pair.packs(trashed=True)
    undelete(pair.repository, pair.ids[:1])
    assert pair.read(0) == pair.contents[0]
    assert findings(pair.repository) == []


def test_after_the_quarantine_all_is_gone_and_undelete_says_so(pair: Pair) -> None:
    forget(pair.repository, pair.ids[:1])
    for _ in range(7):
        prune(pair.repository, pair.clock, quarantine=WEEK)
        assert pair.store.trashed
        pair.clock.advance(DAY)
    prune(pair.repository, pair.clock, quarantine=WEEK)
    assert not pair.store.trashed
    assert pair.read(1) == pair.contents[1]
    with pytest.raises(Exception, match="not in the trash"):
        undelete(pair.repository, pair.ids[:1])


def test_who_prunes_once_a_week_frees_what_was_moved_two_prunes_ago(pair: Pair) -> None:
    forget(pair.repository, pair.ids[:1])
    for _ in range(2):
        prune(pair.repository, pair.clock, quarantine=WEEK)
        pair.clock.advance(WEEK.total_seconds())
        assert pair.store.trashed
    prune(pair.repository, pair.clock, quarantine=WEEK)
    assert not pair.store.trashed


def test_what_was_forgotten_long_before_the_first_prune_can_come_back_while_its_data_is_there(
    pair: Pair,
) -> None:
    forget(pair.repository, pair.ids[:1])
    pair.clock.advance(8 * DAY)
    for _ in range(7):
        prune(pair.repository, pair.clock, quarantine=WEEK)
        pair.clock.advance(DAY)
    assert pair.packs(trashed=True)
    undelete(pair.repository, pair.ids[:1])
    assert pair.read(0) == pair.contents[0]


@pytest.mark.parametrize("jump", [30 * DAY, 3650 * DAY, -3650 * DAY])
@pytest.mark.parametrize("first", [True, False], ids=["when it is forgotten", "later"])
def test_one_prune_on_a_clock_that_jumped_does_not_empty_the_trash(
    pair: Pair, jump: float, first: bool
) -> None:
    """And what is moved there meanwhile goes when its days are over, by any clock."""
    forget(pair.repository, pair.ids[:1])
    if not first:
        prune(pair.repository, pair.clock, quarantine=WEEK)
        pair.clock.advance(DAY)
    pair.clock.advance(jump)
    prune(pair.repository, pair.clock, quarantine=WEEK)
    pair.clock.advance(DAY - jump)
    prune(pair.repository, pair.clock, quarantine=WEEK)
    assert pair.packs(trashed=True)
    undelete(pair.repository, pair.ids[:1])
    assert pair.read(0) == pair.contents[0]
    forget(pair.repository, pair.ids[:1])
    for _ in range(8):
        prune(pair.repository, pair.clock, quarantine=WEEK)
        pair.clock.advance(DAY)
    assert not pair.store.trashed


def test_what_came_back_and_is_forgotten_again_has_its_whole_quarantine(pair: Pair) -> None:
    forget(pair.repository, pair.ids[:1])
    for _ in range(6):
        prune(pair.repository, pair.clock, quarantine=WEEK)
        pair.clock.advance(DAY)
    undelete(pair.repository, pair.ids[:1])
    pair.clock.advance(60)
    forget(pair.repository, pair.ids[:1])
    for _ in range(7):
        prune(pair.repository, pair.clock, quarantine=WEEK)
        pair.clock.advance(DAY)
    undelete(pair.repository, pair.ids[:1])
    assert pair.read(0) == pair.contents[0]


def test_without_a_quarantine_all_goes_at_once_also_what_was_moved_on_a_clock_ahead(pair: Pair) -> None:
    forget(pair.repository, pair.ids[:1])
    pair.clock.advance(30 * DAY)
    prune(pair.repository, pair.clock, quarantine=WEEK)
    pair.clock.advance(-30 * DAY)
    prune(pair.repository, pair.clock)
    assert not pair.store.trashed


def test_when_what_is_known_of_the_trash_is_damaged_its_days_begin_anew(pair: Pair) -> None:
    forget(pair.repository, pair.ids[:1])
    for _ in range(6):
        prune(pair.repository, pair.clock, quarantine=WEEK)
        pair.clock.advance(DAY)
    (name,) = [name for kind, name in pair.store.files if kind is FileKind.QUARANTINE]
    pair.store.files[FileKind.QUARANTINE, name] = b"?" + pair.store.files[FileKind.QUARANTINE, name][1:]
    for _ in range(7):
        prune(pair.repository, pair.clock, quarantine=WEEK)
        pair.clock.advance(DAY)
        assert pair.packs(trashed=True)
    prune(pair.repository, pair.clock, quarantine=WEEK)
    assert not pair.store.trashed
    assert len([name for kind, name in pair.store.files if kind is FileKind.QUARANTINE]) == 1


def test_undelete_refuses_what_has_lost_data_and_leaves_it_in_the_trash(pair: Pair) -> None:
    forget(pair.repository, pair.ids[:1])
    prune(pair.repository, pair.clock, quarantine=WEEK)
    for name in pair.packs(trashed=True):
        pair.store.delete(FileKind.PACK, name, trashed=True)
    with pytest.raises(Refused, match=pair.ids[0][:8]):
        undelete(pair.repository, pair.ids[:1])
    assert [s.id for s in pair.repository.snapshots().good] == pair.ids[1:]
    assert pair.read(1) == pair.contents[1]


def test_a_missing_chunk_stops_a_prune_before_it_removes_anything(pair: Pair) -> None:
    forget(pair.repository, pair.ids[:1])
    plan = make_plan(pair.repository, max_unused=0.0)
    del pair.store.files[FileKind.PACK, (plan.keep + plan.repack)[0].pack]
    files, trashed = dict(pair.store.files), dict(pair.store.trashed)
    faulty = pair.repository.store = FaultyStore(pair.store)
    with pytest.raises(Refused, match="in no pack"):
        prune(pair.repository, pair.clock)
    assert (pair.store.files, pair.store.trashed) == (files, trashed)
    assert not faulty.did("put", "trash", "untrash", "delete")


def test_a_pack_that_went_between_plan_and_execution_stops_the_prune_with_nothing_lost(pair: Pair) -> None:
    forget(pair.repository, pair.ids[:1])
    plan = make_plan(pair.repository, max_unused=1.0)
    del pair.store.files[FileKind.PACK, plan.keep[0].pack]
    left = pair.packs()
    with pytest.raises(Refused, match="nothing was deleted"):
        execute(pair.repository, plan, quarantine=timedelta(0), now=pair.clock)
    assert pair.packs() == left


def test_a_recipe_that_becomes_unreadable_after_the_plan_stops_the_prune_before_it_moves_anything(
    pair: Pair,
) -> None:
    forget(pair.repository, pair.ids[:1])
    plan = make_plan(pair.repository, max_unused=1.0)
    before = pair.packs()
    backup(pair.repository, content(5), time=later(5))
    for name in pair.packs() - before:
        whole = bytearray(pair.store.files[FileKind.PACK, name])
        for at in range(64 + 64, len(whole) - 4096, 512):
            whole[at + 7] ^= 1
        pair.store.files[FileKind.PACK, name] = bytes(whole)
    left = pair.packs()
    faulty = pair.repository.store = FaultyStore(pair.store)
    with pytest.raises(Refused, match="what snapshots need is unknown"):
        execute(pair.repository, replace(plan, remove=plan.keep), quarantine=timedelta(0), now=pair.clock)
    assert pair.packs() == left
    assert not faulty.did("trash", "delete")


def test_a_damaged_snapshot_stops_a_prune(pair: Pair) -> None:
    for name in (pair.ids[0], pair.ids[0] + ".2"):
        whole = pair.store.files[FileKind.SNAPSHOT, name]
        pair.store.files[FileKind.SNAPSHOT, name] = whole[:-1] + b"?"
    files = dict(pair.store.files)
    with pytest.raises(Refused, match=pair.ids[0]):
        prune(pair.repository, pair.clock)
    assert pair.store.files == files


def test_a_damaged_record_keeps_its_pack_and_no_other(pair: Pair) -> None:
    lone = backup(pair.repository, {"a.sql": data(7, 400_000)}, time=later(8)).stored
    forget(pair.repository, [pair.ids[0], lone.id])
    plan = make_plan(pair.repository, max_unused=0.0)
    assert plan.remove
    for use in plan.repack:
        whole = bytearray(pair.store.files[FileKind.PACK, use.pack])
        for at in range(64 + 64, len(whole) - 4096, 2048):
            whole[at + 7] ^= 1
        pair.store.files[FileKind.PACK, use.pack] = bytes(whole)
    result = execute(pair.repository, plan, quarantine=timedelta(0), now=pair.clock)
    assert len(result.damaged) == len(plan.repack)
    assert pair.packs() == {use.pack for use in [*plan.keep, *plan.repack]}
    assert result.deleted == len(plan.remove)
    assert result.repacked_bytes == 0


def test_a_backup_that_was_killed_and_lost_a_chunk_does_not_stop_prunes_for_ever(pair: Pair) -> None:
    before = pair.packs()

    def lose(operation: Operation) -> None:
        """As if a store without locks had let a prune take what the backup just wrote."""
        if operation.action == "list" and ("put", FileKind.PENDING) in faulty.did("put"):
            for name in pair.packs() - before:
                del pair.store.files[FileKind.PACK, name]

    faulty = FaultyStore(pair.store, lose)
    pair.repository.store = faulty
    with pytest.raises(MissingChunk, match="nothing was committed"):
        backup(pair.repository, content(5), time=later(5))
    pair.repository.store = pair.store
    assert mirrored_names(pair.store, FileKind.PENDING)
    prune(pair.repository, pair.clock)
    assert not mirrored_names(pair.store, FileKind.PENDING)
    assert findings(pair.repository) == []


def test_a_snapshot_made_after_the_plan_keeps_its_packs(pair: Pair) -> None:
    lone = {"a.sql": data(7, 400_000), "b.sql": data(8, 1000)}
    forget(pair.repository, [pair.ids[0], backup(pair.repository, lone, time=later(8)).stored.id])
    plan = make_plan(pair.repository, max_unused=0.0)
    assert plan.repack
    assert plan.remove
    for content in (pair.contents[0], lone):
        stored = backup(pair.repository, content, time=later(9)).stored
        assert stored.snapshot.stats.new_chunks == 0
    faulty = pair.repository.store = FaultyStore(pair.store)
    execute(pair.repository, plan, quarantine=timedelta(0), now=pair.clock)
    assert not faulty.did("untrash"), "they were taken out of use, and only the last look saved them"
    assert contents(pair.repository, stored.snapshot) == lone
    assert pair.read(1) == pair.contents[1]
    assert findings(pair.repository) == []


def test_a_pending_snapshot_protects_its_chunks_and_is_gone_after_the_prune(pair: Pair) -> None:
    faulty = FaultyStore(pair.store)
    faulty.before = lambda o: crash_at(1)(o) if (o.action, o.kind) == ("put", FileKind.SNAPSHOT) else None
    pair.repository.store = faulty
    with pytest.raises(Crash):
        backup(pair.repository, content(5), time=later(5))
    pair.repository.store = pair.store
    before = pair.packs()
    assert prune(pair.repository, pair.clock).deleted == 0
    assert pair.packs() == before
    assert prune(pair.repository, pair.clock).deleted > 0
    assert findings(pair.repository) == []


def test_chunks_that_two_packs_hold_are_kept_once(pair: Pair, tmp_path: Path) -> None:
    """Two backups that did not know of each other store the same chunks."""
    twin = MemoryStore(pair.clock)
    twin.files = {
        k: v for k, v in pair.store.files.items() if k[0] in (FileKind.CONFIG, FileKind.KEY, FileKind.KEYRING)
    }
    with open_repository(twin, tmp_path / "twin") as repository:
        other = backup(repository, pair.contents[0], time=later(3)).stored
    pair.store.files |= twin.files
    doubled = pair.packs()
    assert findings(pair.repository) == []
    plan = make_plan(pair.repository, max_unused=0.0)
    assert plan.remove
    assert plan.missing == 0
    execute(pair.repository, plan, quarantine=timedelta(0), now=pair.clock)
    assert len(pair.packs()) < len(doubled)
    assert [pair.read(0), pair.read(1)] == pair.contents
    assert contents(pair.repository, other.snapshot) == pair.contents[0]
    assert findings(pair.repository) == []


def test_where_the_trash_has_no_room_a_dead_pack_is_deleted_at_once(pair: Pair) -> None:
    """A directory that cannot grow by a name: the pack is free by then, and its space lets the rest move."""
    lone = backup(pair.repository, {"a.sql": data(7, 400_000)}, time=later(8)).stored
    forget(pair.repository, [lone.id])
    full = [True]

    def refuse(operation: Operation) -> None:
        if operation.action == "trash" and full:
            full.clear()
            raise NoSpace("move", operation.name, OSError(errno.ENOSPC, "No space left on device"))

    pair.repository.store = FaultyStore(pair.store, refuse)
    result = prune(pair.repository, pair.clock, quarantine=WEEK)
    assert len(result.notes) == 1
    assert result.trashed > len(pair.packs(trashed=True)) > 0
    assert [pair.read(0), pair.read(1)] == pair.contents
    assert findings(pair.repository) == []


def test_an_empty_repository_and_one_without_snapshots_can_be_pruned(tmp_path: Path) -> None:
    clock = Clock()
    store = MemoryStore(clock)
    create(store)
    with open_repository(store, tmp_path) as repository:
        assert prune(repository, clock).deleted == 0
        only = backup(repository, content(0)).stored
        forget(repository, [only.id])
        clock.advance(1)
        prune(repository, clock)
        assert not list(store.listing(FileKind.PACK))
        assert not store.trashed


def test_moves_to_the_trash_are_durable_before_anything_is_deleted(pair: Pair) -> None:
    """And everything that is claimed is looked at again in between."""
    forget(pair.repository, pair.ids[:1])
    plan = make_plan(pair.repository, max_unused=0.0)
    faulty = FaultyStore(pair.store)
    pair.repository.store = faulty
    execute(pair.repository, plan, quarantine=timedelta(0), now=pair.clock)
    did = [(o.action, o.kind, o.name) for o in faulty.operations]
    moves = [n for n, o in enumerate(did) if o[0] == "trash"]
    deletes = [n for n, o in enumerate(did) if o[0] == "delete" and o[1] is FileKind.PACK]
    puts = [n for n, o in enumerate(did) if o[0] == "put" and o[1] is not FileKind.QUARANTINE]
    assert max(puts) < min(moves)
    assert max(moves) < min(deletes)
    assert any(did[n][0] == "sync" for n in range(max(puts), min(moves)))
    between = did[max(moves) : min(deletes)]
    assert ("sync", None, "") in between
    assert ("list", FileKind.SNAPSHOT, "") in between[between.index(("sync", None, "")) :]
    assert ("list", FileKind.PENDING, "") in between[between.index(("sync", None, "")) :]
    locks = [o[2] for o in did if o[0] == "lock"]
    assert locks == ["shared", "exclusive"]


def test_a_dead_pack_that_cannot_be_read_stays_and_the_others_go(pair: Pair) -> None:
    lone = backup(pair.repository, {"a.sql": data(7, 400_000)}, time=later(8)).stored
    forget(pair.repository, [lone.id])
    plan = make_plan(pair.repository, max_unused=1.0)
    assert len(plan.remove) > 1
    bad = plan.remove[0].pack

    def refuse(operation: Operation) -> None:
        if operation.action == "read" and operation.name == bad:
            raise StoreError("read", bad, OSError(errno.EIO, "Input/output error"))

    pair.repository.store = FaultyStore(pair.store, refuse)
    result = execute(pair.repository, plan, quarantine=timedelta(0), now=pair.clock)
    assert [bad in str(error) for error in result.damaged] == [True]
    assert result.deleted == len(plan.remove) - 1
    assert bad in pair.packs()


# ---- The index is a cache ----------------------------------------------------------------------------------


def mislead_index(folder: Path, key: bytes, bit: int) -> None:
    """Flip one bit of the number of the pack that has a chunk: its locations are masked bit by bit."""
    (file,) = folder.glob("*/index/data.mdb")
    status = file.stat()
    content = bytearray(file.read_bytes())
    at = content.find(key)
    assert at >= 0
    while at >= 0:  # in every copy of the page, of which one is in use
        content[at + len(key)] ^= 1 << bit
        at = content.find(key, at + 1)
    with file.open("r+b") as stream:  # the same inode: as if the disk had flipped it
        stream.write(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("quarantine", [timedelta(0), WEEK], ids=["no quarantine", "a week"])
@pytest.mark.parametrize("bit", [0, 1, 2])
def test_a_bit_that_flips_in_the_index_makes_a_prune_remove_nothing_that_is_needed(
    tmp_path: Path, bit: int, quarantine: timedelta
) -> None:
    clock = Clock()
    store = MemoryStore(clock)
    create(store)
    shared = data(2, 100_000)
    with open_repository(store, tmp_path) as repository:
        for n in range(8):
            part = shared if n == 3 else b""
            stored = backup(repository, {"a.sql": part + data(50 + n, 40_000)}, time=later(n)).stored
            if n == 3:
                forget(repository, [stored.id])
        old = {entry.name for entry in store.listing(FileKind.PACK)}
        kept = {"dump.sql": shared + data(99, 40_000)}  # needs some chunks of an otherwise dead pack
        last = backup(repository, kept, time=later(9)).stored
        ids = [e.id for e in Reader(repository).recipe(last.snapshot.items[0]).extents() if e.id]
        needed = [id_ for id_ in ids if repository.index.locations(id_)[0].pack in old]
        assert 0 < len(needed) < len(ids)
        keys = [repository.index.hidden.table_key(id_) for id_ in needed]
    for key in keys:
        mislead_index(tmp_path, key, bit)
    with open_repository(store, tmp_path) as repository:
        plan = make_plan(repository, max_unused=1.0)
        execute(repository, plan, quarantine=quarantine, now=clock, lock_timeout=0.0)
    with open_repository(store, tmp_path / "other cache") as repository:
        assert findings(repository) == []
        assert contents(repository, last.snapshot) == kept


# ---- Sorting packs -----------------------------------------------------------------------------------------

USES = st.lists(
    st.tuples(st.integers(1000, 100_000), st.floats(0, 1)).map(
        lambda pair: (pair[0], 0 if pair[1] < 0.3 else int(pair[0] * pair[1]))
    ),
    max_size=30,
)


@given(uses=USES, max_unused=st.floats(0, 1))
def test_sorting_packs_loses_none_removes_only_dead_ones_and_leaves_little_waste(
    uses: list[tuple[int, int]], max_unused: float
) -> None:
    packs = [
        PackUse(PackID(f"{n:064x}"), held + 99, used, held - used) for n, (held, used) in enumerate(uses)
    ]
    keep, repack, small, remove = sort_packs(packs, max_unused)
    repack += small
    assert sorted(p.pack for p in keep + repack + remove) == [p.pack for p in packs]
    assert {p.pack for p in remove} == {p.pack for p in packs if p.used == 0}
    wasted = sum(p.unused for p in keep)
    assert wasted <= max_unused * sum(p.used for p in keep + repack)
    if repack and keep:
        assert max(p.used / (p.size - 99) for p in repack) <= min(p.used / (p.size - 99) for p in keep)


@given(uses=USES)
def test_more_waste_allowed_never_means_more_to_repack(uses: list[tuple[int, int]]) -> None:
    packs = [
        PackUse(PackID(f"{n:064x}"), held + 99, used, held - used) for n, (held, used) in enumerate(uses)
    ]
    sizes = [len(sort_packs(packs, allowed)[1]) for allowed in (0.0, 0.05, 0.5, 1.0)]
    assert sizes == sorted(sizes, reverse=True)
