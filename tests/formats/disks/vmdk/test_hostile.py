"""Hostile VMDKs get no file that nobody named, and end in a disk or an error."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import BytesFile
from holdfast.formats.disks.base.image import ImageFile
from holdfast.formats.disks.open import no_companions
from holdfast.formats.disks.vmdk.reader import open_vmdk
from holdfast.formats.disks.vmdk.sparse import open_sparse
from support.disk import SECTOR, read_disk
from support.vmdk import DISK, SECTORS, descriptor, esx_extent, opened, patched, qemu_disk, read_all, stream


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """DISK in every sparse form."""
    return {
        "sparse": qemu_disk(tmp_path_factory.mktemp("sparse"), "zeroed_grain=on"),
        "packed": qemu_disk(tmp_path_factory.mktemp("packed"), "subformat=streamOptimized"),
        "stream": stream(DISK),
        "esx": esx_extent(DISK, grain=128),
    }


def test_a_grain_or_a_table_that_is_pointed_to_over_and_over_is_told(images: dict[str, bytes]) -> None:
    """A disk of terabytes out of one grain would be read for days."""
    image = images["esx"]
    directory = int.from_bytes(image[20:24], "little") * SECTOR
    table = int.from_bytes(image[directory : directory + 4], "little") * SECTOR
    grain = next(entry for entry in struct.iter_unpack("<I", image[table : table + 4096]) if entry[0])
    grains = patched(image, table, struct.pack("<I", *grain) * 4096)
    grains = patched(grains, 12, struct.pack("<I", 4096 * 128))
    with pytest.raises(ImageDamaged, match=r"offset .*more tables or grains"):
        list(open_sparse(BytesFile(grains)).extents())


@pytest.mark.parametrize(
    "lines",
    [
        ('RW 8 FLAT "a" 0', 'RW 8 FLAT "a" 0'),
        ('RW 8 FLAT "a" 0', 'RW 8 FLAT "a" 7'),
        ('RW 8 VMFS "a"', 'RW 8 VMFS "a"'),
        ('RW 8 SPARSE "a"', 'RW 8 SPARSE "a"'),
    ],
)
def test_no_part_of_a_file_is_two_parts_of_a_disk(lines: tuple[str, ...]) -> None:
    image = BytesFile(descriptor(*lines).encode(), "disk.vmdk")
    with pytest.raises(ImageDamaged, match="the same part of 'a'"):
        open_vmdk(image, lambda name: BytesFile(bytes(16 * SECTOR), name))


@pytest.mark.parametrize("kind", ["FLAT", "VMFS", "SPARSE"])
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("{folder}/canary", "."),
        ("../canary", ".."),
        ("./canary", "."),
        ("sub/../canary", "."),
        ("..\\canary", ".."),
        ("canary", "."),
        ("..", "."),
        (".", "."),
    ],
)
def test_no_file_is_read_that_only_the_image_names(tmp_path: Path, name: str, where: str, kind: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / where / "canary").write_bytes(b"secret!!" * 512)
    name = name.format(folder=folder)
    image = folder / "disk.vmdk"
    image.write_text(descriptor(f'RW 8 {kind} "{name}"{" 0" if kind == "FLAT" else ""}'))
    with pytest.raises(ImageRefused) as caught, opened(image):
        pass
    assert repr(name)[1:-1] in str(caught.value)
    asked: list[str] = []

    def give(wanted: str) -> ImageFile:
        asked.append(wanted)
        return no_companions(wanted)

    with pytest.raises(ImageRefused):
        read_all(image.read_bytes(), give)
    assert asked == (["canary"] if name == "canary" else []), "only plain names are asked for"


@pytest.mark.parametrize("lines", [('RW {} FLAT "/etc/passwd" 0',), ('RW {} SPARSE "a"', 'RW 8 FLAT "b" 0')])
def test_a_descriptor_inside_an_image_opens_no_file(images: dict[str, bytes], lines: tuple[str, ...]) -> None:
    text = descriptor(*(line.format(SECTORS) for line in lines), create_type="monolithicSparse").encode()
    with pytest.raises(ImageRefused, match="other files than itself"):
        read_all(patched(images["sparse"], SECTOR, text.ljust(20 * SECTOR, b"\0")), pytest.fail)


def test_the_name_that_an_image_has_for_itself_is_not_used(images: dict[str, bytes]) -> None:
    text = descriptor(f'RW {SECTORS} SPARSE "/etc/passwd"', create_type="monolithicSparse").encode()
    renamed = patched(images["sparse"], SECTOR, text.ljust(20 * SECTOR, b"\0"))
    assert read_all(renamed, pytest.fail) == DISK


@pytest.mark.parametrize("create_type", ["monolithicFlat", "twoGbMaxExtentSparse", "vmfs", "custom", "mine"])
def test_a_disk_in_one_file_has_no_other_type(images: dict[str, bytes], create_type: str) -> None:
    text = descriptor(f'RW {SECTORS} SPARSE "a"', create_type=create_type).encode()
    with pytest.raises(ImageRefused, match=create_type):
        read_all(patched(images["sparse"], SECTOR, text.ljust(20 * SECTOR, b"\0")), pytest.fail)


# ---- fuzzing ------------------------------------------------------------------------------------------

_EDGES = (0, 1, 2, 127, 128, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
_NUMBERS = st.one_of(st.sampled_from(_EDGES), st.integers(0, (1 << 64) - 1), st.integers(0, 4096))
_FIELDS = (0, 4, 8, 12, 16, 20, 24, 28, 36, 44, 48, 56, 64, 73, 77)


@pytest.mark.parametrize("form", ["sparse", "packed", "stream", "esx"])
@given(data=st.data())
def test_no_mutation_of_an_image_ends_in_anything_but_a_disk_or_an_error(
    images: dict[str, bytes], form: str, data: st.DataObject
) -> None:
    image = images[form]
    end = len(image)
    mutant = bytearray(image)
    places = st.one_of(
        st.sampled_from([*_FIELDS, *(end - 1024 + at for at in _FIELDS), end - 1536, end - 2560, end - 512]),
        st.integers(0, 128 * SECTOR),
        st.integers(0x15 * SECTOR, 0x1B * SECTOR + 200),
        st.integers(max(0, end - 5000), end),
        st.integers(0, end),
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at, width = data.draw(places), data.draw(st.sampled_from((1, 2, 4, 8)))
        mutant[at : at + width] = (data.draw(_NUMBERS) % (1 << 8 * width)).to_bytes(width, "little")
    if data.draw(st.integers(0, 3)) == 0:
        del mutant[data.draw(st.integers(0, len(mutant))) :]
    source, inner = bytes(mutant), b""
    if form == "esx":
        text = descriptor(f'RW {SECTORS} VMFSSPARSE "a"', create_type="vmfsSparse")
        source, inner = text.encode(), source
    try:
        disk = open_vmdk(BytesFile(source), lambda name: BytesFile(inner, name))
        assert disk.size == len(DISK), "header and descriptor agree, or it is an error"
        assert sum(extent.length for extent in disk.extents()) == disk.size
        read_disk(disk, 300_000)
    except (ImageDamaged, ImageRefused):
        pass


@given(data=st.data())
def test_no_mutation_of_a_descriptor_ends_in_anything_but_a_disk_or_an_error(data: st.DataObject) -> None:
    extents = ('RW 8 FLAT "a" 0', "RW 4 ZERO", 'RW 8 FLAT "b" 1')
    text = bytearray(descriptor(*extents, more='encoding="UTF-8"\n').encode())
    words = (b"\n", b"\0", b'"', b"=", b"RW ", b" 0", b"CID=", b"\xff", b"../", b"9" * 20, b"#", b"\r", b"/")
    for _ in range(data.draw(st.integers(1, 4))):
        at, cut = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 6))
        text[at : at + cut] = data.draw(st.one_of(st.sampled_from(words), st.binary(max_size=4)))
    asked: list[str] = []

    def give(name: str) -> ImageFile:
        asked.append(name)
        return BytesFile(b"d" * 8192, name)

    try:
        disk = open_vmdk(BytesFile(bytes(text)), give)
        assert sum(extent.length for extent in disk.extents()) == disk.size
        if disk.size < 1 << 20:
            read_disk(disk, 4096)
    except (ImageDamaged, ImageRefused):
        pass
    assert not any("/" in name or "\\" in name or name.startswith("..") for name in asked)
