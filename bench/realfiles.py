"""A tree of real files of this machine: what the demo's and the small benchmark's disks hold."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Text, byte code, libraries and programs, roughly as a small server has them. The virtual
# environment comes last: on a bare container it may be the only place with enough files.
SOURCES = (
    "/etc",
    "/usr/lib/python3",
    "/usr/lib/python3.*",
    "/usr/share/doc",
    "/usr/share/perl*",
    "/usr/bin",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/share",
)
OWN_ENVIRONMENT = Path(__file__).resolve().parent.parent / ".venv" / "lib"
LARGEST_FILE = 8 << 20  # a few huge libraries would otherwise be the whole disk


def real_files(source: Path) -> Iterator[Path]:
    """Readable plain files below a folder, always in the same order; links are not followed."""
    for folder, names, files in os.walk(source):
        names.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file() and os.access(path, os.R_OK):
                yield path


def copy_real_files(target: Path, limit: int) -> int:
    """Copies up to `limit` bytes of real files below `target`, under their own paths.

    Every source gets at most a third, so that there is a mixture. Returns the bytes copied.
    Owners and modes are not kept: the caller may be anybody.
    """
    copied = 0
    sources = [found for pattern in SOURCES for found in sorted(Path("/").glob(pattern[1:]))]
    for source in [*sources, OWN_ENVIRONMENT]:
        share = min(limit // 3, limit - copied)
        for path in real_files(source):
            size = path.stat().st_size
            if size > LARGEST_FILE:
                continue
            if size > share:
                break
            place = target / path.relative_to("/")
            if place.exists():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # vanished or became unreadable meanwhile
                shutil.copyfile(path, place)
                share -= size
                copied += size
    return copied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("mebibytes", type=int)
    options = parser.parse_args()
    copy_real_files(options.target, options.mebibytes << 20)


if __name__ == "__main__":
    main()
