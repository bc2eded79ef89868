"""Reads one file and prints what it found, as JSON.

In a process of its own, so that a mount that hangs can be given up by killing this process.

    python -m bench.reads sequential FILE
    python -m bench.reads random FILE --like ORIGINAL [--direct] [--hot BLOCKS]
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import time
import zlib
from pathlib import Path

from bench.measure import MB, Figures

BLOCK = 4096


def data_blocks(path: Path) -> list[tuple[int, int]]:
    """(first block, number of blocks) of every allocated run: reads of holes would measure nothing."""
    runs = []
    with path.open("rb") as file:
        position, end = 0, path.stat().st_size
        while position < end:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:
                break
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            if position - start >= BLOCK:
                runs.append((start // BLOCK, (position - start) // BLOCK))
    return runs


def random_offsets(path: Path, count: int, seed: int) -> list[int]:
    """`count` offsets of different allocated blocks in random order: for the same file always the same."""
    runs = data_blocks(path)
    source = random.Random(seed)  # repeatable on purpose
    total = sum(length for _, length in runs)
    chosen = sorted(source.sample(range(total), min(count, total)))
    offsets = []
    passed, run = 0, iter(runs)
    start, length = next(run)
    for index in chosen:
        while index - passed >= length:
            passed += length
            start, length = next(run)
        offsets.append((start + index - passed) * BLOCK)
    source.shuffle(offsets)
    return offsets


def read_blocks(path: Path, offsets: list[int], *, direct: bool, limit: float) -> Figures:
    """One 4 KiB read after the other. Figures: iops, p50_ms, p99_ms, reads, crc (of all that was read).

    `direct` goes past the kernel's page cache (O_DIRECT), so that every read reaches the process
    that serves the mount and is answered from *its* cache. Dropping the page cache instead would
    leave it open whether the kernel had really let go of every page.
    """
    buffer = mmap.mmap(-1, BLOCK)  # page-aligned, as O_DIRECT wants it
    file = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    try:
        if not direct:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead behind our back
        waits, crc = [], 0
        started = time.perf_counter()
        for offset in offsets:
            before = time.perf_counter()
            os.preadv(file, [buffer], offset)
            waits.append(time.perf_counter() - before)
            crc = zlib.crc32(buffer, crc)
            if before - started > limit:
                break
        seconds = time.perf_counter() - started
    finally:
        os.close(file)
    waits.sort()
    return {
        "iops": round(len(waits) / seconds, 1),
        "p50_ms": round(waits[len(waits) // 2] * 1e3, 3),
        "p99_ms": round(waits[int(len(waits) * 0.99)] * 1e3, 3),
        "reads": len(waits),
        "wall": round(seconds, 2),
        "crc": crc,
    }


def read_through(path: Path, limit: float) -> Figures:
    """What `dd bs=1M` does, for at most `limit` seconds. Holes count: a reader has to read them."""
    buffer = mmap.mmap(-1, 1 << 20)
    total = 0
    started = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while (got := file.readinto(buffer)) and time.perf_counter() - started < limit:
            total += got
    seconds = time.perf_counter() - started
    return {"mb_s": round(total / seconds / MB, 1), "read_mb": round(total / MB), "wall": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", choices=["sequential", "random"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--like", type=Path, help="choose offsets in the data of this file")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--hot", type=int, default=0, help="read this many blocks once, then only them")
    parser.add_argument("--direct", action="store_true")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--limit", type=float, default=60.0)
    options = parser.parse_args()
    if options.pattern == "sequential":
        figures = read_through(options.file, options.limit)
    else:
        offsets = random_offsets(options.like or options.file, options.hot or options.count, options.seed)
        if options.hot:
            read_blocks(options.file, offsets, direct=options.direct, limit=options.limit)
            offsets = random.Random(options.seed).choices(offsets, k=options.count)
        figures = read_blocks(options.file, offsets, direct=options.direct, limit=options.limit)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
