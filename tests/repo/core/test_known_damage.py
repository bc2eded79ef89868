"""What was found damaged is absent for every client until a good copy is there, and nobody can make it up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.base.errors import Damaged, StoreError
from holdfast.repo.core.key_changes import add_slot, remove_slot, rotate, slot_use
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import content_hash, seal_object
from holdfast.repo.format.format import HEAD_SIZE, ObjectType
from holdfast.repo.index.index import Index
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth, check
from holdfast.repo.upkeep.findings import Weight
from holdfast.repo.upkeep.forget import forget
from holdfast.repo.upkeep.prune import PruneResult, execute
from holdfast.repo.upkeep.prune_plan import make_plan
from support.basics import CHEAP, NOW
from support.fault import Content, backup, contents, create, data, later, open_repository
from support.faulty_store import FaultyStore, Operation

FIRST: Content = {"a.sql": data(1, 150_000), "b.sql": data(2, 120_000)}


class Bench:
    """A repository with one snapshot, of which one chunk is damaged in its only pack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        create(self.store)
        with self.client("first") as repository:
            stored = backup(repository, FIRST).stored
            extents = [e for e in Reader(repository).recipe(stored.snapshot.items[0]).extents() if e.id]
            assert extents[1].id
            self.chunk = extents[1].id
            self.place = repository.index.locations(self.chunk)[0]
            self.whole = self.store.files[FileKind.PACK, self.place.pack]
        self.flip()

    @contextmanager
    def client(self, name: str) -> Iterator[Repository]:
        """Somebody with a cache of his own."""
        with open_repository(self.store, self.folder / name) as repository:
            yield repository

    def flip(self) -> None:
        at = self.place.offset + 100
        flipped = self.whole[:at] + bytes([self.whole[at] ^ 1]) + self.whole[at + 1 :]
        self.store.files[FileKind.PACK, self.place.pack] = flipped

    def heal(self) -> None:
        self.store.files[FileKind.PACK, self.place.pack] = self.whole

    def notes(self) -> list[str]:
        return [name for kind, name in self.store.files if kind is FileKind.DAMAGE]

    def find(self, how: str, name: str = "first") -> None:
        with self.client(name) as repository:
            if how == "check":
                assert weights(repository, Depth.READ_DATA) == {Weight.DAMAGE}
            else:
                with pytest.raises(Damaged, match=self.chunk.hex()):
                    contents(repository, repository.snapshots().good[0].snapshot)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def weights(repository: Repository, depth: Depth) -> set[Weight]:
    return {finding.weight for finding in check(repository, depth).findings}


def prune(repository: Repository) -> PruneResult:
    plan = make_plan(repository)
    return execute(repository, plan, quarantine=timedelta(0), now=lambda: 1e12, lock_timeout=0.0)


@pytest.mark.parametrize("how", ["check", "reader"])
@pytest.mark.parametrize("other", ["first", "second"])
def test_what_was_found_is_stored_anew_by_the_next_backup_of_anybody_and_pruned_then(
    bench: Bench, how: str, other: str
) -> None:
    bench.find(how)
    assert len(bench.notes()) == 1
    with bench.client(other) as repository:
        assert weights(repository, Depth.REACHABLE) == {Weight.DAMAGE}, "forgotten by a check"
        stored = backup(repository, FIRST, time=later(1)).stored
        assert stored.snapshot.stats.new_chunks == 1
        for each in repository.snapshots().good:
            assert contents(repository, each.snapshot) == FIRST
        assert weights(repository, Depth.REACHABLE) == {Weight.MEND}
        assert prune(repository).damaged == []
        assert (FileKind.PACK, bench.place.pack) not in bench.store.files
        assert bench.notes() == []
        assert weights(repository, Depth.READ_DATA) == set()
        for each in repository.snapshots().good:
            assert contents(repository, each.snapshot) == FIRST


def test_a_check_without_data_says_which_item_lacks_how_much_and_where(bench: Bench) -> None:
    bench.find("check")
    with bench.client("second") as repository:
        lines = [f"{f.where}: {f.problem}" for f in check(repository, Depth.REACHABLE).findings]
        extents = Reader(repository).recipe(repository.snapshots().good[0].snapshot.items[0]).extents()
        (bad,) = [extent for extent in extents if extent.id == bench.chunk]
        said = f"{bad.length} of its 150000 bytes cannot be read: they lie between byte {bad.start}"
        assert any("a.sql: " + said in line for line in lines), lines
        assert any(bench.place.pack in line and "known to be damaged" in line for line in lines)


def test_a_note_of_data_that_is_good_again_costs_no_read_and_goes_with_the_next_check(bench: Bench) -> None:
    bench.find("check")
    bench.heal()
    with bench.client("second") as repository:
        assert contents(repository, repository.snapshots().good[0].snapshot) == FIRST
        assert weights(repository, Depth.STRUCTURE) == set()
        assert bench.notes() == []
    with bench.client("third") as repository:
        assert backup(repository, FIRST, time=later(1)).stored.snapshot.stats.new_chunks == 0


