"""Which snapshots to keep: the laws, with any snapshots and any policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.types import ChunkID, SnapshotID
from holdfast.repo.chunks.chunker import DUMP
from holdfast.repo.snapshots.retention import Decision, Policy, decide
from holdfast.repo.snapshots.snapshot import (
    BadRange,
    Consistency,
    Item,
    ItemKind,
    Snapshot,
    StoredSnapshot,
    Subject,
    SubjectKind,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def snapshot(
    n: int, time: datetime, *, name: str = "web", tags: tuple[str, ...] = (), uuid: str = ""
) -> StoredSnapshot:
    return StoredSnapshot(
        SnapshotID(f"{n:064x}"),
        Snapshot(
            Subject(SubjectKind.VM, name, uuid),
            time,
            "host",
            "source",
            Consistency.CRASH,
            "",
            (),
            "test",
            tags=tags,
        ),
    )


def every(step: timedelta, count: int, *, name: str = "web", first: int = 0) -> list[StoredSnapshot]:
    """Snapshots backwards from NOW, oldest first."""
    return [snapshot(first + n, NOW - step * n, name=name) for n in reversed(range(count))]


def kept(decisions: Sequence[Decision]) -> set[SnapshotID]:
    return {d.stored.id for d in decisions if d.keep}


TIMES = st.integers(-3 * 365 * 24, 24 * 30).map(lambda hours: NOW + timedelta(hours=hours))
SNAPSHOTS = st.lists(
    st.tuples(
        TIMES,
        st.sampled_from(["web", "shop", "etc"]),
        st.sets(st.sampled_from(["keep", "monthly"])).map(tuple),
    ),
    max_size=40,
).map(lambda rows: [snapshot(n, time, name=name, tags=tags) for n, (time, name, tags) in enumerate(rows)])
COUNT = st.integers(0, 5)
POLICIES = st.builds(
    Policy,
    last=COUNT,
    hourly=COUNT,
    daily=COUNT,
    weekly=COUNT,
    monthly=COUNT,
    yearly=COUNT,
    within=st.none() | st.integers(0, 400).map(lambda days: timedelta(days=days)),
    tags=st.sets(st.just("keep")).map(tuple),
)


# ---- Laws --------------------------------------------------------------------------------------------------


@given(snapshots=SNAPSHOTS, policy=POLICIES)
def test_every_snapshot_gets_one_decision(snapshots: list[StoredSnapshot], policy: Policy) -> None:
    decisions = decide(snapshots, policy, NOW)
    assert sorted(d.stored.id for d in decisions) == sorted(s.id for s in snapshots)


@given(snapshots=SNAPSHOTS, policy=POLICIES)
def test_the_newest_honest_snapshot_of_each_subject_stays_when_any_rule_counts(
    snapshots: list[StoredSnapshot], policy: Policy
) -> None:
    if not any(getattr(policy, rule) for rule in COUNTS) and policy.within is None:
        return
    staying = kept(decide(snapshots, policy, NOW))
    for name in {s.snapshot.subject.name for s in snapshots}:
        honest = [s for s in snapshots if s.snapshot.subject.name == name and s.snapshot.time <= NOW]
        if honest:
            assert max(honest, key=lambda s: (s.snapshot.time, s.id)).id in staying


@given(snapshots=SNAPSHOTS, policy=POLICIES)
def test_future_snapshots_stay_and_push_out_nobody(snapshots: list[StoredSnapshot], policy: Policy) -> None:
    staying = kept(decide(snapshots, policy, NOW))
    future = {s.id for s in snapshots if s.snapshot.time > NOW}
    without = kept(decide([s for s in snapshots if s.id not in future], policy, NOW))
    assert staying == without | future


@given(snapshots=SNAPSHOTS, policy=POLICIES)
def test_subjects_do_not_matter_to_each_other(snapshots: list[StoredSnapshot], policy: Policy) -> None:
    together = kept(decide(snapshots, policy, NOW))
    apart: set[SnapshotID] = set()
    for name in ("web", "shop", "etc"):
        apart |= kept(decide([s for s in snapshots if s.snapshot.subject.name == name], policy, NOW))
    assert together == apart


@given(snapshots=SNAPSHOTS, policy=POLICIES, rule=st.sampled_from(COUNTS))
def test_a_larger_count_never_keeps_less(snapshots: list[StoredSnapshot], policy: Policy, rule: str) -> None:
    more = replace(policy, **{rule: getattr(policy, rule) + 1})
    assert kept(decide(snapshots, policy, NOW)) <= kept(decide(snapshots, more, NOW))


@given(snapshots=SNAPSHOTS, policy=POLICIES)
def test_rules_add_up(snapshots: list[StoredSnapshot], policy: Policy) -> None:
    single = [Policy(**{rule: getattr(policy, rule)}) for rule in COUNTS]
    single += [Policy(within=policy.within), Policy(tags=policy.tags)]
    apart: set[SnapshotID] = set()
    for one in single:
        apart |= kept(decide(snapshots, one, NOW))
    assert kept(decide(snapshots, policy, NOW)) == apart


@given(snapshots=SNAPSHOTS, policy=POLICIES)
def test_forgetting_what_is_not_kept_changes_no_later_decision(
    snapshots: list[StoredSnapshot], policy: Policy
) -> None:
    staying = kept(decide(snapshots, policy, NOW))
    assert kept(decide([s for s in snapshots if s.id in staying], policy, NOW)) == staying


@given(snapshots=SNAPSHOTS, rule=st.sampled_from(COUNTS), count=st.integers(0, 6))
def test_a_rule_alone_keeps_as_many_as_it_says_or_all_there_are(
    snapshots: list[StoredSnapshot], rule: str, count: int
) -> None:
    buckets = {
        "last": lambda s: s.id,
        "hourly": lambda s: s.snapshot.time.strftime("%Y-%m-%d %H"),
        "daily": lambda s: s.snapshot.time.strftime("%Y-%m-%d"),
        "weekly": lambda s: s.snapshot.time.strftime("%G-%V"),
        "monthly": lambda s: s.snapshot.time.strftime("%Y-%m"),
        "yearly": lambda s: s.snapshot.time.strftime("%Y"),
    }
    mine = [s for s in snapshots if s.snapshot.subject.name == "web" and s.snapshot.time <= NOW]
    rules: dict[str, Any] = {rule: count}
    policy = Policy(**rules)
    staying = [s for s in mine if s.id in kept(decide(mine, policy, NOW))]
    assert len(staying) == min(count, len({buckets[rule](s) for s in mine}))
    assert len({buckets[rule](s) for s in staying}) == len(staying)
    for s in staying:  # the newest of its bucket, and no bucket that was passed over is newer
        rivals = [other for other in mine if buckets[rule](other) == buckets[rule](s)]
        assert s == max(rivals, key=lambda o: (o.snapshot.time, o.id))
    newest = {buckets[rule](s) for s in sorted(mine, key=lambda o: o.snapshot.time)[::-1]}
    assert {buckets[rule](s) for s in staying} <= newest


@given(snapshots=SNAPSHOTS)
def test_the_order_they_are_given_in_does_not_matter(snapshots: list[StoredSnapshot]) -> None:
    policy = Policy(last=1, daily=3, monthly=2)
    assert kept(decide(snapshots, policy, NOW)) == kept(decide(snapshots[::-1], policy, NOW))


# ---- Examples ----------------------------------------------------------------------------------------------


def test_a_flood_of_forged_future_snapshots_costs_no_honest_one() -> None:
    honest = every(timedelta(days=1), 10)
    flood = [snapshot(1000 + n, NOW + timedelta(minutes=n + 1)) for n in range(500)]
    policy = Policy(last=3, daily=7, within=timedelta(days=5))
    assert kept(decide(honest, policy, NOW)) <= kept(decide(honest + flood, policy, NOW))


def test_reasons_say_which_rule_keeps_a_snapshot() -> None:
    decisions = decide(every(timedelta(hours=12), 5), Policy(last=1, daily=2), NOW)
    assert [d.reasons for d in decisions] == [
        ("last 1 of 1", "daily 1 of 2"),
        (),
        ("daily 2 of 2",),
        (),
        (),
    ]


def test_the_last_snapshot_of_a_day_is_the_one_that_is_kept() -> None:
    snapshots = every(timedelta(hours=6), 12)
    staying = {s.snapshot.time for s in snapshots if s.id in kept(decide(snapshots, Policy(daily=3), NOW))}
    assert staying == {NOW, NOW.replace(day=21, hour=18), NOW.replace(day=20, hour=18)}


def test_weeks_are_iso_weeks_also_around_new_year() -> None:
    days = [datetime(2026, 12, 27, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)]
    days += [datetime(2027, 1, 3, tzinfo=UTC), datetime(2027, 1, 4, tzinfo=UTC)]
    snapshots = [snapshot(n, day) for n, day in enumerate(days)]
    staying = kept(decide(snapshots, Policy(weekly=9), datetime(2027, 1, 5, tzinfo=UTC)))
    assert [s.id in staying for s in snapshots] == [True, False, True, True]


def test_a_tag_keeps_for_ever_and_counts_for_no_rule() -> None:
    snapshots = every(timedelta(days=1), 4)
    snapshots[0] = snapshot(3, snapshots[0].snapshot.time, tags=("gold",))
    decisions = decide(snapshots, Policy(last=1, tags=("gold",)), NOW)
    assert [d.reasons for d in decisions] == [("last 1 of 1",), (), (), ("tag gold",)]


def test_within_counts_from_the_newest_snapshot_not_from_today() -> None:
    """A machine that was switched off for a year keeps its last days."""
    old = [snapshot(n, NOW - timedelta(days=365 + n)) for n in range(10)]
    assert len(kept(decide(old, Policy(within=timedelta(days=3)), NOW))) == 4


def test_a_renamed_machine_with_a_uuid_stays_one_subject() -> None:
    one = snapshot(1, NOW - timedelta(days=1), name="old-name", uuid="u")
    two = snapshot(2, NOW, name="new-name", uuid="u")
    assert kept(decide([one, two], Policy(last=1), NOW)) == {two.id}


def partial(n: int, time: datetime) -> StoredSnapshot:
    """A snapshot that is not whole."""
    stored = snapshot(n, time)
    item = Item("a", ItemKind.DUMP, 9, 9, 0, DUMP, ChunkID(bytes(32)), bad=(BadRange(0, 9, "unreadable"),))
    return replace(stored, snapshot=replace(stored.snapshot, items=(item,)))


def test_a_partial_snapshot_counts_for_no_rule_while_there_is_a_whole_one() -> None:
    day = timedelta(days=1)
    snapshots = [
        snapshot(1, NOW - 4 * day),
        partial(2, NOW - 3 * day),
        snapshot(3, NOW - 2 * day),
        partial(4, NOW - day),
        partial(5, NOW),
    ]
    newer = "partial, newer than any whole one"
    for policy, whole in (
        (Policy(last=1), "last 1 of 1"),
        (Policy(daily=1), "daily 1 of 1"),
        (Policy(within=day), "within the time to keep"),
    ):
        reasons = [d.reasons for d in decide(snapshots, policy, NOW)]
        assert reasons == [(newer,), (newer,), (whole,), (), ()], policy


def test_a_partial_snapshot_that_is_older_than_a_whole_one_goes_though_there_is_room_for_it() -> None:
    snapshots = [partial(1, NOW - timedelta(days=1)), snapshot(2, NOW)]
    assert [d.reasons for d in decide(snapshots, Policy(last=2), NOW)] == [("last 1 of 2",), ()]


def test_a_whole_snapshot_from_the_future_does_not_make_partial_ones_count_for_nothing() -> None:
    snapshots = [partial(1, NOW - timedelta(days=1)), partial(2, NOW), snapshot(3, NOW + timedelta(days=1))]
    reasons = [d.reasons for d in decide(snapshots, Policy(last=1), NOW)]
    assert reasons == [("dated in the future",), ("last 1 of 1",), ()]


def test_where_there_are_only_partial_snapshots_they_count_as_whole_ones_do() -> None:
    days = [NOW - timedelta(days=n) for n in range(4)]
    policy = Policy(last=1, daily=3)
    of_partial = decide([partial(n, day) for n, day in enumerate(days)], policy, NOW)
    of_whole = decide([snapshot(n, day) for n, day in enumerate(days)], policy, NOW)
    assert [d.reasons for d in of_partial] == [d.reasons for d in of_whole]


@pytest.mark.parametrize(
    ("policy", "empty"),
    [
        (Policy(), True),
        (Policy(last=0, daily=0), True),
        (Policy(within=timedelta(0)), False),
        (Policy(tags=("x",)), False),
        (Policy(yearly=1), False),
    ],
)
def test_a_policy_without_rules_says_so(policy: Policy, empty: bool) -> None:
    assert policy.is_empty == empty
