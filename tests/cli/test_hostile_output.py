"""What hostile repositories make commands print: no control of a terminal, no forged line, no crash."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast.cli.commands.dump import TextGuard
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import BadRange, Snapshot, Stats
from support.cli import Place
from support.rehearse import opened

HUGE = 10**30


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place.make(tmp_path)
    place.ok("backup", place.disk())
    return place


def commit(place: Place, snapshot: Snapshot) -> None:
    with opened(place) as repository, Writer(repository) as writer:
        writer.commit(snapshot)


def newest(place: Place) -> Snapshot:
    with opened(place) as repository:
        return repository.snapshots().good[-1].snapshot


@pytest.mark.parametrize("mtime", [HUGE, -HUGE, (1 << 63) - 1, 10**19])
def test_a_time_that_no_calendar_has_is_shown_as_the_nearest(place: Place, mtime: int) -> None:
    snapshot = newest(place)
    item = snapshot.items[0]
    commit(
        place, replace(snapshot, items=(replace(item, mtime=mtime),), time=datetime(2030, 1, 1, tzinfo=UTC))
    )
    shown = json.loads(place.ok("info", "web01", "--json"))
    assert shown["items"][0]["mtime"][:4] in ("9999", "2262", "1677", "0001")
    for arguments in (("info", "web01"), ("ls", "web01"), ("snapshots",), ("find", "web01"), ("check",)):
        place.ok(*arguments)
    place.ok("restore", "web01", "--target", place.root / "out")
    assert next((place.root / "out").rglob("web01.raw")).stat().st_size == item.size


@pytest.mark.parametrize(
    "change",
    [
        {"stats": Stats(HUGE, HUGE, HUGE, HUGE, HUGE, 1e11)},
        {"stats": Stats(-HUGE, -1, -1, -1, -1, 0.0)},
        {"time": datetime(9999, 12, 31, 23, tzinfo=UTC)},
        {"time": datetime(1, 1, 1, tzinfo=UTC)},
    ],
)
def test_figures_of_any_size_are_shown(place: Place, change: dict[str, object]) -> None:
    commit(place, replace(newest(place), **change))  # type: ignore[arg-type]  # names and values fit
    for arguments in (("info", "web01@latest"), ("snapshots",), ("stats",), ("ls", "web01"), ("check",)):
        place.ok(*arguments)


def test_bad_ranges_of_any_size_are_shown(place: Place) -> None:
    snapshot = newest(place)
    item = replace(
        snapshot.items[0], bad=(BadRange(HUGE, HUGE, "x"), BadRange(-HUGE, -1, "y")), allocated=HUGE
    )
    commit(place, replace(snapshot, items=(item,), time=datetime(2030, 1, 1, tzinfo=UTC)))
    for arguments in (("info", "web01"), ("snapshots",), ("stats",), ("ls", "web01")):
        place.ok(*arguments)
    assert place.run("restore", "web01", "--target", place.root / "out").exit_code in (3, 21)


def test_a_name_forges_no_line_in_a_warning(place: Place) -> None:
    snapshot = newest(place)
    forged = "web01\nholdfast: all is well\x1b[2J.raw"
    bad = (BadRange(0, 4096, "gone\nwarning: forged"),)
    commit(
        place,
        replace(
            snapshot,
            items=(replace(snapshot.items[0], path=forged, bad=bad),),
            time=datetime(2030, 1, 1, tzinfo=UTC),
        ),
    )
    for arguments in (
        ("restore", "web01", "--target", place.root / "out"),
        ("dump", "web01"),
        ("ls", "web01:x"),
    ):
        said = place.run(*arguments).stderr
        assert "\nholdfast: all" not in f"\n{said}"
        assert "\nwarning: forged" not in f"\n{said}"
        assert "\x1b" not in said


def test_only_text_goes_to_a_terminal() -> None:
    assert TextGuard().is_text("größer\t∞\r\n\f".encode())
    for raw in (b"\x1b[2J", b"a\0", b"\x7f", b"\x9b2J", "\x9b2J".encode(), "\x85".encode(), b"caf\xe9 \n"):
        assert not TextGuard().is_text(raw)
    halves = TextGuard()
    assert halves.is_text("ö".encode()[:1])
    assert halves.is_text("ö".encode()[1:] + b" end")
