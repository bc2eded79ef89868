"""Decides which snapshots a retention policy keeps, with reasons. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

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
    dated = [s for s in newest_first if s.snapshot.time <= now]
    # An incomplete backup must not push out a complete one: it counts only where there is no other.
    honest = [s for s in dated if not s.snapshot.partial] or dated
    reasons: dict[str, list[str]] = {s.id: [] for s in newest_first}
    for stored, reason in chain(
        _newer_than_whole(dated, honest),
        _by_itself(newest_first, policy, now),
        _by_count(honest, policy),
        _by_age(honest, policy),
    ):
        reasons[stored.id].append(reason)
    return [Decision(stored, tuple(reasons[stored.id])) for stored in newest_first]


_Kept = Iterator[tuple[StoredSnapshot, str]]
"""Snapshots that a rule keeps, each with the reason."""


def _newer_than_whole(dated: Sequence[StoredSnapshot], honest: Sequence[StoredSnapshot]) -> _Kept:
    for stored in dated:
        if stored.snapshot.partial and stored.snapshot.time > honest[0].snapshot.time:
            yield stored, "partial, newer than any whole one"


def _by_itself(snapshots: Sequence[StoredSnapshot], policy: Policy, now: datetime) -> _Kept:
    """Kept for what they are, whatever others there are."""
    for stored in snapshots:
        if stored.snapshot.time > now:
            yield stored, "dated in the future"
        for tag in policy.tags:
            if tag in stored.snapshot.tags:
                yield stored, f"tag {tag}"


def _by_count(newest_first: Sequence[StoredSnapshot], policy: Policy) -> _Kept:
    for n, stored in enumerate(newest_first[: policy.last], 1):
        yield stored, f"last {n} of {policy.last}"
    for rule, bucket in _CALENDAR:
        count = getattr(policy, rule)
        for n, stored in enumerate(_newest_per_bucket(newest_first, bucket, count), 1):
            yield stored, f"{rule} {n} of {count}"


def _by_age(newest_first: Sequence[StoredSnapshot], policy: Policy) -> _Kept:
    for stored in newest_first if policy.within is not None else ():
        assert policy.within is not None
        if newest_first[0].snapshot.time - stored.snapshot.time <= policy.within:
            yield stored, "within the time to keep"


def _newest_per_bucket(
    newest_first: Sequence[StoredSnapshot], bucket: _Bucket, count: int
) -> list[StoredSnapshot]:
    seen: dict[object, StoredSnapshot] = {}
    for stored in newest_first:
        if len(seen) >= count and bucket(stored.snapshot.time) not in seen:
            break
        seen.setdefault(bucket(stored.snapshot.time), stored)
    return list(seen.values())[:count]
