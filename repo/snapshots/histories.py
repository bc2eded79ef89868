"""Which subject's history a new backup continues. The facts of its source decide, not its name. No I/O."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from holdfast.base.errors import Refused
from holdfast.repo.snapshots.snapshot import Identity, StoredSnapshot, Subject
from holdfast.repo.snapshots.subject_changes import SubjectChanges
from holdfast.repo.snapshots.subjects import Subjects


class HistoryChoice(Enum):
    """The user's choice of the history that a backup continues."""

    BY_FACTS = "by facts"
    SAME = "same"
    NEW = "new"


class NameTaken(Refused):
    """A backup was given the name of another subject, and the facts say that they are two."""


class OtherContent(Refused):
    """The backup's data shares no chunks with the history that it would continue."""


@dataclass(frozen=True, slots=True)
class History:
    """Where a new backup belongs: its subject, the newest snapshot before it, of the same source if there is
    one, and an identity that a record must join to this subject first. `alike`: the backup must have
    something in common with its parent, as nobody said that they are one. `note` is for the user."""

    subject: Subject
    parent: StoredSnapshot | None
    join: Identity | None = None
    alike: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of a new backup. `named`: somebody gave the name, it was not derived. With `movable` a
    name that was given tells the subject apart, and not its place: exports of one VM may lie in many."""

    subject: Subject
    named: bool = False
    movable: bool = False
    choice: HistoryChoice = HistoryChoice.BY_FACTS

    @property
    def by_name(self) -> Subject:
        """The subject as its facts tell it apart."""
        if not (self.named and self.movable):
            return self.subject
        return replace(self.subject, origin=replace(self.subject.origin, place=""))


def find_history(snapshots: Sequence[StoredSnapshot], changes: SubjectChanges, claim: Claim) -> History:
    """`snapshots` are oldest first, as `changes` left them. Raises NameTaken."""
    subject = claim.by_name
    if claim.choice is HistoryChoice.NEW:
        return History(changes.resolve(replace(subject, history=secrets.token_hex(4))), None)
    subject = changes.resolve(replace(subject, history=_latest_history(snapshots, subject)))
    parent = newest_of(snapshots, subject.identity)
    if parent is not None:
        own = subject.own_identity
        mine = [s for s in snapshots if s.snapshot.subject.own_identity == own]
        alike = claim.choice is HistoryChoice.BY_FACTS and bool(mine)
        parent = mine[-1] if mine else parent
        return History(subject, parent, alike=alike, note=_moved(subject, parent.snapshot.subject))
    if subject != claim.subject:
        derived = claim.subject
        derived = changes.resolve(replace(derived, history=_latest_history(snapshots, derived)))
        found = newest_of(snapshots, derived.identity)
        if found is not None:  # it was backed up before without --name
            return _joined(subject, derived, found)
    return _of_new(Subjects(snapshots), claim, subject)


def _of_new(there: Subjects, claim: Claim, subject: Subject) -> History:
    """The facts say that this subject was never backed up."""
    others = there.named(subject.name)
    if not others:
        return History(subject, None)
    if claim.choice is HistoryChoice.SAME:
        same = [other for other in others if other.kind is subject.kind]
        if len(same) == 1:
            return _joined(subject, same[0], there.newest[same[0].identity])
        raise NameTaken(
            f"{subject.name!r} names {len(same)} subjects of kind {subject.kind.value}: "
            "which history this backup continues is not clear"
        )
    if claim.named:
        raise NameTaken(f"{subject.name!r} is the name of {_told(there, others[0])}: another one than this")
    label = there.label(subject)
    told = _told(there, others[0])
    return History(subject, None, note=f"{subject.name!r} names {told} too; this one is {label!r}")


def _joined(subject: Subject, to: Subject, parent: StoredSnapshot) -> History:
    """`subject` becomes a part of the subject `to`, under the name that it is given now."""
    joined = replace(subject, joined=to.identity[1])
    return History(joined, parent, join=subject.own_identity)


def _told(there: Subjects, other: Subject) -> str:
    stored = there.newest[other.identity]
    kind = f"{other.engine} {other.kind.value}".lstrip()
    return f"a {kind} from {stored.snapshot.host}:{stored.snapshot.source}, newest snapshot {stored.id[:8]}"


def _moved(subject: Subject, before: Subject) -> str:
    """A warning for a server or VM that is at another place than before: it may be a clone."""
    then, now = before.origin.host, subject.origin.host
    if not then or then == now or not (subject.uuid or subject.origin.server):
        return ""
    return f"{subject.name!r} was backed up from {then} before, and has the same identifier here"


def _latest_history(snapshots: Sequence[StoredSnapshot], subject: Subject) -> str:
    """Of the histories with the same facts, the one that was continued last: from the same place if there is
    one, else from the same host. A clone has the identifier of its original, but another host."""
    key = subject.facts_key
    same = [
        s.snapshot.subject
        for s in snapshots
        if s.snapshot.subject.kind is subject.kind and s.snapshot.subject.facts_key == key
    ]
    here = [each for each in same if each.origin.host == subject.origin.host]
    exactly = [each for each in here if each.origin.place == subject.origin.place]
    best = exactly or here or same
    return best[-1].history if best else ""


def newest_of(snapshots: Sequence[StoredSnapshot], identity: Identity) -> StoredSnapshot | None:
    """The newest snapshot of a subject. `snapshots` are in order of time, oldest first."""
    same = [s for s in snapshots if s.snapshot.subject.identity == identity]
    return same[-1] if same else None
