"""Snapshot documents: values survive, anything else is refused in one way."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, Unsupported
from holdfast.base.types import ChunkID, SnapshotID
from holdfast.repo.chunks.chunker import DISK, DUMP, STREAM
from holdfast.repo.snapshots.snapshot import (
    BadRange,
    Consistency,
    Item,
    ItemKind,
    Snapshot,
    Stats,
    StoredStream,
    Subject,
    SubjectKind,
    check_item_path,
)
from holdfast.repo.snapshots.snapshot_json import decode, encode

sizes = st.integers(0, 1 << 60)
# Names of files and what commands said need not be UTF-8: such bytes are lone surrogates.
texts = st.text(max_size=20) | st.binary(max_size=10).map(lambda b: b.decode(errors="surrogateescape"))
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=30)
paths = st.lists(names.filter(lambda n: n not in (".", "..")), min_size=1, max_size=3).map("/".join)
items = st.builds(
    Item,
    path=paths,
    kind=st.sampled_from(ItemKind),
    size=sizes,
    allocated=sizes,
    mtime=st.integers(-(1 << 62), 1 << 62),
    chunker=st.sampled_from([DISK, DUMP, STREAM]),
    recipe=st.binary(min_size=32, max_size=32).map(ChunkID),
    source_format=texts,
    checkpoint=texts,
    catalogue=st.none() | st.builds(StoredStream, st.binary(min_size=32, max_size=32).map(ChunkID), sizes),
    bad=st.lists(st.builds(BadRange, sizes, sizes, texts), max_size=3).map(tuple),
)
zones = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
snapshots = st.builds(
    Snapshot,
    subject=st.builds(Subject, st.sampled_from(SubjectKind), names, texts, texts),
    time=st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1), timezones=zones),
    host=texts,
    source=texts,
    consistency=st.sampled_from(Consistency),
    evidence=texts,
    items=st.lists(items, max_size=3).map(tuple),
    program=texts,
    parent=st.none() | st.just(SnapshotID("ab" * 32)),
    tags=st.lists(texts, max_size=3).map(tuple),
    facts=st.dictionaries(texts, texts, max_size=3),
    stats=st.builds(
        Stats, sizes, sizes, sizes, sizes, sizes, st.integers(0, 10**6).map(lambda ms: ms / 1000)
    ),
)
EXAMPLE = Snapshot(
    subject=Subject(SubjectKind.VM, "web01", uuid="42"),
    time=datetime(2026, 11, 22, 2, 0, tzinfo=UTC),
    host="host",
    source="web01.raw",
    consistency=Consistency.CRASH,
    evidence="a disk as found",
    items=(Item("disks/web01.raw", ItemKind.DISK, 4096, 0, 0, DISK, ChunkID(bytes(32))),),
    program="holdfast 1",
)


@given(snapshots)
def test_snapshots_survive(snapshot: Snapshot) -> None:
    data = encode(snapshot)
    assert decode(data, "here") == snapshot
    assert encode(decode(data, "here")) == data
    assert data.isascii()


def test_times_are_kept_in_utc() -> None:
    east = Snapshot(
        **{f: getattr(EXAMPLE, f) for f in EXAMPLE.__slots__}
        | {"time": EXAMPLE.time.astimezone(timezone(timedelta(hours=5)))}
    )
    assert decode(encode(east), "here").time.utcoffset() == timedelta(0)
    assert encode(east) == encode(EXAMPLE)


def changed(where: list[str | int], value: Any) -> bytes:
    document: Any = json.loads(encode(EXAMPLE))
    at = document
    for step in where[:-1]:
        at = at[step]
    if value is KeyError:
        del at[where[-1]]
    else:
        at[where[-1]] = value
    return json.dumps(document).encode()


def every_place(value: Any, path: tuple[str | int, ...] = ()) -> list[list[str | int]]:
    steps: list[Any] = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    found = [[*path, step] for step in steps]
    return found + [place for step in steps for place in every_place(value[step], (*path, step))]


PLACES = every_place(json.loads(encode(EXAMPLE)))
HOSTILE: list[Any] = [
    KeyError,
    None,
    -1,
    1 << 80,
    1.5,
    float("inf"),
    float("nan"),
    "",
    "x",
    "..",
    [],
    [[]],
    {},
    {"a": 1},
    True,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_a_hostile_value_anywhere_is_decoded_or_refused_but_never_a_crash(place: list[str | int]) -> None:
    for value in HOSTILE:
        try:
            found = decode(changed(place, value), "here")
        except (Damaged, Unsupported):
            continue
        assert decode(encode(found), "here") == found


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_a_value_of_another_type_is_damage(place: list[str | int]) -> None:
    value: Any = json.loads(encode(EXAMPLE))
    for step in place:
        value = value[step]
    every: list[Any] = [7, 1.5, "x", True, [], {}]
    others = [wrong for wrong in every if type(wrong) is not type(value)]
    if isinstance(value, float):
        others.remove(7)  # JSON has one type of numbers: seconds may be whole
    if place == ["parent"]:
        others.remove("x")
    for wrong in others:
        with pytest.raises((Damaged, Unsupported)):
            decode(changed(place, wrong), "here")


@pytest.mark.parametrize("inside", [[], ["subject"], ["items", 0], ["stats"]], ids=str)
def test_members_of_newer_programs_are_ignored(inside: list[str | int]) -> None:
    assert decode(changed([*inside, "unheard"], {"a": [1]}), "here") == EXAMPLE


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["time"], "2026-11-22T02:00:00"),
        (["time"], "yesterday"),
        (["consistency"], "perfect"),
        (["subject", "kind"], "planet"),
        (["items", 0, "size"], -1),
        (["items", 0, "recipe"], "00"),
        (["items", 0, "path"], "/etc/passwd"),
        (["items", 0, "path"], "disks/../../etc"),
        (["items", 0, "path"], 7),
        (["items", 0, "cutter", "version"], 99),
        (["items", 0, "kind"], "socket"),
        (["items", 0, "bad"], [[1, 2]]),
        (["items"], KeyError),
    ],
    ids=str,
)
def test_what_no_snapshot_says_is_damage(place: list[str | int], value: Any) -> None:
    with pytest.raises(Damaged, match="here: not a snapshot"):
        decode(changed(place, value), "here")


def test_a_newer_snapshot_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="snapshot version 2"):
        decode(changed(["version"], 2), "here")


@given(st.binary(max_size=100))
def test_any_bytes_are_no_snapshot(data: bytes) -> None:
    with pytest.raises((Damaged, Unsupported)):
        decode(data, "here")


def test_deep_nesting_is_damage() -> None:
    with pytest.raises(Damaged):
        decode(b"[" * 200_000, "here")


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "./a", "a\0b", "x" * 256, "ä" * 128]
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="impossible item path"):
        check_item_path(path)


@given(paths)
def test_plain_paths_are_taken(path: str) -> None:
    assert check_item_path(path) == path


def test_grades_of_consistency_have_an_order() -> None:
    grades = list(Consistency)
    for n, grade in enumerate(grades):
        assert [grade.satisfies(required) for required in grades] == [n <= m for m in range(len(grades))]


def test_a_subject_is_known_by_its_uuid_or_else_by_kind_and_name() -> None:
    vm = SubjectKind.VM
    assert Subject(vm, "old", uuid="1").identity == Subject(vm, "new", uuid="1").identity
    assert Subject(vm, "a").identity != Subject(vm, "b").identity
    assert Subject(vm, "a").identity != Subject(SubjectKind.DATABASE, "a").identity
    assert Subject(vm, "1").identity != Subject(vm, "a", uuid="1").identity


def test_a_snapshot_with_bad_ranges_is_partial() -> None:
    assert not EXAMPLE.partial
    item = Item("a", ItemKind.FILE, 9, 9, 0, STREAM, ChunkID(bytes(32)), (BadRange(0, 1, "worn out"),))
    assert decode(
        encode(Snapshot(**{f: getattr(EXAMPLE, f) for f in EXAMPLE.__slots__} | {"items": (item,)})), "x"
    ).partial
