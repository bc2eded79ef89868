"""A PostgreSQL cluster under load: physical backups, their restore, and its log segment by segment."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from bench.dumpsteps import Bench
from bench.measure import MB, Figures, median, median_of, number, settle
from bench.server import Server, postgresql

NAME = "cluster"
SCALE = 20
"""Of pgbench: some 300 MB of tables."""
CLIENTS, TRANSACTIONS = 2, 5_000
"""Of each client, between one physical backup and the next."""
SEGMENTS = 20


def measure_physical(bench: Bench) -> None:
    """A pgbench cluster: its first physical backup, one after some load, the newest one restored."""
    with postgresql() as server:
        server.client("pgbench", "-i", "-q", "-s", str(SCALE), "postgres")
        bench.note("physical", median_of(bench.repeat, lambda: back_up_cluster(bench, server, afresh=True)))
        runs = []
        for _ in range(bench.repeat):
            work_on(server)
            runs.append(back_up_cluster(bench, server, afresh=False))
        bench.note("physical_again", median(runs, by="wall"))
    bench.note("physical_restore", median_of(bench.repeat, lambda: restore_cluster(bench)))


def work_on(server: Server) -> None:
    server.client("pgbench", "-n", "-c", str(CLIENTS), "-t", str(TRANSACTIONS), "postgres")


def back_up_cluster(bench: Bench, server: Server, *, afresh: bool) -> Figures:
    if afresh:
        bench.start_over()
    server.query("CHECKPOINT")
    settle()
    figures = bench.holdfast("backup", "-q", "--physical", "--name", NAME, server.url)
    return bench.judged(figures, NAME, size_of_cluster(bench))


def size_of_cluster(bench: Bench) -> int:
    return int(number(bench.answer("info", f"{NAME}@latest"), "size", 0))


def restore_cluster(bench: Bench) -> Figures:
    target = bench.work / "restored"
    shutil.rmtree(target, ignore_errors=True)
    settle()
    figures = bench.holdfast("restore", "-q", f"{NAME}@latest", "--target", target)
    shutil.rmtree(target)
    return {**figures, "mb_s": round(size_of_cluster(bench) / MB / number(figures, "wall", 1), 1)}


def measure_wal(bench: Bench) -> None:
    """wal-push as the server runs it, segment by segment; a recovery key opens the repository."""
    with postgresql() as server:
        server.client("pgbench", "-i", "-q", "-s", str(SCALE), "postgres")
        while len(finished := finished_segments(server)) <= SEGMENTS:
            work_on(server)
        server.query("CHECKPOINT")
        for step, seconds in (("wal_direct", 0), ("wal_warm", 3)):
            bench.start_over()
            bench.note(step, push_segments(bench, server, finished[-SEGMENTS - 1 :], seconds))


def finished_segments(server: Server) -> list[str]:
    """Names in order of age; what the server keeps for later has higher names than what it writes."""
    now = server.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    names = (path.name for path in (server.data / "pg_wal").iterdir() if len(path.name) == len(now))
    return sorted(name for name in names if name < now)


def push_segments(bench: Bench, server: Server, names: list[str], seconds: int) -> Figures:
    """Milliseconds of each push but the first; `seconds`: how long a warm process is to stay, 0: none."""
    key = bench.place.state / "recovery-key"
    key.write_text(str(bench.answer("key", "add", "--recovery")["recovery_key"]))
    key.chmod(0o600)
    environment = bench.tool.environment(bench.place)
    del environment["HOLDFAST_PASSWORD"]
    environment |= {"HOLDFAST_PASSWORD_FILE": str(key), "HOLDFAST_WARM_SECONDS": str(seconds)}

    def push(name: str) -> float:
        command = [bench.tool.binary, "wal-push", f"pg_wal/{name}"]
        began = time.perf_counter()
        subprocess.run(command, cwd=server.data, env=environment, check=True)
        return (time.perf_counter() - began) * 1000

    first, *others = names
    settle()
    push(first)
    if seconds:
        wait_for_socket(bench.place.state / "cache" / "warm")
    taken = [push(name) for name in others]
    return {"median_ms": statistics.median(taken), "wall": sum(taken) / 1000, "runs": taken}


def wait_for_socket(folder: Path) -> None:
    """Until the process that the first push left behind listens."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            if any(path.is_socket() for path in folder.iterdir()):
                return
        time.sleep(0.01)
    raise SystemExit("wal-push left no process behind")
