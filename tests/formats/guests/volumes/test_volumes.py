"""Disks to volumes: partition tables, logical volumes, LUKS, and what is told of the rest."""

from __future__ import annotations

import json
import struct
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.guests.filesystems.base.devices import (
    CachedDevice,
    DeviceRange,
    LinearDevice,
    MappedRange,
    StripedDevice,
    WholeDisk,
)
from holdfast.formats.guests.filesystems.base.interface import OpenVolume
from holdfast.formats.guests.values.values import DiskExtent, GuestDamaged
from holdfast.formats.guests.volumes.luks_crypt import sector_decryptor
from holdfast.formats.guests.volumes.lvm import logical_volumes as parsed_volumes
from holdfast.formats.guests.volumes.lvm_metadata import PhysicalVolume, parse_text
from holdfast.formats.guests.volumes.open import open_volumes, safe_name
from support.basics import random_bytes
from support.guest_images import MIB, blank, loop_device, run
from support.guest_volumes import PASSPHRASE, ext4_with, logical_volumes, luks

CONTENT = random_bytes(20_000, 1)


def volumes(path: Path, *passphrases: str) -> dict[str, OpenVolume]:
    """The volumes of an image, which must stay open while their file systems are used."""
    raw = path.read_bytes()
    disk = WholeDisk(len(raw), lambda offset, length: raw[offset : offset + length])
    return {opened.volume.path: opened for opened in open_volumes(disk, passphrases)}


def texts(path: Path, *passphrases: str) -> dict[str, str]:
    return {name: opened.volume.text for name, opened in volumes(path, *passphrases).items()}


def read_file(opened: OpenVolume, name: bytes = b"file") -> bytes:
    assert opened.file_system is not None, opened.volume.text
    entry = opened.file_system.lookup(opened.file_system.root, name)
    return opened.file_system.read(entry.inode, 0, 1 << 20)


