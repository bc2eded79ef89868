"""Databases: days of a dump, plain and compressed; the scanner; one table out; a cluster and its log.

python -m bench databases, or ./dev bench databases. No peer can do most of it; figures stand beside
the goals.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.clusters import CLIENTS, TRANSACTIONS, measure_physical, measure_wal
from bench.corpus import FOLDERS, Corpus, find_corpora
from bench.dumpsteps import Bench, measure_compressed, measure_days, measure_scan, measure_table
from bench.goals import MEMORY_LIMIT_MB, Better, Goal, peak_memory
from bench.measure import MB
from bench.report import OURS, details_table, goal_row, row

HERE = Path(__file__).resolve().parent
DB = "db"

LOWER, HIGHER = Better.LOWER, Better.HIGHER

FIGURES = (
    Goal("first day of a dump", DB, "day1", "wall", "s", LOWER),
    Goal("  rate", DB, "day1", "mb_s", "MB/s", HIGHER, 300),
    Goal("day 2", DB, "day2", "wall", "s", LOWER),
    Goal("  rate", DB, "day2", "mb_s", "MB/s", HIGHER),
    Goal("  new data stored", DB, "day2", "new_mb", "MB", LOWER),
    Goal("day 3", DB, "day3", "wall", "s", LOWER),
    Goal("  rate", DB, "day3", "mb_s", "MB/s", HIGHER),
    Goal("  new data stored", DB, "day3", "new_mb", "MB", LOWER),
    Goal("repository after three days", DB, "day3", "repo_mb", "MB", LOWER, 489),
    Goal("day 3 again, unchanged", DB, "again", "wall", "s", LOWER),
    Goal("  rate", DB, "again", "mb_s", "MB/s", HIGHER),
    Goal("the same days, gzip-compressed: new data", DB, "gzip", "new", "bytes", LOWER, 0, anywhere=True),
    Goal("  rate of plain SQL", DB, "gzip", "mb_s", "MB/s", HIGHER, 300),
    Goal("the same days, zstd-compressed: new data", DB, "zstd", "new", "bytes", LOWER, 0, anywhere=True),
    Goal("  rate of plain SQL", DB, "zstd", "mb_s", "MB/s", HIGHER, 300),
    Goal("scanner alone, COPY", DB, "scan_copy", "mb_s", "MB/s", HIGHER, 500, anywhere=True),
    Goal("scanner alone, INSERT", DB, "scan_insert", "mb_s", "MB/s", HIGHER, 500, anywhere=True),
    Goal("one table in a fresh mount: size", DB, "table", "size_mb", "MB", HIGHER),
    Goal("  first byte", DB, "table", "first_s", "s", LOWER, 1.0, anywhere=True),
    Goal("  from end to end", DB, "table", "mb_s", "MB/s", HIGHER),
    Goal("  dump --table", DB, "dump", "mb_s", "MB/s", HIGHER),
    Goal("  dump --table --format csv, of SQL", DB, "csv", "mb_s", "MB/s", HIGHER),
    Goal("first physical backup", DB, "physical", "wall", "s", LOWER),
    Goal("  rate", DB, "physical", "mb_s", "MB/s", HIGHER),
    Goal(f"  after {CLIENTS * TRANSACTIONS:,} transactions", DB, "physical_again", "wall", "s", LOWER),
    Goal("  rate", DB, "physical_again", "mb_s", "MB/s", HIGHER),
    Goal("  new data", DB, "physical_again", "new_mb", "MB", LOWER),
    Goal("restore of the cluster", DB, "physical_restore", "wall", "s", LOWER),
    Goal("  rate", DB, "physical_restore", "mb_s", "MB/s", HIGHER),
    Goal("wal-push of a segment, warm", DB, "wal_warm", "median_ms", "ms", LOWER, 100, anywhere=True),
    Goal("wal-push of a segment, direct", DB, "wal_direct", "median_ms", "ms", LOWER),
)
"""Every line of the table, with its goal if there is one. Goals without `anywhere` are for the full corpus
(what the peers need for it: bup 489 MB, casync 602, borg 658, restic 682)."""


STEPS: dict[str, Callable[[Bench], None]] = {
    "days": measure_days,
    "compressed": measure_compressed,
    "scan": measure_scan,
    "table": measure_table,
    "physical": measure_physical,
    "wal": measure_wal,
}


def find_days(options: argparse.Namespace, work: Path) -> Corpus:
    folder = options.corpus
    if folder is None:
        folder = work / f"corpora-{options.size}"
        maker = ["bash", str(HERE / "corpora.sh")]
        if options.size == "small":
            maker = [sys.executable, "-m", "bench.smallcorpora"]
        subprocess.run([*maker, str(folder), DB], cwd=HERE.parent, check=True)
    found = find_corpora(folder, [DB])
    if not found:
        raise SystemExit(f"there is no dump in {folder / FOLDERS[DB]}")
    return found[0]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench databases", description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="of what is made")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="holds db-days/day1.sql ...; else made")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"of {','.join(STEPS)}")
    parser.add_argument("--repeat", type=int, default=3, help="the median counts")
    parser.add_argument("--work", type=Path, metavar="DIR", help="scratch; default: holdfast-bench in TMPDIR")
    options = parser.parse_args(arguments)
    if unknown := set(options.steps.split(",")) - set(STEPS):
        parser.error(f"no such step: {', '.join(unknown)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and mounts are taken down
    work = (options.work or Path(tempfile.gettempdir()) / "holdfast-bench").resolve()
    corpus = find_days(options, work)
    bench = Bench(work / "databases", options.repeat, corpus)
    shutil.rmtree(bench.work, ignore_errors=True)
    bench.work.mkdir(parents=True)
    try:
        for step, measure in STEPS.items():
            if step in options.steps.split(","):
                measure(bench)
    finally:
        for folder in (bench.place.repository, bench.place.state):
            shutil.rmtree(folder, ignore_errors=True)
    return tell(bench, corpus)


def tell(bench: Bench, corpus: Corpus) -> int:
    """Keeps the figures in results.json and prints the tables. 1 when a goal was missed."""
    (bench.work / "results.json").write_text(json.dumps(bench.steps, indent=1) + "\n")
    results = {OURS: {DB: bench.steps}}
    full = [DB] if corpus.is_full else []
    rows = [goal_row(goal, results, (), full) for goal in FIGURES if goal.step in bench.steps]
    sizes = ", ".join(f"{day.stat().st_size / MB:,.0f}" for day in corpus.days)
    print(f"days of {sizes} MB; load now {os.getloadavg()[0]:.2f}\n")
    print("\n".join(map(row, (["figure", "value", "unit", "goal", "reached"], ["---"] * 5, *rows))))
    peak = peak_memory(results, OURS) or 0
    print(f"\npeak resident memory of a command, goal under {MEMORY_LIMIT_MB} MB: {peak:.0f} MB")
    print(f"\n{details_table(results)}")
    return 1 if any("**no**" in cells for cells in rows) else 0
