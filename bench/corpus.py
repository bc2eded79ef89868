"""The corpora: three days of a disk, three days of a dump, one file that does not compress."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import allocated
from bench.tools import Source

FOLDERS = {"vm": "vm-days", "db": "db-days", "mix": "fresh-mix"}
NAMES = {"vm": ("web01", "web01.raw"), "db": ("shop", "shop.sql"), "mix": ("mix", "mix.bin")}

# (size, allocated) of day 1 of the full corpora, in bytes: the goals in seconds and megabytes were
# set for them. What debootstrap and the package mirror serve moves them by a few per cent.
FULL = {"vm": (6442450944, 2_000_000_000), "db": (1_143_000_000, 1_143_000_000), "mix": (1 << 30, 1 << 30)}
TOLERANCE = 0.08


@dataclass(frozen=True, slots=True)
class Corpus:
    kind: str
    days: tuple[Path, ...]

    @property
    def is_full(self) -> bool:
        """Close enough to the full corpora for goals in absolute numbers to mean something."""
        size, data = FULL[self.kind]
        day = self.days[0]
        return (
            abs(day.stat().st_size - size) <= TOLERANCE * size
            and abs(allocated(day) - data) <= TOLERANCE * data
        )


def find_corpora(folder: Path, kinds: list[str]) -> list[Corpus]:
    """FOLDER/vm-days/*, FOLDER/db-days/* and FOLDER/fresh-mix/*, each in order of its names."""
    found = []
    for kind in kinds:
        place = folder / FOLDERS[kind]
        files = place.glob("[!.]*") if place.is_dir() else iter(())
        days = tuple(sorted(path.resolve() for path in files if path.is_file()))
        if days:
            found.append(Corpus(kind, days))
    return found


@contextlib.contextmanager
def staged(corpus: Corpus, folder: Path) -> Iterator[list[Source]]:
    """Gives every day a hard link of the same name, in folders that `present` swaps in.

    The user's files are only read; their times, which `touch` moves, are put back at the end.
    """
    name, file_name = NAMES[corpus.kind]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sources = []
    for number, day in enumerate(corpus.days, 1):
        link = folder / f"day{number}"
        try:
            os.link(day, link)
        except OSError:  # another file system, or somebody else's file: a copy
            subprocess.run(["cp", "--reflink=auto", "--sparse=always", day, link], check=True)
        sources.append(Source(corpus.kind, name, folder / "now" / file_name))
    (folder / "now").mkdir()
    times = [day.stat() for day in corpus.days]
    try:
        yield sources
    finally:
        for day, stat in zip(corpus.days, times, strict=True):
            with contextlib.suppress(OSError):
                os.utime(day, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        shutil.rmtree(folder, ignore_errors=True)


def present(source: Source, day: int) -> None:
    """Makes `source.file` the file of that day: the same path with other content, as in real life."""
    source.file.unlink(missing_ok=True)
    os.link(source.file.parent.parent / f"day{day}", source.file)


def touch(source: Source) -> None:
    """A new modification time and the same bytes: no tool may skip reading them."""
    os.utime(source.file)
