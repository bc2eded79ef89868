"""Virtual machines: reading every format, the same disk as another format, files out of a guest.

python -m bench vms, or ./dev bench vms. No peer can do most of it; figures stand beside the goals.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.goals import Better
from bench.guestdisk import BIG_SIZE, FORMATS, MANY, NAME, convert, make_guest
from bench.measure import (
    MB,
    Command,
    Figures,
    allocated,
    drop_caches,
    median_of,
    number,
    peak_memory_mb,
    run,
    settle,
    warm,
)
from bench.mounted import unmount
from bench.report import row, shown
from bench.tools import Holdfast, Place

HERE = Path(__file__).resolve().parent
OUT_OF = "vms/{}/latest/files/{}/p2"


class Bench:
    """Holdfast over the guest's disk in a scratch folder; collects lines of the table."""

    def __init__(self, work: Path, repeat: int) -> None:
        self.work = work
        self.repeat = repeat
        self.place = Place(work / "repository", work / "state")
        self.tool = Holdfast("holdfast")
        self.lines: list[dict[str, object]] = []

    def keep(
        self, title: str, value: float, unit: str, goal: float | None = None, better: Better = Better.HIGHER
    ) -> None:
        reached = None
        if goal is not None:
            reached = value >= goal if better is Better.HIGHER else value <= goal
        sign = "at least" if better is Better.HIGHER else "at most"
        wanted = f"{sign} {goal:g}" if goal is not None else ""
        self.lines.append({"title": title, "value": value, "unit": unit, "goal": wanted, "reached": reached})
        verdict = {None: "", True: "reached", False: "NOT REACHED"}[reached]
        print(
            f"{time.strftime('%H:%M:%S')} {title}: {shown(value)} {unit} {verdict}",
            file=sys.stderr,
            flush=True,
        )

    def holdfast(self, *words: str | Path) -> Figures:
        command = Command([self.tool.binary, *map(str, words)], self.tool.environment(self.place))
        figures = run(command)
        if "error" in figures:
            raise SystemExit(f"holdfast {' '.join(map(str, words))}: {figures['error']}")
        return figures

    def answer(self, *words: str | Path) -> dict[str, object]:
        """The JSON that a command prints."""
        command = [self.tool.binary, *map(str, words), "--json"]
        done = subprocess.run(
            command, env=self.tool.environment(self.place), capture_output=True, text=True, check=True
        )
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return found

    def start_over(self) -> None:
        for folder in (self.place.repository, self.place.state):
            shutil.rmtree(folder, ignore_errors=True)
        self.place.state.mkdir(parents=True)
        self.holdfast("init", "-q")


# ---- in -----------------------------------------------------------------------------------------------


def measure_formats(bench: Bench, raw: Path) -> None:
    """First backups into an empty repository, unchanged ones into a full one; raw before each, because
    the machine's speed drifts."""
    data = allocated(raw) / MB
    for name in FORMATS:
        image = convert(raw, name)
        first_raw, again_raw = rates(bench, raw, data)
        first, again = rates(bench, image, data)
        compressed = "zlib" in name or "zstd" in name or "stream" in name
        goal = None if compressed else 0.8
        bench.keep(f"{name}: first backup", first, "MB/s")
        bench.keep("  times raw", first / first_raw, "", goal)
        bench.keep("  unchanged, read in full", again, "MB/s")
        bench.keep("  times raw", again / again_raw, "", goal)
        if compressed:
            own = own_rate(image)
            bench.keep("  reading alone, times the decompressor's own rate", own, "", 0.8)


