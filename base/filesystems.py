"""What the file system under a path is known to do well."""

from __future__ import annotations

from pathlib import Path

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
    best = ""
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        if left.split(" ")[2] == wanted:
            best = right.split(" ")[0]
    return best


def is_fit_for_mmap(path: Path) -> bool:
    """Whether LMDB may live there. btrfs and overlay have device numbers of their own: they pass."""
    return not filesystem_type(path).startswith(_NOT_FOR_MMAP)


def reports_holes_honestly(path: Path) -> bool:
    """Whether SEEK_HOLE may be believed without comparing with zeros."""
    return filesystem_type(path) in _HONEST_HOLES
