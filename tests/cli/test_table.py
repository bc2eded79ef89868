"""Tables: a line a row in a pipe; on a terminal nothing is broken that is typed next."""

from __future__ import annotations

import json
import re
import sys

import pytest

from holdfast.cli.base.table import Column, flow, table
from support.cli import Place, pg_dump
from support.golden_story import SYSTEM, make_disk, wal_segment

ESCAPE = "\x1b"
LONG = "public.the_table_with_a_long_name"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Standard output as a terminal without colours; COLUMNS says how wide it is."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    return monkeypatch


def test_in_a_pipe_a_row_is_a_line_however_long() -> None:
    rows = [["x" * 500, "1"], ["short", "22"]]
    columns = [Column("name", folds=True), Column("n", "right", leaves=1)]
    assert table(columns, rows, title="title").splitlines() == [
        "title",
        f"{'name':500}   n",
        f"{'x' * 500}   1",
        f"{'short':500}  22",
    ]


def test_cells_are_escaped() -> None:
    shown = table([Column("name")], [[f"[bold]{ESCAPE}[31m:smile:"]], title=f"a{ESCAPE}b")
    assert shown.splitlines() == ["a\\x1bb", "name", "[bold]\\x1b[31m:smile:"]


def test_wide_characters_take_two_columns() -> None:
    assert table([Column("a"), Column("b")], [["日本", "1"], ["e\u0301", "2"]]).splitlines() == [
        "a     b",
        "日本  1",
        "e\u0301     2",
    ]


def test_an_empty_column_takes_no_room_where_it_may_be_left_out() -> None:
    columns = [Column("ID"), Column("empty", optional=True), Column("tags", optional=True)]
    assert table(columns, [["1", "", "x"], ["2", "", ""]]).splitlines() == ["ID  tags", "1   x", "2"]


def test_columns_leave_by_their_number_until_the_rest_fits(terminal: pytest.MonkeyPatch) -> None:
    columns = [Column("ID"), Column("size", "right", leaves=1), Column("new", leaves=2), Column("name")]
    rows = [["0123456789", "1.5 MiB", "77 B", "web01"]]
    for width, head in (
        (32, "ID             size  new   name"),
        (31, "ID             size  name   ..."),
        (30, "ID             size  name   ..."),
        (26, "ID             size  name"),
        (25, "ID          name   ..."),
        (5, "ID          name"),
    ):
        terminal.setenv("COLUMNS", str(width))
        shown = table(columns, rows).splitlines()
        assert shown[0].split() == head.split(), width
        assert "0123456789" in shown[1]
        assert "web01" in shown[1]
        assert width < 17 or all(len(line) <= width for line in shown)


def test_free_text_folds_and_nothing_else_does(terminal: pytest.MonkeyPatch) -> None:
    terminal.setenv("COLUMNS", "40")
    rows = [["0123456789abcdef", "one two three four five six seven"], ["y" * 60, "short"]]
    assert table([Column("ID"), Column("why", folds=True)], rows).splitlines() == [
        "ID                why",
        "0123456789abcdef  one two three four",
        "                  five six seven",
        f"{'y' * 60}  short",
    ]


def test_a_terminal_gets_bold_titles_unless_told_otherwise(terminal: pytest.MonkeyPatch) -> None:
    terminal.delenv("NO_COLOR")
    terminal.setenv("TERM", "xterm")
    assert table([Column("ID")], [["1"]]) == f"{ESCAPE}[1mID{ESCAPE}[0m\n1"
    terminal.setenv("TERM", "dumb")
    assert table([Column("ID")], [["1"]]) == "ID\n1"


def test_a_line_goes_on_below_where_a_part_does_not_fit(terminal: pytest.MonkeyPatch) -> None:
    terminal.setenv("COLUMNS", "20")
    assert flow(["12345678", "12345678", "12345"], indent="  ") == "  12345678  12345678\n    12345"
    assert flow(["x" * 30, "y"]) == f"{'x' * 30}\n  y"


# ---- every command ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A repository with something for every table in it."""
    place = Place.make(tmp_path_factory.mktemp("width"))
    disk = make_disk(place, "sda.raw", "web01\n")
    for day in (1, 2):
        when = ("--time", f"2021-03-0{day}T02:05:00")
        place.ok("backup", disk, "--name", "web01", "--tag", "daily", "--tag", "before-the-upgrade", *when)
        make_disk(place, "sda.raw", "web01.example\n")
    dump = pg_dump(10).replace(b"insert", f"CREATE TABLE {LONG} (id integer);\ninsert".encode(), 1)
    place.ok("backup", place.write("shop.sql", dump), "--name", "shop.production.example")
    place.ok("backup", place.write("one.txt", "1"), "--name", "etc")
    place.ok("forget", "etc")
    for number in (1, 2):
        place.ok("wal-push", wal_segment(place, number), "--system-id", SYSTEM)
    return place


IDS = r"\b[0-9a-f]{8}\b"
TIMES = r"20\d\d-\d\d-\d\d_\d\d-\d\d-\d\d"


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize(
    ("command", "typed"),
    [
        ("snapshots", [IDS, TIMES]),
        ("snapshots --tag daily", [IDS, TIMES]),
        ("forget --keep-last 1 --dry-run", [IDS, TIMES]),
        ("undelete", [IDS, r"\betc\b"]),
        ("subject list", ["web01", "shop.production.example"]),
        ("ls web01", ["disks/sda.raw", "disks/sda.qcow2"]),
        ("ls shop.production.example:tables", [f"tables/{LONG}.sql"]),
        ("ls web01:files/sda", ["files/sda/p0"]),
        ("ls web01:files/sda/p0/etc", ["hostname", "link"]),
        ("find hostname", ["files/sda/p0/etc/hostname", TIMES]),
        ("diff web01", ["files/sda/p0/etc/hostname", IDS, TIMES]),
        ("info web01", [IDS, TIMES]),
        ("key list", [IDS]),
        ("logs", [f"postgresql-{SYSTEM}"]),
        (f"logs postgresql-{SYSTEM}", ["0" * 7 + "1" + "0" * 15 + "1"]),
    ],
)
def test_nothing_that_is_typed_next_is_broken(
    place: Place, command: str, typed: list[str], columns: int
) -> None:
    """What a pipe gets whole stands on one line of the screen, too."""
    whole = place.ok(*command.split())
    lines = place.on_terminal(*command.split(), columns=columns).splitlines()
    screen = [line[at : at + columns] for line in lines for at in range(0, max(len(line), 1), columns)]
    for pattern in typed:
        wanted = set(re.findall(pattern, whole))
        if command == "info web01" and pattern == IDS:
            wanted = {json.loads(place.ok(*command.split(), "--json"))["short_id"]}
        assert wanted
        for text in wanted:
            assert any(text in line for line in screen), text


def test_names_of_files_in_a_guest_are_whole_on_any_terminal(place: Place) -> None:
    lines = place.on_terminal("ls", "web01:files/sda/p0/etc", columns=40).splitlines()
    assert lines[0].split() == ["size", "changed", "(UTC)", "name"]
    assert any(line.endswith("  link -> hostname") for line in lines)
