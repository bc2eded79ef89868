"""Which snapshots a new one names, so that none can vanish unnoticed while a later one is there. No I/O.

Each snapshot names the heads that it knew: those that no other known one named. So the newest snapshots
lead to all others, and whoever removes one has to remove all later ones too, which the caches of those who
saw them tell (`repo.records.high_water`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.base.types import SnapshotID
from holdfast.repo.snapshots.snapshot import StoredSnapshot, SubjectKind


def lasting(snapshots: Iterable[StoredSnapshot]) -> Sequence[StoredSnapshot]:
    """Those that stay until somebody forgets them: not log archives, whose pushes replace each other."""
    return [stored for stored in snapshots if stored.snapshot.subject.kind is not SubjectKind.LOGS]


def named(snapshots: Iterable[StoredSnapshot]) -> set[SnapshotID]:
    """All IDs that snapshots name as heads."""
    return {id_ for stored in snapshots for id_ in stored.snapshot.heads}


def heads_of(snapshots: Iterable[StoredSnapshot]) -> tuple[SnapshotID, ...]:
    """The IDs of lasting snapshots that no other one names, in order."""
    known = lasting(snapshots)
    return tuple(sorted({stored.id for stored in known} - named(known)))
