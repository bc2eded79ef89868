"""Changes of subjects after their backups: renamed, joined, split. No I/O.

Snapshots never change, so the changes are kept in records beside them (`repo.core.subject_records`) and
applied whenever snapshots are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from holdfast.base.types import SnapshotID
from holdfast.repo.snapshots.snapshot import Identity, StoredSnapshot, Subject


@dataclass(frozen=True, slots=True)
class SubjectChange:
    """The changes in one record. Of several records about the same thing, the latest counts.

    `names` gives subjects other names. `joined` maps the identity that a source gives to the key of the
    subject (of the same kind) that it is a part of: its own key undoes that. `histories` moves snapshots to
    another history of their own source.
    """

    time: datetime
    names: Mapping[Identity, str] = field(default_factory=dict)
    joined: Mapping[Identity, str] = field(default_factory=dict)
    histories: Mapping[SnapshotID, str] = field(default_factory=dict)


class SubjectChanges:
    """The changes of all records together."""

    def __init__(self, changes: Iterable[SubjectChange] = ()) -> None:
        self._names: dict[Identity, str] = {}
        self._joined: dict[Identity, str] = {}
        self._histories: dict[SnapshotID, str] = {}
        for change in sorted(changes, key=lambda change: change.time):
            self._names |= change.names
            self._joined |= change.joined
            self._histories |= change.histories

    def resolve(self, subject: Subject) -> Subject:
        """The subject under the name and the identity that it has now."""
        own = subject.own_identity
        identity, seen = own, {own}
        while (key := self._joined.get(identity)) is not None and (identity[0], key) not in seen:
            identity = (identity[0], key)
            seen.add(identity)
        joined = "" if identity == own else identity[1]
        name = self._names.get(identity, subject.name)
        if (joined, name) == (subject.joined, subject.name):
            return subject
        return replace(subject, joined=joined, name=name)

    def apply(self, stored: StoredSnapshot) -> StoredSnapshot:
        """The snapshot with its subject as it is now."""
        before = subject = stored.snapshot.subject
        if stored.id in self._histories:
            subject = replace(subject, history=self._histories[stored.id])
        subject = self.resolve(subject)
        if subject == before:
            return stored
        return StoredSnapshot(stored.id, replace(stored.snapshot, subject=subject))

    def sources_of(self, subject: Subject) -> list[Identity]:
        """The identities that were joined to this subject, its own not among them."""
        kind, key = subject.identity
        return [
            identity
            for identity, into in self._joined.items()
            if identity[0] == kind and into == key != identity[1]
        ]
