"""Reading VHDX: held against qemu-img over every option it can write with, and against hand-made images for
what QEMU never writes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.formats.disks.base.blocks import BlockImage
from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import OpenFile
from holdfast.formats.disks.base.image import ExtentKind
from holdfast.formats.disks.open import no_companions
from holdfast.formats.disks.vhdx import format as vhdx
from holdfast.formats.disks.vhdx.reader import open_vhdx
from support.disk import check_extents, check_image, convert, damaged, raw_disk, read_disk, run
from support.old_disk import MIB, shuffled, write_vhdx


@contextmanager
def opened(path: Path) -> Iterator[BlockImage]:
    with OpenFile(path) as file:
        image = open_vhdx(file, no_companions)
        assert isinstance(image, BlockImage)
        assert image.format == "vhdx"
        yield image


def kinds(image: BlockImage) -> list[tuple[int, int, str]]:
    return [(extent.start, extent.length, extent.kind.value) for extent in image.extents()]


# ---- the checksum -------------------------------------------------------------------------------------


def test_a_checksum_is_a_crc32c_that_takes_its_own_place_for_zeros() -> None:
    assert vhdx.checksum(bytes(4) + b"\xab\xcd\xef\x01" + bytes(24)) == 0x8A9136AA  # 32 zeros: RFC 3720, B.4


# ---- against QEMU -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "",
        "block_size=1M",
        "block_size=16M,log_size=3M",
        "subformat=fixed",
        "subformat=fixed,block_size=2M",
        "subformat=fixed,block_state_zero=off,block_size=1M",
        "block_size=256M",
    ],
)
def test_what_qemu_writes_is_read_byte_for_byte(tmp_path: Path, options: str) -> None:
    raw = raw_disk(tmp_path / "raw", 19 * MIB + 512 * 9, seed=2, unit=256 << 10)
    image = convert(raw, tmp_path / "disk.vhdx", "vhdx", options)
    with opened(image) as disk:
        check_image(disk, raw.read_bytes(), block=min(disk.block_size, 4 * MIB))


@pytest.mark.parametrize("size", [512, MIB - 512, MIB, MIB + 512, 5 * MIB])
def test_disks_of_odd_sizes(tmp_path: Path, size: int) -> None:
    raw = raw_disk(tmp_path / "raw", size, seed=size, unit=4096)
    with opened(convert(raw, tmp_path / "disk.vhdx", "vhdx", "block_size=1M")) as disk:
        check_image(disk, raw.read_bytes(), block=disk.block_size)


@pytest.mark.parametrize(("zero", "kind"), [("on", "zero"), ("off", "hole")])
def test_blocks_that_were_never_written_are_told_from_data(tmp_path: Path, zero: str, kind: str) -> None:
    image = tmp_path / "disk.vhdx"
    run("qemu-img", "create", "-f", "vhdx", "-o", f"block_size=1M,block_state_zero={zero}", image, "8M")
    run("qemu-io", "-f", "vhdx", "-c", "write -P 7 2M 1M", "-c", "write -P 7 3M 512", image)
    with opened(image) as disk:
        assert kinds(disk) == [
            (0, 2 * MIB, kind),
            (2 * MIB, 2 * MIB, "data"),
            (4 * MIB, 4 * MIB, kind),
        ]
        check_image(disk, bytes(2 * MIB) + b"\7" * (MIB + 512) + bytes(5 * MIB - 512), block=MIB)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_blocks_in_any_order_are_found(tmp_path: Path, seed: int) -> None:
    image, size = tmp_path / "disk.vhdx", 24 * MIB + 1024
    run("qemu-img", "create", "-f", "vhdx", "-o", "block_size=1M", image, str(size))
    wanted = shuffled(image, "vhdx", size, MIB, seed)
    with opened(image) as disk:
        check_image(disk, wanted, block=MIB)


@pytest.mark.parametrize("block", [1, 32, 256])
def test_entries_of_sector_bitmaps_between_the_others_are_passed_over(tmp_path: Path, block: int) -> None:
    image, size = tmp_path / "disk.vhdx", 13 << 30
    run("qemu-img", "create", "-f", "vhdx", "-o", f"block_size={block}M", image, str(size))
    edges = [0, (4 << 30) - 512, 4 << 30, (8 << 30) - 1024, (12 << 30) + 4096, size - 512]
    run(
        "qemu-io",
        "-f",
        "vhdx",
        *(w for n, at in enumerate(edges) for w in ("-c", f"write -P {n + 1} {at} 512")),
        image,
    )
    with opened(image) as disk:
        for number, at in enumerate(edges):
            assert read_disk(disk, 512, at, at + 512) == bytes([number + 1]) * 512
        span = (4 << 30) - 1024, (4 << 30) + 1024
        assert read_disk(disk, 4096, *span) == bytes(512) + b"\2" * 512 + b"\3" * 512 + bytes(512)
        found = [e for e in disk.extents() if e.kind is ExtentKind.DATA]
        assert sum(e.length for e in found) == len({at // disk.block_size for at in edges}) * disk.block_size
        assert all(any(e.start <= at < e.start + e.length for e in found) for at in edges)


def test_the_largest_disk_costs_a_walk_over_its_table_and_no_memory(tmp_path: Path) -> None:
    image = tmp_path / "disk.vhdx"
    write_vhdx(image, size=64 << 40)
    assert image.stat().st_size > 512 * MIB
    with opened(image) as disk:
        assert kinds(disk) == [(0, 64 << 40, "hole")]
        assert read_disk(disk, MIB, (64 << 40) - MIB) == bytes(MIB)


# ---- hand-made images ---------------------------------------------------------------------------------


def test_every_state_of_a_block(tmp_path: Path) -> None:
    at = 8 * MIB
    states = [vhdx.NOT_PRESENT, vhdx.UNDEFINED, vhdx.ZEROED, vhdx.UNMAPPED, vhdx.UNMAPPED_OLD]
    bat = {n: at | state for n, state in enumerate(states)} | {5: at | vhdx.FULLY_PRESENT}
    image = write_vhdx(tmp_path / "disk.vhdx", size=6 * MIB, bat=bat, data={at: b"x" * MIB})
    with opened(image) as disk:
        assert [kind for _, _, kind in kinds(disk)] == ["hole", "zero", "hole", "data"]
        check_image(disk, bytes(5 * MIB) + b"x" * MIB, block=MIB)


@pytest.mark.parametrize(
    "entry",
    [
        8 * MIB | vhdx.PARTIALLY_PRESENT,
        8 * MIB | 4,
        8 * MIB | vhdx.FULLY_PRESENT | 1 << 10,
        1 << 63 | vhdx.FULLY_PRESENT,
        vhdx.FULLY_PRESENT,
    ],
    ids=["partial", "unknown", "reserved", "huge", "in the headers"],
)
def test_an_impossible_entry_is_damage_where_it_is_needed(tmp_path: Path, entry: int) -> None:
    bat = {0: 8 * MIB | vhdx.FULLY_PRESENT, 1: entry}
    image = write_vhdx(tmp_path / "disk.vhdx", size=3 * MIB, bat=bat, data={8 * MIB: b"x" * MIB})
    with opened(image) as disk:
        assert read_disk(disk, MIB, 0, MIB) == b"x" * MIB
        assert read_disk(disk, MIB, 2 * MIB) == bytes(MIB)
        with pytest.raises(ImageDamaged, match=r"disk\.vhdx: .* offset 3145736: .*entry of block 1"):
            read_disk(disk, 3 * MIB)
        check_extents(disk, b"x" * MIB + bytes(2 * MIB))


def test_a_disk_with_sectors_of_4096_bytes(tmp_path: Path) -> None:
    """Sector bitmaps are then eight times as far apart: entry 32,768, behind 32 GiB of 1 MiB blocks."""
    image = write_vhdx(
        tmp_path / "disk.vhdx",
        size=(33 << 30),
        sector=4096,
        bat={4096: 8 * MIB | 6, 32767: 9 * MIB | 6, 32769: 10 * MIB | 6},
        data={8 * MIB: b"a" * MIB, 9 * MIB: b"b" * MIB, 10 * MIB: b"c" * MIB},
    )
    with opened(image) as disk:
        data = [extent.start for extent in disk.extents() if extent.kind is ExtentKind.DATA]
        assert data == [4 << 30, (32 << 30) - MIB]
        assert read_disk(disk, MIB, 4 << 30, (4 << 30) + 1) == b"a"
        assert read_disk(disk, MIB, (32 << 30) - 1, (32 << 30) + 1) == b"bc"


def test_neighbours_in_the_file_are_read_at_once(tmp_path: Path) -> None:
    reads: list[int] = []

    class Counting(OpenFile):
        def read_into(self, buffer: memoryview, offset: int) -> int:
            reads.append(offset)
            return super().read_into(buffer, offset)

    raw = raw_disk(tmp_path / "raw", 16 * MIB, seed=5)
    with Counting(convert(raw, tmp_path / "disk.vhdx", "vhdx", "subformat=fixed,block_size=1M")) as file:
        disk = open_vhdx(file, no_companions)
        read_disk(disk, MIB, 0, MIB)
        reads.clear()
        read_disk(disk, 8 * MIB)
        assert len(reads) == 2


# ---- headers, regions, metadata -----------------------------------------------------------------------


def test_the_newer_valid_header_holds(tmp_path: Path) -> None:
    stale = vhdx.Header(7, version=2)
    for name, headers in (("a", (stale, vhdx.Header(8))), ("b", (vhdx.Header(8), stale))):
        with opened(write_vhdx(tmp_path / name, size=MIB, headers=headers)) as disk:
            assert disk.size == MIB
    image = write_vhdx(tmp_path / "c", size=MIB, headers=(vhdx.Header(3), vhdx.Header(9, version=2)))
    with pytest.raises(ImageRefused, match="c: it is VHDX version 2"), opened(image):
        pass
    with opened(damaged(image, tmp_path / "d", {(128 << 10) + 99: b"!"})) as disk:
        assert disk.size == MIB


def test_equal_headers_are_as_good_as_one_and_contradicting_ones_are_damage(tmp_path: Path) -> None:
    with opened(write_vhdx(tmp_path / "a", size=MIB, headers=(vhdx.Header(4), vhdx.Header(4)))):
        pass
    image = write_vhdx(tmp_path / "b", size=MIB, headers=(vhdx.Header(4), vhdx.Header(4, log_length=2 * MIB)))
    with pytest.raises(ImageDamaged, match="one sequence number differ"), opened(image):
        pass


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [(64 << 10, 128 << 10, "headers"), (192 << 10, 256 << 10, "region tables")],
)
def test_one_of_each_pair_is_enough_and_none_is_damage(
    tmp_path: Path, first: int, second: int, what: str
) -> None:
    image = write_vhdx(tmp_path / "disk.vhdx", size=MIB)
    for number, at in enumerate((first, second)):
        with opened(damaged(image, tmp_path / f"{number}", {at + 3000: b"?"})):
            pass
    broken = damaged(image, tmp_path / "2", {first + 3000: b"?", second + 3000: b"?"})
    with pytest.raises(ImageDamaged, match=f"offset {first}: neither of the two {what}"), opened(broken):
        pass


@pytest.mark.parametrize(
    ("regions", "says"),
    [
        ([(b"u" * 16, 5 * MIB, MIB)], "region of an unknown kind"),
        ([(vhdx.BAT, 3 * MIB, MIB)], "does not name the BAT and the metadata"),
        ([(vhdx.BAT, 3 * MIB, MIB)] * 2, "twice the same"),
        ([(vhdx.BAT, 3 * MIB + 4096, MIB)], "region of 1048576 bytes at 3149824"),
        ([(vhdx.BAT, 0, MIB)], "region of 1048576 bytes at 0"),
        ([(vhdx.BAT, 3 * MIB, 0)], "region of 0 bytes"),
        ([(vhdx.BAT, 3 * MIB, 7 * MIB)], "region of 7340032 bytes"),
        ([(vhdx.BAT, (1 << 64) - MIB, MIB)], "region of"),
        ([(vhdx.BAT, 2 * MIB, 2 * MIB), (vhdx.METADATA, 3 * MIB, MIB)], "lie over each other"),
    ],
)
def test_impossible_regions(tmp_path: Path, regions: list[tuple[bytes, int, int]], says: str) -> None:
    image = write_vhdx(tmp_path / "disk.vhdx", size=MIB, regions=regions, data={8 * MIB: b"x"})
    with pytest.raises((ImageDamaged, ImageRefused), match=says), opened(image):
        pass


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ({vhdx.FILE_PARAMETERS: struct.pack("<II", MIB, 2)}, "differencing disk"),
        ({vhdx.FILE_PARAMETERS: struct.pack("<II", 3 * MIB, 0)}, "block size of 3145728"),
        ({vhdx.FILE_PARAMETERS: struct.pack("<II", 512 * MIB, 0)}, "block size of 536870912"),
        ({vhdx.FILE_PARAMETERS: struct.pack("<II", MIB // 2, 0)}, "block size of 524288"),
        ({vhdx.FILE_PARAMETERS: bytes(4)}, "item of 4 bytes"),
        ({vhdx.FILE_PARAMETERS: None}, "lack the size"),
        ({vhdx.VIRTUAL_SIZE: struct.pack("<Q", (64 << 40) + 512)}, "disk of"),
        ({vhdx.VIRTUAL_SIZE: struct.pack("<Q", 513)}, "disk of 513"),
        ({vhdx.VIRTUAL_SIZE: struct.pack("<Q", 1 << 40)}, "1048576 blocks do not fit"),
        ({vhdx.LOGICAL_SECTOR: struct.pack("<I", 1024)}, "sector size of 1024"),
        ({b"unknown to all  ": b"x"}, "metadata of an unknown kind"),
    ],
)
def test_impossible_metadata(tmp_path: Path, items: dict[bytes, bytes | None], says: str) -> None:
    image = write_vhdx(tmp_path / "disk.vhdx", size=MIB, items=items)
    with pytest.raises((ImageDamaged, ImageRefused), match=says), opened(image):
        pass


def test_metadata_items_outside_their_region_are_damage(tmp_path: Path) -> None:
    image = write_vhdx(tmp_path / "disk.vhdx", size=MIB)
    for offset in (0, 65535, MIB - 7, 0xFFFFFFFF):
        broken = damaged(image, tmp_path / "x", {2 * MIB + 32 + 16: struct.pack("<I", offset)})
        with pytest.raises(ImageDamaged, match="offset 2097184: a metadata item of 8 bytes"), opened(broken):
            pass


def test_a_file_cut_off_is_damage_at_the_block_that_is_gone(tmp_path: Path) -> None:
    raw = raw_disk(tmp_path / "raw", 16 * MIB, seed=5)
    image = convert(raw, tmp_path / "disk.vhdx", "vhdx", "subformat=fixed,block_size=1M")
    wanted, whole = raw.read_bytes(), image.stat().st_size
    with opened(damaged(image, tmp_path / "cut", {}, size=whole - 512)) as disk:
        assert read_disk(disk, MIB, 0, 15 * MIB) == wanted[: 15 * MIB]
        with pytest.raises(ImageDamaged, match=f"offset {whole - MIB}: the block of .* the file ends at"):
            read_disk(disk, MIB)
    for size in (0, 7, 4096, 100 << 10, 200 << 10, MIB, 2 * MIB):
        with (
            pytest.raises(ImageDamaged, match="offset"),
            opened(damaged(image, tmp_path / "cut", {}, size=size)),
        ):
            pass
