"""The kernel's mount table."""

from __future__ import annotations

from pathlib import Path

from holdfast.base.filesystems import filesystem_type
from holdfast.base.mount_table import MountEntry, mounted_at, parse_mounts, read_mounts


def test_the_mount_table_is_read_with_its_escapes() -> None:
    table = (
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        "nonsense\n"
        "90 22 0:44 / /mnt/my\\040backups\\134x ro,nosuid - fuse.holdfast holdfast ro,user_id=0\n"
    )
    assert parse_mounts(table) == [
        MountEntry("/", "254:0", "ext4"),
        MountEntry("/mnt/my backups\\x", "0:44", "fuse.holdfast"),
    ]


def test_the_root_is_mounted_and_a_new_directory_is_not(tmp_path: Path) -> None:
    root = mounted_at(Path("/"))
    assert root is not None
    assert root in read_mounts()
    assert mounted_at(tmp_path) is None


def test_proc_has_its_own_type() -> None:
    assert filesystem_type(Path("/proc")) == "proc"
