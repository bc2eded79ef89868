"""A disk seen as a VMDK is one that qemu and this project's own reader read back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.disks.base.image import ExtentKind
from holdfast.formats.disks.base.view import ViewImpossible
from holdfast.formats.disks.vmdk.view import VmdkView
from support.disk import SECTOR, check_image, disk_bytes, run
from support.vmdk import GRAIN, opened

IDENTITY = bytes(range(16))
TABLE = 512 * GRAIN
SIZES = [
    SECTOR,
    GRAIN - SECTOR,
    GRAIN,
    GRAIN + SECTOR,
    TABLE - GRAIN,
    TABLE,
    TABLE + SECTOR,
    3 * TABLE + 77 * SECTOR,
]


def _runs(size: int, kind: str, seed: int = 1) -> list[tuple[int, int]]:
    """(start, length) of the parts of a disk that hold data."""
    if kind == "empty":
        return []
    if kind == "full":
        return [(0, size)]
    rng = random.Random(seed)
    runs, at = [], 0
    while at < size:
        at += rng.choice((0, 1, 4096, GRAIN, 5 * GRAIN + 17, TABLE // 3))
        length = min(size - at, rng.choice((1, 100, 4096, GRAIN, 3 * GRAIN + 5, TABLE // 2)))
        if length > 0:
            runs.append((at, length))
        at += max(length, 1) + 1
    return runs


class _Disk:
    """A stored disk: its bytes by run, and an allocation that remembers what it was asked."""

    def __init__(self, size: int, runs: list[tuple[int, int]]) -> None:
        self.size, self.runs = size, runs
        self.asked: list[tuple[int, int]] = []

    def allocation(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        assert 0 <= start < end <= self.size
        self.asked.append((start, end))
        yield from ((at, length) for at, length in self.runs if at < end and at + length > start)

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(self.size)
            for at, length in self.runs:
                file.seek(at)
                file.write(disk_bytes(length, seed=at))

    def view(self) -> VmdkView:
        return VmdkView(self.size, self.allocation, IDENTITY)


def _bytes(view: VmdkView, start: int, end: int, disk: bytes) -> bytes:
    """[start, end) of a view, from its parts, which must cover it exactly."""
    out, at = bytearray(), start
    for part in view.parts(start, end):
        assert part.start == at
        assert part.length > 0
        at += part.length
        if part.data is not None:
            assert len(part.data) == part.length <= 64 << 10
            out += part.data
        elif part.disk >= 0:
            assert part.start == view.data_start + part.disk
            out += disk[part.disk : part.disk + part.length]
        else:
            out += bytes(part.length)
        assert len(out) == at - start
    assert at == end
    return bytes(out)


def _write(view: VmdkView, path: Path, raw: Path, runs: list[tuple[int, int]]) -> None:
    """What a restore does: a sparse file of the tables and the disk's data."""
    with path.open("wb") as file, raw.open("rb") as disk:
        file.truncate(view.size)
        for start, end in view.tables():
            file.seek(start)
            file.write(_bytes(view, start, end, b""))
        for at, length in runs:
            disk.seek(at)
            file.seek(view.data_start + at)
            file.write(disk.read(length))


