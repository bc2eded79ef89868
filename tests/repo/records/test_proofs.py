"""Proofs: sealed, bound to their snapshot, the newest one quickly found, gone when the snapshot is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, NotFound, Unsupported
from holdfast.base.types import SnapshotID
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import content_hash, seal_object
from holdfast.repo.format.format import ObjectType
from holdfast.repo.records.proofs import open_proof
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.local import LocalStore
from holdfast.repo.store.memory import MemoryStore
from holdfast.repo.upkeep.check import Depth, check
from holdfast.repo.upkeep.forget import forget, undelete
from holdfast.repo.upkeep.prune import execute
from holdfast.repo.upkeep.prune_plan import make_plan
from holdfast.servers.base.proof import (
    Outcome,
    Proof,
    QueryResult,
    TableCount,
    Verdict,
    decode_proof,
    keep_proof,
    latest_proof,
    latest_verdicts,
    seal,
)
from support.basics import NOW, new_repository, random_bytes, store_file


def snapshot_of(repository: Repository, seed: int = 1) -> SnapshotID:
    store_file(repository, [random_bytes(5000, seed)], hours=seed)
    return repository.snapshots().good[-1].id


def make_proof(snapshot: SnapshotID, *, hours: float = 0, outcome: Outcome = Outcome.PROVEN) -> Proof:
    verdict = Verdict(
        snapshot=snapshot,
        time=NOW + timedelta(hours=hours),
        outcome=outcome,
        engine="postgresql",
        server="PostgreSQL 15.18",
        host="host",
        program="test",
        seconds=1.5,
        databases=1,
        schemas=1,
        tables=2,
        rows=7,
        error="" if outcome is Outcome.PROVEN else "psql exited with 3",
    )
    tables = (TableCount("shop", "public", "a", 3), TableCount("shop", "public", "b\u202e", 4))
    query = QueryResult("select 1", "shop", ("a", "b"), (("1", None),), more=True)
    return Proof(verdict, tables, (query,), ("a note",))


def body_of(proof: Proof) -> bytes:
    sealed = seal(proof)
    return sealed.head + b"\n" + sealed.details


def prune(repository: Repository, *, days: float = 0) -> None:
    # Files in memory are as old as 1970; those in the trash as old as the store's clock says.
    execute(repository, make_plan(repository), quarantine=timedelta(days=days), now=lambda: 4e9)


def reseal(repository: Repository, proof: Proof, **name: str) -> None:
    """A proof under a name of our choice: what somebody with a password could forge."""
    sealed = seal_object(repository.keys, ObjectType.PROOF, body_of(proof))
    put_raw(repository, sealed, **name)


def put_raw(
    repository: Repository, sealed: bytes, *, snapshot: str, stamp: str = "20261122T020000000000Z"
) -> None:
    name = f"{snapshot}.{stamp}.{content_hash(sealed)}"
    for copy in (name, f"{name}.2"):
        repository.store.put(FileKind.PROOF, copy, sealed)


def test_what_is_stored_is_what_is_read(memory_repository: Repository) -> None:
    snapshot = snapshot_of(memory_repository)
    assert latest_proof(memory_repository, snapshot) is None
    proof = make_proof(snapshot)
    keep_proof(memory_repository, proof)
    assert latest_proof(memory_repository, snapshot) == proof
    assert latest_verdicts(memory_repository).latest == {snapshot: proof.verdict}


# What a server says need not be UTF-8: such bytes are lone surrogates.
texts = st.text(max_size=20) | st.binary(max_size=10).map(lambda b: b.decode(errors="surrogateescape"))


@given(texts, texts, st.integers(0, 1 << 62), st.lists(st.lists(st.none() | texts, max_size=4), max_size=4))
def test_any_content_survives_its_encoding(
    name: str, error: str, rows: int, cells: list[list[str | None]]
) -> None:
    proof = make_proof(SnapshotID("ab" * 32))
    result = QueryResult(name, error, (name,), tuple(map(tuple, cells)), rows % 2 == 1)
    proof = replace(
        proof,
        verdict=replace(proof.verdict, error=error, path=name),
        tables=(TableCount(name, error, name, rows),),
        queries=(result,),
    )
    sealed = seal(proof)
    assert decode_proof(sealed, "") == proof
    assert b"\n" not in sealed.head + sealed.details


def test_the_newest_counts_and_only_it_is_read(memory_repository: Repository) -> None:
    one, other = snapshot_of(memory_repository, 1), snapshot_of(memory_repository, 2)
    for hours in (3, 1, 2):
        outcome = Outcome.FAILED if hours == 3 else Outcome.PROVEN
        keep_proof(memory_repository, make_proof(one, hours=hours, outcome=outcome))
    keep_proof(memory_repository, make_proof(other))
    read: list[str] = []
    store = memory_repository.store
    original = store.read

    def counting(kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        read.append(name)
        return original(kind, name, offset, length)

    store.read = counting  # type: ignore[method-assign]
    found = latest_verdicts(memory_repository)
    assert found.latest[one].outcome is Outcome.FAILED
    assert found.latest[other].outcome is Outcome.PROVEN
    assert len(read) == 2


def test_a_flipped_byte_in_one_copy_costs_nothing(local_repository: Repository) -> None:
    snapshot = snapshot_of(local_repository)
    name = keep_proof(local_repository, make_proof(snapshot))
    flip(local_repository, name)
    assert latest_proof(local_repository, snapshot) == make_proof(snapshot)
    findings = check(local_repository, Depth.STRUCTURE).findings
    assert [name in finding.where for finding in findings] == [True]


def test_a_newest_proof_that_is_damaged_lets_no_older_one_speak(local_repository: Repository) -> None:
    snapshot = snapshot_of(local_repository)
    keep_proof(local_repository, make_proof(snapshot))
    name = keep_proof(local_repository, make_proof(snapshot, hours=1, outcome=Outcome.FAILED))
    for copy in (name, f"{name}.2"):
        flip(local_repository, copy)
    found = latest_verdicts(local_repository)
    assert found.latest == {}
    assert len(found.damaged) == 1
    with pytest.raises(Damaged):
        latest_proof(local_repository, snapshot)
    assert len(check(local_repository, Depth.STRUCTURE).findings) == 2


def test_a_proof_of_one_snapshot_proves_no_other(memory_repository: Repository) -> None:
    one, other = snapshot_of(memory_repository, 1), snapshot_of(memory_repository, 2)
    name = keep_proof(memory_repository, make_proof(one))
    store = memory_repository.store
    for copy in ("", ".2"):  # renamed by somebody without a password
        store.put(FileKind.PROOF, name.replace(one, other) + copy, store.read(FileKind.PROOF, name))
    found = latest_verdicts(memory_repository)
    assert found.latest.keys() == {one}
    assert "another snapshot" in str(found.damaged[0])
    assert len(check(memory_repository, Depth.STRUCTURE).findings) == 2


def test_an_old_proof_cannot_be_made_the_newest_by_its_name(memory_repository: Repository) -> None:
    snapshot = snapshot_of(memory_repository)
    reseal(memory_repository, make_proof(snapshot), snapshot=snapshot, stamp="20991122T020000000000Z")
    assert latest_verdicts(memory_repository).latest == {}
    assert len(latest_verdicts(memory_repository).damaged) == 1


@pytest.mark.parametrize("kind", [ObjectType.SNAPSHOT, ObjectType.CONFIG])
def test_another_kind_of_sealed_object_is_no_proof(memory_repository: Repository, kind: ObjectType) -> None:
    snapshot = snapshot_of(memory_repository)
    sealed = seal_object(memory_repository.keys, kind, body_of(make_proof(snapshot)))
    put_raw(memory_repository, sealed, snapshot=snapshot)
    assert latest_verdicts(memory_repository).latest == {}


def test_a_proof_of_another_repository_is_refused(memory_repository: Repository, tmp_path: Path) -> None:
    snapshot = snapshot_of(memory_repository)
    with new_repository(MemoryStore(), tmp_path / "other") as other:
        sealed = seal_object(other.keys, ObjectType.PROOF, body_of(make_proof(snapshot)))
    put_raw(memory_repository, sealed, snapshot=snapshot)
    with pytest.raises(Damaged, match="another key"):
        latest_proof(memory_repository, snapshot)


@pytest.mark.parametrize("body", [b"", b"{}\n{}", b"[]\n", b"\xff\n", b"[" * 100_000])
def test_what_is_sealed_but_no_proof_is_damage(memory_repository: Repository, body: bytes) -> None:
    sealed = seal_object(memory_repository.keys, ObjectType.PROOF, body)
    name = f"{'ab' * 32}.20261122T020000000000Z.{content_hash(sealed)}"
    with pytest.raises(Damaged):
        open_proof(memory_repository, sealed, "here", name)


def test_a_proof_of_a_newer_program_is_told_apart_from_damage(memory_repository: Repository) -> None:
    body = body_of(make_proof(SnapshotID("ab" * 32))).replace(b'"version": 1', b'"version": 2')
    sealed = seal_object(memory_repository.keys, ObjectType.PROOF, body)
    name = f"{'ab' * 32}.20261122T020000000000Z.{content_hash(sealed)}"
    with pytest.raises(Unsupported):
        open_proof(memory_repository, sealed, "here", name)


def test_a_proof_under_the_hash_of_another_file_is_refused(memory_repository: Repository) -> None:
    snapshot = snapshot_of(memory_repository)
    name = keep_proof(memory_repository, make_proof(snapshot))
    data = memory_repository.store.read(FileKind.PROOF, name)
    with pytest.raises(Damaged, match="does not match its name"):
        open_proof(memory_repository, data, "here", name[:-1] + ("0" if name[-1] != "0" else "1"))


def test_a_snapshot_that_is_gone_gets_no_proof(memory_repository: Repository) -> None:
    snapshot = snapshot_of(memory_repository)
    memory_repository.store.delete(FileKind.SNAPSHOT, snapshot)
    memory_repository.store.delete(FileKind.SNAPSHOT, f"{snapshot}.2")
    with pytest.raises(NotFound):
        keep_proof(memory_repository, make_proof(snapshot))
    assert not list(memory_repository.store.listing(FileKind.PROOF))


def test_proofs_stay_with_forgotten_snapshots_and_go_when_these_are_gone_for_good(
    memory_repository: Repository,
) -> None:
    gone, stays = snapshot_of(memory_repository, 1), snapshot_of(memory_repository, 2)
    for snapshot in (gone, stays):
        keep_proof(memory_repository, make_proof(snapshot))
    forget(memory_repository, [gone])
    prune(memory_repository, days=30_000)  # longer than it has been in the trash
    undelete(memory_repository, [gone])
    assert latest_verdicts(memory_repository).latest.keys() == {gone, stays}
    forget(memory_repository, [gone])
    prune(memory_repository)
    assert latest_verdicts(memory_repository).latest.keys() == {stays}
    assert len(list(memory_repository.store.listing(FileKind.PROOF))) == 2


def test_proofs_survive_when_the_snapshots_are_not_to_be_found(memory_repository: Repository) -> None:
    """Perhaps their folder is what is missing."""
    snapshot = snapshot_of(memory_repository)
    keep_proof(memory_repository, make_proof(snapshot))
    for copy in (snapshot, f"{snapshot}.2"):
        memory_repository.store.delete(FileKind.SNAPSHOT, copy)
    execute(memory_repository, make_plan(memory_repository), quarantine=timedelta(), now=lambda: 0.0)
    assert len(list(memory_repository.store.listing(FileKind.PROOF))) == 2


def test_a_lone_copy_is_read_no_damage_while_it_is_being_written_and_mended_by_a_prune(
    memory_repository: Repository,
) -> None:
    snapshot = snapshot_of(memory_repository)
    name = keep_proof(memory_repository, make_proof(snapshot))
    memory_repository.store.delete(FileKind.PROOF, name)  # a crash between the copies
    assert latest_proof(memory_repository, snapshot) == make_proof(snapshot)
    assert check(memory_repository, Depth.STRUCTURE).findings == []
    prune(memory_repository)
    assert {entry.name for entry in memory_repository.store.listing(FileKind.PROOF)} == {name, f"{name}.2"}


def test_a_damaged_lone_copy_stops_no_prune(memory_repository: Repository) -> None:
    snapshot = snapshot_of(memory_repository)
    memory_repository.store.put(
        FileKind.PROOF, f"{snapshot}.20261122T020000000000Z.{'0' * 64}.2", b"nonsense"
    )
    prune(memory_repository)
    assert len(check(memory_repository, Depth.STRUCTURE).findings) == 1


def test_a_store_of_an_older_program_has_no_folder_for_them(
    local_repository: Repository, local_store: LocalStore
) -> None:
    shutil.rmtree(local_store.root / "proofs")
    snapshot = snapshot_of(local_repository)
    assert latest_verdicts(local_repository).latest == {}
    assert check(local_repository, Depth.REACHABLE).findings == []
    prune(local_repository)
    keep_proof(local_repository, make_proof(snapshot))
    assert latest_verdicts(local_repository).latest.keys() == {snapshot}


def flip(repository: Repository, name: str) -> None:
    assert isinstance(repository.store, LocalStore)
    path = repository.store.root / "proofs" / name
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
