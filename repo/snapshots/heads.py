"""Heads: each snapshot names older ones, so that none vanishes unnoticed while a later one is there. No I/O.

The heads of a snapshot are the known snapshots that no other known one named. So the newest snapshots lead to
all others. Whoever removes one has to remove all later ones too, and the caches of users who saw those
report that (`repo.records.high_water`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.base.types import SnapshotID
from holdfast.repo.snapshots.snapshot import StoredSnapshot, SubjectKind


def lasting(snapshots: Iterable[StoredSnapshot]) -> Sequence[StoredSnapshot]:
    """The snapshots that stay until they are forgotten: not log archives, which pushes replace."""
    return [stored for stored in snapshots if stored.snapshot.subject.kind is not SubjectKind.LOGS]


def named(snapshots: Iterable[StoredSnapshot]) -> set[SnapshotID]:
    """All IDs that snapshots name as heads."""
    return {id_ for stored in snapshots for id_ in stored.snapshot.heads}


def heads_of(snapshots: Iterable[StoredSnapshot]) -> tuple[SnapshotID, ...]:
    """The IDs of lasting snapshots that no other one names, in order."""
    known = lasting(snapshots)
    return tuple(sorted({stored.id for stored in known} - named(known)))
