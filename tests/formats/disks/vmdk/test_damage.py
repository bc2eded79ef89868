"""Damaged VMDKs end in an error that says where."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from array import array
from functools import partial

import pytest

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import BytesFile
from holdfast.formats.disks.vmdk.format import GRAIN_MARKER
from support.disk import SECTOR
from support.vmdk import (
    DISK,
    GRAIN,
    SECTORS,
    descriptor,
    esx_extent,
    hosted_header,
    patched,
    qemu_disk,
    read_all,
    stream,
)

TABLE_SECTOR, REDUNDANT_SECTOR, FIRST = 0x1B, 0x16, 128
"""Where qemu puts the grain table, its twin and the first grain of a disk of one table."""


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """DISK as qemu writes it: monolithicSparse, one table."""
    return qemu_disk(tmp_path_factory.mktemp("sparse"), "zeroed_grain=on")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """DISK as qemu writes it: streamOptimized, its tables in front."""
    return qemu_disk(tmp_path_factory.mktemp("packed"), "subformat=streamOptimized")


def _damage(data: bytes) -> ImageDamaged:
    with pytest.raises(ImageDamaged) as caught:
        read_all(data)
    return caught.value


# ---- headers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "new", "error", "reason"),
    [
        (0, b"KDMW", ImageDamaged, "neither a VMDK header"),
        (4, struct.pack("<I", 4), ImageRefused, "version 4"),
        (4, struct.pack("<I", 0), ImageRefused, "version 0"),
        (8, struct.pack("<I", 0x40003), ImageRefused, "not known .flags 0x40000"),
        (8, struct.pack("<I", 0x10003), ImageRefused, "without markers"),
        (8, struct.pack("<I", 0x30003), ImageDamaged, "contradicts itself"),
        (8, struct.pack("<I", 0x20003), ImageDamaged, "contradicts itself"),
        (77, struct.pack("<H", 1), ImageDamaged, "contradicts itself"),
        (77, struct.pack("<H", 2), ImageRefused, "algorithm 2"),
        (12, struct.pack("<Q", 0), ImageDamaged, "capacity of 0"),
        (12, struct.pack("<Q", 1 << 63), ImageDamaged, "capacity of"),
        (12, struct.pack("<Q", SECTORS + 1), ImageDamaged, "by its descriptor"),
        (12, struct.pack("<Q", 1 << 37), ImageDamaged, "grain directory"),
        (20, struct.pack("<Q", 0), ImageDamaged, "grain size of 0"),
        (20, struct.pack("<Q", 127), ImageDamaged, "grain size of 127"),
        (20, struct.pack("<Q", 1 << 14), ImageDamaged, "grain size of 16384"),
        (28, struct.pack("<Q", 1 << 62), ImageDamaged, "descriptor"),
        (28, struct.pack("<Q", 0), ImageRefused, "one extent of a disk"),
        (28, struct.pack("<Q", 2), ImageDamaged, "no VMDK descriptor"),
        (36, struct.pack("<Q", 1 << 40), ImageDamaged, "descriptor of"),
        (36, struct.pack("<Q", 0), ImageRefused, "one extent of a disk"),
        (44, struct.pack("<I", 0), ImageDamaged, "tables of 0"),
        (44, struct.pack("<I", 1024), ImageDamaged, "tables of 1024"),
        (44, struct.pack("<I", 100), ImageDamaged, "tables of 100"),
        (48, struct.pack("<Q", 1 << 40), ImageDamaged, "grain directory"),
        (56, struct.pack("<Q", 1 << 40), ImageDamaged, "grain directory"),
        (56, struct.pack("<Q", 0), ImageDamaged, "grain directory"),
        (56, struct.pack("<Q", (1 << 64) - 1), ImageDamaged, "cut off"),
        (64, struct.pack("<Q", 1 << 40), ImageDamaged, "before its first grain"),
        (73, b"\n \n\n", ImageDamaged, "line ends"),
    ],
)
def test_a_header_that_cannot_be_is_told(
    sparse: bytes, offset: int, new: bytes, error: type[Exception], reason: str
) -> None:
    assert read_all(sparse) == DISK
    with pytest.raises(error, match=reason):
        read_all(patched(sparse, offset, new))


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [(4, 2, "COWD version 2"), (12, 0, "capacity"), (16, 3, "grain size"), (24, 0, "0 grain tables")],
)
def test_a_header_of_esx_that_cannot_be_is_told(offset: int, value: int, reason: str) -> None:
    part = patched(esx_extent(DISK, grain=128), offset, struct.pack("<I", value))
    text = descriptor(f'RW {SECTORS} SPARSE "a"', create_type="vmfsSparse").encode()
    with pytest.raises((ImageDamaged, ImageRefused), match=reason):
        read_all(text, lambda name: BytesFile(part, name))
    with pytest.raises(ImageRefused, match="descriptor file is needed"):
        read_all(part)


def test_a_header_that_promises_no_line_ends_is_not_held_to_them(sparse: bytes) -> None:
    assert read_all(patched(patched(sparse, 8, struct.pack("<I", 6)), 73, bytes(4))) == DISK


def test_headers_that_are_cut_off_are_told() -> None:
    text = descriptor(f'RW {SECTORS} SPARSE "a"').encode()
    for part in (b"", b"KD", b"KDMV", b"COW", esx_extent(DISK)[:31]):
        with pytest.raises(ImageDamaged):
            read_all(text, partial(BytesFile, part))
    with pytest.raises(ImageDamaged, match="cut off"):
        read_all(hosted_header(SECTORS, overhead=0, directory=(1 << 64) - 1) + bytes(SECTOR))


# ---- tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [20, 0xFFFFFFFF, 5000])
def test_a_grain_that_is_not_in_the_file_is_told_with_its_entry(
    sparse: bytes, packed: bytes, value: int
) -> None:
    for image in (sparse, packed):
        for sector in (TABLE_SECTOR, REDUNDANT_SECTOR):
            image = patched(image, sector * SECTOR + 40, struct.pack("<I", value))  # noqa: PLW2901
        error = _damage(image)
        assert error.offset == TABLE_SECTOR * SECTOR + 40
        assert f"sector {value}" in str(error)


@pytest.mark.parametrize(("value", "reason"), [(20, "in the header"), (0xFFFFFFFF, "the file ends")])
def test_a_table_that_is_not_in_the_file_is_told(sparse: bytes, value: int, reason: str) -> None:
    for directory in (0x15, 0x1A):
        sparse = patched(sparse, directory * SECTOR, struct.pack("<I", value))
    assert reason in str(_damage(sparse))


def test_tables_that_contradict_each_other_are_told(sparse: bytes, packed: bytes) -> None:
    for image in (sparse, packed):
        for number in (0, 20, 38):
            lost = patched(image, TABLE_SECTOR * SECTOR + number * 4, bytes(4))
            assert _damage(lost).offset == TABLE_SECTOR * SECTOR + number * 4
    assert "contradict" in str(_damage(patched(sparse, 0x1A * SECTOR, bytes(4))))


def test_a_write_that_was_interrupted_between_both_tables_is_believed(sparse: bytes) -> None:
    assert read_all(patched(sparse, REDUNDANT_SECTOR * SECTOR + 80, bytes(4))) == DISK


def test_an_image_that_was_cut_off_is_told_wherever_it_ends(sparse: bytes, packed: bytes) -> None:
    rng = random.Random(4)
    for image in (sparse, packed, stream(DISK)):
        last = len(image.rstrip(b"\0")) - (DISK.rstrip(b"\0") != DISK)
        last = min(last, len(image) - (0 if image is packed else SECTOR))
        ends = [
            0,
            3,
            78,
            79,
            511,
            512,
            1024,
            11000,
            TABLE_SECTOR * SECTOR,
            FIRST * SECTOR,
            last - 1,
            len(image) // 2,
        ]
        for end in ends + [rng.randrange(last) for _ in range(30)]:
            with pytest.raises(ImageDamaged) as caught:
                read_all(image[:end])
            assert caught.value.offset <= len(image)


def test_zeros_are_not_taken_from_a_redundant_table_that_lies_elsewhere(sparse: bytes) -> None:
    assert "contradict" in str(
        _damage(patched(sparse, 0x15 * SECTOR, struct.pack("<I", TABLE_SECTOR + 1 + 512)) + DISK)
    )


# ---- streams ------------------------------------------------------------------------------------------


def _grains(image: bytes) -> list[int]:
    """Offsets of the grains of a stream made by `stream`."""
    found: list[int] = []
    at = FIRST * SECTOR
    while True:
        _, length = GRAIN_MARKER.unpack_from(image, at)
        if not length:
            return found
        found.append(at)
        at += -(-(length + GRAIN_MARKER.size) // SECTOR) * SECTOR


def test_every_flipped_byte_of_compressed_grains_is_told() -> None:
    image = stream(DISK)
    rng = random.Random(6)
    for at in _grains(image)[::5]:
        _, length = GRAIN_MARKER.unpack_from(image, at)
        for place in [
            *range(at, at + 16),
            at + GRAIN_MARKER.size + length - 1,
            at + 20 + rng.randrange(length - 20),
        ]:
            flipped = patched(image, place, bytes([image[place] ^ 1 << rng.randrange(8)]))
            try:
                assert read_all(flipped) == DISK  # a bit of zlib's own header may say the same
            except ImageDamaged as error:
                assert error.offset in (at, at + GRAIN_MARKER.size)  # noqa: PT017


@pytest.mark.parametrize(
    ("behind", "new", "reason"),
    [
        (512, bytes([1]), "cut off"),
        (512 - 12, bytes([9]), "cut off"),
        (1536 - 12, bytes([9]), "cut off"),
        (1536 - 8, bytes([9]), "cut off"),
        (1024, b"KDMX", "no VMDK header"),
        (1024 - 12, struct.pack("<Q", SECTORS + 128), "contradicts the header"),
        (1024 - 20, struct.pack("<Q", 64), "contradicts the header"),
        (1024 - 56, struct.pack("<Q", 0), "directory"),
        (1024 - 56, struct.pack("<Q", 200), "directory without a marker"),
        (1024 - 56, struct.pack("<Q", (1 << 64) - 1), "contradicts the header"),
        (2560 - 12, bytes([9]), "directory without a marker"),
    ],
)
def test_the_end_of_a_stream_must_be_whole(behind: int, new: bytes, reason: str) -> None:
    image = stream(DISK)
    assert read_all(image) == DISK
    with pytest.raises(ImageDamaged, match=reason):
        read_all(patched(image, len(image) - behind, new))
    for more in (b"\0", bytes(SECTOR)):
        with pytest.raises(ImageDamaged, match="cut off"):
            read_all(image + more)


def test_a_directory_that_points_to_zeros_is_no_empty_disk() -> None:
    image = stream(DISK)
    directory = len(image) - 2048
    assert "table without a marker" in str(_damage(patched(image, directory, struct.pack("<I", 100))))


@pytest.mark.parametrize(
    ("length", "reason"), [(0, "of 0 bytes"), (2 * GRAIN + 1, "of 131073"), (None, "not hold")]
)
def test_the_length_in_a_grains_marker_must_be_right(length: int | None, reason: str) -> None:
    image = stream(DISK)
    at = _grains(image)[3]
    if length is None:  # all but the last byte of the checksum
        length = GRAIN_MARKER.unpack_from(image, at)[1] - 1
    error = _damage(patched(image, at + 8, struct.pack("<I", length)))
    assert reason in str(error)
    assert error.offset == at


def test_a_grain_in_another_ones_place_is_told() -> None:
    image = stream(DISK)
    at = len(image) - 2048 - SECTOR - 2048
    table = array("I", image[at : at + 2048])
    table[2], table[3] = table[3], table[2]
    error = _damage(patched(image, at, table.tobytes()))
    assert "in place of" in str(error)
    assert error.offset == table[2] * SECTOR


@pytest.mark.parametrize("content", [bytes(GRAIN + 1), bytes(GRAIN - 1), bytes(100 << 20), b""])
def test_a_grain_that_inflates_to_another_size_is_told_without_inflating_it(content: bytes) -> None:
    image, bomb = stream(DISK[: 4 * GRAIN]), zlib.compress(content, 9)
    image = patched(image, FIRST * SECTOR + 8, struct.pack("<I", len(bomb)) + bomb)
    tracemalloc.start()
    try:
        assert "does not hold" in str(_damage(image)) or len(bomb) > GRAIN
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# ---- descriptors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        (descriptor('RW 8 FLAT "a" 0', parent="1234abcd"), ImageRefused, "snapshot.*1234abcd"),
        (descriptor('RW 8 FLAT "a" 0', more='parentFileNameHint="base.vmdk"\n'), ImageRefused, "base.vmdk"),
        (descriptor('RW 8 FLAT "a" 0', parent="nobody"), ImageDamaged, "whether it has a parent"),
        (descriptor('RW 8 FLAT "a" 0', parent="ffffffff\nparentCID=1"), ImageDamaged, "two parentCID"),
        (descriptor('RW 8 FLAT "a" 0', more='encryptionKeys="vmware:key/list"\n'), ImageRefused, "encrypted"),
        (descriptor('RW 8 FLAT "a" 0', more='ddb.iofilters = "vmwarevmcrypt"\n'), ImageRefused, "encrypted"),
        (descriptor('RW 8 FLAT "a" 0', more='encoding="klingon"\n'), ImageRefused, "klingon"),
        (descriptor('RW 8 FLAT "a" 0', create_type="fullDevice"), ImageRefused, "fullDevice"),
        (descriptor('RW 8 FLAT "a" 0', create_type="monolithicSparse"), ImageRefused, "monolithicSparse"),
        (descriptor('RW 8 FLAT "a" 0', create_type=""), ImageDamaged, "createType"),
        (descriptor('RW 8 FLAT "a" 0').replace("version=1", "version=9"), ImageRefused, "version 9"),
        (descriptor('RW 8 FLAT "a" 0').replace("version=1", ""), ImageRefused, "version unknown"),
        (
            descriptor('RW 8 SPARSE "a"', create_type="monolithicFlat"),
            ImageDamaged,
            "SPARSE extent in a mono",
        ),
        (descriptor('RW 8 SESPARSE "a"'), ImageRefused, "space-efficient"),
        (descriptor('RW 8 VMFSRDM "a"'), ImageRefused, "device"),
        (descriptor('RW 63 FLAT "a" 0 partitionUUID /dev/sda'), ImageRefused, "device"),
        (descriptor('RW 8 MAGIC "a"'), ImageRefused, "MAGIC"),
        (descriptor('NOACCESS 8 FLAT "a" 0'), ImageRefused, "NOACCESS"),
        (descriptor('RW 8 FLAT "a"'), ImageDamaged, "where it begins"),
        (descriptor("RW 8 FLAT"), ImageDamaged, "without a file"),
        (descriptor('RW 8 SPARSE "a" 8'), ImageDamaged, "inside its file"),
        (descriptor('RW eight FLAT "a" 0'), ImageDamaged, "cannot be read"),
        (descriptor('RX 8 FLAT "a" 0', 'RW 8 FLAT "a" 0'), ImageDamaged, "no part of a descriptor"),
        (descriptor('RW 0 FLAT "a" 0'), ImageDamaged, "extent of 0"),
        (descriptor('RW 99999999999999999999 FLAT "a" 0'), ImageDamaged, "extent of 9"),
        (descriptor('RW 8 FLAT "a" 99999999999999999999'), ImageDamaged, "from sector 9"),
        (descriptor(*['RW 274877906943 FLAT "a" 0'] * 2), ImageDamaged, "disk of more"),
        (descriptor(*["RW 8 ZERO"] * 5000), ImageRefused, "4096 extents"),
        (descriptor(), ImageDamaged, "without extents"),
        (descriptor('RW 9 FLAT "a" 0'), ImageDamaged, "ends 512 bytes before"),
        (descriptor('RW 8 FLAT "a" 1'), ImageDamaged, "ends 512 bytes before"),
        (descriptor('RW 8 SPARSE "a"'), ImageDamaged, "no VMDK header"),
        (descriptor("RW 8 ZERO") + "x" * 5000, ImageDamaged, "without an end"),
        (descriptor("RW 8 ZERO") + "\n" * (1 << 20), ImageRefused, "longer than"),
        ("# Disk DescriptorFil", ImageDamaged, "neither"),
    ],
)
def test_a_descriptor_that_cannot_be_honoured_is_told(text: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        read_all(text.encode(), lambda name: BytesFile(bytes(4096), name))


def test_a_descriptor_in_no_encoding_is_told() -> None:
    text = descriptor('RW 8 FLAT "a\xff" 0').encode("latin-1")
    with pytest.raises(ImageDamaged, match="not utf-8") as caught:
        read_all(text)
    assert caught.value.offset == text.index(b"RW 8")


def test_a_sparse_extent_must_be_as_large_as_its_descriptor_says(sparse: bytes) -> None:
    for sectors in (SECTORS - 1, SECTORS + 1):
        with pytest.raises(ImageDamaged, match=f"{sectors} sectors for 'a'"):
            read_all(descriptor(f'RW {sectors} SPARSE "a"').encode(), lambda name: BytesFile(sparse, name))


def test_tables_without_end_are_refused_before_they_are_read() -> None:
    image = hosted_header(1 << 38, grain=1, text=(0, 0), directory=1).ljust(1 << 20, b"\0")
    with pytest.raises(ImageDamaged, match="more than 4194304 grain tables"):
        read_all(image)
