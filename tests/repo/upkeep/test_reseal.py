"""Sealing packs of earlier key epochs anew: a few in each prune, or all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, NoSpace
from holdfast.base.types import PackID
from holdfast.repo.core.key_changes import add_slot, remove_slot, rotate, slot_use
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.epochs import left_in_earlier, stored_by_epoch
from holdfast.repo.upkeep.prune import PruneResult, execute
from holdfast.repo.upkeep.prune_plan import PackUse, choose_reseal, make_plan
from support.basics import CHEAP, read_item, store_file
from support.fault import all_contents, backup, contents, create, data, findings, later, open_repository
from support.faulty_store import FaultyStore, Operation


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """Three backups without anything in common, then a new key epoch."""
    store = MemoryStore()
    create(store)
    with open_repository(store, tmp_path / "cache") as opened:
        for n in range(3):
            backup(opened, {"a.sql": data(n, 250_000)}, time=later(n))
        begin_epoch(opened)
        yield opened


def begin_epoch(repository: Repository) -> int:
    return rotate(repository, slot_use(repository), created=later(0).isoformat())


def prune(repository: Repository, *, max_unused: float = 0.05, reseal_all: bool = False) -> PruneResult:
    plan = make_plan(repository, max_unused=max_unused, reseal_all=reseal_all)
    return execute(repository, plan, quarantine=timedelta(0), now=lambda: 1e12)


def test_nothing_is_sealed_anew_before_there_is_a_second_epoch(tmp_path: Path) -> None:
    store = MemoryStore()
    create(store)
    with open_repository(store, tmp_path) as repository:
        backup(repository, {"a.sql": data(1, 100_000)})
        plan = make_plan(repository, reseal_all=True)
        assert (plan.repack, plan.reseal) == ((), frozenset())
        assert len(list(plan.lines())) == 3


def test_all_at_once(repository: Repository) -> None:
    expected = all_contents(repository)
    held = left_in_earlier(repository.store, 2)
    assert held[0] > 3
    plan = make_plan(repository, reseal_all=True)
    assert ("seal anew, because their key epoch is over", *held) in list(plan.lines())
    result = prune(repository, reseal_all=True)
    assert result.deleted == held[0]
    assert stored_by_epoch(repository.store).keys() == {2}
    assert all_contents(repository) == expected
    assert findings(repository) == []
    assert make_plan(repository, reseal_all=True).repack == ()


def test_a_few_in_each_prune_until_none_is_left(repository: Repository) -> None:
    expected = all_contents(repository)
    left = [left_in_earlier(repository.store, 2)[0]]
    while left[-1]:
        prune(repository)
        left.append(left_in_earlier(repository.store, 2)[0])
        assert 1 <= left[-2] - left[-1] <= 2
        assert len(left) < 20
    assert all_contents(repository) == expected
    assert findings(repository) == []


def test_the_oldest_come_first(repository: Repository) -> None:
    backup(repository, {"a.sql": data(9, 250_000)}, time=later(9))
    begin_epoch(repository)
    before = stored_by_epoch(repository.store)
    assert before.keys() == {1, 2}
    prune(repository)
    after = stored_by_epoch(repository.store)
    assert after[1][0] < before[1][0]
    assert after[2] == before[2]
    assert after.keys() == {1, 2, 3}


@given(st.lists(st.integers(1, 100), max_size=20), st.integers(0, 500))
def test_at_leisure_means_one_pack_and_no_more_than_the_limit(used: list[int], limit: int) -> None:
    packs = [PackUse(PackID(f"{n:064x}"), size, size, 0) for n, size in enumerate(used)]
    order = [p.pack for p in packs]
    chosen = choose_reseal(reversed(packs), order, limit)
    assert chosen == packs[: len(chosen)]
    assert sum(p.used for p in chosen) <= limit or len(chosen) == 1
    assert chosen or not packs
    assert choose_reseal(packs, order, None) == packs


def test_a_full_disk_leaves_old_packs_as_they_are(repository: Repository) -> None:
    expected = all_contents(repository)
    before = stored_by_epoch(repository.store)

    def full(operation: Operation) -> None:
        if (operation.action, operation.kind) == ("put", FileKind.PACK):
            raise NoSpace("write", operation.name, OSError(28, "No space left on device"))

    store = repository.store
    repository.store = FaultyStore(store, full)
    assert prune(repository, reseal_all=True).notes
    repository.store = store
    assert stored_by_epoch(store) == before
    assert all_contents(repository) == expected


def test_a_damaged_pack_of_an_earlier_epoch_stays_and_the_others_do_not(repository: Repository) -> None:
    store = repository.store
    assert isinstance(store, MemoryStore)
    bad = make_plan(repository, reseal_all=True).repack[0].pack
    whole = bytearray(store.files[FileKind.PACK, bad])
    whole[64 + 64 + 5] ^= 1
    store.files[FileKind.PACK, bad] = bytes(whole)
    result = prune(repository, reseal_all=True)
    assert [f"pack {bad}" in str(error) for error in result.damaged] == [True]
    assert stored_by_epoch(store)[1][0] == 1
    assert (FileKind.PACK, bad) in store.files


def test_what_somebody_planted_under_a_false_id_does_not_come_into_the_new_epoch(tmp_path: Path) -> None:
    """Who was removed and can write to the store has the keys of the old epoch."""
    store = MemoryStore()
    create(store)
    with open_repository(store, tmp_path / "ours") as repository:
        colleague = add_slot(repository, "colleague", label="", created="", cost=CHEAP)
        theirs = MemoryStore()
        theirs.files = dict(store.files)
        remove_slot(repository, colleague.id)
        begin_epoch(repository)
        payroll, forgery = b"payroll, December", b"payroll, forgery!"
        with (
            open_repository(theirs, tmp_path / "theirs", password="colleague") as stolen,
            Writer(stolen) as writer,
        ):
            writer.put([forgery], [stolen.keys.data_chunk_id(payroll)])
            writer._packs.finish()
        planted = {key: content for key, content in theirs.files.items() if key[0] is FileKind.PACK}
        assert planted
        store.files |= planted
        item = store_file(repository, [payroll])  # found in the planted pack, so not stored
        result = prune(repository, reseal_all=True)
        assert "other content than its ID says" in str(result.damaged[0])
        assert store.files.keys() >= planted.keys(), "evidence stays"
        with pytest.raises(Damaged, match="not that of its ID"):
            read_item(repository, item)
        assert any("disagree" in finding.problem for finding in findings(repository))
        healed = store_file(repository, [payroll], hours=1)  # check has taken the entry out of the index
        assert read_item(repository, healed) == read_item(repository, item) == payroll


def test_a_removed_password_reads_nothing_of_what_was_sealed_anew(tmp_path: Path) -> None:
    """The same snapshot, which he could read before: its data has left his epoch."""
    store = MemoryStore()
    create(store)
    with open_repository(store, tmp_path / "ours") as repository:
        colleague = add_slot(repository, "colleague", label="", created="", cost=CHEAP)
        hoard = {k: v for k, v in store.files.items() if k[0] in (FileKind.KEY, FileKind.KEYRING)}
        backup(repository, {"a.sql": data(1, 50_000)})
        remove_slot(repository, colleague.id)
        begin_epoch(repository)
        prune(repository, reseal_all=True)
        stolen = MemoryStore()
        stolen.files = {k: v for k, v in store.files.items() if k[0] is not FileKind.KEYRING} | hoard
    with open_repository(stolen, tmp_path / "theirs", password="colleague") as theirs:
        (stored,) = theirs.snapshots().good  # sealed in his time
        with pytest.raises(Damaged):
            contents(theirs, stored.snapshot)
