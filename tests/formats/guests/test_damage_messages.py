"""What a user is told of a damaged guest: the structure, the field, the value found, and what is allowed."""

from __future__ import annotations

import ast
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import holdfast.formats
from holdfast.formats.guests.filesystems.base.devices import WholeDisk
from holdfast.formats.guests.values.damage import GuestUnsupported, StructureDamaged
from holdfast.formats.guests.values.values import GuestDamaged
from holdfast.formats.guests.volumes.open import open_volumes
from support.guest_images import MIB, blank, run
from support.guest_volumes import ext4_with

GUESTS = Path(holdfast.formats.__path__[0]) / "guests"
PASSED_ON = Path("client/guest.py")
"""Only there the plain class is made: of the words of the worker, which has made them of the parts."""


def text_of(raw: bytes | bytearray) -> str:
    """What is said of the only volume of a disk."""
    disk = WholeDisk(len(raw), lambda offset, length: bytes(raw[offset : offset + length]))
    (opened,) = open_volumes(disk, [])
    return opened.volume.text


def image(folder: Path, size: int, *command: str) -> bytearray:
    path = blank(folder / "image", size)
    run(*command, path)
    return bytearray(path.read_bytes())


def ext4(folder: Path) -> bytearray:
    return bytearray(ext4_with(folder / "image", 8 * MIB, "file", b"content").read_bytes())


def xfs(folder: Path) -> bytearray:
    return image(folder, 300 * MIB, "mkfs.xfs", "-q")


def btrfs(folder: Path) -> bytearray:
    return image(folder, 128 * MIB, "mkfs.btrfs", "-q")


def ntfs(folder: Path) -> bytearray:
    return image(folder, 8 * MIB, "mkntfs", "-q", "-F")


def exfat(folder: Path) -> bytearray:
    """A boot sector; it is damaged before anything else is looked at."""
    raw = bytearray(8 * MIB)
    raw[3:11] = b"EXFAT   "
    struct.pack_into("<IIIII", raw, 80, 24, 8, 64, 500, 2)
    raw[108:111] = bytes([9, 3, 1])
    return raw


CASES = [
    (ext4, 1024 + 0x18, "<I", 7, "ext4 superblock: log2 of the block size in KiB is 7; it must be at most 6"),
    (ext4, 1024 + 0x20, "<I", 0, "ext4 superblock: blocks per group is 0; it must be at least 1"),
    (ext4, 1024 + 0x28, "<I", 0, "ext4 superblock: inodes per group is 0; it must be at least 1"),
    (ext4, 1024 + 0x14, "<I", 9, "ext4 superblock: first data block is 9; it must be 0 or 1"),
    (
        ext4,
        1024 + 0x60,
        "<I",
        0x80000000,
        "ext4 superblock: it needs features that this program does not know: 0x80000000",
    ),
    (xfs, 4, ">I", 3, "xfs superblock: block size is 3; it must be a power of two from 512 to 65536 bytes"),
    (xfs, 88, ">I", 0, "xfs superblock: number of allocation groups is 0; it must be at least 1"),
    (xfs, 100, ">H", 0xB4A6, "xfs superblock: its version 0xb4a6 is not known here: 4 and 5 are"),
    (
        btrfs,
        0x10094,
        "<I",
        0,
        "btrfs superblock: node size is 0; it must be one of 4096, 8192, 16384, 32768, 65536 bytes, and not "
        "less than the sector size 4096",
    ),
    (
        btrfs,
        0x100A0,
        "<I",
        4000,
        "btrfs superblock: size of the system chunks is 4000; it must be at most 2048 bytes",
    ),
    (btrfs, 0x10088, "<Q", 3, "btrfs superblock: the file system lies on 3 devices"),
    (
        ntfs,
        11,
        "<H",
        7,
        "ntfs boot sector: sector size is 7; it must be one of 256, 512, 1024, 2048, 4096 bytes",
    ),
    (
        ntfs,
        64,
        "<b",
        -5,
        "ntfs boot sector: record size is 32; it must be a power of two from 512 to 65536 bytes",
    ),
    (exfat, 108, "<B", 3, "exfat boot sector: log2 of the sector size is 3; it must be 9 to 12"),
    (
        exfat,
        92,
        "<I",
        9000,
        "exfat boot sector: number of clusters is 9000; it must be 1 to 1022, the entries of its table",
    ),
]


