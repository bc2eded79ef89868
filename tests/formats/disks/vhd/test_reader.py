"""Reading VHD, held against qemu-img; differencing disks, which QEMU cannot read, against a model."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import BytesFile, OpenFile
from holdfast.formats.disks.base.image import ExtentKind, Image, ImageFile
from holdfast.formats.disks.open import no_companions
from holdfast.formats.disks.vhd.reader import open_vhd
from support.disk import check_extents, check_image, companions, convert, damaged, raw_disk, read_disk, run
from support.old_disk import MIB, shuffled, vhd_footer, vhd_sum, write_vhd

BLOCK = 2 * MIB
"""QEMU's block size."""


@contextmanager
def opened(path: Path, *others: Path) -> Iterator[Image]:
    with OpenFile(path) as file, companions(*others) as named:
        image = open_vhd(file, named)
        assert image.format == "vhd"
        yield image


def qemu_reads(image: Path) -> bytes:
    raw = image.with_suffix(".by-qemu")
    run("qemu-img", "convert", "-f", "vpc", "-O", "raw", image, raw)
    return raw.read_bytes()


# ---- fixed and dynamic --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "force_size=on", "subformat=fixed", "subformat=fixed,force_size=on"])
@pytest.mark.parametrize("size", [512, 2 * MIB, 19 * MIB + 512 * 9])
def test_what_qemu_writes_is_read_byte_for_byte(tmp_path: Path, options: str, size: int) -> None:
    raw = raw_disk(tmp_path / "raw", size, seed=2, unit=512 << 10)
    image = convert(raw, tmp_path / "disk.vhd", "vpc", options)
    wanted = qemu_reads(image)
    assert wanted.startswith(raw.read_bytes())
    with opened(image) as disk:
        check_image(disk, wanted, block=BLOCK)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_blocks_in_any_order_are_found(tmp_path: Path, seed: int) -> None:
    image, size = tmp_path / "disk.vhd", 40 * MIB + 1024
    run("qemu-img", "create", "-f", "vpc", "-o", "force_size=on", image, str(size))
    wanted = shuffled(image, "vpc", size, BLOCK, seed)
    with opened(image) as disk:
        check_image(disk, wanted, block=BLOCK)


