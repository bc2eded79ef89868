"""Proofs that a snapshot was restored successfully or not: sealed files beside the snapshots.

A proof's body is two lines of JSON: a head, which names the snapshot and the time, and details. This module
does not interpret the rest. A proof's name is `<snapshot ID>.<time>.<BLAKE3 of the content>`, so a listing
shows the newest proof of each snapshot, and only that one must be read. The name is compared with the sealed
content. Making or changing a proof takes a password of the repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Generic, TypeVar

import msgspec

from holdfast.base.errors import Damaged, NotFound, OtherKey, RepositoryError, Unsupported
from holdfast.base.stored_json import VersionedJson, read_versioned
from holdfast.base.types import SnapshotID
from holdfast.repo.core.mirrored import (
    delete_mirrored,
    mirrored_names,
    put_mirrored,
    read_mirrored,
    restore_missing_copies,
)
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import content_hash, open_object, seal_object
from holdfast.repo.format.format import ObjectType
from holdfast.repo.store.interface import FileKind, LockMode

PROOF_VERSION: Final = 1
_NAME: Final = re.compile(r"([0-9a-f]{64})\.(\d{8}T\d{12}Z)\.([0-9a-f]{64})")
_STAMP: Final = "%Y%m%dT%H%M%S%fZ"


T = TypeVar("T")
Decode = Callable[[bytes, str], T]
"""`decode(head, where)` makes a value from a proof's head. Raises Damaged or Unsupported with `where`."""


@dataclass(frozen=True, slots=True)
class SealedProof:
    """A decrypted proof. `head`, which also has `snapshot` and `time`, and `details` are lines of JSON."""

    snapshot: SnapshotID
    time: datetime
    head: bytes
    details: bytes


@dataclass(frozen=True, slots=True)
class NewestProofs(Generic[T]):
    """The decoded head of each snapshot's newest proof, and the errors of unreadable ones."""

    latest: Mapping[SnapshotID, T]
    damaged: tuple[RepositoryError, ...]


def store_proof(repository: Repository, proof: SealedProof, *, lock_timeout: float = 60.0) -> str:
    """Seal and store a proof; durable on return. Returns its name.

    Holds the shared lock, so that no prune removes the snapshot meanwhile. Raises NotFound when the snapshot
    does not exist.
    """
    with repository.store.lock(LockMode.SHARED, lock_timeout):
        repository.follow_keyring()
        try:
            repository.read_snapshot(FileKind.SNAPSHOT, proof.snapshot)
        except FileNotFoundError:
            raise NotFound(
                f"snapshot {proof.snapshot[:8]} does not exist any more; the proof was not stored"
            ) from None
        body = proof.head + b"\n" + proof.details
        sealed = seal_object(repository.keys, ObjectType.PROOF, body)
        name = f"{proof.snapshot}.{_stamp(proof.time)}.{content_hash(sealed)}"
        put_mirrored(repository.store, FileKind.PROOF, name, sealed)
    return name


def newest_proofs(repository: Repository, decode: Decode[T]) -> NewestProofs[T]:
    """The decoded heads of all newest proofs, by one listing and one file read per snapshot.

    Omits snapshots whose newest proof cannot be read: an older proof might say the opposite.
    """
    latest: dict[SnapshotID, T] = {}
    damaged: list[RepositoryError] = []
    for snapshot, name in _newest(mirrored_names(repository.store, FileKind.PROOF)).items():

        def parse(data: bytes, where: str, name: str = name) -> T:
            return decode(open_proof(repository, data, where, name).head, where)

        try:
            latest[snapshot] = read_mirrored(repository.store, FileKind.PROOF, name, parse)
        except OtherKey:
            continue  # another repository's
        except (Damaged, Unsupported) as error:
            damaged.append(error)
        except FileNotFoundError:
            continue  # removed since it was listed
    return NewestProofs(latest, tuple(damaged))


def newest_proof(
    repository: Repository, snapshot: SnapshotID, decode: Callable[[SealedProof, str], T]
) -> T | None:
    """The newest proof of a snapshot, decoded. Raises Damaged or Unsupported."""
    names = [name for name in mirrored_names(repository.store, FileKind.PROOF) if name.startswith(snapshot)]
    name = _newest(names).get(snapshot)
    if name is None:
        return None

    def parse(data: bytes, where: str) -> T:
        return decode(open_proof(repository, data, where, name), where)

    try:
        return read_mirrored(repository.store, FileKind.PROOF, name, parse)
    except FileNotFoundError:
        return None


def open_proof(repository: Repository, data: bytes, where: str, name: str) -> SealedProof:
    """Decrypt a proof. Raises Unsupported, or Damaged, also when its name does not fit its content."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise Damaged(where, "is not named like a proof")
    if content_hash(data) != match[3]:
        raise Damaged(where, "content does not match its name")
    head, _, details = open_object(repository.keys, ObjectType.PROOF, data, where).partition(b"\n")
    snapshot, time = _decode_subject(head, where)
    if snapshot != match[1] or _stamp(time) != match[2]:
        raise Damaged(where, "is a proof of another snapshot or time than its name says")
    return SealedProof(snapshot, time, head, details)


def remove_orphans(repository: Repository, *, before: float) -> int:
    """Delete proofs last modified by `before` (seconds since 1970) of snapshots that do not exist any more.

    Snapshots in the trash exist. The caller holds the exclusive lock. Returns the number of proofs.
    """
    store = repository.store
    alive = (
        mirrored_names(store, FileKind.SNAPSHOT).keys()
        | mirrored_names(store, FileKind.SNAPSHOT, trashed=True).keys()
    )
    old = {entry.name for entry in store.listing(FileKind.PROOF) if entry.modified <= before}
    doomed = [
        name
        for name in mirrored_names(store, FileKind.PROOF)
        if (match := _NAME.fullmatch(name)) and match[1] not in alive and name in old
    ]
    for name in doomed:
        delete_mirrored(store, FileKind.PROOF, name)
    return len(doomed)


def restore_missing_proof_copies(repository: Repository) -> None:
    """Write the second copy of proofs of which a crash left one. The caller holds the exclusive lock."""
    restore_missing_copies(
        repository.store,
        FileKind.PROOF,
        lambda data, where, name: open_proof(repository, data, where, name),
    )


def unfinished_proofs(repository: Repository) -> frozenset[str]:
    """Names of proofs whose first copy is missing, because they are being written or a crash stopped that."""
    files = {entry.name for entry in repository.store.listing(FileKind.PROOF)}
    return frozenset(name for name in mirrored_names(repository.store, FileKind.PROOF) if name not in files)


def _newest(names: Collection[str]) -> dict[SnapshotID, str]:
    newest: dict[SnapshotID, str] = {}
    for name in sorted(names):  # names of one snapshot sort by time
        if match := _NAME.fullmatch(name):
            newest[SnapshotID(match[1])] = name
    return newest


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime(_STAMP)


class _HeadJson(VersionedJson):
    """The members of a proof's first line that bind it to its snapshot."""

    snapshot: SnapshotID
    time: Annotated[datetime, msgspec.Meta(tz=True)]


def _decode_subject(head: bytes, where: str) -> tuple[SnapshotID, datetime]:
    """(snapshot, time) that a head names."""
    d = read_versioned(head, _HeadJson, kind="proof", version=PROOF_VERSION, where=where)
    try:
        return d.snapshot, d.time.astimezone(UTC)
    except OverflowError as error:
        raise Damaged(where, f"not a proof: {error}") from None
