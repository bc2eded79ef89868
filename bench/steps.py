"""One tool over one corpus: back up day after day, restore, and hand over to the mounted steps."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import mounted
from bench.corpus import present, touch
from bench.measure import MB, Command, Figures, allocated, median_of, number, run, settle, warm
from bench.tools import Place, Source, Tool

STEPS = ("first", "again", "days", "restore", "random", "sequential")
Keep = Callable[[str, Figures], None]
"""Called with the name of a step and what it cost, as soon as it is known."""


class StepFailed(Exception):
    """The later steps would measure nothing; the error itself is among the figures."""


@dataclass(frozen=True, slots=True)
class Settings:
    work: Path
    steps: frozenset[str]
    repeat: int


@dataclass(frozen=True, slots=True)
class Bench:
    """One tool at work: all its commands run through here."""

    tool: Tool
    place: Place
    keep: Keep

    def command(self, argv: Sequence[str], *, stdin: Path | None = None, cwd: Path | None = None) -> Figures:
        environment = self.tool.environment(self.place)
        return run(Command(argv, environment, stdin, cwd or self.place.state))

    def start_over(self) -> None:
        for folder in (self.place.repository, self.place.state):
            shutil.rmtree(folder, ignore_errors=True)
        self.place.state.mkdir(parents=True)
        figures = self.command(self.tool.init(self.place))
        self.must("init", figures)

    def backup(self, source: Source, label: str) -> Figures:
        """From a warm page cache: the tool is measured, not the disk below the source."""
        warm(source.file)
        settle()
        stdin = source.file if self.tool.reads_stdin(source) else None
        figures = self.command(self.tool.backup(self.place, source, label), stdin=stdin)
        figures["alloc_mb_s"] = round(allocated(source.file) / MB / max(number(figures, "wall", 0), 0.01), 1)
        figures["repo_mb"] = round(allocated(self.place.repository) / MB, 1)
        return figures

    def restore(self, source: Source, label: str, target: Path) -> Figures:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        settle()
        figures = self.command(self.tool.restore(self.place, source, label, target), cwd=target)
        if "error" not in figures:
            copy = self.tool.restored(source, target)
            figures["alloc_out_mb"] = round(allocated(copy) / MB)
            if subprocess.run(["cmp", "-s", copy, source.file], check=False).returncode != 0:
                figures["error"] = "the restored file differs from the original"
        shutil.rmtree(target, ignore_errors=True)
        return figures

    def must(self, name: str, figures: Figures) -> None:
        if "error" in figures:
            self.keep(name, figures)
            raise StepFailed(name)


def measure(tool: Tool, sources: Sequence[Source], settings: Settings, keep: Keep) -> None:
    """All chosen steps. What later steps need is done even when it was not chosen, but not repeated."""
    place = Place(settings.work / "repository", settings.work / "state")
    bench = Bench(tool, place, keep)
    try:
        back_up_days(bench, sources, settings)
        last, label = sources[-1], f"day{len(sources)}"
        if "restore" in settings.steps:
            copy = settings.work / "restored"
            keep("restore", median_of(settings.repeat, lambda: bench.restore(last, label, copy)))
        if last.kind == "vm" and settings.steps & {"random", "sequential"}:
            target = mounted.Target(tool, place, last, label, settings.work / "mount")
            mounted.measure(target, settings.steps, settings.repeat, keep)
    except StepFailed:
        pass
    finally:
        for folder in (place.repository, place.state):
            shutil.rmtree(folder, ignore_errors=True)


def back_up_days(bench: Bench, sources: Sequence[Source], settings: Settings) -> None:
    first, *others = sources
    labels = iter(f"again{number}" for number in range(1, 1000))

    def first_backup() -> Figures:
        bench.start_over()
        return bench.backup(first, "day1")

    def same_again() -> Figures:
        touch(first)
        return bench.backup(first, next(labels))

    present(first, 1)
    figures = median_of(settings.repeat if "first" in settings.steps else 1, first_backup)
    bench.must("first", figures)
    bench.keep("first", figures)
    if "again" in settings.steps:
        figures = median_of(settings.repeat, same_again)
        bench.must("again", figures)
        bench.keep("again", figures)
    for day, source in enumerate(others, 2):
        before = number(figures, "repo_mb", 0)
        present(source, day)
        figures = bench.backup(source, f"day{day}")
        figures["new_mb"] = round(number(figures, "repo_mb", 0) - before, 1)
        bench.must(f"day{day}", figures)
        bench.keep(f"day{day}", figures)
