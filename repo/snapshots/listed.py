"""The result of listing a repository's snapshots."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.base.errors import RepositoryError
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.snapshots.subject_changes import SubjectChanges


@dataclass(frozen=True, slots=True)
class Snapshots:
    """All snapshots that could be read, oldest first, and the errors of the others. Their subjects are as
    `changes` leave them; `unread` are the errors of records of changes that could not be read."""

    good: tuple[StoredSnapshot, ...]
    damaged: tuple[RepositoryError, ...]
    changes: SubjectChanges = field(default_factory=SubjectChanges)
    unread: tuple[RepositoryError, ...] = ()
