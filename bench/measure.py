"""Runs a command and says what it cost; empties caches; says who else used the machine."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MB = 1_000_000
Figures = dict[str, float | str | list[float]]
"""What one step cost: named numbers, and `error` when it failed."""


@dataclass(frozen=True, slots=True)
class Command:
    argv: Sequence[str]
    environment: Mapping[str, str]
    stdin: Path | None = None
    cwd: Path = field(default_factory=Path.cwd)


def cpu_seconds() -> tuple[float, float]:
    """Seconds that all CPUs together were busy since boot (steal counts), and seconds in all."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - idle) / hertz, sum(ticks) / hertz


def settle(limit: float = 10.0) -> float:
    """Writes back what the last step left, then waits for a quiet machine, at most `limit` seconds.

    Returns the share of all CPUs that others still use.
    """
    os.sync()
    end = time.monotonic() + limit
    while True:
        busy, total = cpu_seconds()
        time.sleep(0.4)
        busy_later, total_later = cpu_seconds()
        share = (busy_later - busy) / max(total_later - total, 0.01)
        if share < 0.1 or time.monotonic() > end:
            return round(share, 2)


def run(command: Command, timeout: float = 1800.0) -> Figures:
    """Runs to the end. Figures: wall, cpu (s), rss_mb (peak), foreign (cores that others used), load.

    The peak includes this process's own size, which the kernel hands on over fork and exec:
    some 25 MB that no tool measured here stays below.
    """
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        stdin = stack.enter_context(command.stdin.open("rb")) if command.stdin else subprocess.DEVNULL
        busy, _ = cpu_seconds()
        started = time.perf_counter()
        process = subprocess.Popen(
            command.argv,
            env=dict(command.environment),
            cwd=command.cwd,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            process_group=0,
        )
        timer = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        foreign = max(0.0, cpu_seconds()[0] - busy - cpu) / max(wall, 0.1)
        figures: Figures = {
            "wall": round(wall, 2),
            "cpu": round(cpu, 2),
            "rss_mb": round(usage.ru_maxrss * 1024 / MB),
            "foreign": round(foreign, 2),
            "load": round(load, 2),
        }
        if process.returncode != 0:
            errors.seek(0)
            tail = errors.read()[-400:].decode(errors="replace").strip()
            figures["error"] = f"exit code {process.returncode}: {tail}"
        return figures


def median_of(times: int, once: Callable[[], Figures], by: str = "wall", long: float = 40.0) -> Figures:
    """Runs `once` so many times and returns the median. One long or failed run is enough."""
    done: list[Figures] = []
    for _ in range(max(1, times)):
        done.append(once())
        if "error" in done[-1] or number(done[-1], "wall", 0.0) > long:
            break
    return median(done, by)


def median(done: Sequence[Figures], by: str) -> Figures:
    """The run in the middle, with every run's `by` in `runs`; a failed run if there is one."""
    for figures in done:
        if "error" in figures:
            return figures
    values = [number(figures, by, 0.0) for figures in done]
    middle = values.index(statistics.median_low(values))
    return {**done[middle], "runs": values}


def number(figures: Mapping[str, object], name: str, default: float) -> float:
    value = figures.get(name, default)
    return float(value) if isinstance(value, int | float) else default


def drop_caches(repository: Path) -> str:
    """Makes the next read of the repository come from the device. Returns how.

    Only root can empty the kernel's caches; anybody can have his own files evicted from them.
    """
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        for path in repository.rglob("*"):
            if path.is_file():
                evict(path)
        return "fadvise"
    return "drop_caches"


def evict(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(path: Path) -> None:
    """Reads a file once, so that the next reader finds it in the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(8 << 20):
            pass


def allocated(path: Path) -> int:
    """Bytes on disk of a file, or of everything below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            total += file.lstat().st_blocks * 512
    return total


def peak_memory_mb(pid: int) -> float:
    """Highest resident size of a living process and its children, added up."""
    total = 0
    todo = [pid]
    while todo:
        current = todo.pop()
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{current}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
            children = Path(f"/proc/{current}/task/{current}/children").read_text()
            todo += [int(child) for child in children.split()]
    return round(total / MB)
