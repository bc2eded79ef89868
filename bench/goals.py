"""What Holdfast wants to reach, as data: the one place to look up or change a goal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from bench.measure import Figures, number

Results = Mapping[str, Mapping[str, Mapping[str, Figures]]]
"""tool, corpus, step: what it cost."""


class Better(Enum):
    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table.

    `limit` was set for the full corpora on two cores of a Zen 3 server; a limit that is a rate or
    a memory size (`anywhere`) holds for other corpora too. `factor` is how many times better than
    every peer of the same run Holdfast must be: it holds anywhere. Both must be reached.
    """

    title: str
    corpus: str
    step: str
    field: str
    unit: str
    better: Better
    limit: float | None = None
    factor: float | None = None
    anywhere: bool = False

    def value(self, results: Results, tool: str) -> float | None:
        steps = results.get(tool, {}).get(self.corpus, {})
        figures = steps.get(self.step, {})
        found = number(figures, self.field, -1.0)
        return found if found >= 0 and "error" not in figures else None

    def times_better(self, ours: float, theirs: float) -> float:
        """Above 1: Holdfast is better."""
        good, bad = (theirs, ours) if self.better is Better.LOWER else (ours, theirs)
        return good / max(bad, 1e-9)

    def within_limit(self, ours: float) -> bool:
        if self.limit is None:
            return True
        return ours <= self.limit if self.better is Better.LOWER else ours >= self.limit


LOWER, HIGHER = Better.LOWER, Better.HIGHER
SAME_SIZE = 1 / 1.08  # at most 8 % larger than theirs
NOT_WORSE = 1.0

GOALS = (
    Goal("first backup, day 1", "vm", "first", "wall", "s", LOWER, limit=6.0, factor=3.5),
    Goal("  of allocated data", "vm", "first", "alloc_mb_s", "MB/s", HIGHER, limit=400, anywhere=True),
    Goal("  repository after it", "vm", "first", "repo_mb", "MB", LOWER, factor=SAME_SIZE),
    Goal("same again, unchanged, read in full", "vm", "again", "wall", "s", LOWER, limit=1.7),
    Goal("  of allocated data", "vm", "again", "alloc_mb_s", "MB/s", HIGHER, limit=1200, anywhere=True),
    Goal("day 2", "vm", "day2", "wall", "s", LOWER),
    Goal("  new data stored", "vm", "day2", "new_mb", "MB", LOWER, factor=NOT_WORSE),
    Goal("day 3", "vm", "day3", "wall", "s", LOWER),
    Goal("  new data stored", "vm", "day3", "new_mb", "MB", LOWER, factor=NOT_WORSE),
    Goal("repository after three days", "vm", "day3", "repo_mb", "MB", LOWER, limit=1000),
    Goal("restore day 3, sparse", "vm", "restore", "wall", "s", LOWER, limit=3.0),
    Goal("  allocated by the copy", "vm", "restore", "alloc_out_mb", "MB", LOWER),
    Goal(
        "mounted: sequential, cold", "vm", "sequential", "mb_s", "MB/s", HIGHER, 800, factor=3, anywhere=True
    ),
    Goal("mounted: random 4 KiB, cold", "vm", "random_cold", "iops", "IOPS", HIGHER, 2000, anywhere=True),
    Goal("  chunk cache warm", "vm", "random_warm", "iops", "IOPS", HIGHER, 10000, anywhere=True),
    Goal("  the cold test's offsets again", "vm", "random_again", "iops", "IOPS", HIGHER),
    Goal("first backup, day 1", "db", "first", "wall", "s", LOWER),
    Goal("same again, unchanged", "db", "again", "wall", "s", LOWER),
    Goal("day 2", "db", "day2", "wall", "s", LOWER),
    Goal("day 3", "db", "day3", "wall", "s", LOWER),
    Goal("repository after three days", "db", "day3", "repo_mb", "MB", LOWER, limit=480),
    Goal("restore day 3", "db", "restore", "wall", "s", LOWER),
    Goal("first backup", "mix", "first", "wall", "s", LOWER),
    Goal("same again, unchanged", "mix", "again", "wall", "s", LOWER),
    Goal("repository", "mix", "first", "repo_mb", "MB", LOWER, factor=SAME_SIZE),
    Goal("restore", "mix", "restore", "wall", "s", LOWER),
)

MEMORY_LIMIT_MB = 300  # resident, in every step


def peak_memory(results: Results, tool: str) -> float | None:
    """The largest resident size of any step, in MB."""
    sizes = [
        number(figures, "rss_mb", 0) for steps in results.get(tool, {}).values() for figures in steps.values()
    ]
    return max(sizes) if sizes else None
