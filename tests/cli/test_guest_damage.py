"""What users are told of damaged guests: the structure, the field, the value found and its limit."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from support.cli import Place
from support.guest_images import MIB, run
from support.guest_volumes import ext4_with

ELSEWHERE = "other volumes and disks can be used"
"""Begins the advice."""


class Case(NamedTuple):
    """Bytes that are written over a good disk, and what is said then of a path of the snapshot."""

    disk: Callable[[Path], bytearray]
    damage: Callable[[bytearray], None]
    path: str
    words: str


def ext4(path: Path) -> bytearray:
    return bytearray(ext4_with(path, 8 * MIB, "motd", b"hello\n").read_bytes())


def exfat(path: Path) -> bytearray:
    """A boot sector, which is damaged before anything else is looked at."""
    raw = bytearray(MIB)
    raw[3:11] = b"EXFAT   "
    struct.pack_into("<IIIII", raw, 80, 24, 8, 64, 500, 2)
    raw[108:111] = bytes([9, 3, 1])
    return raw


def partitioned(path: Path) -> bytearray:
    path.write_bytes(bytes(4 * MIB))
    run("sfdisk", "-q", path, data=b"label: dos\nstart=2048, size=4096\n")
    return bytearray(path.read_bytes())


def put(offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda raw: struct.pack_into(form, raw, offset, value)


def size_of_the_file(raw: bytearray) -> None:
    """The upper half of i_size of inode 12, the first behind lost+found."""
    block = 1024 << struct.unpack_from("<I", raw, 1024 + 0x18)[0]
    (table,) = struct.unpack_from("<I", raw, (2048 if block == 1024 else block) + 8)
    inode = table * block + 11 * 256
    assert struct.unpack_from("<H", raw, inode)[0] & 0o170000 == 0o100000, "a file"
    struct.pack_into("<I", raw, inode + 0x6C, 0xFFFFFFFF)


CASES = {
    "superblock": Case(
        ext4,
        put(1024 + 0x20, "<I", 0),
        "p0.txt",
        "damaged or unknown ext file system: ext4 superblock: blocks per group is 0; it must be at least 1\n",
    ),
    "inode": Case(
        ext4,
        size_of_the_file,
        "p0/motd",
        f"ext4 inode 12: size is {0xFFFFFFFF << 32 | 6}; it must be at most {2**63 - 1} bytes\n",
    ),
    "boot": Case(
        exfat,
        put(108, "<B", 3),
        "p0.txt",
        "damaged or unknown exfat file system: "
        "exfat boot sector: log2 of the sector size is 3; it must be 9 to 12\n",
    ),
    "table": Case(
        partitioned,
        put(446 + 12, "<I", 100_000),
        "p1.txt",
        f"damaged: it reaches from {MIB} to {MIB + 512 * 100_000} on a disk of {4 * MIB} bytes\n",
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A repository with one snapshot of each damaged disk, named as its case."""
    place = Place.make(tmp_path_factory.mktemp("damage"))
    for name, case in CASES.items():
        raw = case.disk(place.root / f"{name}.image")
        case.damage(raw)
        place.ok("backup", place.write(f"{name}.raw", bytes(raw)), "--name", name)
    return place


@pytest.mark.parametrize("name", CASES)
def test_damage_is_told_by_structure_field_value_and_limit(name: str, place: Place) -> None:
    case = CASES[name]
    result = place.run("dump", f"{name}:files/{name}/{case.path}")
    if case.path.endswith(".txt"):
        assert (result.exit_code, result.stdout) == (0, case.words)
        return
    assert (result.exit_code, result.stdout) == (1, "")
    first, advice = result.stderr.split("\n", 1)
    assert f"{first}\n" == f"holdfast: {name}: {case.words}"
    assert advice.strip().startswith(ELSEWHERE)
