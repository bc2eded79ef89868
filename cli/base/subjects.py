"""Displays subjects: their description, and their snapshots in groups."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.repo.snapshots.snapshot import StoredSnapshot, Subject


def group_by_subject(snapshots: Sequence[StoredSnapshot]) -> list[list[StoredSnapshot]]:
    """Snapshots grouped by subject, sorted by the latest description of the subject."""
    groups: dict[tuple[str, str], list[StoredSnapshot]] = {}
    for stored in snapshots:
        groups.setdefault(stored.snapshot.subject.identity, []).append(stored)
    return sorted(groups.values(), key=lambda group: describe_subject(group[-1].snapshot.subject))


def describe_subject(subject: Subject) -> str:
    """`web01 (vm)`, `shop (postgresql database)`."""
    kind = f"{subject.engine} {subject.kind.value}" if subject.engine else subject.kind.value
    return f"{subject.name} ({kind})"