def test_blocks_that_were_never_written_are_holes(tmp_path: Path) -> None:
    image = tmp_path / "disk.vhd"
    run("qemu-img", "create", "-f", "vpc", "-o", "force_size=on", image, "10M")
    run("qemu-io", "-f", "vpc", "-c", "write -P 7 5M 512", image)
    with opened(image) as disk:
        kinds = [(e.start // MIB, e.length // MIB, e.kind.value) for e in disk.extents()]
        assert kinds == [(0, 4, "hole"), (4, 2, "data"), (6, 4, "hole")]


def test_a_fixed_disk_has_the_holes_of_its_file(tmp_path: Path) -> None:
    image = tmp_path / "disk.vhd"
    run("qemu-img", "create", "-f", "vpc", "-o", "subformat=fixed,force_size=on", image, "10M")
    with opened(image) as disk:
        assert check_extents(disk, bytes(10 * MIB)) < MIB
        assert read_disk(disk, MIB) == bytes(10 * MIB)


@pytest.mark.parametrize("type_", [2, 3])
@pytest.mark.parametrize("creator", [b"vpc ", b"qemu", b"qem2", b"win ", b"d2v ", b"tap\0", b"CTXS"])
@pytest.mark.parametrize("geometry", [(100, 4, 17), (65535, 16, 255), (130, 4, 17)])
def test_the_size_is_what_qemu_takes_it_for(
    tmp_path: Path, type_: int, creator: bytes, geometry: tuple[int, int, int]
) -> None:
    size = 4 * MIB + 512
    image = write_vhd(tmp_path / "disk.vhd", {3: b"x" * 512}, size=8 * MIB, unique_id=b"i" * 16)
    footer = vhd_footer(size=size, type_=type_, unique_id=b"i" * 16, creator=creator, geometry=geometry)
    content = image.read_bytes()[:-512]
    head = footer if type_ == 3 else bytes(512)
    image.write_bytes(head + content[512:].ljust(8 * MIB, b"\0") + footer)
    wanted = qemu_reads(image)
    with opened(image) as disk:
        assert disk.size == len(wanted)
        assert read_disk(disk, MIB) == wanted


@pytest.mark.parametrize("creator", [b"wa\0\0", b"vbox", b"    "])
def test_a_creator_that_older_qemu_does_not_know_means_the_size_it_writes(creator: bytes) -> None:
    footer = vhd_footer(size=MIB, type_=2, unique_id=bytes(16), creator=creator, geometry=(1, 2, 3))
    assert open_vhd(BytesFile(bytes(MIB) + footer), no_companions).size == MIB


@pytest.mark.parametrize("block", [512, 4096, 64 << 10, 4 * MIB])
def test_other_block_sizes(tmp_path: Path, block: int) -> None:
    rng = random.Random(block)
    size = 3 * MIB + 512
    sectors = {
        n: rng.randbytes(512)
        for b in rng.sample(range(-(-size // block)), min(20, -(-size // block)))
        for n in range(b * block // 512, (b + 1) * block // 512)
    }
    image = write_vhd(tmp_path / "disk.vhd", sectors, size=size, unique_id=b"i" * 16, block=block)
    wanted = b"".join(sectors.get(n, bytes(512)) for n in range(size // 512))
    if block >= 4096:  # QEMU forgets the bitmap of smaller blocks, which nobody writes
        assert qemu_reads(image) == wanted
    with opened(image) as disk:
        check_image(disk, wanted, block=block)


# ---- differencing -------------------------------------------------------------------------------------


def identity(level: int) -> bytes:
    return bytes([level + 1]) * 16


def chain(folder: Path, seed: int, *sizes: int) -> tuple[list[Path], bytes]:
    """A fixed disk, and on it disks that each differ from the one before in some sectors, the last one first;
    and what it shows."""
    rng = random.Random(seed)
    content = bytearray(rng.randbytes(sizes[0]))
    base = folder / "disk0.vhd"
    base.write_bytes(content + vhd_footer(size=sizes[0], type_=2, unique_id=identity(0)))
    paths = [base]
    for level, size in enumerate(sizes[1:], 1):
        count = size // 512
        sectors: dict[int, bytes] = {}
        for _ in range(6):
            start = rng.randrange(count)
            length = rng.choice((1, 2, 7, 8, 128, 200))
            sectors |= {n: rng.randbytes(512) for n in range(start, min(count, start + length))}
        paths.insert(
            0,
            write_vhd(
                folder / f"disk{level}.vhd",
                sectors,
                size=size,
                unique_id=identity(level),
                parent_id=identity(level - 1),
                parent_name=f"C:\\VMs\\disk{level - 1}.vhd",
            ),
        )
        content = content.ljust(size, b"\0")[:size]
        for number, each in sectors.items():
            content[number * 512 : number * 512 + 512] = each
    return paths, bytes(content)


@pytest.mark.parametrize(
    "sizes", [(MIB, MIB), (MIB, MIB, MIB, MIB), (MIB, 2 * MIB + 512), (MIB, MIB // 2, MIB), (512, 1024)]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_each_sector_is_from_the_youngest_disk_that_has_it(
    tmp_path: Path, sizes: tuple[int, ...], seed: int
) -> None:
    paths, wanted = chain(tmp_path, seed, *sizes)
    with opened(*paths) as disk:
        check_image(disk, wanted, block=64 << 10)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(0, MIB), st.integers(1, 300_000))
def test_any_range_of_a_chain(
    tmp_path_factory: pytest.TempPathFactory, seed: int, at: int, length: int
) -> None:
    paths, wanted = chain(tmp_path_factory.mktemp("chain"), seed, MIB // 2, MIB, MIB)
    end = min(MIB, at + length)
    with opened(*paths) as disk:
        assert read_disk(disk, MIB, at, end) == wanted[at:end]


def test_holes_of_the_parent_are_holes_of_the_child(tmp_path: Path) -> None:
    step = 64 << 10
    base = write_vhd(tmp_path / "base.vhd", {0: b"x" * 512}, size=5 * step, unique_id=b"b" * 16)
    child = write_vhd(
        tmp_path / "child.vhd",
        {3 * step // 512: b"y" * 512},
        size=6 * step,
        unique_id=b"c" * 16,
        parent_id=b"b" * 16,
        parent_name="base.vhd",
    )
    with opened(child, base) as disk:
        kinds = [(e.start // step, e.length // step, e.kind) for e in disk.extents()]
        hole, data = ExtentKind.HOLE, ExtentKind.DATA
        assert kinds == [(0, 1, data), (1, 2, hole), (3, 1, data), (4, 2, hole)]
        assert read_disk(disk, MIB, 3 * step, 4 * step) == b"y" * 512 + bytes(step - 512)


def differencing(folder: Path, name: str, locators: dict[bytes, str]) -> Path:
    return write_vhd(
        folder / "child.vhd",
        {},
        size=MIB,
        unique_id=b"c" * 16,
        parent_id=identity(0),
        parent_name=name,
        locators=locators,
    )


@pytest.mark.parametrize(
    ("name", "locators", "asked"),
    [
        ("base.vhd", {}, ["base.vhd"]),
        ("D:\\some\\base.vhd", {b"W2ru": ".\\base.vhd"}, ["base.vhd"]),
        ("", {b"W2ku": "C:\\x\\base.vhd"}, ["base.vhd"]),
        (
            "old.vhd",
            {b"W2ku": "C:\\base.vhd", b"W2ru": "..\\older.vhd"},
            ["old.vhd", "older.vhd", "base.vhd"],
        ),
        ("/etc/shadow", {b"MacX": "file:///etc/passwd", b"W2ru": "../../base.vhd"}, ["shadow", "base.vhd"]),
        ("..", {b"W2ru": "a/..", b"W2ku": "b\\base.vhd"}, ["base.vhd"]),
    ],
)
def test_a_parent_is_asked_for_by_its_plain_names(
    tmp_path: Path, name: str, locators: dict[bytes, str], asked: list[str]
) -> None:
    base = BytesFile(b"b" * MIB + vhd_footer(size=MIB, type_=2, unique_id=identity(0)), "base.vhd")
    names = []

    def give(wanted: str) -> ImageFile:
        names.append(wanted)
        if wanted != "base.vhd":
            raise ImageRefused(wanted, "nobody named it")
        return base

    with OpenFile(differencing(tmp_path, name, locators)) as file:
        assert read_disk(open_vhd(file, give), MIB) == b"b" * MIB
    assert names == asked


def test_a_parent_that_nobody_named_or_that_has_no_name_is_refused(tmp_path: Path) -> None:
    for name, says in (("gone.vhd", "gone.vhd: nobody named it"), ("", "does not name its parent")):
        with pytest.raises(ImageRefused, match=says), opened(differencing(tmp_path, name, {b"W2ru": name})):
            pass


def test_a_parent_with_another_identity_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base.vhd"
    base.write_bytes(bytes(MIB) + vhd_footer(size=MIB, type_=2, unique_id=identity(7)))
    says = f"child.vhd: it was made on a disk with ID {'01' * 16}; base.vhd has another, {'08' * 16}"
    with pytest.raises(ImageRefused, match=says), opened(differencing(tmp_path, "base.vhd", {}), base):
        pass


def test_chains_that_never_end_are_refused(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"size": 1024, "parent_name": "other.vhd"}
    one = write_vhd(tmp_path / "one.vhd", {}, unique_id=b"1" * 16, parent_id=b"2" * 16, **loop)
    two = write_vhd(tmp_path / "other.vhd", {}, unique_id=b"2" * 16, parent_id=b"2" * 16, **loop)
    with pytest.raises(ImageRefused, match=r"other\.vhd: it is a parent of itself"), opened(one, two):
        pass
    paths, wanted = chain(tmp_path, 1, *[1024] * 32)
    with opened(*paths) as disk:
        assert read_disk(disk, 1024) == wanted
    paths, _ = chain(tmp_path, 1, *[1024] * 33)
    with pytest.raises(ImageRefused, match="end of a chain of 32 disks"), opened(*paths):
        pass


# ---- damage -------------------------------------------------------------------------------------------


def test_a_footer_that_is_missing_or_wrong_is_damage(tmp_path: Path) -> None:
    for options in ("subformat=fixed", ""):
        raw = raw_disk(tmp_path / "raw", 8 * MIB, seed=5)
        image = convert(raw, tmp_path / "good", "vpc", options)
        whole = image.stat().st_size
        for changes, size in (
            ({}, whole - 1),
            ({}, whole - 512),
            ({}, whole - MIB),
            ({whole - 400: b"!"}, whole),
        ):
            broken = damaged(image, tmp_path / "disk.vhd", changes, size=size)
            with pytest.raises(ImageDamaged, match=rf"offset {size - 512}: no valid footer"), opened(broken):
                pass
    for size in (0, 100):
        with pytest.raises(ImageDamaged, match=r"offset 0: .* has no footer"):
            open_vhd(BytesFile(bytes(size)), no_companions)


def test_a_footer_and_its_copy_that_contradict_each_other_are_damage(tmp_path: Path) -> None:
    image = write_vhd(tmp_path / "disk.vhd", {}, size=MIB, unique_id=b"i" * 16)
    other = vhd_footer(size=2 * MIB, type_=3, unique_id=b"i" * 16)
    with pytest.raises(ImageDamaged, match="contradict"), opened(damaged(image, tmp_path / "x", {0: other})):
        pass
    with opened(damaged(image, tmp_path / "x", {3: b"?"})) as disk:
        assert disk.size == MIB


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": MIB + 512}, "a disk of 1049088 bytes in a file of"),
        ({"size": 1 << 62}, "a disk of"),
        ({"creator": b"vpc ", "geometry": (0, 16, 255)}, "geometry is of no size"),
        ({"creator": b"vpc ", "geometry": (65535, 16, 254)}, "a disk of"),
        ({"type_": 5}, "it is a VHD of type 5"),
        ({"version": 2 << 16}, "it is VHD version 2"),
    ],
)
def test_impossible_footers(changes: dict[str, object], says: str) -> None:
    fields: dict[str, object] = {"size": MIB, "type_": 2, "unique_id": bytes(16), **changes}
    footer = vhd_footer(**fields)  # type: ignore[arg-type]  # fields by name
    with pytest.raises((ImageDamaged, ImageRefused), match=says):
        open_vhd(BytesFile(bytes(MIB) + footer), no_companions)


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [
        (0, b"cxsparsf", "offset 512: there is no valid dynamic header"),
        (16, struct.pack(">Q", 1 << 63), "offset 512: a table of 16 blocks at 9223372036854775808"),
        (24, struct.pack(">I", 2 << 16), "its header is of version 2"),
        (28, struct.pack(">I", 15), "offset 512: a disk of 1048576 bytes in 15 blocks"),
        (28, struct.pack(">I", 0xFFFFFFFF), "offset 512: a table of 4294967295 blocks"),
        (32, struct.pack(">I", 0), "offset 512: a block size of 0"),
        (32, struct.pack(">I", 256), "offset 512: a block size of 256"),
        (32, struct.pack(">I", 3 << 16), "offset 512: a block size of 196608"),
    ],
)
def test_impossible_dynamic_headers(tmp_path: Path, offset: int, value: bytes, says: str) -> None:
    image = write_vhd(tmp_path / "good", {}, size=MIB, unique_id=b"i" * 16)
    header = bytearray(image.read_bytes()[512:1536])
    header[offset : offset + len(value)] = value
    broken = damaged(image, tmp_path / "disk.vhd", {512: vhd_sum(bytes(header), 36)})
    with pytest.raises((ImageDamaged, ImageRefused), match=rf"disk\.vhd: .*{says}"), opened(broken):
        pass
    unsummed = damaged(image, tmp_path / "disk.vhd", {512 + 900: b"!"})
    with pytest.raises(ImageDamaged, match="no valid dynamic header"), opened(unsummed):
        pass


def test_entries_of_blocks_that_are_not_there_are_damage_where_they_are_needed(tmp_path: Path) -> None:
    sectors = dict.fromkeys(range(128), b"x" * 512)
    image = write_vhd(tmp_path / "good", sectors, size=MIB, unique_id=b"i" * 16)
    table = 512 + 1024 + 8 * 512
    changes = {table + 4: struct.pack(">II", 0, 1 << 20)}
    with opened(damaged(image, tmp_path / "disk.vhd", changes)) as disk:
        assert read_disk(disk, MIB, 0, 65536) == b"x" * 65536
        with pytest.raises(ImageDamaged, match=f"offset {table + 4}: the table entry of block 1"):
            read_disk(disk, MIB, 65536, 65537)
        with pytest.raises(ImageDamaged, match=f"offset {(1 << 29) + 512}: the block of"):
            read_disk(disk, MIB, 2 * 65536, 2 * 65536 + 1)
        assert read_disk(disk, MIB, 3 * 65536) == bytes(MIB - 3 * 65536)
