"""A stored disk seen as qcow2: QEMU finds nothing to complain about, and the disk in it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.disks.base.view import Allocation, ViewImpossible
from holdfast.formats.disks.open import FORMATS, no_companions
from holdfast.formats.disks.qcow2.reader import open_qcow2
from holdfast.formats.disks.qcow2.view import Qcow2View
from support.basics import random_bytes
from support.disk import check_image, disk_bytes, read_disk, run

MIB = 1 << 20
CLUSTER = 64 << 10
IDENTITY = bytes(16)

Runs = Sequence[tuple[int, int]]


def allocation(runs: Runs, size: int) -> Allocation:
    """Runs (start, end) of data, in order."""

    def find(start: int, end: int) -> Iterator[tuple[int, int]]:
        assert 0 <= start < end <= size
        for first, last in runs:
            if first < end and last > start:
                yield first, last - first

    return find


def random_runs(size: int, seed: int) -> Runs:
    rng = random.Random(seed)
    edges = sorted(rng.sample(range(size // 512 + 1), min(40, size // 1024 * 2)))
    return [(a * 512, b * 512) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def disk_of(size: int, runs: Runs) -> bytes:
    disk = bytearray(size)
    for n, (start, end) in enumerate(runs):
        disk[start:end] = disk_bytes(end - start, n)
    return bytes(disk)


def read_view(view: Qcow2View, disk: bytes, start: int, end: int) -> bytes:
    found = bytearray()
    for part in view.parts(start, end):
        assert part.start == start + len(found)
        assert part.length > 0
        if part.data is not None:
            assert len(part.data) == part.length
            found += part.data
        elif part.disk < 0:
            found += bytes(part.length)
        else:
            content = disk[part.disk : part.disk + part.length]
            assert len(content) == part.length
            found += content
    assert len(found) == end - start
    return bytes(found)


def write_view(path: Path, view: Qcow2View, disk: bytes, runs: Runs) -> Path:
    """As a restore does: tables, data, and holes everywhere else."""
    before = 0
    with path.open("wb") as file:
        file.truncate(view.size)
        for start, end in view.tables():
            assert before <= start < end <= view.data_start
            before = end
            file.seek(start)
            file.write(read_view(view, disk, start, end))
        for start, end in runs:
            file.seek(view.data_start + start)
            file.write(disk[start:end])
    return path


@dataclass
class ViewFile:
    """A view as a file for a reader."""

    view: Qcow2View
    disk: bytes = b""
    name: str = "view.qcow2"

    @property
    def size(self) -> int:
        return self.view.size

    def read_into(self, buffer: memoryview, offset: int) -> int:
        end = min(self.size, offset + len(buffer))
        buffer[: end - offset] = read_view(self.view, self.disk, offset, end)
        return end - offset

    def holes(self) -> Iterator[tuple[int, int]]:
        yield from ()


CASES = [
    (0, []),
    (512, []),
    (512, [(0, 512)]),
    (CLUSTER, [(0, CLUSTER)]),
    (CLUSTER + 512, [(CLUSTER, CLUSTER + 512)]),
    (5 * MIB + 1536, []),
    (5 * MIB + 1536, [(0, 5 * MIB + 1536)]),
    *((size, random_runs(size, size)) for size in (3 * MIB, 8 * MIB - 512, 17 * MIB + 65536)),
]


@pytest.mark.parametrize(("size", "runs"), CASES)
def test_qemu_finds_the_disk_and_nothing_wrong(tmp_path: Path, size: int, runs: Runs) -> None:
    disk = disk_of(size, runs)
    view = Qcow2View(size, allocation(runs, size), IDENTITY)
    path = write_view(tmp_path / "a.qcow2", view, disk, runs)
    (tmp_path / "a.raw").write_bytes(disk)
    assert path.stat().st_size == view.size
    assert path.read_bytes() == read_view(view, disk, 0, view.size)
    assert path.read_bytes()[view.data_start : view.data_start + size] == disk
    run("qemu-img", "check", "-f", "qcow2", path)
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, tmp_path / "a.raw")
    covered = {n for start, end in runs for n in range(start // CLUSTER, -(-end // CLUSTER))}
    found = set()
    for entry in json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", path)):
        if entry["present"]:
            assert entry["offset"] == view.data_start + entry["start"]
            found |= set(range(entry["start"] // CLUSTER, -(-(entry["start"] + entry["length"]) // CLUSTER)))
    assert found == covered
    check_image(open_qcow2(ViewFile(view, disk), no_companions, FORMATS), disk)


@pytest.mark.parametrize("size", [1, 511, 513, CLUSTER - 1, 3 * MIB + 17])
def test_a_disk_that_is_not_whole_sectors_is_rounded_up(tmp_path: Path, size: int) -> None:
    disk = disk_bytes(size, 1)
    path = write_view(
        tmp_path / "a.qcow2", Qcow2View(size, allocation([(0, size)], size), IDENTITY), disk, [(0, size)]
    )
    (tmp_path / "a.raw").write_bytes(disk)
    run("qemu-img", "check", "-f", "qcow2", path)
    assert "identical" in run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, tmp_path / "a.raw")


@pytest.mark.parametrize("size", [(2 << 30) - 512, 5 << 30, 300 << 30])
def test_large_sparse_disks_have_several_tables_of_each_kind(tmp_path: Path, size: int) -> None:
    places = (0, CLUSTER, (1 << 29) - 512, 1 << 30, (2 << 30) - CLUSTER - 512, size // 2, size - 512)
    runs = sorted((at // 512 * 512, at // 512 * 512 + 512) for at in places)
    view = Qcow2View(size, allocation(runs, size), IDENTITY)
    path = tmp_path / "a.qcow2"
    with path.open("wb") as file:
        file.truncate(view.size)
        written = 0
        for start, end in view.tables():
            file.seek(start)
            file.write(read_view(view, b"", start, end))
            written += end - start
        for n, (start, _) in enumerate(runs):
            file.seek(view.data_start + start)
            file.write(bytes([n + 1]) * 512)
    assert written < 3 * MIB
    run("qemu-img", "check", "-f", "qcow2", path)
    for n, (start, _) in enumerate(runs):
        out = run("qemu-io", "-r", "-f", "qcow2", "-c", f"read -P {n + 1} {start} 512", path)
        assert "failed" not in out


def test_a_view_can_be_written_to(tmp_path: Path) -> None:
    """QEMU allocates behind the end of the file, and its refcounts agree."""
    runs = random_runs(8 * MIB, 5)
    disk = disk_of(8 * MIB, runs)
    path = write_view(
        tmp_path / "a.qcow2", Qcow2View(len(disk), allocation(runs, len(disk)), IDENTITY), disk, runs
    )
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 8M", path)
    run("qemu-img", "check", "-f", "qcow2", path)
    assert "failed" not in run("qemu-io", "-f", "qcow2", "-c", "read -P 9 0 8M", path)


@given(st.integers(0, 9 * MIB), st.integers(0, 1000), st.data())
def test_any_part_is_what_the_whole_has_there(size: int, seed: int, data: st.DataObject) -> None:
    runs = random_runs(size, seed)
    view = Qcow2View(size, allocation(runs, size), IDENTITY)
    disk = random_bytes(size, seed)
    whole = read_view(view, disk, 0, view.size)
    tables = b"".join(whole[start:end] for start, end in view.tables())
    left = bytearray(whole[: view.data_start])
    for start, end in view.tables():
        left[start:end] = bytes(end - start)
    assert not any(left), "a table was left out that is not zeros"
    assert len(tables) <= view.data_start
    for _ in range(10):
        start = data.draw(st.integers(0, view.size))
        end = min(view.size, start + data.draw(st.sampled_from((0, 1, 7, 512, 4096, 131072, 1 << 20))))
        assert read_view(view, disk, start, end) == whole[start:end]


@pytest.mark.parametrize(
    ("size", "cluster"),
    [
        (1 << 40, 64 << 10),
        ((2 << 50) - (1 << 44), 64 << 10),
        (2 << 50, 128 << 10),
        (8 << 50, 256 << 10),
        (60 << 50, 512 << 10),
    ],
)
def test_disks_of_petabytes_cost_nothing_and_get_larger_clusters(size: int, cluster: int) -> None:
    runs = [(0, 512), (size // 2, size // 2 + MIB), (size - 512, size)]
    view = Qcow2View(size, allocation(runs, size), IDENTITY)
    head = read_view(view, b"", 0, 64)
    assert 1 << int.from_bytes(head[20:24], "big") == cluster
    image = open_qcow2(ViewFile(view), no_companions, FORMATS)
    assert image.size == size
    assert read_disk(image, 4096, size // 4, size // 4 + 4096) == bytes(4096)
    table = list(view.parts(view.data_start - 4096, view.data_start + 4096))
    assert table[-1].disk == 0


@pytest.mark.parametrize("size", [64 << 50, (1 << 63) - 512, 1 << 63, 1 << 64])
def test_a_disk_that_is_too_large_for_qcow2_is_impossible(size: int) -> None:
    with pytest.raises(ViewImpossible):
        Qcow2View(size, allocation([], size), IDENTITY)
