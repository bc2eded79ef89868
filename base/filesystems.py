"""Tells what the file system of a path can be relied on for: memory maps, reports of holes."""

from __future__ import annotations

from pathlib import Path

from holdfast.base.mount_table import read_mounts

# LMDB must never be used over a network, and FUSE file systems differ in how they map memory.
_NOT_FOR_MMAP = (
    *("nfs", "cifs", "smb", "fuse", "9p", "ceph"),
    *("afs", "glusterfs", "lustre", "beegfs", "virtiofs"),
)

# OpenZFS reported holes over fresh data (2021 to 2023, its issues 15526 and 15933), and a network file
# system reports whatever its server says. These have no such report we know of.
_HONEST_HOLES = ("ext4", "ext3", "ext2", "xfs", "tmpfs")


def filesystem_type(path: Path) -> str:
    """Type of the mount that holds `path`, as the kernel names it; "" when that cannot be told."""
    device = path.stat().st_dev
    wanted = f"{device >> 8 & 0xFFF}:{device & 0xFF | device >> 12 & 0xFFF00}"
    try:
        return next((entry.type for entry in reversed(read_mounts()) if entry.device == wanted), "")
    except OSError:
        return ""


def is_fit_for_mmap(path: Path) -> bool:
    """Whether LMDB may live there. btrfs and overlay have device numbers of their own: they pass."""
    return not filesystem_type(path).startswith(_NOT_FOR_MMAP)


def reports_holes_honestly(path: Path) -> bool:
    """Whether SEEK_HOLE may be believed without comparing with zeros."""
    return filesystem_type(path) in _HONEST_HOLES