@pytest.mark.parametrize(
    ("make", "offset", "form", "value", "words"),
    CASES,
    ids=[words.split(":")[0] + " " + str(offset) for _, offset, _, _, words in CASES],
)
def test_a_damaged_superblock_is_told_by_field_value_and_limit(
    make: Callable[[Path], bytearray], offset: int, form: str, value: int, words: str, *, tmp_path: Path
) -> None:
    raw = make(tmp_path)
    struct.pack_into(form, raw, offset, value)
    family = make.__name__.removesuffix("4")
    assert text_of(raw) == f"damaged or unknown {family} file system: {words}"


def test_the_size_of_an_inode_is_told_with_its_limit(tmp_path: Path) -> None:
    raw = ext4(tmp_path)
    block = 1024 << struct.unpack_from("<I", raw, 1024 + 0x18)[0]
    (table,) = struct.unpack_from("<I", raw, (2048 if block == 1024 else block) + 8)
    disk = WholeDisk(len(raw), lambda offset, length: bytes(raw[offset : offset + length]))
    (opened,) = open_volumes(disk, [])
    assert opened.file_system is not None
    inode = opened.file_system.lookup(2, b"file").inode
    struct.pack_into("<I", raw, table * block + (inode - 1) * 256 + 0x6C, 0xFFFFFFFF)
    (opened,) = open_volumes(disk, [])
    assert opened.file_system is not None
    with pytest.raises(StructureDamaged) as damage:
        opened.file_system.entry(inode)
    assert str(damage.value) == (
        f"ext4 inode {inode}: size is {0xFFFFFFFF00000007}; it must be at most {(1 << 63) - 1} bytes"
    )
    assert damage.value.structure == f"ext4 inode {inode}"
    assert (damage.value.field, damage.value.value) == ("size", 0xFFFFFFFF00000007)


def test_what_a_guest_wrote_is_short_and_harmless_in_a_message() -> None:
    hostile = "\x1b[31m\u202e\n" + "x" * 10_000
    for damage in (
        StructureDamaged(hostile, "field", hostile, hostile),
        StructureDamaged("structure", hostile, hostile.encode(), "limit"),
        GuestUnsupported(hostile, hostile),
    ):
        assert str(damage).isprintable()
        assert len(str(damage)) < 700
    assert str(StructureDamaged("a", "b", b"\x1b[31m", "c")) == r"a: b is b'\x1b[31m'; it must be c"


def test_parsers_raise_damage_by_its_parts_only() -> None:
    """No message is made by hand: plain GuestDamaged is made only where the worker's words are passed on."""
    by_hand = []
    seen = 0
    for path in sorted(GUESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            name, where = node.func.id, path.relative_to(GUESTS)
            seen += name == "StructureDamaged"
            if name == "GuestDamaged" and where != PASSED_ON:
                by_hand.append(f"{where}:{node.lineno}")
            parts = {"StructureDamaged": 4, "GuestUnsupported": 2, "CipherUnknown": 2}.get(name)
            if parts is not None and len(node.args) != parts and not node.keywords:
                by_hand.append(f"{where}:{node.lineno}")
    assert by_hand == []
    assert seen > 60
    assert issubclass(StructureDamaged, GuestDamaged)


def test_raw_offsets_stand_in_layouts_only() -> None:
    """Fields are read through named structs: no parser takes a number out of bytes by a format in place."""
    in_place = []
    for path in sorted((GUESTS).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "struct"
                and node.func.attr in ("unpack", "unpack_from", "iter_unpack")
            ):
                in_place.append(f"{path.relative_to(GUESTS)}:{node.lineno}")
    assert in_place == []
