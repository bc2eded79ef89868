"""ext2, ext3 and ext4: what the parser sees is what the kernel sees on the mounted image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.formats.guests.filesystems.ext.filesystem import ExtFileSystem
from holdfast.formats.guests.values.values import GuestDamaged, GuestMissing, NodeType
from support.guest_images import (
    MANY,
    MIB,
    blank,
    differences,
    dirty,
    file_disk,
    mounted,
    oracle,
    parsed,
    populate,
    run,
)

VARIANTS = {
    "ext4": ("ext4", "mkfs.ext4", "-b", "4096"),
    "inline": ("ext4", "mkfs.ext4", "-b", "1024", "-O", "inline_data,ea_inode"),
    "block maps": ("ext4", "mkfs.ext4", "-O", "^64bit,^metadata_csum,^extents,^flex_bg"),
    "meta groups": ("ext4", "mkfs.ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"),
    "clusters": ("ext4", "mkfs.ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"),
    "clusters, meta groups": (
        "ext4", "mkfs.ext4", "-b", "1024", "-O", "bigalloc,meta_bg,^resize_inode", "-C", "4096",
    ),
    "ext2": ("ext2", "mkfs.ext2", "-b", "1024", "-I", "128"),
    "ext3": ("ext3", "mkfs.ext3", "-b", "2048"),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_is_as_the_kernel_shows_it(variant: str, tmp_path: Path) -> None:
    kind, *command = VARIANTS[variant]
    image = dirty(tmp_path / "image", 96 * MIB)
    run(*command, "-q", "-E", "nodiscard", "-L", "a label", image)
    with mounted(image, tmp_path / "mount") as top:
        # What is left of a block of 1 KiB beside the other attributes.
        populate(top, xattr_size=600)
    with mounted(image, tmp_path / "mount", "ro,noatime,noload" if kind != "ext2" else "ro,noatime") as top:
        expected = oracle(top)
    with file_disk(image) as disk:
        file_system = ExtFileSystem(disk)
        assert (file_system.kind, file_system.label) == (kind, "a label")
        assert differences(expected, parsed(file_system, disk)) == []
        folder = file_system.lookup(file_system.root, b"folder").inode
        assert file_system.lookup(folder, b"small 3").plain


def test_a_folder_of_20_000_names_and_what_is_in_it(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 128 * MIB)
    run("mkfs.ext4", "-q", "-N", "30000", image)
    with mounted(image, tmp_path / "mount") as top:
        (top / "many").mkdir()
        for number in range(MANY):
            (top / "many" / f"name {number:05}").write_bytes(b"%d" % number)
    with file_disk(image) as disk:
        file_system = ExtFileSystem(disk)
        folder = file_system.lookup(file_system.root, b"many")
        found = dict(file_system.list(folder.inode))
        assert sorted(found) == [b"name %05d" % number for number in range(MANY)]
        for number in range(0, MANY, 997):
            entry = found[b"name %05d" % number]
            assert entry == file_system.lookup(folder.inode, b"name %05d" % number)
            assert file_system.read(entry.inode, 0, 100) == b"%d" % number


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    (folder / "tree").mkdir()
    (folder / "tree" / "file").write_bytes(b"content" * 1000)
    (folder / "tree" / "link").symlink_to("file")
    run("mkfs.ext4", "-q", "-d", folder / "tree", blank(folder / "image", 8 * MIB))
    return folder / "image"


def test_hard_links_have_one_inode_number(small: Path) -> None:
    with file_disk(small) as disk:
        file_system = ExtFileSystem(disk)
        names = dict(file_system.list(file_system.root))
        assert b"." not in names
        assert b".." not in names
        assert names[b"lost+found"].type is NodeType.FOLDER


@pytest.mark.parametrize("inode", [0, 3, 10_000_000, -1])
def test_inodes_that_are_not_in_use_are_missing(small: Path, inode: int) -> None:
    with file_disk(small) as disk, pytest.raises(GuestMissing):
        ExtFileSystem(disk).entry(inode)


def test_each_question_is_refused_for_another_type(small: Path) -> None:
    with file_disk(small) as disk:
        file_system = ExtFileSystem(disk)
        file = file_system.lookup(2, b"file").inode
        link = file_system.lookup(2, b"link").inode
        for ask in (
            lambda: file_system.lookup(2, b"none"),
            lambda: file_system.lookup(2, b".."),
            lambda: list(file_system.list(file)),
            lambda: file_system.readlink(file),
            lambda: file_system.read(link, 0, 1),
            lambda: file_system.read(2, 0, 1),
        ):
            with pytest.raises(GuestMissing):
                ask()


def test_reads_end_at_the_end_of_the_file(small: Path) -> None:
    with file_disk(small) as disk:
        file_system = ExtFileSystem(disk)
        file = file_system.lookup(2, b"file").inode
        assert file_system.read(file, 6990, 100) == b"contentcontent"[-10:]
        assert file_system.read(file, 7000, 100) == b""
        assert file_system.read(file, 3, 4) == b"tent"


def test_a_tree_of_extents_with_three_levels_and_a_file_beyond_4_gib(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 96 * MIB)
    run("mkfs.ext4", "-q", "-b", "1024", image)
    places = [*range(0, 30_000 * 2048, 2048), (5 << 30) + 7]
    with mounted(image, tmp_path / "mount") as top, (top / "file").open("wb", buffering=0) as file:
        for place in places:
            os.pwrite(file.fileno(), b"%d" % place, place)
        file.truncate(6 << 30)
    with file_disk(image) as disk:
        file_system = ExtFileSystem(disk)
        entry = file_system.lookup(2, b"file")
        assert entry.size == 6 << 30
        assert entry.extents is None, "too many to hand over"
        for place in places[::997] + places[-1:]:
            wanted = b"%d" % place
            assert file_system.read(entry.inode, place, 1024)[:1024] == wanted.ljust(1024, b"\0")
        assert file_system.read(entry.inode, entry.size - 3, 9) == bytes(3)


def test_flags_of_compression_and_encryption(small: Path, tmp_path: Path) -> None:
    """`chattr +c` sets the first on any file, and nothing is compressed."""
    image = tmp_path / "image"
    image.write_bytes(small.read_bytes())
    run("debugfs", "-w", "-R", "set_inode_field file flags 0x80004", image)
    run("debugfs", "-w", "-R", "set_inode_field / flags 0x80800", image)
    with file_disk(image) as disk:
        file_system = ExtFileSystem(disk)
        found = dict(file_system.list(2))
        assert sorted(found) == [b"ZmlsZQ", b"bG9zdCtmb3VuZA", b"bGluaw"], "any bytes would be in them"
        assert file_system.lookup(2, b"ZmlsZQ") == found[b"ZmlsZQ"]
        assert file_system.read(found[b"ZmlsZQ"].inode, 0, 7) == b"content"
    run("debugfs", "-w", "-R", "set_inode_field / flags 0x80000", image)
    run("debugfs", "-w", "-R", "set_inode_field file flags 0x80800", image)
    with file_disk(image) as disk:
        file_system = ExtFileSystem(disk)
        entry = file_system.lookup(2, b"file")
        assert entry.extents is None
        with pytest.raises(GuestDamaged, match="encrypted"):
            file_system.read(entry.inode, 0, 7)


def test_unknown_features_are_refused(small: Path, tmp_path: Path) -> None:
    raw = bytearray(small.read_bytes())
    raw[1024 + 0x60 + 3] |= 0x80
    (tmp_path / "image").write_bytes(raw)
    with file_disk(tmp_path / "image") as disk, pytest.raises(GuestDamaged, match="features"):
        ExtFileSystem(disk)