def test_prune_keeps_a_damaged_pack_until_a_good_copy_is_there_or_nothing_needs_it(bench: Bench) -> None:
    bench.find("check")
    with bench.client("second") as repository:
        result = prune(repository)
        assert [bench.place.pack in str(error) for error in result.damaged] == [True]
        assert (FileKind.PACK, bench.place.pack) in bench.store.files
        assert len(bench.notes()) == 1
        forget(repository, [repository.snapshots().good[0].id])
        assert prune(repository).damaged == []
        assert bench.notes() == []
        assert not list(bench.store.listing(FileKind.PACK))


def test_what_a_prune_finds_damaged_is_noted_too(bench: Bench) -> None:
    with bench.client("first") as repository:
        half = {"a.sql": FIRST["a.sql"][:60_000]}
        first = repository.snapshots().good[0].id
        backup(repository, half, time=later(1))
        forget(repository, [first])
        plan = make_plan(repository, max_unused=0.0)
        result = execute(repository, plan, quarantine=timedelta(0), now=lambda: 1e12)
        assert [bench.place.pack in str(error) for error in result.damaged] == [True]
    assert len(bench.notes()) == 1


def forged(bench: Bench, repository: Repository, chunk: bytes) -> bytes:
    body = json.dumps({"version": 1, "packs": {bench.place.pack: [chunk.hex()]}}).encode()
    return seal_object(repository.keys, ObjectType.DAMAGE, body)


def test_nobody_without_a_key_makes_good_data_count_as_bad(bench: Bench, tmp_path: Path) -> None:
    """A note of another repository's keys, a changed one, one under the name of another, and nonsense."""
    bench.heal()
    stranger = MemoryStore()
    create(stranger)
    with open_repository(stranger, tmp_path / "stranger") as other:
        theirs = forged(bench, other, bench.chunk)
    with bench.client("first") as repository:
        ours = forged(bench, repository, bench.chunk)
    planted = [theirs, ours[:HEAD_SIZE] + theirs[HEAD_SIZE:], ours[:-1] + bytes([ours[-1] ^ 1]), b"", b"{}"]
    for note in planted:
        bench.store.files[FileKind.DAMAGE, content_hash(note)] = note
    with bench.client("second") as repository:
        assert repository.index.locations(bench.chunk)
        assert repository.damage.packs() == {}
        assert backup(repository, FIRST, time=later(1)).stored.snapshot.stats.new_chunks == 0
    for note in planted:
        del bench.store.files[FileKind.DAMAGE, content_hash(note)]
    bench.store.files[FileKind.DAMAGE, content_hash(ours)] = ours
    with bench.client("third") as repository:
        repository.refresh()
        assert repository.damage.packs() == {bench.place.pack: {bench.chunk}}, "the note itself is right"


def test_a_note_that_a_removed_colleague_makes_hides_no_data_and_goes_with_the_next_check(
    bench: Bench,
) -> None:
    bench.heal()
    with bench.client("first") as repository:
        colleague = add_slot(repository, "theirs", label="", created=NOW.isoformat(), cost=CHEAP)
        note = forged(bench, repository, bench.chunk)
        remove_slot(repository, colleague.id)
        rotate(repository, slot_use(repository), created=NOW.isoformat())
    bench.store.files[FileKind.DAMAGE, content_hash(note)] = note
    with bench.client("second") as repository:
        assert contents(repository, repository.snapshots().good[0].snapshot) == FIRST
        assert weights(repository, Depth.STRUCTURE) == set()
        assert bench.notes() == []


def test_where_nothing_can_be_written_reading_and_checking_say_the_same(bench: Bench) -> None:
    def refuse(operation: Operation) -> None:
        if operation.action in ("put", "delete"):
            raise StoreError("write", operation.name, OSError(30, "Read-only file system"))

    with bench.client("first") as repository:
        repository.store = FaultyStore(bench.store, refuse)
        with pytest.raises(Damaged, match=bench.chunk.hex()):
            contents(repository, repository.snapshots().good[0].snapshot)
        assert weights(repository, Depth.READ_DATA) == {Weight.DAMAGE}
    assert bench.notes() == []


def test_an_index_that_leads_astray_is_replaced_and_blames_no_pack(bench: Bench) -> None:
    bench.heal()
    with bench.client("first") as repository:
        pack = bench.place.pack
        entries = repository.directory(pack, len(bench.whole))
        swapped = [(offset, entries[n - 1][1]) for n, (offset, _) in enumerate(entries)]
        key, id_ = repository.keys.index, repository.config.hex_id
    with closing(Index(bench.folder / "misled" / id_ / "index", key)) as index:
        index.add([(pack, len(bench.whole), swapped)])
    with bench.client("misled") as repository:
        assert contents(repository, repository.snapshots().good[0].snapshot) == FIRST
        assert repository.refresh().no_cache
    assert bench.notes() == []
    with bench.client("misled") as repository:
        assert repository.refresh().distrust == "it was damaged"
        assert contents(repository, repository.snapshots().good[0].snapshot) == FIRST
        assert not repository.refresh().no_cache


def test_many_notes_become_one(bench: Bench) -> None:
    bench.heal()
    with bench.client("first") as repository:
        held = [header.id for _, header in repository.directory(bench.place.pack, len(bench.whole))]
        for id_ in held[:5]:
            repository.note_damage(bench.place.pack, [id_])
        assert len(bench.notes()) == 5
        prune(repository)
    assert len(bench.notes()) == 1
    with bench.client("second") as repository:
        repository.refresh()
        assert repository.damage.packs() == {bench.place.pack: set(held[:5])}