def put(image: Path, offset: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return ext4_with(tmp_path_factory.mktemp("ext4") / "image", 8 * MIB, "file", CONTENT).read_bytes()


# ---- partitions ---------------------------------------------------------------------------------------


def said_by_sfdisk(target: str | Path) -> dict[str, tuple[int, int]]:
    table = json.loads(run("sfdisk", "--json", target))["partitiontable"]
    sector = table.get("sectorsize", 512)
    return {
        "p" + part["node"].removeprefix(str(target)).lstrip("p"): (
            part["start"] * sector,
            part["size"] * sector,
        )
        for part in table["partitions"]
        if part["type"] not in ("5", "f")
    }


def told(path: Path) -> dict[str, tuple[int, int]]:
    return {name: (v.volume.offset, v.volume.size) for name, v in volumes(path).items()}


def test_gpt_partitions_have_their_slots_as_numbers(tmp_path: Path, ext4: bytes) -> None:
    image = blank(tmp_path / "image", 40 * MIB)
    run("sgdisk", "-n", "1:2048:+1M", "-n", "3:8192:+8M", "-n", "128:0:+1M", "-c", "1:a name", image)
    put(image, 8192 * 512, ext4)
    assert told(image) == said_by_sfdisk(image)
    found = volumes(image)
    assert list(found) == ["p1", "p3", "p128"]
    assert found["p1"].volume.label == "a name"
    assert "empty" in found["p1"].volume.text
    assert found["p3"].volume.file_system == "ext4"
    assert read_file(found["p3"]) == CONTENT
    put(image, 512, bytes(40))
    assert told(image) == said_by_sfdisk(image), "from the backup at the end"
    put(image, 1024, b"\xff" * 128)
    put(image, 40 * MIB - 512, bytes(512))
    assert list(told(image)) == ["p1"], "the protective MBR is all that is left"


def test_gpt_with_sectors_of_4096_bytes(tmp_path: Path, ext4: bytes) -> None:
    image = blank(tmp_path / "image", 40 * MIB)
    with loop_device(image, "--sector-size", "4096") as device:
        run("sfdisk", "-q", device, data=b"label: gpt\n256,2048\n4096,\n")
        expected = said_by_sfdisk(device)
    put(image, 256 * 4096, ext4)
    assert told(image) == expected
    assert read_file(volumes(image)["p1"]) == CONTENT


def test_mbr_with_logical_partitions(tmp_path: Path, ext4: bytes) -> None:
    image = blank(tmp_path / "image", 60 * MIB)
    table = (
        "label: dos",
        "1: start=2048, size=2048, type=83",
        "2: start=4096, size=100000, type=5",
        "4: start=106496, size=2048, type=82",
        "5: start=6144, size=20000",
        "6: size=4096",
        "7: size=8192, type=7",
    )
    run("sfdisk", "-q", image, data="\n".join(table).encode())
    put(image, 6144 * 512, ext4)
    assert told(image) == said_by_sfdisk(image)
    assert list(told(image)) == ["p1", "p4", "p5", "p6", "p7"]
    assert read_file(volumes(image)["p5"]) == CONTENT


def test_mbr_on_a_disk_with_sectors_of_4096_bytes(tmp_path: Path, ext4: bytes) -> None:
    image = blank(tmp_path / "image", 40 * MIB)
    put(image, 446, struct.pack("<B3sB3sII", 0, b"", 0x83, b"", 256, 2048) + bytes(48) + b"\x55\xaa")
    put(image, 256 * 4096, ext4)
    found = volumes(image)
    assert found["p1"].volume.offset == 256 * 4096
    assert read_file(found["p1"]) == CONTENT


def test_a_chain_of_logical_partitions_that_goes_round_ends(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 20 * MIB)
    put(image, 446, struct.pack("<B3sB3sII", 0, b"", 0x05, b"", 2048, 20_000) + bytes(48) + b"\x55\xaa")
    ring = struct.pack("<B3sB3sII", 0, b"", 0x83, b"", 16, 64)
    ring += struct.pack("<B3sB3sII", 0, b"", 0x05, b"", 0, 100) + bytes(32) + b"\x55\xaa"
    put(image, 2048 * 512 + 446, ring)
    assert list(told(image)) == ["p5"]


def test_a_disk_without_a_table_is_p0(tmp_path: Path, ext4: bytes) -> None:
    (tmp_path / "image").write_bytes(ext4)
    assert read_file(volumes(tmp_path / "image")["p0"]) == CONTENT
    run("mkfs.fat", "-F", "32", "-n", "STICK", blank(tmp_path / "fat", 64 * MIB))
    found = volumes(tmp_path / "fat")
    assert [(v.volume.path, v.volume.label) for v in found.values()] == [("p0", "STICK")]


def test_one_bad_volume_never_hides_the_others(tmp_path: Path, ext4: bytes) -> None:
    image = blank(tmp_path / "image", 40 * MIB)
    run("sgdisk", "-n", "1:2048:+8M", "-n", "2:0:+1M", "-n", "3:0:+8M", image)
    broken = bytearray(ext4)
    broken[1024 + 0x58 : 1024 + 0x5A] = b"\x01\x00"  # inodes of one byte
    put(image, 2048 * 512, bytes(broken))
    put(image, (2048 + 16384) * 512 + 3, b"NTFS    ")
    put(image, (2048 + 16384 + 2048) * 512, ext4)
    found = volumes(image)
    assert "damaged or unknown ext" in found["p1"].volume.text
    assert "damaged or unknown ntfs" in found["p2"].volume.text
    assert read_file(found["p3"]) == CONTENT
    with image.open("r+b") as file:
        file.truncate(16 * MIB)
    assert "reaches" in volumes(image)["p3"].volume.text


@pytest.mark.parametrize(
    ("offset", "magic", "words"),
    [
        (3, b"-FVE-FS-", "BitLocker"),
        (4096, b"\xfc\x4e\x2b\xa9", "software RAID"),
        (4 * MIB - 65536, b"\xfc\x4e\x2b\xa9", "software RAID"),
        (128 << 10, b"\x0c\xb1\xba\0\0\0\0\0", "ZFS"),
        (0x8001, b"CD001", "ISO 9660"),
        (2 * MIB, b"anything", "empty"),
        (1000, b"anything", "no file system"),
    ],
)
def test_what_cannot_be_opened_is_told_in_words(
    offset: int, magic: bytes, words: str, tmp_path: Path
) -> None:
    image = blank(tmp_path / "image", 4 * MIB)
    put(image, offset, magic)
    assert words in texts(image)["p0"]


def test_swap_is_told(tmp_path: Path) -> None:
    run("mkswap", blank(tmp_path / "image", 4 * MIB))
    assert texts(tmp_path / "image") == {"p0": "Linux swap"}


# ---- LVM ----------------------------------------------------------------------------------------------


def test_logical_volumes_in_several_segments_and_on_a_missing_disk(tmp_path: Path, ext4: bytes) -> None:
    first, second = blank(tmp_path / "first", 64 * MIB), blank(tmp_path / "second", 64 * MIB)
    extents = logical_volumes(
        [first, second], "vg-0",
        ("-n", "root", "-L", "4m"), ("-n", "wall", "-L", "8m"),
        ("-n", "striped", "-i", "2", "-I", "64k", "-L", "8m"),
        extend=("root", "4m"),
    )  # fmt: skip
    assert [image for image, _ in extents["root"]] == ["first"] * 8
    for number, (image, extent) in enumerate(extents["root"]):
        put(tmp_path / image, MIB + extent * MIB, ext4[number * MIB : (number + 1) * MIB])
    found = volumes(first)
    assert read_file(found["lvm/vg-0/root"]) == CONTENT
    assert found["lvm/vg-0/root"].volume.offset == -1, "in two pieces"
    assert "vg-0" in found["p0"].volume.text
    assert "on another disk" in found["lvm/vg-0/striped"].volume.text
    assert found["lvm/vg-0/striped"].volume.size == 8 * MIB
    file_system = found["lvm/vg-0/root"].file_system
    assert file_system is not None
    entry = file_system.lookup(2, b"file")
    assert entry.extents is not None
    disk = first.read_bytes()
    assert b"".join(disk[e.disk : e.disk + e.length] for e in entry.extents) == CONTENT


def test_stripes_over_two_partitions_of_a_disk(tmp_path: Path, ext4: bytes) -> None:
    parts = [blank(tmp_path / name, 16 * MIB) for name in ("first", "second")]
    extents = logical_volumes(parts, "a-b", ("-n", "c-d", "-i", "2", "-I", "64k", "-L", "8m"))["c-d"]
    first = dict(reversed(extents))
    for number in range(128):
        row, column = divmod(number, 2)
        stripe = ext4[number * 65536 : (number + 1) * 65536]
        put(parts[column], (1 + first[parts[column].name]) * MIB + row * 65536, stripe)
    disk = blank(tmp_path / "disk", 40 * MIB)
    run("sfdisk", "-q", disk, data=b"label: gpt\nstart=1MiB, size=16MiB\nstart=20MiB, size=16MiB\n")
    put(disk, MIB, parts[0].read_bytes())
    put(disk, 20 * MIB, parts[1].read_bytes())
    found = volumes(disk)
    assert list(found) == ["p1", "p2", "lvm/a-b/c-d"]
    assert read_file(found["lvm/a-b/c-d"]) == CONTENT


GROUP = """
vg { # a comment
id = "group" seqno = %d extent_size = 2048
physical_volumes { pv0 { id = "AA-BB" pe_start = 2048 pe_count = 60 } }
logical_volumes {
  mirrored { status = ["READ", "VISIBLE"] segment_count = 1
    segment1 { start_extent = 0 extent_count = 2 type = "raid1"
      raids = ["m_rmeta_0", "m_rimage_0", "m_rmeta_1", "m_rimage_1"] } }
  m_rimage_0 { status = ["READ"] segment_count = 1
    segment1 { start_extent = 0 extent_count = 2 type = "striped" stripes = ["pv0", 3] } }
  old { status = ["VISIBLE"] segment_count = 1
    segment1 { start_extent = 0 extent_count = 2 type = "mirror" mirrors = ["m_rimage_0", 0, "x", 0] } }
  thin { status = ["VISIBLE"] segment_count = 1
    segment1 { start_extent = 0 extent_count = 5 type = "thin" thin_pool = "pool" } }
  loop { status = ["VISIBLE"] segment_count = 1
    segment1 { start_extent = 0 extent_count = 1 type = "striped" stripes = ["loop", 0] } }
  outside { status = ["VISIBLE"] segment_count = 1
    segment1 { start_extent = 0 extent_count = 9 type = "striped" stripes = ["pv0", 60] } }
} }
"""


def test_mirrors_are_read_and_what_cannot_be_is_told() -> None:
    disk = WholeDisk(60 * MIB, lambda offset, length: bytes(length))
    found = {v.name: v for v in parsed_volumes([(PhysicalVolume("AABB", disk.size, GROUP % 1), disk)])}
    assert list(found) == ["mirrored", "old", "thin", "loop", "outside"]
    for name in ("mirrored", "old"):
        device = found[name].device
        assert device is not None
        assert device.extents(0, device.size) == (DiskExtent(0, 2 * MIB, 4 * MIB),)
    assert "thin volume" in found["thin"].text
    assert found["loop"].text == "lvm group vg/loop: depth of nested volumes is 5; it must be at most 4"
    assert "must be inside the volume's 62914560 bytes" in found["outside"].text
    newer = PhysicalVolume("CC", 0, "vg { " + 'id = "group" seqno = 2 extent_size = 8 ' + "}")
    assert [v.text.split(":")[0] for v in parsed_volumes([(newer, disk)])] == ["damaged volume group"]


def test_volumes_made_of_volumes_cost_no_more_than_their_description() -> None:
    """Each of a thousand segments is the whole of the next volume: together they would be a billion."""
    segments = "".join(
        f'segment{at + 1} {{ start_extent = {at} extent_count = 1 type = "striped" stripes = ["NEXT", 0] }} '
        for at in range(1000)
    )
    levels = "".join(
        f'v{level} {{ status = ["VISIBLE"] segment_count = 1000 '
        + segments.replace("NEXT", f"v{level + 1}" if level < 3 else "pv0")
        + "} "
        for level in range(4)
    )
    text = GROUP % 1
    text = text[: text.index("logical_volumes")] + "logical_volumes { " + levels + "} }"
    disk = WholeDisk(60 * MIB, lambda offset, length: bytes(length))
    began = time.process_time()
    found = parsed_volumes([(PhysicalVolume("AABB", disk.size, text), disk)])
    assert [volume.device is not None for volume in found] == [True] * 4
    assert time.process_time() - began < 20, "and not for 1000 to the power of 4"


def test_extents_that_are_too_many_are_not_listed() -> None:
    disk = WholeDisk(1 << 40, lambda offset, length: bytes(length))
    device = StripedDevice([disk, disk], 65536, 1 << 40)
    assert device.extents(0, device.size) is None
    assert device.extents(65536, 65536) == (DiskExtent(65536, 65536, 0),)
    assert LinearDevice([MappedRange(0, 1 << 40, device, 0)]).extents(0, 1 << 40) is None


@given(st.text(alphabet='ab{}[]=,"\\1# \n', max_size=60))
def test_descriptions_are_parsed_or_damaged(text: str) -> None:
    with suppress(GuestDamaged):
        assert isinstance(parse_text(text), dict)


def test_names_become_safe() -> None:
    assert [safe_name(name) for name in ("vg-0", "..", "", "a/b", "ü\n", ".x")] == [
        "vg-0", "_", "_", "a_b", "__", ".x",
    ]  # fmt: skip


# ---- LUKS ---------------------------------------------------------------------------------------------

LUKS = {
    "LUKS1": (512, "--type", "luks1", "--pbkdf-force-iterations", "1000", "--hash", "sha256"),
    "LUKS2 argon2id": (
        512, "--type", "luks2", "--sector-size", "512", "--pbkdf", "argon2id", "--pbkdf-memory", "64",
        "--pbkdf-parallel", "2", "--pbkdf-force-iterations", "4",
    ),
    "LUKS2 pbkdf2": (
        4096, "--type", "luks2", "--sector-size", "4096", "--pbkdf", "pbkdf2",
        "--pbkdf-force-iterations", "1000",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LUKS)
def test_luks_opens_with_a_passphrase_and_is_told_without(kind: str, tmp_path: Path, ext4: bytes) -> None:
    sector, *options = LUKS[kind]
    image = luks(tmp_path / "image", ext4, *map(str, options), sector=int(sector))
    assert texts(image)["p0"].startswith(f"{kind[:5]} encrypted; no passphrase was given")
    assert "none of the passphrases" in texts(image, "wrong")["p0"]
    opened = volumes(image, "wrong", PASSPHRASE)["p0"]
    assert read_file(opened) == CONTENT
    assert opened.file_system is not None
    assert opened.file_system.lookup(2, b"file").extents is None
    if kind != "LUKS1":
        put(image, 0, bytes(4096))
        put(image, 0, b"LUKS\xba\xbe\0\x02")
        assert read_file(volumes(image, PASSPHRASE)["p0"]) == CONTENT, "by the second header"


def test_a_volume_group_inside_of_luks(tmp_path: Path, ext4: bytes) -> None:
    inner = blank(tmp_path / "inner", 24 * MIB)
    extents = logical_volumes([inner], "vg", ("-n", "root", "-L", "8m"))
    for number, (_, extent) in enumerate(extents["root"]):
        put(inner, MIB + extent * MIB, ext4[number * MIB : (number + 1) * MIB])
    image = luks(tmp_path / "image", inner.read_bytes(), *map(str, LUKS["LUKS2 pbkdf2"][1:]), sector=4096)
    assert list(volumes(image)) == ["p0"]
    found = volumes(image, PASSPHRASE)
    assert list(found) == ["p0", "lvm/vg/root"]
    assert read_file(found["lvm/vg/root"]) == CONTENT


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize(
    "mode", ["aes-xts-plain64", "aes-xts-plain", "aes-cbc-essiv:sha256", "aes-cbc-plain"]
)
def test_sectors_are_decrypted_alike_in_any_number(mode: str, sector: int) -> None:
    key = random_bytes(64 if "xts" in mode else 32, 1)
    decrypt = sector_decryptor(mode, key, sector)
    data = random_bytes(sector * 64, 2)
    step, first = sector // 512, (1 << 32) - 40 * sector // 512
    one_by_one = [decrypt(data[at * sector : (at + 1) * sector], first + at * step) for at in range(64)]
    assert decrypt(data, first) == b"".join(one_by_one)
    if "xts" in mode:
        number = (first + 63 * step) % (1 << 64 if mode.endswith("64") else 1 << 32)
        context = Cipher(algorithms.AES(key), modes.XTS(number.to_bytes(16, "little"))).encryptor()
        assert context.update(one_by_one[63]) == data[-sector:]


# ---- devices ------------------------------------------------------------------------------------------


@given(st.integers(0, 400), st.integers(0, 400))
def test_devices_made_of_parts_read_what_their_extents_say(offset: int, length: int) -> None:
    raw = random_bytes(4096 * 4, 3)
    disk = WholeDisk(len(raw), lambda start, count: raw[start : start + count])
    parts = [DeviceRange(disk, 4096 * number, 4096) for number in (2, 0, 1)]
    for device in (
        parts[0],
        LinearDevice(
            [
                MappedRange(0, 100, parts[0], 5),
                MappedRange(100, 50, parts[1], 0),
                MappedRange(150, 250, disk, 50),
            ]
        ),
        StripedDevice(parts, 512, 512 * 6),
        CachedDevice(parts[2]),
    ):
        if offset + length > device.size:
            with pytest.raises(GuestDamaged):
                device.read(offset, length)
            continue
        data = device.read(offset, length)
        extents = device.extents(offset, length)
        assert extents is not None
        assert data == b"".join(raw[disk : disk + count] for _, count, disk in extents)
        assert sum(extent.length for extent in extents) == length == len(data)
        ends = [offset, *(start + count for start, count, _ in extents)]
        assert [extent.start for extent in extents] == ends[:-1]
