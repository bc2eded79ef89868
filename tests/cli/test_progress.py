"""Progress: counted from any thread, shown seldom."""

from __future__ import annotations

import io
import json
import sys
import threading

import pytest

from holdfast.cli.base.output import Output
from holdfast.cli.base.progress import Progress, progress


class Screen:
    """A display that remembers."""

    interval = 1.0

    def __init__(self) -> None:
        self.shown: list[tuple[int, int | None]] = []

    def show(self, done: int, total: int | None) -> None:
        self.shown.append((done, total))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_it_shows_no_more_often_than_the_display_wants() -> None:
    now = 0.0
    screen = Screen()
    meter = Progress(screen, 100, lambda: now)
    for step in range(100):
        now = step / 10
        meter.add(1)
    assert meter.done == 100
    assert [done for done, _ in screen.shown] == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]


def test_it_counts_right_from_several_threads() -> None:
    meter = Progress(Screen(), None)

    def work() -> None:
        for _ in range(2000):
            meter.add(3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.done == 4 * 2000 * 3


def test_the_total_may_come_late_and_figures_be_absolute() -> None:
    screen = Screen()
    meter = Progress(screen, None, lambda: 5.0)
    meter.reach(2, 7)
    assert screen.shown == [(2, 7)]
    assert meter.done == 2


def test_in_a_pipe_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(Output(), "backup", 10) as meter:
        meter.add(10)
    assert capsys.readouterr() == ("", "")


def test_for_a_program_it_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(Output(json=True), "backup", 10) as meter:
        meter.add(4)
    line = json.loads(capsys.readouterr().out)
    assert line.pop("seconds_elapsed") >= 0
    assert line == {"message_type": "status", "action": "backup", "done": 4, "total": 10, "percent_done": 0.4}


@pytest.mark.parametrize("output", [Output(json=True, quiet=True), Output(quiet=True)])
def test_quiet_means_quiet(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    with progress(output, "backup", 10) as meter:
        meter.add(4)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("unit", ["bytes", "packs"])
def test_on_a_terminal_there_is_a_bar_on_standard_error_only(
    unit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress(Output(), "backup", 1 << 30, unit=unit) as meter:
        meter.add(1 << 29)
    assert "backup" in screen.getvalue()
    assert capsys.readouterr().out == ""


def test_a_bar_that_is_not_needed_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress(Output(), "index"):
        pass
    assert screen.getvalue() == ""
