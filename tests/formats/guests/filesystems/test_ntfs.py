"""NTFS: what the parser sees is what ntfs-3g sees on the mounted image."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.guests.filesystems.ntfs.filesystem import NtfsFileSystem
from holdfast.formats.guests.filesystems.ntfs.lznt1 import decompress
from holdfast.formats.guests.filesystems.ntfs.reparse_points import from_reparse_point
from holdfast.formats.guests.values.values import GuestDamaged, NodeType
from support.basics import need, random_bytes
from support.guest_images import (
    MANY,
    MIB,
    blank,
    differences,
    dirty,
    file_disk,
    oracle,
    own_mounts,
    parsed,
    run,
)


@contextmanager
def mounted(image: Path, folder: Path, *options: str) -> Iterator[Path]:
    need(Path("/dev/fuse").exists(), "no /dev/fuse")
    own_mounts()
    folder.mkdir(exist_ok=True)
    run("ntfs-3g", "-o", ",".join(("big_writes", *options)), image, folder)
    try:
        yield folder
    finally:
        run("umount", folder)
        wait_for_writer(image)


def wait_for_writer(image: Path) -> None:
    """umount returns before ntfs-3g has closed the image; it holds a lock on it until then."""
    with image.open("r+b") as file:
        os.lockf(file.fileno(), os.F_LOCK, 0)


def fill(top: Path) -> None:
    (top / "folder" / "deeper").mkdir(parents=True)
    (top / "folder" / "empty").write_bytes(b"")
    (top / "folder" / "tiny").write_bytes(b"tiny")
    for number in range(30):
        (top / "folder" / f"small {number}").write_bytes(random_bytes(137 * number, number))
    (top / "large").write_bytes(random_bytes(3 * MIB + 123, 1))
    os.link(top / "large", top / "folder" / "hard link")
    (top / "folder" / "short").symlink_to("tiny")
    (top / "folder" / "long").symlink_to("z" * 900)
    for name in ("n" * 255, "ü" * 255, "漢字 🦊.txt"):
        (top / name).write_bytes(name.encode())
    with (top / "sparse").open("wb") as file:
        for place in (0, 300_000, 5 * MIB, 20 * MIB):
            file.seek(place)
            file.write(random_bytes(10_000, place))
        file.truncate(50 * MIB + 17)
    with (top / "fragmented").open("wb") as one, (top / "between").open("wb") as two:
        for number in range(250):
            for file in (one, two):
                os.pwrite(file.fileno(), random_bytes(4096, number), number * 8192)
    os.setxattr(top / "folder" / "tiny", b"user.comment", b"a note")
    os.setxattr(top / "folder" / "tiny", b"user.large", b"v" * 5000)
    os.utime(top / "folder" / "tiny", ns=(1_234_567_890_123_456_700, 987_654_321_987_654_300))
    os.utime(top / "folder" / "empty", ns=(-1_000_000_000, -123_456_789_000_000_000))
    os.mknod(top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (top / "packed").mkdir()
    os.setxattr(top / "packed", b"system.ntfs_attrib_be", struct.pack(">I", 0x810))
    (top / "packed" / "text").write_bytes(b"".join(b"%d line of text\n" % n for n in range(30_000)))
    (top / "packed" / "random").write_bytes(random_bytes(300_000, 5))
    (top / "packed" / "mixed").write_bytes(
        bytes(200_000) + random_bytes(100_000, 6) + b"abc" * 100_000 + bytes(70_000)
    )
    (top / "packed" / "one").write_bytes(b"q")


@pytest.mark.parametrize("cluster", ["512", "4096"])
def test_everything_is_as_ntfs_3g_shows_it(cluster: str, tmp_path: Path) -> None:
    image = dirty(tmp_path / "image", 64 * MIB)
    run("mkntfs", "-q", "-Q", "-F", "-L", "Gr\u00fc\u00dfe", "-c", cluster, image)
    with mounted(image, tmp_path / "mount", "compression") as top:
        fill(top)
    with mounted(image, tmp_path / "mount", "ro", "noatime") as top:
        expected = oracle(top)
    with file_disk(image) as disk:
        file_system = NtfsFileSystem(disk)
        assert (file_system.kind, file_system.label) == ("ntfs", "Gr\u00fc\u00dfe")
        assert differences(expected, parsed(file_system, disk)) == []
        packed = dict(file_system.list(file_system.lookup(file_system.root, b"packed").inode))
        assert packed[b"text"].extents is None
        assert packed[b"one"].plain
        sparse = file_system.lookup(file_system.root, b"sparse")
        assert any(extent.disk < 0 for extent in sparse.extents or ())


def test_a_folder_of_20_000_names_and_what_is_in_it(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 64 * MIB)
    run("mkntfs", "-q", "-F", image)
    with mounted(image, tmp_path / "mount") as top:
        (top / "many").mkdir()
        for number in range(MANY):
            os.close(os.open(top / "many" / f"name {number:05}", os.O_CREAT | os.O_WRONLY))
    with file_disk(image) as disk:
        file_system = NtfsFileSystem(disk)
        folder = file_system.lookup(file_system.root, b"many")
        names = [name for name, _ in file_system.list(folder.inode)]
        assert sorted(names) == [b"name %05d" % number for number in range(MANY)]


def test_windows_links_and_reparse_points() -> None:
    def point(tag: int, value: bytes) -> bytes:
        return struct.pack("<IHH", tag, len(value), 0) + value

    shown, full = "..\\other\\file".encode("utf-16-le"), "\\??\\C:\\Users".encode("utf-16-le")
    relative = struct.pack("<HHHHI", 0, len(shown), 0, len(shown), 1) + shown
    junction = struct.pack("<HHHH", 0, len(full), len(full), 0) + full
    for data, target in (
        (point(0xA000000C, relative), b"../other/file"),
        (point(0xA0000003, junction), b"C:/Users"),
        (point(0xA000001D, struct.pack("<I", 2) + b"/etc"), b"/etc"),
    ):
        special = from_reparse_point(data, offline=False)
        assert special is not None
        assert (special.type, special.target) == (NodeType.LINK, target)
    packed = from_reparse_point(point(0x80000017, bytes(16)), offline=False)
    assert packed is not None
    assert "CompactOS" in packed.reason
    assert from_reparse_point(point(0x9000601A, b""), offline=False) is None
    assert from_reparse_point(point(0x12345678, b""), offline=False) is None


@given(st.binary(max_size=5000), st.integers(0, 70_000))
def test_damaged_compressed_data_gives_bytes_or_damage(data: bytes, size: int) -> None:
    with suppress(GuestDamaged):
        assert len(decompress(data, size)) == size