@pytest.mark.parametrize("kind", ["empty", "full", "mixed"])
@pytest.mark.parametrize("size", SIZES)
def test_qemu_and_the_reader_read_the_disk_back(tmp_path: Path, size: int, kind: str) -> None:
    disk = _Disk(size, _runs(size, kind, seed=size))
    raw, image = tmp_path / "raw", tmp_path / "disk.vmdk"
    disk.write(raw)
    _write(disk.view(), image, raw, disk.runs)
    run("qemu-img", "check", "-f", "vmdk", image)
    run("qemu-img", "compare", "-f", "vmdk", "-F", "raw", image, raw)
    with opened(image) as found:
        data = [part for part in found.extents() if part.kind is ExtentKind.DATA]
        if size < TABLE:
            check_image(found, raw.read_bytes())
    wanted = {
        grain for at, length in disk.runs for grain in range(at // GRAIN, (at + length - 1) // GRAIN + 1)
    }
    mapped = json.loads(run("qemu-img", "map", "--output=json", "-f", "vmdk", image))
    by_qemu = {
        (item["start"] // GRAIN) + number
        for item in mapped
        if item["data"]
        for number in range(-(-item["length"] // GRAIN))
    }
    ours = {
        grain
        for part in data
        for grain in range(part.start // GRAIN, -(-(part.start + part.length) // GRAIN))
    }
    assert by_qemu == ours == wanted
    places = [item["offset"] - item["start"] for item in mapped if item["data"]]
    assert set(places) <= {disk.view().data_start}, "the disk's bytes lie behind the tables, in order"


@given(st.sampled_from(SIZES), st.sampled_from(["empty", "full", "mixed"]), st.data())
def test_parts_of_any_range_agree_with_the_whole(size: int, kind: str, data: st.DataObject) -> None:
    disk = _Disk(size, _runs(size, kind))
    view = disk.view()
    content = b"\x01" * size
    near = [0, SECTOR, 21 * SECTOR, view.data_start - 100, view.data_start, view.data_start + size, view.size]
    start = data.draw(st.one_of(st.sampled_from(near), st.integers(0, view.data_start)))
    end = min(view.size, start + data.draw(st.integers(0, 300_000)))
    edge = view.data_start
    whole = _bytes(view, 0, edge, content) if start < edge else b""
    piece = _bytes(view, start, end, content)
    assert piece[: max(0, edge - start)] == whole[start:end]
    beyond = max(start, edge) - edge
    assert piece[max(0, edge - start) :] == content[beyond : max(beyond, end - edge)].ljust(
        max(0, end - max(start, edge)), b"\0"
    )


def test_a_table_asks_for_its_own_stretch_of_the_disk_and_no_more() -> None:
    size = 10 * TABLE
    disk = _Disk(size, [(0, size)])
    view = disk.view()
    directory = 21 * SECTOR
    first_table = directory + SECTOR
    list(view.parts(0, first_table))
    assert disk.asked == [], "head and directory are arithmetic"
    list(view.parts(first_table + 3 * 2048, first_table + 4 * 2048))
    assert disk.asked == [(3 * TABLE, 4 * TABLE)]
    disk.asked.clear()
    list(view.parts(view.data_start, view.size))
    assert disk.asked == []


def test_the_largest_disk_is_seen_without_walking_it_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    size = (2 << 40) - (257 << 20)
    tail = size - GRAIN
    disk = _Disk(size, [(0, 4096), (tail, GRAIN)])
    raw, image = tmp_path / "raw", tmp_path / "disk.vmdk"
    view = disk.view()
    assert disk.asked == []
    assert ((1 << 32) * SECTOR) - (1 << 20) < view.size <= (1 << 32) * SECTOR
    assert sum(end - start for start, end in view.tables()) < 1 << 20, "tables of holes are left out"
    disk.write(raw)
    _write(view, image, raw, disk.runs)
    for place in (0, tail):
        wanted, found = (
            run("qemu-io", "-r", "-f", format_, "-c", f"read -v {place} 512", path).splitlines()[:-1]
            for format_, path in (("raw", raw), ("vmdk", image))
        )
        assert wanted[:32] == found[:32]
    with pytest.raises(ViewImpossible, match="2 TiB"):
        VmdkView(size + (1 << 20), disk.allocation, IDENTITY)


@pytest.mark.parametrize("size", [0, 1, 511, 513, GRAIN + 1])
def test_disks_that_are_not_whole_sectors_cannot_be_seen(size: int) -> None:
    with pytest.raises(ViewImpossible, match="whole sectors"):
        VmdkView(size, _Disk(size, []).allocation, IDENTITY)


def test_the_same_disk_gives_the_same_file_and_another_identity_another_one() -> None:
    disk = _Disk(GRAIN, [])
    heads = [
        _bytes(VmdkView(GRAIN, disk.allocation, identity), 0, 21 * SECTOR, b"")
        for identity in (IDENTITY, IDENTITY, bytes(16), b"\xff" * 16)
    ]
    assert heads[0] == heads[1]
    assert len(set(heads)) == 3
    assert b"\nCID=00010203\n" in heads[0]
    assert b"\nCID=ffffffff\n" not in heads[3]


@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        (512 << 20, (512, 64, 32)),
        (3 << 29, (768, 128, 32)),
        (8 << 30, (1044, 255, 63)),
        (1 << 40, (65535, 255, 63)),
    ],
)
def test_the_geometry_is_the_one_that_vmware_gives_scsi_disks(
    size: int, geometry: tuple[int, int, int]
) -> None:
    head = _bytes(VmdkView(size, _Disk(size, []).allocation, IDENTITY), 0, 21 * SECTOR, b"").decode("latin-1")
    for name, value in zip(("cylinders", "heads", "sectors"), geometry, strict=True):
        assert f'ddb.geometry.{name} = "{value}"\n' in head
    assert f'RW {size // SECTOR} SPARSE "disk.vmdk"\n' in head
