"""Progress of long operations: a bar on a terminal, JSON lines with --json, nothing in a pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from holdfast.cli.base.output import Output


class Display(Protocol):
    """Shows progress. Called at most once per `interval` seconds, by one thread at a time."""

    interval: float

    def show(self, done: int, total: int | None) -> None: ...


class Progress:
    """Counts finished work, usually in bytes. Any thread may call `add`, at any rate."""

    def __init__(
        self, display: Display | None, total: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display = display
        self._total = total
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0
        self.done = 0

    def add(self, count: int) -> None:
        with self._lock:
            self.done += count
            if self._display is None:
                return
            now = self._clock()
            if now >= self._next:
                self._next = now + self._display.interval
                self._display.show(self.done, self._total)

    def expect(self, total: int) -> None:
        """Set the total amount of work."""
        with self._lock:
            self._total = total

    def reach(self, done: int, total: int) -> None:
        """Set the finished and the total amount of work."""
        self.expect(total)
        self.add(done - self.done)


class JsonLines:
    """Prints a JSON status line every second."""

    interval = 1.0

    def __init__(self, output: Output, label: str) -> None:
        self._output = output
        self._label = label
        self._began = time.monotonic()

    def show(self, done: int, total: int | None) -> None:
        seconds = time.monotonic() - self._began
        share = {"total": total, "percent_done": round(done / total, 4)} if total else {}
        self._output.message(
            "status", action=self._label, done=done, **share, seconds_elapsed=round(seconds, 1)
        )


@contextmanager
def progress(
    output: Output, label: str, total: int | None = None, *, unit: str = "bytes", shown: bool = True
) -> Iterator[Progress]:
    """Show progress of one operation while the block runs.

    `total` None means unknown. A `unit` other than "bytes" is shown as a count, without a rate.
    """
    if shown and output.json and not output.quiet:
        yield Progress(JsonLines(output, label), total)
    elif shown and output.shows_progress:
        from holdfast.cli.base.progress_bar import Bar  # noqa: PLC0415  80 ms that only terminals need

        with Bar(label, unit) as bar:
            yield Progress(bar, total)
    else:
        yield Progress(None, total)
