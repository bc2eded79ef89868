"""VMDK images are read as qemu reads them, in every form that it or VMware writes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from holdfast.formats.disks.base.files import BytesFile
from holdfast.formats.disks.base.image import ExtentKind
from holdfast.formats.disks.open import no_companions
from holdfast.formats.disks.vmdk.reader import open_vmdk
from support.disk import SECTOR, check_image, convert, disk_bytes, raw_disk, read_disk, run
from support.vmdk import GRAIN, descriptor, esx_extent, opened, stream

ODD = (9 << 20) + 5 * SECTOR
"""A disk that ends inside a grain."""
SUBFORMATS = (
    "monolithicSparse",
    "monolithicFlat",
    "twoGbMaxExtentSparse",
    "twoGbMaxExtentFlat",
    "streamOptimized",
)


def _parts(image: Path) -> list[Path]:
    """The files that qemu-img wrote beside a descriptor."""
    return [path for path in image.parent.glob(f"{image.stem}-*.vmdk") if path != image]


def _written(path: Path) -> list[tuple[int, int]]:
    """(start, end) of what qemu says is data."""
    found = json.loads(run("qemu-img", "map", "--output=json", "-f", "vmdk", path))
    return [(item["start"], item["start"] + item["length"]) for item in found if item["data"]]


@pytest.mark.parametrize("size", [SECTOR, GRAIN, ODD, 33 << 20])
@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_every_form_that_qemu_writes_reads_like_the_disk_it_came_from(
    tmp_path: Path, subformat: str, size: int
) -> None:
    raw = raw_disk(tmp_path / "raw", size, seed=size)
    image = convert(raw, tmp_path / "disk.vmdk", "vmdk", f"subformat={subformat}")
    with opened(image, *_parts(image)) as disk:
        check_image(disk, raw.read_bytes())


@pytest.mark.parametrize(
    "options",
    [
        "adapter_type=lsilogic",
        "adapter_type=buslogic",
        "adapter_type=legacyESX",
        "adapter_type=ide",
        "compat6=on",
        "hwversion=19",
        "toolsversion=11365",
        "zeroed_grain=on",
        "subformat=streamOptimized,zeroed_grain=on",
        "subformat=twoGbMaxExtentSparse,zeroed_grain=on,compat6=on",
        "subformat=monolithicFlat,preallocation=full",
        "subformat=monolithicFlat,preallocation=falloc",
    ],
)
def test_every_option_of_qemu_is_read(tmp_path: Path, options: str) -> None:
    raw = raw_disk(tmp_path / "raw", 3 << 20, seed=5)
    image = convert(raw, tmp_path / "disk.vmdk", "vmdk", options)
    with opened(image, *_parts(image)) as disk:
        check_image(disk, raw.read_bytes())


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_empty_disks_are_one_hole_and_full_disks_one_extent_of_data(tmp_path: Path, subformat: str) -> None:
    for name, content in (("empty", bytes(4 << 20)), ("full", random.Random(1).randbytes(4 << 20))):
        (tmp_path / name).write_bytes(content)
        image = convert(tmp_path / name, tmp_path / f"{name}.vmdk", "vmdk", f"subformat={subformat}")
        with opened(image, *_parts(image)) as disk:
            check_image(disk, content)
            kinds = [(extent.length, extent.kind) for extent in disk.extents()]
        if name == "empty" and "Flat" in subformat:
            assert kinds.pop(0) == (4096, ExtentKind.DATA)  # qemu allocates a raw file's first block
            assert kinds == [((4 << 20) - 4096, ExtentKind.HOLE)]
        else:
            assert kinds == [(4 << 20, ExtentKind.DATA if name == "full" else ExtentKind.HOLE)]


@pytest.mark.parametrize("options", ["zeroed_grain=off", "zeroed_grain=on", "subformat=twoGbMaxExtentSparse"])
def test_writes_in_any_order_are_found_and_holes_agree_with_qemu(tmp_path: Path, options: str) -> None:
    size = (40 << 20) + 3 * SECTOR
    raw, image = tmp_path / "raw", tmp_path / "disk.vmdk"
    run("qemu-img", "create", "-f", "vmdk", "-o", options, image, str(size))
    run("qemu-img", "create", "-f", "raw", raw, str(size))
    rng = random.Random(11)
    commands = []
    for _ in range(150):
        length = SECTOR * rng.choice((1, 8, 128, 129, 300))
        at = rng.randrange(0, size - length, SECTOR)
        commands += ["-c", f"write -P {rng.randrange(1, 256)} {at} {length}"]
    for _ in range(20):
        commands += ["-c", f"write -z {rng.randrange(0, 600) * GRAIN} {GRAIN * rng.choice((1, 3))}"]
    run("qemu-io", "-f", "vmdk", *commands, image)
    run("qemu-io", "-f", "raw", *commands, raw)
    with opened(image, *_parts(image)) as disk:
        check_image(disk, raw.read_bytes())
        found = list(disk.extents())
    data = [(part.start, part.start + part.length) for part in found if part.kind is ExtentKind.DATA]
    covered: set[int] = set()
    for start, end in _written(image):
        covered.update(range(start // SECTOR, end // SECTOR))
    assert sum(end - start for start, end in data) == len(covered) * SECTOR
    assert all(start // SECTOR in covered and end // SECTOR - 1 in covered for start, end in data)
    assert ("zeroed_grain=on" in options) == any(part.kind is ExtentKind.ZERO for part in found)


@pytest.mark.parametrize("subformat", ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_a_disk_in_pieces_of_2_gb_is_read_across_their_seams(tmp_path: Path, subformat: str) -> None:
    size, seams = (5 << 30) + 7 * SECTOR, (2 << 30, 4 << 30)
    raw = tmp_path / "raw"
    places = [0, *(seam - (1 << 20) for seam in seams), size - (1 << 20)]
    with raw.open("wb") as file:
        file.truncate(size)
        for place in places:
            file.seek(place)
            file.write(disk_bytes(min(2 << 20, size - place), seed=place))
    image = convert(raw, tmp_path / "disk.vmdk", "vmdk", f"subformat={subformat}")
    assert len(_parts(image)) == 3
    with opened(image, *_parts(image)) as disk, raw.open("rb") as file:
        assert disk.size == size
        for place in places:
            for step in (SECTOR + 1, 4 << 20):
                start, end = max(0, place - 4096), min(size, place + (2 << 20) + 4096)
                if step < GRAIN:
                    start, end = place + (1 << 20) - 40000, min(size, place + (1 << 20) + 40000)
                file.seek(start)
                assert read_disk(disk, step, start, end) == file.read(end - start)
        found = list(disk.extents())
    assert sum(part.length for part in found) == size
    data = [(part.start, part.length) for part in found if part.kind is ExtentKind.DATA]
    assert [start for start, _ in data] == [place // GRAIN * GRAIN for place in places]


@pytest.mark.parametrize("one_marker", [False, True])
@pytest.mark.parametrize(
    ("size", "grain"), [(ODD, GRAIN), (70 << 20, GRAIN), (3 << 20, 4096), (SECTOR, GRAIN)]
)
def test_streams_with_their_tables_at_the_end_are_read(
    tmp_path: Path, size: int, grain: int, one_marker: bool
) -> None:
    raw = raw_disk(tmp_path / "raw", size, seed=size)
    content = bytearray(raw.read_bytes())
    content[34 << 20 : 66 << 20] = bytes(len(content[34 << 20 : 66 << 20]))  # a table without grains
    raw.write_bytes(content)
    image = tmp_path / "disk.vmdk"
    image.write_bytes(stream(bytes(content), grain=grain, marker_per_table=not one_marker))
    run("qemu-img", "compare", "-f", "vmdk", "-F", "raw", image, raw)
    with opened(image) as disk:
        check_image(disk, bytes(content), block=grain)


def test_grains_that_deflate_made_longer_are_read() -> None:
    noise = random.Random(3).randbytes(40 * GRAIN)
    image = open_vmdk(BytesFile(stream(noise, level=0)), no_companions)
    check_image(image, noise)


@pytest.mark.parametrize(("size", "grain"), [(ODD, 1), (ODD, 128), (SECTOR, 1)])
def test_sparse_extents_of_esx_are_read(tmp_path: Path, size: int, grain: int) -> None:
    content = raw_disk(tmp_path / "raw", size, seed=2).read_bytes()
    part, image = tmp_path / "disk-000.vmdk", tmp_path / "disk.vmdk"
    part.write_bytes(esx_extent(content, grain=grain))
    image.write_text(descriptor(f'RW {size // SECTOR} VMFSSPARSE "{part.name}"', create_type="vmfsSparse"))
    run("qemu-img", "compare", "-f", "vmdk", "-F", "raw", image, tmp_path / "raw")
    with opened(image, part) as disk:
        check_image(disk, content)


def test_a_flat_disk_of_esx_is_read(tmp_path: Path) -> None:
    part, image = raw_disk(tmp_path / "disk-flat.vmdk", ODD, seed=4), tmp_path / "disk.vmdk"
    text = descriptor(
        f'RW {ODD // SECTOR} VMFS "disk-flat.vmdk"',
        create_type="vmfs",
        more='encoding="UTF-8"\nisNativeSnapshot="no"\n'
        'ddb.x="1"\nddb.x="2"\n# Change Tracking\nchangeTrackPath="d-ctk.vmdk"\n',
    )
    image.write_bytes(text.replace("\n", "\r\n").encode())
    with opened(image, part) as disk:
        check_image(disk, part.read_bytes())


def test_extents_of_every_kind_make_one_disk(tmp_path: Path) -> None:
    raw = raw_disk(tmp_path / "raw", 6 << 20, seed=8).read_bytes()
    (tmp_path / "flat").write_bytes(b"x" * SECTOR + raw[: 2 << 20] + raw[4 << 20 :])
    (tmp_path / "part").write_bytes(raw[2 << 20 : 4 << 20])
    sparse = convert(tmp_path / "part", tmp_path / "sparse.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse")
    image = tmp_path / "disk.vmdk"
    image.write_text(
        descriptor(
            'RW 4096 FLAT "flat" 1',
            "RW 5 ZERO",
            'RW 4096 SPARSE "sparse-s001.vmdk"',
            'RDONLY 4096 FLAT "flat" 4097',
        )
    )
    wanted = raw[: 2 << 20] + bytes(5 * SECTOR) + raw[2 << 20 :]
    with opened(image, tmp_path / "flat", *_parts(sparse)) as disk:
        check_image(disk, wanted)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("windows-1252", "Grün.vmdk"), ("windows-936", "虚拟.vmdk"), ("UTF-8", "ディスク.vmdk")],
)
def test_names_are_read_in_the_encoding_that_the_descriptor_states(
    tmp_path: Path, encoding: str, name: str
) -> None:
    part, image = tmp_path / name, tmp_path / "disk.vmdk"
    part.write_bytes(b"d" * 4096)
    text = descriptor(f'RW 8 FLAT "{name}" 0', more=f'encoding="{encoding}"\n')
    image.write_bytes(text.encode(encoding.replace("windows-", "cp")))
    with opened(image, part) as disk:
        assert read_disk(disk, 4096) == b"d" * 4096


def test_a_large_disk_costs_a_few_small_reads_until_it_is_read(tmp_path: Path) -> None:
    image = tmp_path / "disk.vmdk"
    run("qemu-img", "create", "-f", "vmdk", image, "2000G")
    with opened(image) as disk:
        assert read_disk(disk, 4096, 1500 << 30, (1500 << 30) + 4096) == bytes(4096)
        assert [part.length for part in disk.extents()] == [2000 << 30]
