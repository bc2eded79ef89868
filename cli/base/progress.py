"""Progress of long work: a bar on a terminal, lines of JSON for a program, nothing in a pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from holdfast.cli.base.output import Output


class Display(Protocol):
    """Shows figures; called at most a few times a second, by one thread at a time."""

    interval: float

    def show(self, done: int, total: int | None) -> None: ...


class Progress:
    """Counts what is done, usually bytes. `add` may be called from any thread, as often as one likes."""

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
        """How much there is to do in all, once that is known."""
        with self._lock:
            self._total = total

    def reach(self, done: int, total: int) -> None:
        """The same in absolute figures."""
        self.expect(total)
        self.add(done - self.done)


class JsonLines:
    """A status line a second."""

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
    """Progress of one piece of work, to be used for as long as the block lasts.

    `total` None: not known (yet). `unit` other than "bytes" is counted and has no rate.
    """
    if shown and output.json and not output.quiet:
        yield Progress(JsonLines(output, label), total)
    elif shown and output.shows_progress:
        from holdfast.cli.base.progress_bar import Bar  # noqa: PLC0415  80 ms that only terminals need

        with Bar(label, unit) as bar:
            yield Progress(bar, total)
    else:
        yield Progress(None, total)
