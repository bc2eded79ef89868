"""Days of a database dump: backed up plain and compressed, scanned, one table taken out again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import zstandard

from bench import vms
from bench.corpus import Corpus
from bench.inserts import as_inserts
from bench.measure import MB, Command, Figures, allocated, median, median_of, number, run, settle, warm
from bench.tools import Source
from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.postgresql.plain.scan import PostgresVisitor

NAME = "shop"
BLOCK = 1 << 20


class Bench(vms.Bench):
    """Holdfast over the dumps in a scratch folder; collects figures by step."""

    def __init__(self, work: Path, repeat: int, corpus: Corpus) -> None:
        super().__init__(work, repeat)
        self.days = corpus.days
        self.steps: dict[str, Figures] = {}
        self.holds_days = False

    def note(self, step: str, figures: Figures) -> None:
        self.steps[step] = figures
        text = " ".join(f"{key}={value}" for key, value in figures.items())
        print(f"{time.strftime('%H:%M:%S')} {step}: {text}", file=sys.stderr, flush=True)

    def start_over(self) -> None:
        super().start_over()
        self.holds_days = False

    def back_up(self, file: Path, plain: int) -> Figures:
        """Back up a stream from a pipe, from a warm page cache; it has `plain` bytes of SQL.

        Figures: those of `measure.run`, mb_s, repo_mb, new (bytes).
        """
        warm(file)
        settle()
        argv = self.tool.backup(self.place, Source("db", NAME, file), "")
        figures = run(Command(argv, self.tool.environment(self.place), file))
        return self.judged(figures, NAME, plain)

    def judged(self, figures: Figures, name: str, size: int) -> Figures:
        """Adds the backup's result to its cost."""
        if "error" in figures:
            raise SystemExit(f"backup of {name}: {figures['error']}")
        new = number(self.answer("info", f"{name}@latest"), "new", -1)
        return figures | {
            "mb_s": round(size / MB / max(number(figures, "wall", 0), 0.01), 1),
            "repo_mb": round(allocated(self.place.repository) / MB, 1),
            "new": new,
            "new_mb": round(new / MB, 1),
        }


def measure_days(bench: Bench) -> None:
    """Day after day into an empty repository, and the last one again."""
    rounds = [back_up_days(bench) for _ in range(bench.repeat)]
    for step in rounds[0]:
        bench.note(step, median([each[step] for each in rounds], by="wall"))


def back_up_days(bench: Bench) -> dict[str, Figures]:
    bench.start_over()
    found = {}
    for day, file in enumerate(bench.days, 1):
        found[f"day{day}"] = bench.back_up(file, file.stat().st_size)
    found["again"] = bench.back_up(bench.days[-1], bench.days[-1].stat().st_size)
    bench.holds_days = True
    return found


def need_days(bench: Bench) -> None:
    if not bench.holds_days:
        back_up_days(bench)


def gzipped(plain: Path, target: Path) -> None:
    with target.open("wb") as file:
        subprocess.run(["gzip", "-c", plain], stdout=file, check=True)


def zstandard_packed(plain: Path, target: Path) -> None:
    with plain.open("rb") as source, target.open("wb") as file:
        zstandard.ZstdCompressor(level=3, threads=os.cpu_count() or 1).copy_stream(source, file)


def measure_compressed(bench: Bench) -> None:
    """The days once more, compressed as each tool does it by default, into the repository that has them."""
    need_days(bench)
    for step, pack in (("gzip", gzipped), ("zstd", zstandard_packed)):
        runs, wall, new = [], 0.0, 0.0
        for day in bench.days:
            packed = bench.work / f"packed.{step}"
            pack(day, packed)
            runs.append(bench.back_up(packed, day.stat().st_size))
            packed.unlink()
            wall += number(runs[-1], "wall", 0)
            new += number(runs[-1], "new", 0)
        size = sum(day.stat().st_size for day in bench.days)
        rate = round(size / MB / wall, 1)
        bench.note(step, {**median(runs, by="wall"), "new": new, "new_mb": new / MB, "mb_s": rate})


def measure_scan(bench: Bench) -> None:
    """The scanner in one thread, without reading, chunking or storing."""
    day = bench.days[0]
    bench.note("scan_copy", median_of(bench.repeat, lambda: scan(blocks_of(day))))
    inserts = bench.work / "inserts.sql"
    as_inserts(day, inserts)
    bench.note("scan_insert", median_of(bench.repeat, lambda: scan(blocks_of(inserts))))
    inserts.unlink()


def blocks_of(path: Path) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


def scan(blocks: Iterator[memoryview]) -> Figures:
    scanner = Scanner(PostgresVisitor())
    wall, size = 0.0, 0
    for block in blocks:
        began = time.perf_counter()
        scanner.feed(block)
        wall += time.perf_counter() - began
        size += len(block)
    catalogue = scanner.finish()
    if catalogue.fault:
        raise SystemExit(f"the scanner finds fault with the dump: {catalogue.fault}")
    return {"wall": wall, "mb_s": round(size / MB / wall, 1)}


def measure_table(bench: Bench) -> None:
    """The largest table out of the last day's dump."""
    need_days(bench)
    items = bench.answer("ls", f"{NAME}@latest:tables")["items"]
    assert isinstance(items, list)
    largest = max(items, key=lambda item: int(item["size"]))
    path, size = str(largest["path"]), int(largest["size"])
    bench.note("table", median_of(bench.repeat, lambda: read_table(bench, path, size)))
    table = path.removeprefix("tables/").removesuffix(".sql")
    for step, format_ in (("dump", "sql"), ("csv", "csv")):
        words = ("dump", f"{NAME}@latest", "--table", table, "--format", format_)
        figures = median_of(bench.repeat, lambda words=words: bench.holdfast(*words))  # type: ignore[misc]
        bench.note(step, {**figures, "mb_s": round(size / MB / number(figures, "wall", 1), 1)})


def read_table(bench: Bench, path: str, size: int) -> Figures:
    """Through a fresh mount, from cold caches."""
    with vms.mounted(bench) as (mountpoint, _, ready):
        began = time.perf_counter()
        with (mountpoint / "databases/postgresql" / NAME / "latest" / path).open("rb", buffering=0) as file:
            seen = len(file.read(1))
            first = time.perf_counter() - began
            while data := file.read(BLOCK):
                seen += len(data)
        wall = time.perf_counter() - began
    if seen != size:
        raise SystemExit(f"{path} has {seen} bytes in the mount, {size} in the listing")
    rate = round(size / MB / wall, 1)
    return {"ready": ready, "first_s": first, "wall": wall, "mb_s": rate, "size_mb": size / MB}