def rates(bench: Bench, image: Path, data: float) -> tuple[float, float]:
    """MB of allocated data a second: the first backup, and the same again."""

    def once() -> Figures:
        bench.start_over()
        warm(image)
        settle()
        first = bench.holdfast("backup", "-q", "--name", NAME, image)
        settle()
        again = bench.holdfast("backup", "-q", "--name", NAME, image)
        return {**first, "again": number(again, "wall", 0)}

    runs = [once() for _ in range(bench.repeat)]
    first = sorted(number(r, "wall", 0) for r in runs)[len(runs) // 2]
    again = sorted(number(r, "again", 0) for r in runs)[len(runs) // 2]
    return data / first, data / again


def own_rate(image: Path) -> float:
    """How fast a reader is beside its decompressor run over the same clusters in memory."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.readers", str(image)],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout)["ratio"])


def measure_other_format(bench: Bench, raw: Path) -> None:
    """The same disk as raw one day, as another format the next."""
    bench.start_over()
    bench.holdfast("backup", "-q", "--name", NAME, raw)
    for name in FORMATS:
        summary = bench.answer("backup", "--name", NAME, convert(raw, name))
        share = 100 * number(summary, "new", -1) / number(summary, "allocated", 1)
        bench.keep(f"raw yesterday, {name} today: new data", share, "%", 1.0, Better.LOWER)


# ---- out ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(bench: Bench) -> Iterator[tuple[Path, subprocess.Popen[bytes], float]]:
    """(mountpoint, the daemon in front, seconds until it was there)."""
    mountpoint = bench.work / "mnt"
    mountpoint.mkdir(exist_ok=True)
    settle()
    drop_caches(bench.place.repository)
    began = time.perf_counter()
    process = subprocess.Popen(
        bench.tool.mount(bench.place, "", mountpoint),
        env=bench.tool.environment(bench.place),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not mountpoint.is_mount():
            if process.poll() is not None:
                raise SystemExit("the mount ended")
            time.sleep(0.005)
        yield mountpoint, process, time.perf_counter() - began
    finally:
        unmount(process, mountpoint)
        if process.stdout:
            process.stdout.close()


def measure_guest(bench: Bench, raw: Path) -> None:
    """A repository with the disk in it; everything through the mount, from cold caches."""
    bench.start_over()
    bench.holdfast("backup", "-q", "--name", NAME, raw)
    inside = OUT_OF.format(NAME, raw.stem)
    with mounted(bench) as (mountpoint, _, _):
        seconds = timed(lambda: list((mountpoint / inside).iterdir()))
        bench.keep("first ls of a guest's folder after the mount", seconds, "s", 1.0, Better.LOWER)
    with mounted(bench) as (mountpoint, process, _):
        folder = mountpoint / inside / "many"
        seconds = timed(lambda: [entry.stat() for entry in os.scandir(folder)])
        bench.keep(f"listing {MANY:,} entries with their attributes", seconds, "s", 3.0, Better.LOWER)
        target = bench.work / "copied"
        seconds = timed(lambda: subprocess.run(["cp", "-r", folder, target], check=True))
        shutil.rmtree(target)
        bench.keep("copying small files out, listed before", MANY / seconds, "files/s", 1000)
        before = peak_memory_mb(process.pid)
        for _ in os.walk(mountpoint / inside):
            pass
        bench.keep("memory, daemon and parser, after the copy", before, "MB")
        bench.keep("  after a walk over the whole guest", peak_memory_mb(process.pid), "MB")
    for options in (["-r"], ["-a"]):
        with mounted(bench) as (mountpoint, _, _):
            target = bench.work / "copied"
            folder = mountpoint / inside / "many"
            command = ["cp", *options, folder, target]
            seconds = timed(lambda command=command: subprocess.run(command, check=True))  # type: ignore[misc]
            shutil.rmtree(target)
            bench.keep(f"cp {options[0]} of them, cold", MANY / seconds, "files/s", 1000)
    big = median_of(bench.repeat, lambda: read_big(bench, inside), by="mb_s")
    bench.keep("one big file, cold", number(big, "mb_s", 0), "MB/s", 400)


def read_big(bench: Bench, inside: str) -> Figures:
    with mounted(bench) as (mountpoint, _, _):
        seconds = timed(lambda: read_all(mountpoint / inside / "big"))
        return {"mb_s": BIG_SIZE / MB / seconds, "wall": seconds}


def read_all(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure_restore(bench: Bench, raw: Path) -> None:
    """Without a mount: a folder of the guest, the disk in another format."""
    target = bench.work / "restored"
    inside = f"{NAME}@latest:files/{raw.stem}/p2/many"
    shutil.rmtree(target, ignore_errors=True)
    figures = bench.holdfast("restore", "-q", inside, "--target", target)
    shutil.rmtree(target)
    bench.keep(
        "restore of 20,000 small files without a mount", MANY / number(figures, "wall", 1), "files/s", 1000
    )
    data = allocated(raw) / MB
    for name in ("raw", "qcow2", "vmdk", "vhdx", "vdi"):
        file = bench.work / f"restored.{name}"
        figures = bench.holdfast(
            "restore", "-q", f"{NAME}@latest:disks/{raw.name}", "--format", name, "--target", file
        )
        bench.keep(f"restore as {name}", data / number(figures, "wall", 1), "MB/s")
        file.unlink()


STEPS: dict[str, Callable[[Bench, Path], None]] = {
    "other": measure_other_format,
    "formats": measure_formats,
    "guest": measure_guest,
    "restore": measure_restore,
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev bench vms", description=__doc__)
    parser.add_argument("--steps", default=",".join(STEPS), help=f"of {','.join(STEPS)}")
    parser.add_argument("--repeat", type=int, default=3, help="the median counts")
    parser.add_argument("--work", type=Path, metavar="DIR", help="scratch; default: holdfast-bench in TMPDIR")
    options = parser.parse_args(arguments)
    work = (options.work or Path(tempfile.gettempdir()) / "holdfast-bench").resolve() / "vms"
    raw = make_guest(work / "disk")
    bench = Bench(work, options.repeat)
    print(f"load before: {os.getloadavg()[0]:.2f}", file=sys.stderr)
    for step in options.steps.split(","):
        STEPS[step](bench, raw)
    print(row(["figure", "value", "unit", "goal", "reached"]))
    print(row(["---"] * 5))
    for line in bench.lines:
        value = line["value"]
        assert isinstance(value, float | int)
        verdict = {None: "", True: "yes", False: "**no**"}[line["reached"]]  # type: ignore[index]
        print(row([str(line["title"]), shown(value), str(line["unit"]), str(line["goal"]), verdict]))
    (work / "results.json").write_text(json.dumps(bench.lines, indent=1) + "\n")
    return 0 if all(line["reached"] is not False for line in bench.lines) else 1
