"""XFS: what the parser sees is what the kernel sees on the mounted image."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from holdfast.formats.guests.filesystems.xfs.filesystem import XfsFileSystem
from holdfast.formats.guests.volumes.open import open_volumes
from support.basics import random_bytes
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
    "defaults": (),
    "small blocks": ("-b", "size=1024", "-n", "size=8192", "-i", "size=512"),
    "old times": ("-m", "bigtime=0,inobtcount=0,reflink=0", "-n", "size=65536"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_is_as_the_kernel_shows_it(variant: str, tmp_path: Path) -> None:
    image = dirty(tmp_path / "image", 320 * MIB)
    run("mkfs.xfs", "-q", "-K", "-L", "a label", *VARIANTS[variant], image)
    with mounted(image, tmp_path / "mount") as top:
        # All attributes: in the inode, in leaves, in blocks of their own, and enough for a tree of leaves.
        populate(top, xattr_size=20_000)
        for number in range(200):
            os.setxattr(top / "large", b"user.number %d" % number, b"v" * 50)
        os.setxattr(top / "folder" / "small 3", b"security.selinux", b"as all files of such guests have it")
        (top / "longest").symlink_to("q" * 1023)  # two blocks of 1 KiB, one head
        (top / "hundreds").mkdir()
        for number in range(700):
            (top / "hundreds" / f"a rather long name {number}").touch()
    with mounted(image, tmp_path / "mount", "ro,noatime,norecovery") as top:
        expected = oracle(top)
    with file_disk(image) as disk:
        file_system = XfsFileSystem(disk)
        assert (file_system.kind, file_system.label) == ("xfs", "a label")
        assert differences(expected, parsed(file_system, disk)) == []
        folder = file_system.lookup(file_system.root, b"folder").inode
        assert file_system.lookup(folder, b"small 3").plain


def test_version_4_is_read(tmp_path: Path) -> None:
    """The kernel here mounts it no more: mkfs puts the files in."""
    (tmp_path / "content").write_bytes(random_bytes(100_000, 4))
    lines = ["/", "0 0", "d--755 0 0", "folder d--750 7 8"]
    lines += [f"name{number} ---640 5 6 {tmp_path / 'content'}" for number in range(40)]
    lines += [f"link l--777 0 0 {'t' * 300}", "pipe p--600 0 0", "null c--666 0 0 1 3", "$", "$"]
    (tmp_path / "proto").write_text("\n".join(lines) + "\n")
    image = blank(tmp_path / "image", 320 * MIB)
    run("mkfs.xfs", "-q", "-m", "crc=0", "-p", tmp_path / "proto", image)
    with file_disk(image) as disk:
        file_system = XfsFileSystem(disk)
        folder = file_system.lookup(file_system.root, b"folder")
        assert (folder.mode, folder.uid, folder.gid, folder.links) == (0o750, 7, 8, 2)
        found = parsed(file_system, disk)
        assert len(found) == 45
        assert found[b"folder/name7"].size == 100_000
        assert found[b"folder/link"].content == b"t" * 300
        assert found[b"folder/null"].device == os.makedev(1, 3)
        inode = file_system.lookup(folder.inode, b"name39").inode
        assert file_system.read(inode, 0, 200_000) == random_bytes(100_000, 4)


@pytest.mark.parametrize("options", ["", "logbsize=256k"])
def test_a_log_that_was_not_replayed_is_told(options: str, tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 320 * MIB)

    def told(path: Path) -> str:
        with file_disk(path) as disk:
            return open_volumes(disk, [])[0].volume.text

    run("mkfs.xfs", "-q", image)
    assert told(image) == ""
    with mounted(image, tmp_path / "mount", options) as top:
        for number in range(500):
            (top / f"file {number}").write_bytes(b"content")
        run("sync", "-f", top)
        shutil.copyfile(image, tmp_path / "copy")
        assert "journal" in told(tmp_path / "copy")
    assert told(image) == ""


def test_a_folder_of_20_000_names_and_what_is_in_it(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", 320 * MIB)
    run("mkfs.xfs", "-q", image)
    with mounted(image, tmp_path / "mount") as top:
        (top / "many").mkdir()
        for number in range(MANY):
            os.mknod(top / "many" / f"name {number:05}")
    with file_disk(image) as disk:
        file_system = XfsFileSystem(disk)
        folder = file_system.lookup(file_system.root, b"many")
        names = [name for name, _ in file_system.list(folder.inode)]
        assert sorted(names) == [b"name %05d" % number for number in range(MANY)]
