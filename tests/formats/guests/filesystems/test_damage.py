"""Damaged and hostile file systems: answers or errors, in bounded time and memory; no crash and no hang."""

from __future__ import annotations

import os
import random
import resource
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.formats.guests.filesystems.base.devices import WholeDisk
from holdfast.formats.guests.filesystems.base.directory_tree import PARSE_ERRORS
from holdfast.formats.guests.filesystems.base.interface import FileSystem
from holdfast.formats.guests.filesystems.ext.filesystem import ExtFileSystem
from holdfast.formats.guests.values.values import GuestDamaged, NodeType
from holdfast.formats.guests.volumes.open import open_volumes
from support.basics import random_bytes
from support.guest_images import MIB, blank, file_disk, mounted, run
from support.guest_volumes import ext4_with

_MUTANTS = 60
_SECONDS = 60
"""Of processor time, for one mutant; a few hundredths are usual."""
_MEMORY = 300 << 10
"""KiB by which all mutants of a kind may make the process grow."""


def disk_of(raw: bytes | bytearray) -> WholeDisk:
    return WholeDisk(len(raw), lambda offset, length: bytes(raw[offset : offset + length]))


def fill(top: Path) -> None:
    (top / "folder").mkdir()
    for number in range(300):
        (top / "folder" / f"name {number}").write_bytes(random_bytes(number * 7, number))
    (top / "large").write_bytes(random_bytes(600_000, 1))
    (top / "text").write_bytes(b"text " * 50_000)
    (top / "link").symlink_to("t" * 200)


def make_ext4(folder: Path, tree: Path) -> Path:
    image = blank(folder / "image", 12 * MIB)
    run("mkfs.ext4", "-q", "-b", "1024", "-d", tree, image)
    return image


def make_ext2(folder: Path, tree: Path) -> Path:
    image = blank(folder / "image", 12 * MIB)
    run("mkfs.ext2", "-q", "-b", "1024", "-d", tree, image)
    return image


def make_xfs(folder: Path, tree: Path) -> Path:
    image = blank(folder / "image", 300 * MIB)
    run("mkfs.xfs", "-q", image)
    with mounted(image, folder / "mount") as top:
        fill(top)
        run("setfattr", "-n", "user.name", "-v", "v" * 3000, top / "large")
    return image


def make_btrfs(folder: Path, tree: Path) -> Path:
    image = blank(folder / "image", 128 * MIB)
    run("mkfs.btrfs", "-q", "-m", "single", image)
    with mounted(image, folder / "mount", "compress-force=zlib") as top:
        fill(top)
    return image


def make_ntfs(folder: Path, tree: Path) -> Path:
    image = blank(folder / "image", 16 * MIB)
    run("mkntfs", "-q", "-F", image)
    for name in ("large", "text"):
        run("ntfscp", "-q", image, tree / name, name)
    for number in range(80):
        run("ntfscp", "-q", image, tree / "folder" / f"name {number}", f"name {number}")
    return image


def make_fat(folder: Path, tree: Path) -> Path:
    image = blank(folder / "image", 12 * MIB)
    run("mkfs.fat", "-F", "16", image)
    run("mcopy", "-s", "-Q", "-i", image, tree / "folder", tree / "large", tree / "text", "::")
    return image


@pytest.mark.parametrize("make", [make_ext4, make_ext2, make_xfs, make_btrfs, make_ntfs, make_fat])
def test_mutants_end_in_answers_or_errors(make: Callable[[Path, Path], Path], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    fill(tree)
    image = make(tmp_path, tree)
    with file_disk(image) as disk:
        sound, complaints = walk(disk)
        assert sound > 80
        assert complaints == 0
        tables = [at for at in used_sectors(image) if not is_plain(disk.read(at, 512))]
        dice = random.Random(len(tables))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        noticed = 0
        for _ in range(_MUTANTS):
            patches: dict[int, bytes] = {}
            for _ in range(dice.choice((1, 1, 2, 8))):
                at = dice.choice(tables)
                patches[at] = mutate(disk.read(at, 512), disk.read(dice.choice(tables), 512), dice)
            began = time.process_time()
            found, complaints = walk(patched(disk, patches))
            assert time.process_time() - began < _SECONDS
            noticed += bool(complaints) or found != sound
    assert noticed >= 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _MEMORY


def patched(disk: WholeDisk, patches: dict[int, bytes]) -> WholeDisk:
    def read(offset: int, length: int) -> bytes:
        data = disk.read(offset, length)
        for at, sector in patches.items():
            if offset - 512 < at < offset + length:
                whole = bytearray(512 + length + 512)
                whole[512 : 512 + length] = data
                whole[512 + at - offset : 1024 + at - offset] = sector
                data = bytes(whole[512 : 512 + length])
        return data

    return WholeDisk(disk.size, read)


def used_sectors(image: Path) -> Iterator[int]:
    """Sectors that are not in a hole of the image."""
    with image.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = 0
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield from range(start, end, 512)


def is_plain(sector: bytes) -> bool:
    """Content of files rather than tables: random, or the text; or all the same."""
    return len(set(sector)) > 200 or len(set(sector)) == 1 or b"text text" in sector


def mutate(sector: bytes, other: bytes, dice: random.Random) -> bytes:
    raw = bytearray(sector)
    place = dice.randrange(512)
    kind = dice.randrange(5)
    if kind == 0:
        raw[place] = dice.randrange(256)
    elif kind == 1:
        raw[place] ^= 1 << dice.randrange(8)
    elif kind == 2:
        raw[place:] = dice.choice((b"\0", b"\xff")) * (512 - place)
    elif kind == 3:
        value = dice.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 0xFFFFFFFFFFFFFFFF))
        struct.pack_into("<Q", raw, dice.randrange(0, 504, 4), value)
    else:
        return other
    return bytes(raw)


