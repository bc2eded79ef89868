"""Reads the last day through each tool's mount: cold and warm, at random and from end to end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.measure import (
    Figures,
    cpu_seconds,
    drop_caches,
    median,
    median_of,
    number,
    peak_memory_mb,
    settle,
)
from bench.tools import Place, Source, Tool

ROOT = Path(__file__).resolve().parent.parent
HOT_BLOCKS = 256
"""How many 4 KiB blocks, each in a chunk of its own at worst, must fit any chunk cache worth the name.

256 chunks of at most 256 KiB are 64 MiB; the 2,000 offsets of the cold test touch some 200 MB
of chunks, more than a cache of a sensible size holds, and read again in the same order they would
measure how it evicts, not how fast it answers.
"""

LONG = 15.0  # seconds: a reading that takes longer is not repeated


class MountFailed(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Mount:
    process: subprocess.Popen[bytes]
    file: Path
    ready: float  # seconds until the file could be looked up


@dataclass(frozen=True, slots=True)
class Target:
    """A mount: the backup `label` of `source` in the tool's repository, and where it is mounted."""

    tool: Tool
    place: Place
    source: Source
    label: str
    mountpoint: Path


@contextlib.contextmanager
def mount(target: Target) -> Iterator[Mount]:
    """The repository, mounted afresh, with nothing of it in the kernel's caches."""
    tool, place, mountpoint = target.tool, target.place, target.mountpoint
    mountpoint.mkdir(parents=True, exist_ok=True)
    settle()
    drop_caches(place.repository)
    started = time.perf_counter()
    with (place.state / "mount.log").open("w+b") as log:
        process = subprocess.Popen(
            tool.mount(place, target.label, mountpoint),
            env=tool.environment(place),
            cwd=place.state,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            file = tool.mounted(target.source, mountpoint)
            wait_for(file, mountpoint, process, log)
            yield Mount(process, file, round(time.perf_counter() - started, 2))
        finally:
            unmount(process, mountpoint)


def wait_for(file: Path, mountpoint: Path, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):  # not there yet, or not listed yet
            if mountpoint.is_mount() and file.stat().st_size:
                return
        time.sleep(0.02)
    log.seek(0)
    said = log.read()[-400:].decode(errors="replace").strip()
    raise MountFailed(said or f"{file.name} did not appear below the mount in 90 s")


def unmount(process: subprocess.Popen[bytes], mountpoint: Path) -> None:
    command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    for _ in range(20):
        if not is_mounted(mountpoint):
            break
        subprocess.run([*command, str(mountpoint)], stderr=subprocess.DEVNULL, check=False)
        time.sleep(0.2)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def is_mounted(mountpoint: Path) -> bool:
    """Whether the kernel's table has the mount: `stat` of the folder fails when the daemon died."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return any(line.split()[1] == str(mountpoint) for line in lines)


def read(mounted: Mount, *arguments: str, limit: float) -> Figures:
    """Runs bench.reads on the mounted file and adds what the serving process used meanwhile."""
    own_before, busy_before = cpu_of(mounted.process.pid), cpu_seconds()[0]
    started = time.perf_counter()
    figures = read_apart(mounted.file, *arguments, limit=limit)
    if "error" in figures:
        return figures
    wall = time.perf_counter() - started
    figures["daemon_cpu"] = round(cpu_of(mounted.process.pid) - own_before, 2)
    # Includes our own reader's time, which is the same for every tool.
    others = cpu_seconds()[0] - busy_before - float(str(figures["daemon_cpu"]))
    figures["other_cpu"] = round(max(0.0, others) / wall, 2)
    figures["load"] = round(os.getloadavg()[0], 2)
    return figures


def read_apart(file: Path, *arguments: str, limit: float) -> Figures:
    """bench.reads in a process that can be killed when the mount hangs."""
    command = [sys.executable, "-m", "bench.reads", arguments[0], str(file), *arguments[1:]]
    try:
        answer = subprocess.run(
            [*command, "--limit", str(limit)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=limit + 60,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {limit + 60:.0f} s"}
    except subprocess.CalledProcessError as error:
        return {"error": str(error.stderr)[-400:].strip()}
    figures: Figures = json.loads(answer.stdout)
    return figures


def cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def measure(target: Target, steps: frozenset[str], repeat: int, keep: Callable[[str, Figures], None]) -> None:
    """Figures: random_cold, random_again, random_warm, sequential.

    random_cold: 2,000 reads at random offsets of allocated data, fresh mount, caches dropped.
    random_again: the same offsets, past the kernel's page cache: whatever the tool itself kept.
    random_warm: 10,000 reads over few blocks that were just read, past the page cache: the tool's
    chunk cache answers every one.
    sequential: the whole file, fresh mount, caches dropped.
    """
    at_random: dict[str, list[Figures]] = {"random_cold": [], "random_again": [], "random_warm": []}
    try:
        if "random" in steps:
            for _ in range(repeat):
                for name, figures in read_at_random(target).items():
                    at_random[name].append(figures)
                if number(at_random["random_cold"][-1], "wall", 0) > LONG:
                    break
            for name, runs in at_random.items():
                keep(name, median(runs, "iops"))
        if "sequential" in steps:
            keep("sequential", median_of(repeat, lambda: read_from_end_to_end(target), by="mb_s", long=LONG))
    except MountFailed as error:
        keep("mount", {"error": str(error)})


def read_at_random(target: Target) -> dict[str, Figures]:
    original = target.source.file
    cold = ["random", "--like", str(original)]
    hot = [*cold, "--hot", str(HOT_BLOCKS), "--count", "10000", "--seed", "5"]
    with mount(target) as mounted:
        found = {
            "random_cold": read(mounted, *cold, limit=60),
            "random_again": read(mounted, *cold, "--direct", limit=30),
            "random_warm": read(mounted, *hot, "--direct", limit=30),
        }
        found["random_cold"]["ready"] = mounted.ready
        found["random_warm"]["rss_mb"] = peak_memory_mb(mounted.process.pid)
    for name, arguments in (("random_cold", cold), ("random_again", cold), ("random_warm", hot)):
        compare(found[name], read_apart(original, *arguments, limit=60))
    return found


def compare(figures: Figures, original: Figures) -> None:
    """Fail unless the bytes from the mount are those of the original: fast and wrong is wrong."""
    if figures.get("reads") == original["reads"] and figures.get("crc") != original["crc"]:
        figures["error"] = "what was read through the mount differs from the original"


def read_from_end_to_end(target: Target) -> Figures:
    with mount(target) as mounted:
        figures = read(mounted, "sequential", limit=90)
        figures["rss_mb"] = peak_memory_mb(mounted.process.pid)
        return figures
