"""btrfs: what the parser sees is what the kernel sees on the mounted image."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from holdfast.formats.guests.filesystems.btrfs.filesystem import BtrfsFileSystem
from holdfast.formats.guests.values.values import GuestDamaged
from holdfast.formats.guests.volumes.open import open_volumes
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

_SIZE = 256 * MIB


@pytest.mark.parametrize(
    ("make", "options"),
    [
        ((), ""),
        (("-d", "dup", "-n", "4096"), "compress-force=zlib"),
        (("-M",), "compress-force=lzo"),
        (("-O", "no-holes", "-R", "free-space-tree"), "compress-force=zstd"),
    ],
    ids=["plain", "zlib", "lzo", "zstd"],
)
def test_everything_is_as_the_kernel_shows_it(make: tuple[str, ...], options: str, tmp_path: Path) -> None:
    image = dirty(tmp_path / "image", _SIZE)
    run("mkfs.btrfs", "-q", "-K", "-L", "a label", *make, image)
    with mounted(image, tmp_path / "mount", options) as top:
        populate(top)
    with mounted(image, tmp_path / "mount", "ro,noatime") as top:
        expected = oracle(top)
    with file_disk(image) as disk:
        file_system = BtrfsFileSystem(disk)
        assert (file_system.kind, file_system.label) == ("btrfs", "a label")
        text = file_system.lookup(file_system.root, b"text")
        assert (text.extents is None) == bool(options)
        assert differences(expected, parsed(file_system, disk)) == []


def test_subvolumes_and_snapshots_are_folders_at_their_place(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", _SIZE)
    run("mkfs.btrfs", "-q", image)
    with mounted(image, tmp_path / "mount") as top:
        run("btrfs", "subvolume", "create", top / "home")
        (top / "home" / "file").write_bytes(b"first")
        run("btrfs", "subvolume", "create", top / "home" / "inner")
        (top / "home" / "inner" / "deep").write_bytes(b"deep")
        run("btrfs", "subvolume", "snapshot", "-r", top / "home", top / "snapshot")
        (top / "home" / "file").write_bytes(b"second")
        run("btrfs", "subvolume", "set-default", "256", top)
    with mounted(image, tmp_path / "mount", "ro,noatime,subvolid=5") as top:
        expected = oracle(top)
    with file_disk(image) as disk:
        found = parsed(BtrfsFileSystem(disk), disk)
        again = parsed(BtrfsFileSystem(disk), disk)
    # What a snapshot has where a subvolume was has no times on the disk.
    assert expected[b"snapshot/inner"].type is found.pop(b"snapshot/inner").type
    del expected[b"snapshot/inner"], again[b"snapshot/inner"]
    assert differences(expected, found) == []
    assert found == again


def test_a_log_that_was_not_replayed_is_told(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", _SIZE)
    run("mkfs.btrfs", "-q", image)
    with mounted(image, tmp_path / "mount") as top, (top / "file").open("wb") as file:
        run("sync", "-f", top)
        file.write(b"content")
        file.flush()
        os.fsync(file.fileno())
        shutil.copyfile(image, tmp_path / "copy")
    for path, word in ((tmp_path / "copy", "journal"), (image, "")):
        with file_disk(path) as disk:
            (volume,) = open_volumes(disk, [])
            assert volume.file_system is not None
            assert word in volume.volume.text
            assert bool(volume.volume.text) == bool(word)


def test_a_file_system_over_two_disks_is_told_of(tmp_path: Path) -> None:
    images = [blank(tmp_path / name, _SIZE) for name in ("one", "two")]
    run("mkfs.btrfs", "-q", "-d", "raid0", *images)
    with file_disk(images[0]) as disk:
        with pytest.raises(GuestDamaged, match="2 devices"):
            BtrfsFileSystem(disk)
        (volume,) = open_volumes(disk, [])
        assert volume.file_system is None
        assert "2 devices" in volume.volume.text


def test_a_folder_of_20_000_names_and_what_is_in_it(tmp_path: Path) -> None:
    image = blank(tmp_path / "image", _SIZE)
    run("mkfs.btrfs", "-q", image)
    with mounted(image, tmp_path / "mount") as top:
        (top / "many").mkdir()
        for number in range(MANY):
            os.mknod(top / "many" / f"name {number:05}")
    with file_disk(image) as disk:
        file_system = BtrfsFileSystem(disk)
        folder = file_system.lookup(file_system.root, b"many")
        names = [name for name, _ in file_system.list(folder.inode)]
        assert sorted(names) == [b"name %05d" % number for number in range(MANY)]
