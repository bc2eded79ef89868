"""Names made harmless, sizes, times, tables."""

from __future__ import annotations

import sys

import pytest

from holdfast.cli.base.render import Column, count, duration, fields, percent, rate, size, table

BELL, ESCAPE = "\x07", "\x1b"


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (150 * 1024, "150 KiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 60, "5120 PiB"),
    ],
)
def test_sizes(number: int, shown: str) -> None:
    assert size(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59.4, "59 s"), (185, "3:05 min"), (7800, "2:10 h")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_small_words() -> None:
    assert count(1, "pack") == "1 pack"
    assert count(12345, "pack") == "12,345 packs"
    assert percent(1, 8) == "12.5 %"
    assert percent(1, 0) == "-"
    assert rate(1 << 20, 0) == "-"
    assert rate(2 << 20, 2) == "1.0 MiB/s"


def test_a_table_in_a_pipe_has_a_line_a_row_however_long() -> None:
    rows = [["x" * 500, "1"], ["short", "22"]]
    lines = table([Column("name"), Column("n", "right")], rows, title="title").splitlines()
    assert len(lines) == 4
    assert lines[0] == "title"
    assert "x" * 500 in lines[2]
    assert not any(line.endswith(" ") for line in lines)


def test_a_table_escapes_its_cells_and_takes_no_markup() -> None:
    shown = table([Column("name")], [[f"[bold]{ESCAPE}[31m:smile:"]])
    assert "[bold]\\x1b[31m:smile:" in shown
    assert ESCAPE not in shown


def test_a_table_on_a_terminal_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    lines = table([Column("name"), Column("n")], [["y" * 60, "1"]]).splitlines()
    assert len(lines) > 2


def test_a_column_that_does_not_fold_is_whole_on_a_narrow_terminal_and_an_empty_one_takes_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    columns = [Column("ID", folds=False), Column("empty", optional=True), Column("tags", optional=True)]
    lines = table(columns, [["0123456789abcdef", "", "x" * 60]]).splitlines()
    assert lines[1].startswith("0123456789abcdef  xxx")
    assert not any("empty" in line for line in lines)
    assert all(len(line) <= 40 for line in lines[1:])


def test_fields_leave_out_what_is_empty_and_indent_what_is_long() -> None:
    assert fields([("a", "1"), ("none", ""), ("long", f"2\n3{BELL}")]) == "a     1\nlong  2\n      3\\x07"
    assert fields([]) == ""
