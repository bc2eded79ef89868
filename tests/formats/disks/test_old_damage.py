"""Damaged VHDX, VHD and VDI images: refused with the offset, or read right, or different in a way that the
format cannot tell. Never another exception, a short read, a hang or memory by the disk's size."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import BytesFile, OpenFile
from holdfast.formats.disks.base.image import Companions, ExtentKind, Image, ImageFile
from holdfast.formats.disks.open import no_companions
from holdfast.formats.disks.vdi.reader import open_vdi
from holdfast.formats.disks.vhd.reader import open_vhd
from holdfast.formats.disks.vhdx.format import sealed
from holdfast.formats.disks.vhdx.reader import open_vhdx
from support.disk import convert, raw_disk, run
from support.old_disk import MIB, log_entry, make_dirty, vhd_sum, write_vhd, write_vhdx

Opener = Callable[[ImageFile, Companions], Image]

OPENERS: dict[str, Opener] = {
    "vhdx": open_vhdx,
    "vhdx-log": open_vhdx,
    "vhd": open_vhd,
    "vhd-fixed": open_vhd,
    "vhd-child": open_vhd,
    "vdi": open_vdi,
}

HEADS: dict[str, list[tuple[int, int]]] = {
    "vhdx": [
        (0, 16),
        (64 << 10, 80),
        (128 << 10, 80),
        (192 << 10, 96),
        (256 << 10, 96),
        (2 << 20, 256),
        ((2 << 20) + (64 << 10), 64),
        (3 << 20, 64),
    ],
    "vhdx-log": [(1 << 20, 4096 * 4), (64 << 10, 80), (128 << 10, 80)],
    "vhd": [(0, 128), (512, 64), (1536, 64), (-512, 100)],
    "vhd-fixed": [(-512, 100)],
    "vhd-child": [(0, 128), (512, 1024), (1536, 64), (5632, 64), (6144, 1024), (-512, 100)],
    "vdi": [(0, 512), (512, 64)],
}
"""Where the tables of the images below are: start (from the end when negative) and length."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """A small image of each kind."""
    folder = tmp_path_factory.mktemp("images")
    raw = raw_disk(folder / "raw", 6 * MIB, seed=11, unit=MIB)
    result = {
        "vhdx": convert(raw, folder / "a", "vhdx", "block_size=1M").read_bytes(),
        "vhd": convert(raw, folder / "a", "vpc", "force_size=on").read_bytes(),
        "vhd-fixed": convert(raw, folder / "a", "vpc", "subformat=fixed,force_size=on").read_bytes(),
        "vdi": convert(raw, folder / "a", "vdi").read_bytes(),
    }
    dirty = write_vhdx(folder / "a", size=2 * MIB, bat={0: 4 * MIB | 6}, data={4 * MIB: b"x" * MIB})
    entries = [
        log_entry(5, 0, [(4 * MIB, b"y" * 4096), (4 * MIB + 8192, 8192)], flushed=5 * MIB),
        log_entry(6, 0, [(4 * MIB + 4096, b"z" * 4096)], flushed=5 * MIB, last=6 * MIB),
    ]
    result["vhdx-log"] = make_dirty(dirty, {0: entries[0], 8192: entries[1]}).read_bytes()
    child = write_vhd(
        folder / "a",
        {n: bytes([n % 250]) * 512 for n in range(0, 2000, 3)},
        size=MIB,
        unique_id=b"c" * 16,
        parent_id=result["vhd-fixed"][-512:][68:84],
        parent_name="parent.vhd",
        locators={b"W2ru": ".\\parent.vhd", b"W2ku": "C:\\parent.vhd"},
    )
    result["vhd-child"] = child.read_bytes()
    return result


def read_all(kind: str, content: bytes, images: Mapping[str, bytes]) -> bytes:
    """Read a whole image that may be damaged, when it claims no absurd size, and else a sample of it."""

    def give(name: str) -> ImageFile:
        if name != "parent.vhd":
            raise ImageRefused(name, "nobody named it")
        return BytesFile(images["vhd-fixed"], name)

    disk = OPENERS[kind](BytesFile(content, "the image"), give)
    at = 0
    for count, extent in enumerate(disk.extents()):
        assert extent.start == at
        assert extent.length > 0
        at += extent.length
        if count > 10_000:
            break
    else:
        assert at == disk.size
    size = min(disk.size, 16 * MIB)
    buffer = bytearray(b"\xa5" * size)
    disk.read_into(memoryview(buffer), 0)
    tail = bytearray(min(4096, disk.size))
    disk.read_into(memoryview(tail), disk.size - len(tail))
    return bytes(buffer)


def try_damage(kind: str, content: bytes, images: Mapping[str, bytes]) -> None:
    """Read it, or be told why not and where; anything else fails the test."""
    try:
        read_all(kind, content, images)
    except ImageRefused:
        return
    except ImageDamaged as error:
        offset = error.offset
    else:
        return
    assert offset >= 0


@pytest.mark.parametrize("kind", OPENERS)
def test_the_images_here_are_whole(kind: str, images: Mapping[str, bytes], tmp_path: Path) -> None:
    found = read_all(kind, images[kind], images)
    if kind in ("vhdx", "vdi", "vhd"):
        image, raw = tmp_path / "image", tmp_path / "raw"
        image.write_bytes(images[kind])
        format_ = "vpc" if kind == "vhd" else kind
        run(
            "qemu-img",
            "convert",
            "-f",
            format_,
            "-O",
            "raw",
            image,
            raw,
        )
        assert raw.read_bytes() == found


@pytest.mark.parametrize("kind", OPENERS)
def test_every_byte_of_the_tables_may_be_anything(kind: str, images: Mapping[str, bytes]) -> None:
    rng = random.Random(kind)
    good = images[kind]
    places = [start % len(good) + n for start, length in HEADS[kind] for n in range(length)]
    for at in rng.sample(places, min(len(places), 150)):
        content = bytearray(good)
        content[at] ^= rng.choice((1, 0x80, 0xFF, rng.randrange(1, 256)))
        try_damage(kind, bytes(content), images)


@pytest.mark.parametrize("kind", OPENERS)
def test_a_cut_is_never_silent(kind: str, images: Mapping[str, bytes]) -> None:
    """Whatever is cut off is told of, or was no part of the disk."""
    rng = random.Random(kind)
    good = images[kind]
    wanted = read_all(kind, good, images)
    for _ in range(40):
        size = rng.randrange(len(good)) if rng.random() < 0.5 else len(good) - rng.randrange(1, 5000)
        try:
            found = read_all(kind, good[:size], images)
        except (ImageDamaged, ImageRefused):
            continue
        assert found == wanted, f"cut to {size}"


@settings(max_examples=60)
@given(data=st.data(), kind=st.sampled_from(sorted(OPENERS)))
def test_tables_full_of_rubbish(data: st.DataObject, kind: str, images: Mapping[str, bytes]) -> None:
    """Fields take values that programs stumble over; checksums are put right where there are any."""
    content = bytearray(images[kind])
    for _ in range(data.draw(st.integers(1, 4), label="fields")):
        start, length = data.draw(st.sampled_from(HEADS[kind]), label="table")
        at = start % len(content) + data.draw(st.integers(0, (length - 4) // 4), label="field") * 4
        width = data.draw(st.sampled_from((4, 8)))
        limit = 1 << 8 * width
        value = data.draw(
            st.sampled_from((0, 1, 511, 512, 4096, MIB, limit // 2, limit - 1, limit - 512, limit - MIB))
            | st.integers(0, limit - 1),
            label="value",
        )
        order: Literal["little", "big"] = data.draw(st.sampled_from(("little", "big")))
        content[at : at + width] = value.to_bytes(width, order)
    try_damage(kind, resealed(kind, bytes(content)), images)


def resealed(kind: str, content: bytes) -> bytes:
    """An image whose checksums are right again, so that what they guard is looked at."""
    out = bytearray(content)
    if kind in ("vhdx", "vhdx-log"):
        from_vhdx = ((64 << 10, 4096), (128 << 10, 4096), (192 << 10, 65536), (256 << 10, 65536))
        for at, length in (*from_vhdx, *(((MIB, 16384), (MIB + 8192, 8192)) if kind == "vhdx-log" else ())):
            out[at : at + length] = sealed(bytes(out[at : at + length]))
    elif kind != "vdi":
        out[-512:] = vhd_sum(bytes(out[-512:]), 64)
        if kind != "vhd-fixed":
            out[:512] = out[-512:]
            out[512:1536] = vhd_sum(bytes(out[512:1536]), 36)
    return bytes(out)


def test_a_large_disk_is_walked_and_read_with_one_window_of_its_table_in_memory(tmp_path: Path) -> None:
    size = 128 << 30
    path = write_vhdx(tmp_path / "large", size=size)
    with path.open("r+b") as file:  # 1 MiB of table and a bit: every block at the same place
        file.seek(3 * MIB)
        file.write((8 * MIB | 6).to_bytes(8, "little") * ((size // MIB) + 31))
        file.truncate(9 * MIB)
    with OpenFile(path) as opened:
        opened.size = size + 9 * MIB  # as large as if they were not
        tracemalloc.start()
        disk = open_vhdx(opened, no_companions)
        assert [(e.length, e.kind) for e in disk.extents()] == [(size, ExtentKind.DATA)]
        buffer = bytearray(4096)
        for at in range(0, size, 4 << 30):
            disk.read_into(memoryview(buffer), at)
        assert tracemalloc.get_traced_memory()[1] < MIB // 2
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["vhdx", "vhd", "vdi"])
def test_a_block_that_is_pointed_to_over_and_over_is_told(tmp_path: Path, kind: str) -> None:
    """A disk of exabytes out of one block would be read for years."""
    path = tmp_path / "small"
    if kind == "vhdx":
        entry, table, count = (8 * MIB | 6).to_bytes(8, "little"), 3 * MIB, 4096
        write_vhdx(path, size=count * MIB)
    elif kind == "vhd":
        entry, table, count = (64).to_bytes(4, "big"), 512 + 1024 + 8 * 512, 4096
        write_vhd(path, {}, size=count << 16, unique_id=b"one".ljust(16))
    else:
        entry, table, count = bytes(4), 512, 256
        run("qemu-img", "create", "-q", "-f", "vdi", path, "256M")
    with path.open("r+b") as file:
        file.seek(table)
        file.write(entry * count)
    with OpenFile(path) as opened, pytest.raises(ImageDamaged, match=r"offset .*more blocks than the file"):
        list(OPENERS[kind](opened, no_companions).extents())
