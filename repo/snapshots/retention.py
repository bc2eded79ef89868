"""Decides which snapshots a retention policy keeps, with reasons. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.repo.snapshots.snapshot import StoredSnapshot, SubjectKind


@dataclass(frozen=True, slots=True)
class Policy:
    """How many snapshots of each subject each rule keeps (0: none). A snapshot stays if any rule keeps it.

    `hourly=24` keeps the last snapshot of each of the 24 most recent hours that have one, and so on.
    `within` keeps all snapshots that are at most that much older than the subject's newest one.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: timedelta | None = None
    tags: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the policy has no rule, so that it would keep nothing."""
        return self == Policy()


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to keep a snapshot: `reasons` names the rules that keep it and is empty if none does."""

    stored: StoredSnapshot
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        return bool(self.reasons)


_Bucket = Callable[[datetime], object]
_CALENDAR: tuple[tuple[str, _Bucket], ...] = (
    ("hourly", lambda t: (t.year, t.month, t.day, t.hour)),
    ("daily", lambda t: (t.year, t.month, t.day)),
    ("weekly", lambda t: t.isocalendar()[:2]),
    ("monthly", lambda t: (t.year, t.month)),
    ("yearly", lambda t: t.year),
)


def decide(snapshots: Sequence[StoredSnapshot], policy: Policy, now: datetime) -> list[Decision]:
    """A decision for every snapshot, by subject, newest first within a subject.

    Keeps all snapshots dated after `now` and counts them for no rule: a forged or mistaken future date must
    not push other snapshots out. Snapshots of log archives get no decision: log files are removed together
    with the backups that need them.
    """
    subjects: dict[tuple[str, str], list[StoredSnapshot]] = {}
    for stored in snapshots:
        if stored.snapshot.subject.kind is SubjectKind.LOGS:
            continue
        subjects.setdefault(stored.snapshot.subject.identity, []).append(stored)
    decisions: list[Decision] = []
    for group in subjects.values():
        decisions += _decide_subject(group, policy, now)
    return decisions


def _decide_subject(group: list[StoredSnapshot], policy: Policy, now: datetime) -> list[Decision]:
    newest_first = sorted(group, key=lambda s: (s.snapshot.time, s.id), reverse=True)
    reasons: dict[str, list[str]] = {s.id: [] for s in newest_first}
    dated = [s for s in newest_first if s.snapshot.time <= now]
    # A backup that is not whole must not push out one that is: it counts only where there is no other.
    honest = [s for s in dated if not s.snapshot.partial] or dated
    for stored in dated:
        if stored.snapshot.partial and stored.snapshot.time > honest[0].snapshot.time:
            reasons[stored.id].append("partial, newer than any whole one")
    for stored in newest_first:
        if stored.snapshot.time > now:
            reasons[stored.id].append("dated in the future")
        for tag in policy.tags:
            if tag in stored.snapshot.tags:
                reasons[stored.id].append(f"tag {tag}")
    for n, stored in enumerate(honest[: policy.last], 1):
        reasons[stored.id].append(f"last {n} of {policy.last}")
    for rule, bucket in _CALENDAR:
        for n, stored in enumerate(_newest_per_bucket(honest, bucket, getattr(policy, rule)), 1):
            reasons[stored.id].append(f"{rule} {n} of {getattr(policy, rule)}")
    if policy.within is not None and honest:
        newest = honest[0].snapshot.time
        for stored in honest:
            if newest - stored.snapshot.time <= policy.within:
                reasons[stored.id].append("within the time to keep")
    return [Decision(stored, tuple(reasons[stored.id])) for stored in newest_first]


def _newest_per_bucket(
    newest_first: Sequence[StoredSnapshot], bucket: _Bucket, count: int
) -> list[StoredSnapshot]:
    seen: dict[object, StoredSnapshot] = {}
    for stored in newest_first:
        if len(seen) >= count and bucket(stored.snapshot.time) not in seen:
            break
        seen.setdefault(bucket(stored.snapshot.time), stored)
    return list(seen.values())[:count]
