"""Naming snapshots: every form of a selector, what is ambiguous, and names that mean harm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.base.errors import Ambiguous, NoSnapshots, NotFound
from holdfast.base.types import SnapshotID
from holdfast.repo.snapshots.select import (
    filter_snapshots,
    select_one,
    split_selector,
    time_name,
)
from holdfast.repo.snapshots.snapshot import Consistency, Item, Snapshot, StoredSnapshot, Subject, SubjectKind

T = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def snapshot(
    id_: str,
    name: str,
    time: datetime,
    *,
    kind: SubjectKind = SubjectKind.VM,
    tags: tuple[str, ...] = (),
    items: tuple[Item, ...] = (),
) -> StoredSnapshot:
    return StoredSnapshot(
        SnapshotID(id_.ljust(64, "0")),
        Snapshot(
            Subject(kind, name), time, "host", "source", Consistency.CRASH, "", items, "test", tags=tags
        ),
    )


WEB_1 = snapshot("aaaa1", "web01", T)
WEB_2 = snapshot("aaaa2", "web01", T + timedelta(days=1), tags=("gold", "weekly"))
WEB_3 = snapshot("bbbb3", "web01", T + timedelta(days=1, minutes=5), tags=("gold",))
SHOP = snapshot("cccc4", "shop", T + timedelta(days=1, minutes=1), kind=SubjectKind.DATABASE)
ALL = [WEB_1, WEB_2, SHOP, WEB_3]


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        ("latest", WEB_3),
        ("web01", WEB_3),
        ("web01@latest", WEB_3),
        ("shop", SHOP),
        ("aaaa1", WEB_1),
        ("aaaa1".ljust(64, "0"), WEB_1),
        ("bbbb", WEB_3),
        ("web01@2026-11-22_02-00-00", WEB_1),
        ("web01@2026-11-22 02:00:00", WEB_1),
        ("web01@2026-11-22T02:00:00Z", WEB_1),
        ("web01@2026-11-22T02:00:00+00:00", WEB_1),
        ("web01@2026-11-22", WEB_1),
        ("web01@2026-11-23_02-05", WEB_3),
        ("web01@2026-11-23T02:05", WEB_3),
    ],
)
def test_every_form_finds_its_snapshot(selector: str, meant: StoredSnapshot) -> None:
    assert select_one(ALL, selector) == meant


@pytest.mark.parametrize(
    ("selector", "hint"),
    [("aaaa", "2 snapshot IDs"), ("web01@2026-11-23", "give more"), ("web01@2026", "give more")],
)
def test_what_fits_several_is_refused_and_says_what_would_help(selector: str, hint: str) -> None:
    with pytest.raises(Ambiguous, match=hint):
        select_one(ALL, selector)


def test_a_name_of_two_subjects_is_refused_and_what_tells_them_apart_is_given() -> None:
    twice = [snapshot("1111", "x", T), snapshot("2222", "x", T, kind=SubjectKind.DATABASE)]
    with pytest.raises(Ambiguous) as caught:
        select_one([snapshot("0000", "x", T), *twice], "x")
    assert str(caught.value).splitlines()[1:] == [
        "database/x: database, newest snapshot 22220000",
        "vm/x: vm, newest snapshot 11110000",
    ]
    for selector in ("2222", "database/x", "database/x@latest", "database/x@2026-11-22"):
        assert select_one(twice, selector).snapshot.subject.kind is SubjectKind.DATABASE


@pytest.mark.parametrize(
    "selector",
    [
        *("", "@", "web01@", "@latest", "nobody", "nobody@latest", "web01@1999-01-01", "web01@tomorrow"),
        *("aaa", "ffff", "AAAA1", "*", "web*", ".*", "../web01", "web01\0", "latest@latest", "-1"),
    ],
)
def test_what_fits_nothing_is_not_found(selector: str) -> None:
    with pytest.raises(NotFound):
        select_one(ALL, selector)


def test_without_snapshots_the_message_says_how_to_make_one() -> None:
    with pytest.raises(NoSnapshots):
        select_one([], "latest")


@pytest.mark.parametrize("name", ["db@host", "a@b@c", "x@latest", "@", "aaaa1", "2026", "ä ö", "-r", "$(x)"])
def test_a_strange_name_is_found_by_itself_and_with_latest(name: str) -> None:
    odd = snapshot("dddd5", name, T)
    assert select_one([odd, *ALL], name) == odd
    assert select_one([odd, *ALL], f"{name}@latest") == odd
    assert select_one([odd, *ALL], f"{name}@{time_name(T)}") == odd


def test_a_name_goes_before_an_id_that_looks_like_it() -> None:
    odd = snapshot("dddd5", "aaaa1", T + timedelta(days=9))
    assert select_one([*ALL, odd], "aaaa1") == odd


def test_a_subject_called_latest_does_not_take_the_word() -> None:
    odd = snapshot("dddd5", "latest", T - timedelta(days=9))
    assert select_one([odd, *ALL], "latest") == WEB_3
    assert select_one([odd, *ALL], "latest@latest") == odd


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("web01", ("web01", "")),
        ("web01:disks/sda.raw", ("web01", "disks/sda.raw")),
        ("web01@latest:/disks/sda.raw/", ("web01@latest", "disks/sda.raw")),
        ("web01@2026-11-22_02-00-00:disks/a:b.raw", ("web01@2026-11-22_02-00-00", "disks/a:b.raw")),
        ("web01@2026-11-22 02:00:00:dump.sql", ("web01@2026-11-22 02:00:00", "dump.sql")),
        ("web01@2026-11-22T02:00Z:dump.sql", ("web01@2026-11-22T02:00Z", "dump.sql")),
        ("web01@2026-11-22T02:00", ("web01@2026-11-22T02:00", "")),
        (":x", ("", "x")),
        (":", ("", "")),
        ("", ("", "")),
    ],
)
def test_a_colon_divides_selector_and_path(text: str, parts: tuple[str, str]) -> None:
    assert split_selector(text) == parts


@given(text=st.text(st.sampled_from("ab0123456789-_:@ TZ+./\n\0é"), max_size=40))
@example("@" + "1" * 5000)
@example("a@2026-11-22T02:00:00." + "0" * 5000 + ":" * 5000)
def test_any_text_divides_and_selects_or_is_refused(text: str) -> None:
    selector, path = split_selector(text)
    assert len(selector) + len(path) <= len(text)
    assert not path.startswith("/")
    try:
        assert select_one(ALL, selector) in ALL
    except (NotFound, Ambiguous) as error:
        assert str(error)  # noqa: PT017


def test_times_are_named_in_utc_without_colons() -> None:
    east = datetime(2026, 11, 22, 4, 0, tzinfo=timezone(timedelta(hours=2)))
    assert time_name(east) == "2026-11-22_02-00-00"
    assert select_one([snapshot("1111", "x", east)], "x@2026-11-22_02-00-00")


def test_filters_take_any_name_all_tags_and_any_kind() -> None:
    assert filter_snapshots(ALL) == ALL
    assert filter_snapshots(ALL, names=["shop", "nobody"]) == [SHOP]
    assert filter_snapshots(ALL, tags=["gold"]) == [WEB_2, WEB_3]
    assert filter_snapshots(ALL, tags=["gold", "weekly"]) == [WEB_2]
    assert filter_snapshots(ALL, kinds=[SubjectKind.DATABASE, SubjectKind.FILES]) == [SHOP]
    assert filter_snapshots(ALL, names=["web01"], tags=["gold"], kinds=[SubjectKind.DATABASE]) == []
