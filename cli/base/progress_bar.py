"""The progress bar on a terminal's standard error."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from holdfast.cli.base.render import size


class _Rate(ProgressColumn):
    """Bytes per second, in the same units as other sizes."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{size(speed)}/s" if speed else "", style="progress.data.speed")


class Bar:
    """A bar with rate and remaining time, which is erased when the block ends."""

    interval = 0.1

    def __init__(self, label: str, unit: str) -> None:
        columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), BarColumn()]
        if unit == "bytes":
            columns += [DownloadColumn(binary_units=True), _Rate()]
        else:
            columns.append(MofNCompleteColumn())
        console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self._task = self._progress.add_task(label, total=None)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, done: int, total: int | None) -> None:
        self._progress.start()  # only now: short work shows no bar; a second call does nothing
        self._progress.update(self._task, completed=done, total=total)