def walk(disk: WholeDisk) -> tuple[int, int]:
    """Look at everything. (entries seen, errors met); any other exception than a parser's fails the test."""
    seen = errors = 0
    for opened in open_volumes(disk, []):
        if opened.file_system is None:
            errors += 1
            continue
        file_system = opened.file_system
        visited = {file_system.root}
        pending = [file_system.root]
        while pending and seen < 5000:
            folder = pending.pop()
            names = set()
            try:
                for name, entry in file_system.list(folder):
                    assert name not in names
                    assert b"/" not in name
                    names.add(name)
                    seen += 1
                    errors += look_at(file_system, entry.inode, entry.type, entry.size)
                    if entry.type is NodeType.FOLDER and entry.inode not in visited:
                        visited.add(entry.inode)
                        pending.append(entry.inode)
            except PARSE_ERRORS:
                errors += 1
    return seen, errors


def look_at(file_system: FileSystem, inode: int, type_: NodeType, size: int) -> int:
    errors = 0
    try:
        file_system.xattrs(inode)
    except PARSE_ERRORS:
        errors += 1
    try:
        if type_ is NodeType.LINK:
            file_system.readlink(inode)
        elif type_ is NodeType.FILE:
            for place in {0, max(size - 100_000, 0)}:
                data = file_system.read(inode, place, 100_000)
                assert len(data) == min(100_000, size - place)
    except PARSE_ERRORS:
        errors += 1
    return errors


# ---- crafted ------------------------------------------------------------------------------------------


@pytest.fixture
def ext4(tmp_path: Path) -> tuple[bytearray, int, int]:
    """(image, inode of its file, where that stands)."""
    raw = bytearray(ext4_with(tmp_path / "image", 8 * MIB, "file", b"content").read_bytes())
    inode = ExtFileSystem(disk_of(raw)).lookup(2, b"file").inode
    block = 1024 << struct.unpack_from("<I", raw, 1024 + 0x18)[0]
    first = 2048 if block == 1024 else block
    (table,) = struct.unpack_from("<I", raw, first + 8)
    return raw, inode, table * block + (inode - 1) * 256


def extents(depth: int, *records: tuple[int, int, int]) -> bytes:
    return struct.pack("<HHHHI", 0xF30A, len(records), 4, depth, 0) + b"".join(
        struct.pack("<III", *record) for record in records
    )


@pytest.mark.parametrize(
    "root",
    [
        extents(0, (0, 4, 100), (2, 4, 200)),
        extents(0, (5, 1, 100), (1, 1, 200)),
        extents(6, (0, 100, 0)),
        extents(1, (0, 0xFFFFFFFF, 0xFFFF)),
        extents(1, (0, 0, 0)),
        extents(0, (0, 1, 0xFFFFFFF0)),
        b"\0" * 12,
    ],
    ids=["overlap", "backwards", "too deep", "outside", "no node", "data outside", "no magic"],
)
def test_damaged_extents_are_an_error_when_the_file_is_read(
    ext4: tuple[bytearray, int, int], root: bytes
) -> None:
    raw, inode, place = ext4
    raw[place + 40 : place + 100] = root.ljust(60, b"\0")
    file_system = ExtFileSystem(disk_of(raw))
    assert file_system.entry(inode).extents is None, "the entry is there all the same"
    with pytest.raises(GuestDamaged):
        file_system.read(inode, 0, 7)


def test_an_extent_tree_that_leads_to_itself_is_damaged(ext4: tuple[bytearray, int, int]) -> None:
    raw, inode, place = ext4
    block = 1024 << struct.unpack_from("<I", raw, 1024 + 0x18)[0]
    raw[place + 40 : place + 100] = extents(1, (0, 4000, 0)).ljust(60, b"\0")
    raw[4000 * block % len(raw) : 4000 * block % len(raw) + 24] = extents(1, (0, 4000, 0))
    with pytest.raises(GuestDamaged):
        ExtFileSystem(disk_of(raw)).read(inode, 0, 7)


def test_a_huge_sparse_file_costs_nothing(ext4: tuple[bytearray, int, int]) -> None:
    raw, inode, place = ext4
    struct.pack_into("<I", raw, place + 0x6C, 0x7FFFFFFF)
    struct.pack_into("<I", raw, place + 4, 0xFFFFFFFF)
    file_system = ExtFileSystem(disk_of(raw))
    entry = file_system.entry(inode)
    assert entry.size == (1 << 63) - 1
    assert len(entry.extents or ()) == 2
    assert file_system.read(inode, entry.size - 5, 100) == bytes(5)
    struct.pack_into("<I", raw, place + 0x6C, 0x80000000)
    with pytest.raises(GuestDamaged):
        ExtFileSystem(disk_of(raw)).entry(inode)


def test_names_that_cannot_be_shown_and_loops_are_left_out(ext4: tuple[bytearray, int, int]) -> None:
    raw, _, _ = ext4
    for hostile in (b"fi/e", b"fi\0e", b"../x"):
        bad = raw.replace(b"\x04\x01file", b"\x04\x01" + hostile)
        names = [name for name, _ in ExtFileSystem(disk_of(bad)).list(2)]
        assert names == [b"lost+found"]
    at = raw.index(b"\x04\x01file") - 6
    for back in (2, 11):  # the top itself, then lost+found under a second name
        struct.pack_into("<I", raw, at, back)
        names = [name for name, _ in ExtFileSystem(disk_of(raw)).list(2)]
        assert names == ([b"lost+found"] if back == 2 else [b"lost+found", b"file"])
