"""Records of subjects: sealed, mirrored files with renames, joins and splits, read with every listing."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final

import msgspec

from holdfast.base.errors import Damaged, OtherKey, RepositoryError, Unsupported
from holdfast.base.stored_json import VersionedJson, read_versioned
from holdfast.base.types import SnapshotID
from holdfast.repo.core.mirrored import mirrored_names, put_mirrored, read_mirrored
from holdfast.repo.format.crypto import Keys, content_hash, open_object, seal_object
from holdfast.repo.format.format import ObjectType
from holdfast.repo.snapshots.snapshot import SubjectKind
from holdfast.repo.snapshots.subject_changes import SubjectChange, SubjectChanges
from holdfast.repo.store.interface import FileKind, Store

SUBJECTS_VERSION: Final = 1


class _RecordJson(VersionedJson):
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    names: tuple[tuple[SubjectKind, str, str], ...] = ()
    joined: tuple[tuple[SubjectKind, str, str], ...] = ()
    histories: dict[SnapshotID, str] = msgspec.field(default_factory=dict)


def read_subject_changes(store: Store, keys: Keys) -> tuple[SubjectChanges, tuple[RepositoryError, ...]]:
    """The changes in all records, and the errors of records that could not be read."""
    changes: list[SubjectChange] = []
    damaged: list[RepositoryError] = []
    for name in mirrored_names(store, FileKind.SUBJECTS):
        try:
            changes.append(read_mirrored(store, FileKind.SUBJECTS, name, _parser(keys, name)))
        except OtherKey:
            continue  # whole, but another repository's
        except (Damaged, Unsupported) as error:
            damaged.append(error)
        except FileNotFoundError:
            continue  # removed since it was listed
    return SubjectChanges(changes), tuple(damaged)


def record_subject_change(store: Store, keys: Keys, change: SubjectChange) -> None:
    """Write a record. Durable on return."""
    document = {
        "version": SUBJECTS_VERSION,
        "time": change.time.isoformat(),
        "names": [[*identity, name] for identity, name in change.names.items()],
        "joined": [[*identity, key] for identity, key in change.joined.items()],
        "histories": dict(change.histories),
    }
    body = json.dumps({name: value for name, value in document.items() if value}, sort_keys=True)
    sealed = seal_object(keys, ObjectType.SUBJECTS, body.encode())
    put_mirrored(store, FileKind.SUBJECTS, content_hash(sealed), sealed)


def open_subject_change(keys: Keys, data: bytes, where: str, name: str) -> SubjectChange:
    """Decode one record. Raises Unsupported, or Damaged, also when the name is not that of the content."""
    if content_hash(data) != name:
        raise Damaged(where, "content does not match its name")
    body = open_object(keys, ObjectType.SUBJECTS, data, where)
    found = read_versioned(
        body, _RecordJson, kind="record of subjects", version=SUBJECTS_VERSION, where=where
    )
    return SubjectChange(
        found.time,
        {(kind.value, key): name for kind, key, name in found.names},
        {(kind.value, key): into for kind, key, into in found.joined},
        found.histories,
    )


def _parser(keys: Keys, name: str) -> Callable[[bytes, str], SubjectChange]:
    return lambda data, where: open_subject_change(keys, data, where, name)
