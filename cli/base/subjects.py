"""Displays subjects: their description, and their snapshots in groups."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.repo.snapshots.snapshot import StoredSnapshot, Subject
from holdfast.repo.snapshots.subjects import Subjects


class SubjectTitles:
    """Gives each subject a title that no other has and that can be typed in a command."""

    def __init__(self, snapshots: Sequence[StoredSnapshot]) -> None:
        """`snapshots` are all of the repository, oldest first."""
        self._there = Subjects(snapshots)

    def title(self, subject: Subject) -> str:
        """`web01 (vm)`, `db1/shop (postgresql database)`."""
        return _with_kind(self._there.label(subject), subject)


def group_by_subject(snapshots: Sequence[StoredSnapshot]) -> list[list[StoredSnapshot]]:
    """Snapshots grouped by subject, sorted by the latest description of the subject."""
    groups: dict[tuple[str, str], list[StoredSnapshot]] = {}
    for stored in snapshots:
        groups.setdefault(stored.snapshot.subject.identity, []).append(stored)
    return sorted(groups.values(), key=lambda group: describe_subject(group[-1].snapshot.subject))


def describe_subject(subject: Subject) -> str:
    """`web01 (vm)`, `shop (postgresql database)`; others may be called the same."""
    return _with_kind(subject.name, subject)


def _with_kind(name: str, subject: Subject) -> str:
    kind = f"{subject.engine} {subject.kind.value}" if subject.engine else subject.kind.value
    return f"{name} ({kind})"
