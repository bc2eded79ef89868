"""Sizes, times, counts, lists of named values."""

from __future__ import annotations

import pytest

from holdfast.cli.base.render import count, duration, fields, percent, rate, size

BELL = "\x07"


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


def test_fields_leave_out_what_is_empty_and_indent_what_is_long() -> None:
    assert fields([("a", "1"), ("none", ""), ("long", f"2\n3{BELL}")]) == "a     1\nlong  2\n      3\\x07"
    assert fields([]) == ""
