"""Small corpora that anybody can make in a minute: no root, no loop device, no network.

A 2 GiB GPT disk with ext4 and 400 MB of this machine's own files, a dump of some 150 MB, 128 MB of
compressed data; three days of the first two. Good for ratios; the goals in seconds and megabytes
are for the full corpora (corpora.sh).

    python -m bench.smallcorpora FOLDER [vm] [db] [mix]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

from bench.churn import DATABASE, PAGE, Changes, churn, texts
from bench.corpus import FOLDERS
from bench.dumps import write_dumps
from bench.realfiles import copy_real_files, real_files

SECTOR = 512
BLOCK = 4096
DISK_SIZE = 2 << 30
FILES_SIZE = 400 << 20
MIX_SIZE = 128 << 20
DAYS = (1, 2, 3)
# debugfs and friends are outside an ordinary user's PATH on Debian.
ENVIRONMENT = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "LC_ALL": "C"}


def tool(*command: str | Path, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout


def make_disks(folder: Path) -> None:
    """Day 1 is made from a tree of files; each later day is a copy that debugfs changes in place."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tree = Path(scratch, "tree")
        copy_real_files(tree, FILES_SIZE)
        churn(tree, 1)
        disk = folder / "day1.raw"
        offset = partition(disk)
        size = f"{(DISK_SIZE - offset - (1 << 20)) // 1024}k"
        extended = f"offset={offset},lazy_itable_init=0,lazy_journal_init=0"
        tool("mkfs.ext4", "-q", "-b", str(BLOCK), "-L", "root", "-d", tree, "-E", extended, disk, size)
        for day in DAYS[1:]:
            changes = churn(tree, day)
            copy = folder / f"day{day}.raw"
            tool("cp", "--reflink=auto", "--sparse=always", disk, copy)
            change_disk(copy, offset, tree, changes, Path(scratch))
            disk = copy


def partition(disk: Path, size: int = DISK_SIZE) -> int:
    """Makes an empty GPT disk and returns the byte offset of its root partition."""
    with disk.open("wb") as file:
        file.truncate(size)
    table = "label: gpt\nsize=64MiB, type=uefi, name=EFI\ntype=linux, name=root\n"
    tool("sfdisk", "-q", disk, stdin=table)
    partitions = json.loads(tool("sfdisk", "-J", disk))["partitiontable"]["partitions"]
    return int(partitions[1]["start"]) * SECTOR


def change_disk(disk: Path, offset: int, tree: Path, changes: Changes, scratch: Path) -> None:
    device = f"{disk}?offset={offset}"
    script = scratch / "changes"
    lines = [
        f'rm "/{path}"' for path in [*changes.removed, *changes.written]
    ]  # a new file has nothing to remove
    folders = {parent for path in changes.written for parent in path.parents if parent != Path()}
    lines += [f'mkdir "/{parent}"' for parent in sorted(folders)]
    for path in changes.written:
        lines += [f'cd "/{path.parent}"', f'write "{tree / path}" "{path.name}"']
    script.write_text("\n".join(lines) + "\n")
    tool("debugfs", "-w", "-f", script, device)
    # debugfs cannot write into the middle of a file, but says where its blocks are.
    blocks = [int(word) for word in tool("debugfs", "-R", f"blocks /{DATABASE}", device).split()]
    with disk.open("r+b") as image, (tree / DATABASE).open("rb") as database:
        for number in changes.pages:
            for index in range(number * PAGE // BLOCK, (number + 1) * PAGE // BLOCK):
                image.seek(offset + blocks[index] * BLOCK)
                image.write(os.pread(database.fileno(), BLOCK, index * BLOCK))


def make_dumps(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        copy_real_files(Path(scratch), 60 << 20)
        write_dumps(texts(Path(scratch)), folder)


def make_mix(folder: Path) -> None:
    """Real files, compressed one by one: what archives, pictures and films look like to a backup."""
    left = MIX_SIZE
    with (folder / "mix.bin").open("wb") as mix:
        for source in ("/usr/lib", "/usr/bin", "/usr/share"):
            for path in real_files(Path(source)):
                if left <= 0:
                    return
                if 20_000 < path.stat().st_size < 8 << 20:
                    packed = zlib.compress(path.read_bytes(), 1)[:left]
                    mix.write(packed)
                    left -= len(packed)


MAKERS: dict[str, Callable[[Path], None]] = {"vm": make_disks, "db": make_dumps, "mix": make_mix}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="*", default=list(MAKERS))
    options = parser.parse_args()
    for kind in options.kinds:
        place = options.folder / FOLDERS[kind]
        if (place / ".done").exists():
            continue
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        MAKERS[kind](place)
        (place / ".done").touch()


if __name__ == "__main__":
    main()
