"""VHDX files made up around a disk, held against QEMU and against our own reader."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.formats.disks.base.files import OpenFile
from holdfast.formats.disks.base.view import ViewImpossible
from holdfast.formats.disks.open import no_companions
from holdfast.formats.disks.vhdx.reader import open_vhdx
from holdfast.formats.disks.vhdx.view import VhdxView
from support.disk import check_image, run
from support.old_disk import (
    MIB,
    Disk,
    check_parts,
    check_writable,
    random_disk,
    restored,
)

IDENTITY = bytes(range(16))


def view_of(disk: Disk) -> VhdxView:
    return VhdxView(disk.size, disk.allocation, IDENTITY)


DISKS = [
    Disk(512, []),
    Disk(512, [(0, 512)]),
    Disk(MIB, [(0, MIB)]),
    Disk(MIB + 512, [(MIB, 512)]),
    Disk(9 * MIB - 512, []),
    Disk(9 * MIB - 512, [(0, 9 * MIB - 512)]),
    Disk(8 * MIB, [(3 * MIB - 512, 1024)]),
    random_disk(9 * MIB + 512 * 5, seed=1),
    random_disk(5 * MIB, seed=2),
]


@pytest.mark.parametrize("disk", DISKS, ids=str)
def test_qemu_finds_no_fault_and_the_same_bytes(tmp_path: Path, disk: Disk) -> None:
    image = restored(view_of(disk), disk, tmp_path / "disk.vhdx")
    raw = disk.write(tmp_path / "raw")
    assert "No errors" in run("qemu-img", "check", "-f", "vhdx", image)
    assert "identical" in run("qemu-img", "compare", "-f", "vhdx", "-F", "raw", image, raw)
    assert f"({disk.size} bytes)" in run("qemu-img", "info", "-f", "vhdx", image)
    with OpenFile(image) as file:
        check_image(open_vhdx(file, no_companions), raw.read_bytes(), block=MIB)


@pytest.mark.parametrize("disk", DISKS, ids=str)
def test_any_part_is_a_part_of_the_whole(tmp_path: Path, disk: Disk) -> None:
    view = view_of(disk)
    check_parts(view, disk, restored(view, disk, tmp_path / "disk.vhdx"))


def test_blocks_without_data_are_not_allocated(tmp_path: Path) -> None:
    disk = Disk(10 * MIB, [(2 * MIB - 1, 2), (7 * MIB, 512)])
    with OpenFile(restored(view_of(disk), disk, tmp_path / "disk.vhdx")) as file:
        extents = list(open_vhdx(file, no_companions).extents())
    assert [(e.start // MIB, e.length // MIB, e.kind.value) for e in extents] == [
        (0, 1, "hole"),
        (1, 2, "data"),
        (3, 4, "hole"),
        (7, 1, "data"),
        (8, 2, "hole"),
    ]


def test_a_restored_file_can_be_written_to(tmp_path: Path) -> None:
    disk = random_disk(24 * MIB + 512, seed=3)
    check_writable(restored(view_of(disk), disk, tmp_path / "disk.vhdx"), "vhdx", disk, seed=4)


@pytest.mark.parametrize("size", [MIB, 1 << 40, (1 << 40) + 512, (5 << 40) - 512, 64 << 40])
def test_large_disks_have_large_blocks_and_cost_nothing(tmp_path: Path, size: int) -> None:
    asked: list[tuple[int, int]] = []
    runs = [(at, 512) for at in sorted({0, size // 3 // 512 * 512, size - 512})]

    def allocation(start: int, end: int) -> Iterator[tuple[int, int]]:
        asked.append((start, end))
        yield from ((at, length) for at, length in runs if at < end and at + length > start)

    view = VhdxView(size, allocation, IDENTITY)
    assert not asked
    assert view.data_start <= 12 * MIB
    assert view.data_start + size <= view.size < view.data_start + size + view.block_size
    image = tmp_path / "disk.vhdx"
    with image.open("wb") as file:
        file.truncate(view.data_start)
        for start, end in view.tables():
            for part in view.parts(start, end):
                assert part.data is not None
                assert part.length <= 64 << 10
                file.seek(part.start)
                file.write(part.data)
    with OpenFile(image) as opened:
        opened.size = view.size  # file systems hold no 64 TiB
        extents = list(open_vhdx(opened, no_companions).extents())
    found = {e.start // view.block_size for e in extents if e.kind.value == "data"}
    assert found == {at // view.block_size for at, _ in runs}
    asked.clear()
    list(view.parts(3 * MIB, 3 * MIB + 8))
    assert all(end - start <= view.block_size for start, end in asked)


def test_entries_of_sector_bitmaps_stay_empty(tmp_path: Path) -> None:
    size = (9 << 30) + 512
    disk = Disk(size, [(0, 512), ((4 << 30) - 512, 1024), (8 << 30, 512)])
    image = restored(view_of(disk), disk, tmp_path / "disk.vhdx")
    assert "No errors" in run("qemu-img", "check", "-f", "vhdx", image)
    for start, length in disk.runs:
        for at in range(start, start + length, 512):
            pattern = disk.read(at, at + 1)[0]
            said = run("qemu-io", "-f", "vhdx", "-r", "-c", f"read -P {pattern} {at} 512", image)
            assert "Pattern verification failed" not in said


@pytest.mark.parametrize("size", [0, 511, 513, MIB + 1, (64 << 40) + 512])
def test_a_disk_that_a_vhdx_cannot_hold(size: int) -> None:
    with pytest.raises(ViewImpossible, match=f"not {size} bytes"):
        VhdxView(size, lambda start, end: iter(()), IDENTITY)


def test_the_same_disk_is_the_same_file_and_another_has_other_ids() -> None:
    disk = random_disk(MIB, seed=1)

    def tables(identity: bytes) -> list[bytes | None]:
        view = VhdxView(disk.size, disk.allocation, identity)
        return [part.data for start, end in view.tables() for part in view.parts(start, end)]

    assert tables(IDENTITY) == tables(IDENTITY)
    assert tables(IDENTITY) != tables(bytes(16))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 3 * MIB), st.integers(0, 3 * MIB))
def test_the_table_is_right_from_any_byte_to_any_other(seed: int, first: int, second: int) -> None:
    """On a disk so large that the BAT has many entries of bitmaps, and a MiB of blocks."""
    rng = random.Random(seed)
    size = 3 << 40
    starts = sorted(rng.sample(range(0, size, 1 << 20), 40))
    runs = [(at, rng.choice((512, 1 << 20, 1 << 30))) for at in starts]

    def allocation(start: int, end: int) -> Iterator[tuple[int, int]]:
        yield from ((at, length) for at, length in runs if at < end and at + length > start)

    view = VhdxView(size, allocation, IDENTITY)
    start, end = sorted((first, second))
    model = bytearray(view.data_start - 3 * MIB)
    for at, length in runs:
        for block in range(at // view.block_size, -(-min(size, at + length) // view.block_size)):
            entry = block + block // (2**32 // view.block_size)
            place = view.data_start + block * view.block_size | 6
            model[8 * entry : 8 * entry + 8] = place.to_bytes(8, "little")
    found = b"".join(part.data or b"" for part in view.parts(3 * MIB + start, 3 * MIB + end))
    assert found == model[start:end]
