"""A disk with a guest worth looking into, and the same disk in every format that is read.

GPT, one ext4 partition: 400 MB of this machine's own files, a folder of 20,000 small ones, one of 1 GiB.
Anybody can make it: no root, no loop device.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.realfiles import copy_real_files
from bench.smallcorpora import BLOCK, partition, tool

DISK_SIZE = 4 << 30
FILES_SIZE = 400 << 20
MANY = 20_000
BIG_SIZE = 1 << 30
NAME = "web01"

# name: qemu-img's format, its options, the file's suffix
FORMATS = {
    "qcow2": ("qcow2", [], "qcow2"),
    "qcow2, 4 KiB clusters": ("qcow2", ["-o", "cluster_size=4k"], "qcow2"),
    "qcow2, zlib": ("qcow2", ["-c"], "qcow2"),
    "qcow2, zstd": ("qcow2", ["-c", "-o", "compression_type=zstd"], "qcow2"),
    "vmdk": ("vmdk", [], "vmdk"),
    "vmdk, streamOptimized": ("vmdk", ["-o", "subformat=streamOptimized"], "vmdk"),
    "vhdx": ("vhdx", [], "vhdx"),
    "vhd": ("vpc", ["-o", "force_size=on"], "vhd"),
    "vdi": ("vdi", [], "vdi"),
}


def make_guest(folder: Path) -> Path:
    """The raw disk; made once."""
    disk = folder / f"{NAME}.raw"
    if not disk.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            tree = Path(scratch, "tree")
            copy_real_files(tree, FILES_SIZE)
            write_many(tree)
            new = folder / "new.raw"
            offset = partition(new, DISK_SIZE)
            size = f"{(DISK_SIZE - offset - (1 << 20)) // 1024}k"
            extended = f"offset={offset},lazy_itable_init=0,lazy_journal_init=0"
            tool("mkfs.ext4", "-q", "-b", str(BLOCK), "-d", tree, "-E", extended, new, size)
            new.rename(disk)
    return disk


def write_many(tree: Path) -> None:
    """Write small files of a few kilobytes of text, and a large one that compresses to half."""
    seeds = random.Random(7)
    text = b"".join(path.read_bytes() for path in sorted(tree.rglob("*.py"))[:400])
    (tree / "many").mkdir()
    for number in range(MANY):
        start = seeds.randrange(len(text) - 8192)
        (tree / f"many/file-{number:05}").write_bytes(text[start : start + seeds.randrange(100, 8000)])
    with (tree / "big").open("wb") as file:
        while file.tell() < BIG_SIZE:
            start = seeds.randrange(len(text) - (1 << 19))
            file.write(text[start : start + (1 << 19)] + seeds.randbytes(1 << 19))


def convert(raw: Path, name: str) -> Path:
    """The disk in a format, each in a folder of its own under the VM's name; made once."""
    format_, options, suffix = FORMATS[name]
    folder = raw.parent / "".join(c if c.isalnum() else "-" for c in name)
    target = folder / f"{NAME}.{suffix}"
    if not target.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        new = folder / f"new.{suffix}"
        subprocess.run(["qemu-img", "convert", "-O", format_, *options, raw, new], check=True)
        new.rename(target)
    return target
