"""Records of the snapshots that were forgotten on purpose. A snapshot that is gone without one is reported.

A record is a sealed file that names snapshots with the times when they were forgotten. It is durable before
the snapshots move to the trash, and a prune deletes from the trash only what a record names: whoever can
write to the store, and knows no password, cannot make one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from holdfast.base.errors import Damaged, NoSpace, OtherKey, RepositoryError, Unsupported
from holdfast.base.stored_json import VersionedJson, read_versioned
from holdfast.base.types import SnapshotID
from holdfast.repo.core.mirrored import (
    copies,
    delete_mirrored,
    mirrored_names,
    put_mirrored,
    read_mirrored,
    read_small,
    restore_missing_copies,
)
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import content_hash, open_object, seal_object
from holdfast.repo.format.format import ObjectType
from holdfast.repo.store.interface import FileKind

FORGOTTEN_VERSION: Final = 1
_MANY: Final = 16
"""Records that a prune leaves as they are; more become one."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What all records say: when each snapshot was forgotten, in seconds since 1970; the records that were
    read, and the errors of those that could not be."""

    times: Mapping[SnapshotID, int]
    records: tuple[str, ...]
    damaged: tuple[RepositoryError, ...]


class _ForgottenJson(VersionedJson):
    snapshots: dict[SnapshotID, int]


def record_forgotten(repository: Repository, ids: Iterable[SnapshotID], now: float) -> None:
    """Write that snapshots are forgotten from now on. Durable on return.

    On a full disk the second copies of the snapshots make room for it: they are to go, and forgetting is how
    room is made.
    """
    doomed = list(ids)
    name, sealed = _seal(repository, dict.fromkeys(doomed, int(now)))
    try:
        put_mirrored(repository.store, FileKind.FORGOTTEN, name, sealed)
    except NoSpace:
        if name in mirrored_names(repository.store, FileKind.FORGOTTEN):
            return  # one copy is enough for now: a prune writes the other
        _drop_second_copies(repository, doomed)
        repository.store.put(FileKind.FORGOTTEN, name, sealed)
        repository.store.sync()


def _drop_second_copies(repository: Repository, ids: Iterable[SnapshotID]) -> None:
    """Delete the second copies of snapshots whose first ones are good."""
    store = repository.store
    for id_ in ids:
        first, second = copies(id_)
        with suppress(FileNotFoundError, Damaged, Unsupported):
            where = store.describe(FileKind.SNAPSHOT, first)
            repository.parse_snapshot(read_small(store, FileKind.SNAPSHOT, first), where, id_)
            store.delete(FileKind.SNAPSHOT, second)
    store.sync()


def read_forgotten(repository: Repository) -> Forgotten:
    """Read all records. A record that cannot be read is listed in `errors` and stops nothing."""
    times: dict[SnapshotID, int] = {}
    records: list[str] = []
    damaged: list[RepositoryError] = []
    for name in mirrored_names(repository.store, FileKind.FORGOTTEN):

        def parse(data: bytes, where: str, name: str = name) -> Mapping[SnapshotID, int]:
            return open_forgotten(repository, data, where, name)

        try:
            said = read_mirrored(repository.store, FileKind.FORGOTTEN, name, parse)
        except OtherKey:
            continue  # another repository's
        except (Damaged, Unsupported) as error:
            damaged.append(error)
        except FileNotFoundError:
            continue  # replaced by another since it was listed
        else:
            records.append(name)
            for id_, time in said.items():
                times[id_] = max(time, times.get(id_, time))
    return Forgotten(times, tuple(records), tuple(damaged))


def open_forgotten(repository: Repository, data: bytes, where: str, name: str) -> Mapping[SnapshotID, int]:
    """Decode one record. Raises Unsupported, or Damaged, also when the name is not that of the content."""
    if content_hash(data) != name:
        raise Damaged(where, "content does not match its name")
    body = open_object(repository.keys, ObjectType.FORGOTTEN, data, where)
    kind = "record of forgotten snapshots"
    return read_versioned(body, _ForgottenJson, kind=kind, version=FORGOTTEN_VERSION, where=where).snapshots


def retract_forgotten(repository: Repository, ids: Collection[SnapshotID]) -> None:
    """Take back that snapshots were forgotten, once they are in use again: they are missed from now on."""
    known = read_forgotten(repository)
    if known.times.keys() & set(ids):
        with suppress(NoSpace):  # then they are not missed until they are forgotten and brought back again
            _replace(repository, known, {id_: time for id_, time in known.times.items() if id_ not in ids})


def fold_forgotten(repository: Repository, *, needed: Collection[SnapshotID], before: float) -> None:
    """Make many records one, without those of snapshots that are not `needed` and were forgotten by `before`
    (seconds since 1970). The caller holds the exclusive lock."""
    known = read_forgotten(repository)
    if len(known.records) > _MANY:
        kept = {id_: time for id_, time in known.times.items() if id_ in needed or time > before}
        with suppress(NoSpace):
            _replace(repository, known, kept)


def restore_missing_forgotten_copies(repository: Repository) -> None:
    """Write the second copy of records of which a crash or a full disk left one. The caller holds the
    exclusive lock."""
    restore_missing_copies(
        repository.store,
        FileKind.FORGOTTEN,
        lambda data, where, name: open_forgotten(repository, data, where, name),
    )


def _replace(repository: Repository, known: Forgotten, times: Mapping[SnapshotID, int]) -> None:
    """The new record is durable before the old ones go: a crash leaves too much said, never too little."""
    written = ""
    if times:
        written, sealed = _seal(repository, times)
        put_mirrored(repository.store, FileKind.FORGOTTEN, written, sealed)
    for name in known.records:
        if name != written:
            delete_mirrored(repository.store, FileKind.FORGOTTEN, name)


def _seal(repository: Repository, times: Mapping[SnapshotID, int]) -> tuple[str, bytes]:
    """(name, content) of a record."""
    body = json.dumps({"version": FORGOTTEN_VERSION, "snapshots": dict(times)}, sort_keys=True).encode()
    sealed = seal_object(repository.keys, ObjectType.FORGOTTEN, body)
    return content_hash(sealed), sealed
