"""FAT12, FAT16, FAT32 and exFAT: names, contents and times as they were put in."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from holdfast.formats.guests.filesystems.fat.exfat import ExfatFileSystem
from holdfast.formats.guests.filesystems.fat.fat import FatFileSystem
from holdfast.formats.guests.values.values import DiskExtent, GuestMissing, NodeType
from support.basics import random_bytes
from support.guest_images import MANY, MIB, blank, differences, file_disk, oracle, parsed, run

TIME = 1_600_000_000 * 1_000_000_000


def fill(top: Path) -> None:
    (top / "folder" / "deeper").mkdir(parents=True)
    for number in range(30):
        (top / "folder" / f"small {number}").write_bytes(random_bytes(137 * number, number))
    for name in (
        "UPPER.TXT",
        "lower.txt",
        "Mixed.tXt",
        "low.EXT",
        "NOEXT",
        "n" * 250,
        "Grüße 漢字.txt",
        "empty",
    ):
        (top / name).write_bytes(b"" if name == "empty" else name.encode())
    (top / "large").write_bytes(random_bytes(2 * MIB + 123, 1))
    for path in top.rglob("*"):
        os.utime(path, ns=(TIME, TIME))


@pytest.mark.parametrize(
    ("bits", "size", "per_cluster"), [(12, 8, 8), (16, 32, 2), (16, 100, 8), (32, 64, 1)]
)
def test_everything_is_as_it_was_copied_in(bits: int, size: int, per_cluster: int, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    fill(tree)
    image = blank(tmp_path / "image", size * MIB)
    run("mkfs.fat", "-F", str(bits), "-s", str(per_cluster), "-n", "A LABEL", image)
    run("env", "TZ=UTC", "LC_ALL=C.UTF-8", "mcopy", "-s", "-m", "-Q", "-i", image, *tree.iterdir(), "::")
    with file_disk(image) as disk:
        file_system = FatFileSystem(disk)
        assert (file_system.kind, file_system.label) == (f"fat{bits}", "A LABEL")
        found = parsed(file_system, disk)
        expected = oracle(tree, xattrs=False)
        assert differences(expected, found, "uid", "gid", "mode", "links", "times", "device") == []
        for name, entry in file_system.list(file_system.root):
            assert entry.mtime == TIME
            assert file_system.entry(entry.inode) == entry == file_system.lookup(file_system.root, name)


def test_case_bits_attributes_and_deleted_entries(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 8 * MIB)
    run("mkfs.fat", "-F", "12", image)
    entries = [
        short(b"LOWER   TXT", case=0x18),
        short(b"BASE    EXT", case=0x08),
        short(b"\xe5ELETED TXT"),
        short(b"\x05AA     ", attributes=0x01),  # stands for 0xE5
        short(b"LABEL      ", attributes=0x08),
        bytes(32),
        short(b"BEHIND     "),
    ]
    with image.open("r+b") as file:
        file.seek(root_directory(image))
        file.write(b"".join(entries))
    with file_disk(image) as disk:
        file_system = FatFileSystem(disk)
        assert file_system.label == "LABEL"
        found = dict(file_system.list(file_system.root))
        assert sorted(found) == sorted([b"lower.txt", b"base.EXT", b"\xcf\x83AA"])
        assert found[b"\xcf\x83AA"].mode == 0o555
        with pytest.raises(GuestMissing):
            file_system.entry(root_directory(image) // 32 + 2)


def test_clusters_of_os_2_and_a_table_that_is_too_short(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 32 * MIB)
    run("mkfs.fat", "-F", "16", "-s", "4", image)
    raw = bytearray(image.read_bytes())
    assert struct.unpack_from("<H", raw, 22) == (64,)
    # FAT32 has half of a cluster's number where OS/2 kept its attributes in FAT16.
    entry = short(b"FILE    TXT", cluster=0x1234_0005)
    raw[root_directory(image) : root_directory(image) + 32] = entry
    struct.pack_into("<H", raw, struct.unpack_from("<H", raw, 14)[0] * 512 + 10, 0xFFFF)
    struct.pack_into("<I", raw, 32, 66_000 * 4)
    raw += bytes(66_000 * 2048 - len(raw))
    struct.pack_into("<H", raw, 19, 0)
    image.write_bytes(raw)
    with file_disk(image) as disk:
        file_system = FatFileSystem(disk)
        assert file_system.kind == "fat16"
        inode = file_system.lookup(1, b"FILE.TXT").inode
        data = root_directory(image) + struct.unpack_from("<H", raw, 17)[0] * 32
        assert file_system.entry(inode).extents == (DiskExtent(0, 10, data + 3 * 2048),)


def test_a_folder_of_20_000_names(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 64 * MIB)
    run("mkfs.fat", "-F", "32", "-s", "1", image)
    raw = image.read_bytes()[:512]
    (reserved, tables), (table,) = struct.unpack_from("<HB", raw, 14), struct.unpack_from("<I", raw, 36)
    data = (reserved + tables * table) * 512
    folder = b"".join(short(b"F%07dTXT" % number, cluster=100_000) for number in range(MANY))
    clusters = len(folder) // 512
    with image.open("r+b") as file:
        file.seek(data)
        file.write(short(b"MANY       ", attributes=0x10, cluster=3))
        file.seek(data + 512)
        file.write(folder)
        file.seek(reserved * 512 + 3 * 4)
        file.write(struct.pack(f"<{clusters}I", *range(4, clusters + 3), 0x0FFFFFFF))
        file.seek(reserved * 512 + 100_000 * 4)
        file.write(struct.pack("<I", 0x0FFFFFFF))
    with file_disk(image) as disk:
        file_system = FatFileSystem(disk)
        inode = file_system.lookup(1, b"MANY").inode
        found = dict(file_system.list(inode))
        assert len(found) == MANY
        entry = found[b"F0019999.TXT"]
        assert entry == file_system.entry(entry.inode)
        assert entry.extents == (DiskExtent(0, 10, data + 99_998 * 512),)


def short(name: bytes, *, attributes: int = 0x20, case: int = 0, cluster: int = 0) -> bytes:
    size = 10 if cluster and attributes != 0x10 else 0
    head = struct.pack("<11sBB", name.ljust(11), attributes, case)
    return head + bytes(7) + struct.pack("<HHHHI", cluster >> 16, 0, 0x5000, cluster & 0xFFFF, size)


def root_directory(image: Path) -> int:
    reserved, tables, _, _, _, table = struct.unpack_from("<HBHHBH", image.read_bytes()[:512], 14)
    return int(reserved + tables * table) * 512


# ---- exFAT: no tool here writes files into one ----------------------------------------------------------


class Exfat:
    """An image of mkfs.exfat into which a test writes clusters and entries."""

    def __init__(self, path: Path, cluster_size: int = 4096) -> None:
        self.path = blank(path, 16 * MIB)
        self.cluster_size = cluster_size
        run("mkfs.exfat", "-n", "Grüße", "-c", str(cluster_size), path)
        raw = path.read_bytes()[:512]
        self.table, _, heap, _, self.root = struct.unpack_from("<IIIII", raw, 80)
        self.heap = int(heap) * 512
        used = path.read_bytes()[self.place(self.root) : self.place(self.root) + cluster_size]
        self.entries = used[: next(at for at in range(0, cluster_size, 32) if used[at] == 0)]

    def place(self, cluster: int) -> int:
        return self.heap + (cluster - 2) * self.cluster_size

    def write(self, offset: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def chain(self, *clusters: int) -> None:
        for cluster, following in zip(clusters, [*clusters[1:], 0xFFFFFFFF], strict=True):
            self.write(self.table * 512 + cluster * 4, struct.pack("<I", following))


def file_set(
    name: str,
    cluster: int,
    size: int,
    *,
    valid: int | None = None,
    chained: bool = False,
    attributes: int = 0x20,
) -> bytes:
    units = name.encode("utf-16-le")
    names = [units[at : at + 30].ljust(30, b"\0") for at in range(0, len(units), 30)]
    stamp = (2020 - 1980) << 25 | 9 << 21 | 13 << 16 | 12 << 11 | 26 << 5 | 20  # 2020-09-13 12:26:40
    head = struct.pack("<BBHHHIII", 0x85, 1 + len(names), 0, attributes, 0, stamp, stamp, stamp)
    head += bytes([0, 150, 0x80, 0x80 | 4, 0x80]) + bytes(7)  # 1.5 s more, an hour east of UTC
    flags = 0x01 if chained else 0x03
    stream = struct.pack(
        "<BBBBHHQIIQ",
        0xC0,
        flags,
        0,
        len(units) // 2,
        0,
        0,
        size if valid is None else valid,
        0,
        cluster,
        size,
    )
    whole = bytearray(head + stream + b"".join(b"\xc1\0" + part for part in names))
    total = 0
    for at, byte in enumerate(whole):
        if at not in (2, 3):
            total = ((total >> 1 | total << 15) + byte) & 0xFFFF
    struct.pack_into("<H", whole, 2, total)
    return bytes(whole)


def test_exfat_files_folders_and_labels(tmp_path: Path) -> None:
    image = Exfat(tmp_path / "image")
    data = random_bytes(12_288, 1)
    first = image.root + 10
    image.write(image.place(first), data)
    image.chain(first + 5, first + 7, first + 6)
    for number, cluster in enumerate((first + 5, first + 7, first + 6)):
        image.write(image.place(cluster), data[number * 4096 : (number + 1) * 4096])
    long_name = "漢字 🦊 " + "n" * 200
    # Entries of the folder cross from its first cluster into the second, which lies elsewhere.
    inside = b"".join(file_set(f"inside {number}", first, 100) for number in range(43))
    image.chain(first + 20, first + 30)
    image.write(image.place(first + 20), inside[:4096])
    image.write(image.place(first + 30), inside[4096:])
    broken = bytearray(file_set("broken", first, 1))
    broken[40] ^= 1
    image.write(
        image.place(image.root),
        image.entries
        + file_set("in a row", first, 10_000)
        + file_set("chained", first + 5, 12_288, chained=True)
        + file_set("half valid", first, 10_000, valid=5000)
        + file_set("chained and half valid", first + 5, 12_288, valid=5000, chained=True)
        + file_set(long_name, 0, 0)
        + bytes(broken)
        + file_set("folder", first + 20, 8192, chained=True, attributes=0x10),
    )
    with file_disk(image.path) as disk:
        file_system = ExfatFileSystem(disk)
        assert (file_system.kind, file_system.label) == ("exfat", "Grüße")
        found = dict(file_system.list(file_system.root))
        assert sorted(found) == sorted(
            [b"in a row", b"chained", b"half valid", b"chained and half valid", long_name.encode(), b"folder"]
        )
        contents = {
            name: file_system.read(entry.inode, 0, 99_999)
            for name, entry in found.items()
            if entry.type is NodeType.FILE
        }
        assert contents == {
            b"in a row": data[:10_000],
            b"chained": data,
            b"half valid": data[:5000] + bytes(5000),
            b"chained and half valid": data[:5000] + bytes(7288),
            long_name.encode(): b"",
        }
        assert found[b"half valid"].extents == (
            DiskExtent(0, 5000, image.place(first)),
            DiskExtent(5000, 5000, -1),
        )
        assert len(found[b"chained"].extents or ()) == 3
        lengths = [extent.length for extent in found[b"chained and half valid"].extents or ()]
        assert lengths == [4096, 904, 7288]
        assert found[b"chained"].mtime == TIME - 3600 * 1_000_000_000 + 1_500_000_000
        below = list(file_system.list(found[b"folder"].inode))
        assert [name for name, _ in below] == [b"inside %d" % number for number in range(43)]
        for entry in [*found.values(), *(entry for _, entry in below)]:
            assert file_system.entry(entry.inode) == entry


@pytest.mark.parametrize("chained", [True, False])
def test_exfat_entries_over_three_clusters(chained: bool, tmp_path: Path) -> None:
    image = Exfat(tmp_path / "image", 512)
    first = image.root + 10
    clusters = [first, first + 3, first + 1] if chained else [first, first + 1, first + 2]
    image.chain(*(clusters if chained else (first, first + 7)))  # what is in one piece has no chain
    inside = file_set("before", 0, 0) * 5 + file_set("n" * 255, first, 77)
    for number, cluster in enumerate(clusters):
        image.write(image.place(cluster), inside[number * 512 : (number + 1) * 512])
    folder = file_set("folder", first, 1536, chained=chained, attributes=0x10)
    image.write(image.place(image.root), image.entries + folder)
    with file_disk(image.path) as disk:
        file_system = ExfatFileSystem(disk)
        entry = file_system.lookup(file_system.lookup(file_system.root, b"folder").inode, b"n" * 255)
        assert entry.size == 77
        assert file_system.entry(entry.inode) == entry
