"""Changes subjects after their backups: renames, joins and splits them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from holdfast.base.errors import NotFound, Refused
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.subject_records import record_subject_change
from holdfast.repo.snapshots.listed import Snapshots
from holdfast.repo.snapshots.snapshot import StoredSnapshot, Subject
from holdfast.repo.snapshots.subject_changes import SubjectChange
from holdfast.repo.store.interface import LockMode


def rename(repository: Repository, subject: Subject, name: str) -> None:
    """Give a subject another name, whatever its backups are called from now on."""
    _record(repository, SubjectChange(_now(), names={subject.identity: name}))


def join(repository: Repository, one: Subject, into: Subject) -> None:
    """Make the history of `one` a part of that of `into`, with the backups that follow. Raises Refused."""
    if one.identity == into.identity:
        raise Refused(f"{one.name!r} and {into.name!r} are one subject already; nothing was changed")
    if (one.kind, one.engine) != (into.kind, into.engine):
        raise Refused(
            f"{one.name!r} is a {_kind(one)} and {into.name!r} a {_kind(into)}: they cannot be one; "
            "nothing was changed"
        )
    _record(repository, SubjectChange(_now(), joined={one.identity: into.identity[1]}))


def split(
    repository: Repository, listed: Snapshots, subject: Subject, chosen: Sequence[StoredSnapshot]
) -> None:
    """Take from a subject what was joined to it; or, if there are `chosen` snapshots of it, these, which then
    have a history of their own. Raises NotFound when there is nothing to split."""
    if chosen:
        history = secrets.token_hex(4)
        _record(repository, SubjectChange(_now(), histories={stored.id: history for stored in chosen}))
        return
    sources = listed.changes.sources_of(subject)
    if not sources:
        raise NotFound(f"nothing was joined to {subject.name!r}; nothing was changed")
    _record(repository, SubjectChange(_now(), joined={source: source[1] for source in sources}))


def _record(repository: Repository, change: SubjectChange) -> None:
    with repository.store.lock(LockMode.SHARED, 60.0):
        record_subject_change(repository.store, repository.keys, change)


def _kind(subject: Subject) -> str:
    return f"{subject.engine} {subject.kind.value}".lstrip()


def _now() -> datetime:
    return datetime.now(UTC)
