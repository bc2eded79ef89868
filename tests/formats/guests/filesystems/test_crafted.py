"""Structures made by hand, each wrong in one way: what random damage rarely hits."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from holdfast.formats.guests.filesystems.base.devices import WholeDisk
from holdfast.formats.guests.filesystems.base.names import NameCache, safe_names
from holdfast.formats.guests.filesystems.btrfs.chunks import Chunks
from holdfast.formats.guests.filesystems.btrfs.compression import unpack
from holdfast.formats.guests.filesystems.btrfs.data import parse_extents
from holdfast.formats.guests.filesystems.btrfs.filesystem import BtrfsFileSystem
from holdfast.formats.guests.filesystems.btrfs.trees import TreeRoot, Trees
from holdfast.formats.guests.filesystems.ext.blocks import BlockReader
from holdfast.formats.guests.filesystems.ext.filesystem import ExtFileSystem
from holdfast.formats.guests.filesystems.fat.fat import FatFileSystem
from holdfast.formats.guests.filesystems.ntfs.filesystem import NtfsFileSystem
from holdfast.formats.guests.filesystems.ntfs.lznt1 import decompress
from holdfast.formats.guests.values.values import GuestDamaged, GuestMissing
from holdfast.formats.guests.volumes.open import open_volumes
from support.basics import random_bytes
from support.guest_images import MIB, blank, run
from support.guest_volumes import PASSPHRASE, ext4_with, logical_volumes, luks


def disk_of(raw: bytes | bytearray) -> WholeDisk:
    return WholeDisk(len(raw), lambda offset, length: bytes(raw[offset : offset + length]))


def damaged(message: str) -> AbstractContextManager[object]:
    """Expect damage that is told in exactly these words."""
    return pytest.raises(GuestDamaged, match=f"^{re.escape(message)}$")


def told(raw: bytes | bytearray, *passphrases: str) -> list[tuple[str, int, str]]:
    found = [opened.volume for opened in open_volumes(disk_of(raw), passphrases)]
    return [(volume.path, volume.size, volume.text or volume.file_system) for volume in found]


def test_names_are_shown_once() -> None:
    names = [
        (b"a", 1),
        (b"a", 2),
        (b"", 3),
        (b".", 4),
        (b"..", 5),
        (b"b/c", 6),
        (b"d\0", 7),
        (b"e" * 1025, 8),
    ]
    assert list(safe_names(names)) == [(b"a", 1)]


def test_names_asked_again_are_found_as_the_first_time() -> None:
    folders = {
        7: [(b"a", 1), (b"b", 2), (b"a", 3)],
        8: [(b"%d" % number, number) for number in range(300_000)],
    }
    asked: list[int] = []

    def names(folder: int) -> Iterator[tuple[bytes, int]]:
        asked.append(folder)
        yield from folders[folder]
        if folder == 7 and len(asked) == 1:
            raise GuestDamaged("the end is damaged")

    cache = NameCache()
    assert cache.find(7, b"b", names) == 2, "it stands before the damage"
    assert [cache.find(7, name, names) for name in (b"a", b"b", b"c")] == [1, 2, None]
    assert asked == [7, 7]
    assert [cache.find(8, name, names) for name in (b"299999", b"5", b"x")] == [299_999, 5, None]
    assert asked == [7, 7, 8, 8, 8], "a folder too large to keep is searched each time"


def test_pieces_of_no_length_are_damage() -> None:
    """A tree of them could lead to the same block a billion times."""
    block = struct.pack("<HHHHI", 0xF30A, 84, 84, 0, 0) + struct.pack("<III", 0, 0, 9) * 84
    device = disk_of(block.ljust(1024, b"\0"))
    root = struct.pack("<HHHHIIII", 0xF30A, 1, 4, 1, 0, 0, 0, 0)
    with damaged("file extent: length at offset 0 is 0; it must be at least 1 byte"):
        BlockReader(device, 1024, 12).by_extents(root.ljust(60, b"\0"))


def test_an_indirect_block_is_followed_once() -> None:
    device = disk_of(bytes(5 * 1024) + struct.pack("<256I", *([5] * 256)))
    root = struct.pack("<15I", *([0] * 13), 5, 0)
    with damaged("ext inode 12: indirect block is 5; it must be used once, but it is used twice"):
        BlockReader(device, 1024, 12).by_map(root, 1 << 30)


def test_a_folder_larger_than_the_disk_is_damaged(tmp_path: Path) -> None:
    raw = bytearray(ext4_with(tmp_path / "image", 8 * MIB, "file", b"content").read_bytes())
    block = 1024 << struct.unpack_from("<I", raw, 1024 + 0x18)[0]
    (table,) = struct.unpack_from("<I", raw, (2048 if block == 1024 else block) + 8)
    struct.pack_into("<I", raw, table * block + 256 + 4, 0x7FFFFFFF)
    with damaged("ext4 inode 2: size of the directory is 2147483647; it must be at most 8388608 bytes"):
        list(ExtFileSystem(disk_of(raw)).list(2))


def test_a_journal_that_was_not_replayed_is_told(tmp_path: Path, ntfs: tuple[bytearray, int, int]) -> None:
    raw = bytearray(ext4_with(tmp_path / "ext4", 8 * MIB, "file", b"content").read_bytes())
    assert told(raw) == [("p0", 8 * MIB, "ext4")]
    raw[1024 + 0x60] |= 4
    assert "journal" in told(raw)[0][2]
    raw, inode, place = ntfs
    assert told(raw) == [("p0", 8 * MIB, "ntfs")]
    # In the third record, the attribute of the volume's flags: its version before them.
    at = raw.index(b"\x70\0\0\0", place - (inode - 3) * 1024)
    (value,) = struct.unpack_from("<H", raw, at + 20)
    raw[at + value + 10] |= 1
    assert "journal" in told(raw)[0][2]


# ---- btrfs --------------------------------------------------------------------------------------------


def test_btrfs_extents_that_overlap_are_damaged() -> None:
    extent = struct.pack("<QQBBHBQQQQ", 1, 8192, 1, 0, 0, 1, 4096, 4096, 0, 8192)
    assert len(parse_extents([(0, extent), (8192, extent)], 257)) == 2
    with damaged(
        "btrfs inode 257: start of an extent is 4096; it must be at least 8192, so that they do not overlap"
    ):
        parse_extents([(0, extent), (4096, extent)], 257)


def test_a_btrfs_node_must_be_the_one_that_was_meant() -> None:
    def node(address: int) -> bytes:
        head = bytes(0x30) + struct.pack("<QQ16sQQIB", address, 0, b"", 1, 5, 1, 0)
        return (head + struct.pack("<QBQII", 256, 1, 0, 3900, 4)).ljust(101 + 3900, b"\0") + b"item".ljust(95)

    for address in (0x10000, 0x20000):
        chunks = Chunks(4096, 1)
        chunks.add(0x10000, struct.pack("<QQQQIIIHHQQ16s", 4096, 2, 65536, 2, 0, 0, 0, 1, 0, 1, 0, b""))
        trees = Trees(disk_of(node(address)), chunks, 4096)
        if address == 0x10000:
            assert trees.find(TreeRoot(0x10000, 0), (256, 1, 0)) == b"item"
        else:
            with damaged("btrfs node 65536: address in its header is 131072; it must be 65536"):
                trees.find(TreeRoot(0x10000, 0), (256, 1, 0))


def test_a_btrfs_tree_of_leaves_without_items_is_damaged() -> None:
    """A hundred pointers to the same node on each of seven levels."""
    raw = bytearray()
    for level in range(8):
        head = struct.pack("<QQ16sQQIB", level * 4096, 0, b"", 1, 5, 100 if level else 0, level)
        pointers = [
            struct.pack("<QBQQQ", key, 1, 0, (level - 1) * 4096, 1) for key in range(100 if level else 0)
        ]
        raw += (bytes(0x30) + head + b"".join(pointers)).ljust(4096, b"\0")
    chunks = Chunks(len(raw), 1)
    chunks.add(0, struct.pack("<QQQQIIIHHQQ16s", len(raw), 2, 65536, 2, 0, 0, 0, 1, 0, 1, 0, b""))
    trees = Trees(disk_of(raw), chunks, 4096)
    with damaged("btrfs node 24576: last key is (99, 1, 0); it must be below the next pointer's, (1, 1, 0)"):
        list(trees.items(TreeRoot(7 * 4096, 7), (0, 0, 0), (200, 0, 0)))


def test_the_size_of_a_plain_btrfs_extent_is_what_is_stored() -> None:
    """Writing to preallocated space, Linux set the other size to that of the write."""
    extent = struct.pack("<QQBBHBQQQQ", 1, 4096, 0, 0, 0, 1, 1 << 20, 16384, 8192, 8192)
    assert parse_extents([(0, extent)], 257)[0].length == 8192
    with damaged("btrfs inode 257: end of the extent at 0 is 16385; it must be at most 16384"):
        parse_extents([(0, extent[:-8] + struct.pack("<Q", 8193))], 257)


def test_lzo_that_copies_from_before_the_start_is_damaged() -> None:
    """The decoder panics there, which is no Exception of Python."""
    segment = b"\x11\xb8\xa9"
    with pytest.raises(GuestDamaged, match="packed segment"):
        unpack(struct.pack("<II", 8 + len(segment), len(segment)) + segment, 2, 4096, 4096)


def test_the_second_copy_of_a_btrfs_node_is_read_when_the_first_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content" * 5000)
    run("mkfs.btrfs", "-q", "-m", "dup", "-r", tmp_path / "tree", blank(tmp_path / "image", 128 * MIB))
    raw = bytearray((tmp_path / "image").read_bytes())
    seen: dict[bytes, int] = {}
    for at in range(1 << 20, len(raw), 16384):
        node = bytes(raw[at : at + 16384])
        if node[0x20:0x30] != raw[0x10020:0x10030]:
            continue
        if node in seen:
            struct.pack_into("<I", raw, seen[node] + 0x60, 0xFFFFFFFF)  # its number of items
        seen[node] = at
    file_system = BtrfsFileSystem(disk_of(raw))
    inode = file_system.lookup(file_system.root, b"file").inode
    assert file_system.read(inode, 0, 99_999) == b"content" * 5000


# ---- NTFS ---------------------------------------------------------------------------------------------


@pytest.fixture
def ntfs(tmp_path: Path) -> tuple[bytearray, int, int]:
    """(image, inode of its file of 100,000 bytes, where its record stands)."""
    (tmp_path / "file").write_bytes(random_bytes(100_000, 1))
    run("mkntfs", "-q", "-F", blank(tmp_path / "image", 8 * MIB))
    run("ntfscp", "-q", tmp_path / "image", tmp_path / "file", "file")
    raw = bytearray((tmp_path / "image").read_bytes())
    inode = NtfsFileSystem(disk_of(raw)).lookup(5, b"file").inode
    return raw, inode, struct.unpack_from("<Q", raw, 48)[0] * 4096 + inode * 1024


def test_what_was_never_written_of_an_ntfs_file_is_zeros(ntfs: tuple[bytearray, int, int]) -> None:
    raw, inode, place = ntfs
    sizes = struct.pack("<QQ", 100_000, 100_000)
    assert raw.count(sizes, place, place + 1024) == 1
    struct.pack_into("<Q", raw, raw.index(sizes, place) + 8, 5000)
    file_system = NtfsFileSystem(disk_of(raw))
    assert file_system.read(inode, 0, 200_000) == random_bytes(100_000, 1)[:5000] + bytes(95_000)
    extents = file_system.entry(inode).extents
    assert extents is not None
    assert [(extent.start, extent.length, extent.disk < 0) for extent in extents] == [
        (0, 5000, False),
        (5000, 95_000, True),
    ]


def test_an_ntfs_record_written_in_part_is_damaged(ntfs: tuple[bytearray, int, int]) -> None:
    raw, inode, place = ntfs
    raw[place + 511] ^= 0x55
    with pytest.raises(GuestDamaged, match="written in part"):
        NtfsFileSystem(disk_of(raw)).entry(inode)


def test_an_ntfs_folder_never_shows_another_file_under_an_old_name(
    ntfs: tuple[bytearray, int, int],
) -> None:
    """A record that was given away since, with the change of the folder still in the log."""
    raw, inode, place = ntfs
    struct.pack_into("<H", raw, place + 16, struct.unpack_from("<H", raw, place + 16)[0] + 1)
    file_system = NtfsFileSystem(disk_of(raw))
    assert file_system.entry(inode).size == 100_000
    assert list(file_system.list(5)) == []
    with pytest.raises(GuestMissing, match="another file"):
        file_system.lookup(5, b"file")


def test_an_ntfs_file_whose_runs_end_early_is_damaged(ntfs: tuple[bytearray, int, int]) -> None:
    """Its last part may have stood in a record that is lost: no zeros for it."""
    raw, inode, place = ntfs
    sizes = struct.pack("<QQ", 100_000, 100_000)
    at = raw.index(sizes, place)
    raw[at : at + 16] = struct.pack("<QQ", 200_000, 200_000)
    file_system = NtfsFileSystem(disk_of(raw))
    assert file_system.entry(inode).extents is None
    with damaged("ntfs record 64: end of the clusters of an attribute is 102400; it must be at least 200000"):
        file_system.read(inode, 0, 100)


def test_compressed_data_cannot_leave_its_chunk() -> None:
    with damaged("ntfs compressed data: length of a copy is 4098; it must be at most 4095"):
        decompress(struct.pack("<HBBH", 0xB003, 0b10, 97, 0x0FFF), 65536)
    assert decompress(struct.pack("<HBBH", 0xB003, 0b10, 97, 0x0002), 8) == b"aaaaaa\0\0"


# ---- FAT ----------------------------------------------------------------------------------------------


def test_fat_folders_that_go_round_and_long_names_of_others(tmp_path: Path) -> None:
    run("mkfs.fat", "-F", "16", blank(tmp_path / "image", 32 * MIB))
    (tmp_path / "a long name").write_bytes(b"content")
    run("mmd", "-i", tmp_path / "image", "::FOLDER")
    run("mcopy", "-i", tmp_path / "image", tmp_path / "a long name", "::")
    raw = bytearray((tmp_path / "image").read_bytes())
    file_system = FatFileSystem(disk_of(raw))
    found = dict(file_system.list(file_system.root))
    assert sorted(found) == [b"FOLDER", b"a long name"]
    raw[found[b"a long name"].inode * 32 - 32 + 13] ^= 1  # the checksum that ties the two entries
    (cluster,) = struct.unpack_from("<H", raw, found[b"FOLDER"].inode * 32 + 26)
    reserved = struct.unpack_from("<H", raw, 14)[0] * 512
    struct.pack_into("<H", raw, reserved + cluster * 2, cluster)
    data = bytes(raw).index(b".          \x10")
    raw[data : data + 2048] = (b"\xe5" + bytes(31)) * 64  # no end in its only cluster
    file_system = FatFileSystem(disk_of(raw))
    assert sorted(name for name, _ in file_system.list(file_system.root)) == [b"ALONGN~1", b"FOLDER"]
    with damaged("fat directory: clusters of its chain is more than 1024; it must be at most 1024"):
        list(file_system.list(found[b"FOLDER"].inode))


# ---- tables and headers with checksums ----------------------------------------------------------------


@pytest.mark.parametrize("place", [512 + 80, 512 + 72, 1024 + 32, 1024 + 300])
def test_a_gpt_with_a_wrong_checksum_gives_way_to_its_backup(place: int, tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 20 * MIB)
    run("sgdisk", "-n", "1:2048:+1M", "-n", "2:0:+2M", image)
    raw = bytearray(image.read_bytes())
    expected = told(raw)
    assert len(expected) == 2
    raw[place] ^= 0x05
    assert told(raw) == expected


def test_a_damaged_lvm_description_is_told(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 16 * MIB)
    logical_volumes([image], "vg", ("-n", "root", "-L", "4m"))
    raw = bytearray(image.read_bytes())
    assert [path for path, _, _ in told(raw)] == ["p0", "lvm/vg/root"]
    raw = raw.replace(b"extent_count = 4", b"extent_count = 9")
    ((path, _, text),) = told(raw)
    assert path == "p0"
    assert re.fullmatch(
        r"damaged: lvm metadata area at 4096: checksum of the description at \d+ is 0x[0-9a-f]{8}; "
        r"it must be 0x[0-9a-f]{8}",
        text,
    )


def test_a_luks2_header_with_a_wrong_checksum_gives_way_to_the_second(tmp_path: Path) -> None:
    payload = ext4_with(tmp_path / "payload", 4 * MIB, "file", b"content").read_bytes()
    image = luks(
        tmp_path / "image", payload, "--type", "luks2", "--sector-size", "512", "--pbkdf", "pbkdf2",
        "--pbkdf-force-iterations", "1000",
    )  # fmt: skip
    raw = bytearray(image.read_bytes())
    expected = told(raw, PASSPHRASE)
    assert expected[0][2] == "ext4"
    offset = json.loads(bytes(raw[4096:16384]).split(b"\0")[0])["segments"]["0"]["offset"].encode()
    at = raw.index(b'"offset":"' + offset)
    raw[at + 10] ^= 1
    assert told(raw, PASSPHRASE) == expected
    at = raw.index(b'"offset":"' + offset)
    raw[at + 10] ^= 1
    assert "checksum" in told(raw, PASSPHRASE)[0][2]
