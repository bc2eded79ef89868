"""VDI, in and out, held against QEMU."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.formats.disks.base.blocks import BlockImage
from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import OpenFile
from holdfast.formats.disks.base.view import ViewImpossible
from holdfast.formats.disks.open import no_companions
from holdfast.formats.disks.vdi.reader import open_vdi
from holdfast.formats.disks.vdi.view import VdiView
from support.disk import check_image, convert, damaged, raw_disk, read_disk, run
from support.old_disk import MIB, Disk, check_parts, check_writable, random_disk, restored, shuffled

IDENTITY = bytes(range(16))
LARGEST = ((4095 * MIB - 512) // 4) * MIB
"""Bytes of the largest disk whose block map ends before the last MiB that 32 bits can name."""


@contextmanager
def opened(path: Path) -> Iterator[BlockImage]:
    with OpenFile(path) as file:
        image = open_vdi(file, no_companions)
        assert isinstance(image, BlockImage)
        assert image.format == "vdi"
        yield image


def write_vdi(
    path: Path,
    entries: list[int],
    blocks: list[bytes],
    *,
    block: int,
    extra: int = 0,
    size: int | None = None,
) -> Path:
    """A VDI with these map entries and blocks, of any block size, each behind `extra` bytes of rubbish."""
    header = bytearray(512)
    struct.pack_into("<IIII", header, 64, 0xBEDA107F, 0x10001, 400, 1)
    data = -(-(512 + 4 * len(entries)) // 512) * 512
    struct.pack_into("<II", header, 340, 512, data)
    struct.pack_into("<I", header, 360, 512)
    disk_size = len(entries) * block if size is None else size
    struct.pack_into("<QIIII", header, 368, disk_size, block, extra, len(entries), len(blocks))
    content = bytes(header) + struct.pack(f"<{len(entries)}I", *entries)
    path.write_bytes(content.ljust(data, b"\0") + b"".join(b"?" * extra + each for each in blocks))
    return path


# ---- in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "static=on"])
@pytest.mark.parametrize("size", [512, MIB - 512, MIB, 19 * MIB + 512 * 9])
def test_what_qemu_writes_is_read_byte_for_byte(tmp_path: Path, options: str, size: int) -> None:
    raw = raw_disk(tmp_path / "raw", size, seed=2, unit=128 << 10)
    with opened(convert(raw, tmp_path / "disk.vdi", "vdi", options)) as disk:
        check_image(disk, raw.read_bytes(), block=MIB)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_blocks_in_any_order_are_found(tmp_path: Path, seed: int) -> None:
    image, size = tmp_path / "disk.vdi", 24 * MIB + 1024
    run("qemu-img", "create", "-f", "vdi", image, str(size))
    wanted = shuffled(image, "vdi", size, MIB, seed)
    with opened(image) as disk:
        check_image(disk, wanted, block=MIB)


def test_holes_and_zeros_are_told_from_data_as_by_qemu(tmp_path: Path) -> None:
    image = write_vdi(
        tmp_path / "disk.vdi", [0xFFFFFFFF, 0xFFFFFFFE, 1, 0], [b"a" * MIB, b"b" * MIB], block=MIB
    )
    raw = tmp_path / "raw"
    run("qemu-img", "convert", "-f", "vdi", "-O", "raw", image, raw)
    with opened(image) as disk:
        kinds = [(e.start // MIB, e.length // MIB, e.kind.value) for e in disk.extents()]
        assert kinds == [(0, 1, "hole"), (1, 1, "zero"), (2, 2, "data")]
        check_image(disk, raw.read_bytes(), block=MIB)


def test_other_block_sizes_and_bytes_before_each_block(tmp_path: Path) -> None:
    for block, extra in ((512, 0), (64 << 10, 512), (2 * MIB, 4096)):
        blocks = [bytes([n + 1]) * block for n in range(5)]
        image = write_vdi(tmp_path / "disk.vdi", [3, 0xFFFFFFFF, 0, 1], blocks, block=block, extra=extra)
        with opened(image) as disk:
            check_image(disk, blocks[3] + bytes(block) + blocks[0] + blocks[1], block=block)


def test_a_size_that_is_no_whole_sector_is_rounded_up_as_by_qemu(tmp_path: Path) -> None:
    image = write_vdi(tmp_path / "disk.vdi", [1, 0], [b"a" * MIB, b"b" * MIB], block=MIB, size=MIB + 700)
    raw = tmp_path / "raw"
    run("qemu-img", "convert", "-f", "vdi", "-O", "raw", image, raw)
    assert raw.stat().st_size == MIB + 1024
    with opened(image) as disk:
        check_image(disk, raw.read_bytes(), block=MIB)


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [
        (64, b"\0\0\0\0", "offset 64: there is no VDI signature"),
        (68, struct.pack("<I", 1), r"it is VDI version 0\.1"),
        (76, struct.pack("<I", 3), "it is an undo image"),
        (76, struct.pack("<I", 4), "it is a differencing image"),
        (76, struct.pack("<I", 5), "it is a VDI of type 5"),
        (424, b"x", "it names an image below it"),
        (440, b"x", "it names an image below it"),
        (340, struct.pack("<I", 256), "offset 340: a map of 8 blocks at 256"),
        (340, struct.pack("<I", 0xFFFFFE00), "offset 340: a map of 8 blocks at 4294966784"),
        (344, struct.pack("<I", 512), "offset 340: .* before data at 512"),
        (360, struct.pack("<I", 4096), "offset 360: a sector size of 4096"),
        (376, struct.pack("<I", 0), "offset 376: a block size of 0"),
        (376, struct.pack("<I", MIB - 512), "offset 376: a block size of 1048064"),
        (368, struct.pack("<Q", 8 * MIB + 1), "offset 368: a disk of 8388609 bytes in 8 blocks"),
        (368, b"\xff" * 8, "offset 368: a disk of"),
        (384, struct.pack("<I", 7), "offset 368: a disk of 8388608 bytes in 7 blocks"),
        (384, struct.pack("<I", 0x40000000), "offset 368: a disk of"),
        (384, struct.pack("<I", 0x3FFFFFFF), "offset 340: a map of 1073741823 blocks"),
    ],
)
def test_impossible_headers(tmp_path: Path, offset: int, value: bytes, says: str) -> None:
    raw = raw_disk(tmp_path / "raw", 8 * MIB, seed=5)
    broken = damaged(convert(raw, tmp_path / "good", "vdi"), tmp_path / "disk.vdi", {offset: value})
    with pytest.raises((ImageDamaged, ImageRefused), match=rf"disk\.vdi: .*{says}"), opened(broken):
        pass


def test_an_entry_of_a_block_that_is_not_there_is_damage_where_it_is_needed(tmp_path: Path) -> None:
    image = write_vdi(tmp_path / "disk.vdi", [0, 3, 2], [b"a" * MIB], block=MIB)
    with opened(image) as disk:
        assert read_disk(disk, MIB, 0, MIB) == b"a" * MIB
        with pytest.raises(ImageDamaged, match="offset 516: the table entry of block 1"):
            read_disk(disk, MIB, MIB, MIB + 1)
        with pytest.raises(ImageDamaged, match=f"offset {1024 + 2 * MIB}: the block of .* file ends at"):
            read_disk(disk, MIB, 2 * MIB)


def test_a_file_cut_off_is_damage(tmp_path: Path) -> None:
    raw = raw_disk(tmp_path / "raw", 8 * MIB, seed=5)
    image = convert(raw, tmp_path / "good", "vdi", "static=on")
    whole = image.stat().st_size
    with opened(damaged(image, tmp_path / "disk.vdi", {}, size=whole - 1)) as disk:
        assert read_disk(disk, MIB, 0, 7 * MIB) == raw.read_bytes()[: 7 * MIB]
        with pytest.raises(ImageDamaged, match=f"offset {whole - MIB}"):
            read_disk(disk, MIB)
    for size in (0, 100, 511, 512, 540):
        with pytest.raises(ImageDamaged), opened(damaged(image, tmp_path / "disk.vdi", {}, size=size)):
            pass


# ---- out ----------------------------------------------------------------------------------------------


def view_of(disk: Disk) -> VdiView:
    return VdiView(disk.size, disk.allocation, IDENTITY)


DISKS = [
    Disk(512, []),
    Disk(512, [(0, 512)]),
    Disk(MIB + 512, [(MIB, 512)]),
    Disk(9 * MIB - 512, []),
    Disk(9 * MIB - 512, [(0, 9 * MIB - 512)]),
    random_disk(7 * MIB + 512 * 5, seed=1),
]


@pytest.mark.parametrize("disk", DISKS, ids=str)
def test_qemu_finds_no_fault_and_the_same_bytes(tmp_path: Path, disk: Disk) -> None:
    image = restored(view_of(disk), disk, tmp_path / "disk.vdi")
    raw = disk.write(tmp_path / "raw")
    assert "No errors" in run("qemu-img", "check", "-f", "vdi", image)
    assert "identical" in run("qemu-img", "compare", "-f", "vdi", "-F", "raw", image, raw)
    assert f"({disk.size} bytes)" in run("qemu-img", "info", "-f", "vdi", image)
    with opened(image) as again:
        check_image(again, raw.read_bytes(), block=MIB)


@pytest.mark.parametrize("disk", DISKS, ids=str)
def test_any_part_is_a_part_of_the_whole(tmp_path: Path, disk: Disk) -> None:
    view = view_of(disk)
    check_parts(view, disk, restored(view, disk, tmp_path / "disk.vdi"))


def test_a_restored_file_has_holes_that_qemu_sees(tmp_path: Path) -> None:
    disk = Disk(64 * MIB, [(20 * MIB, MIB), (50 * MIB, 65536)])
    image = restored(view_of(disk), disk, tmp_path / "disk.vdi")
    assert image.stat().st_blocks * 512 < 2 * MIB
    lines = run("qemu-img", "map", "-f", "vdi", image).splitlines()[1:]
    found = [tuple(int(word, 16) for word in line.split()[:2]) for line in lines if line]
    assert found == disk.runs


def test_a_restored_file_can_be_written_to(tmp_path: Path) -> None:
    disk = random_disk(24 * MIB + 512, seed=3)
    check_writable(restored(view_of(disk), disk, tmp_path / "disk.vdi"), "vdi", disk, seed=4)


@pytest.mark.parametrize("size", [0, 511, 513, LARGEST + 512, 1 << 60])
def test_a_disk_that_a_vdi_cannot_hold(size: int) -> None:
    with pytest.raises(ViewImpossible, match=f"not {size} bytes"):
        VdiView(size, lambda start, end: iter(()), IDENTITY)


def test_the_largest_disk_costs_nothing() -> None:
    view = VdiView(LARGEST, lambda start, end: iter(()), IDENTITY)
    rng = random.Random(1)
    assert view.data_start == 4095 * MIB
    map_end = list(view.tables())[-1][1]
    assert map_end == view.data_start
    for _ in range(50):
        start = rng.randrange(512, map_end - 4096) // 4 * 4
        (part,) = view.parts(start, start + 4096)
        assert part.data is not None
        numbers = struct.unpack("<1024I", part.data)
        assert numbers == tuple(range((start - 512) // 4, (start - 512) // 4 + 1024))
