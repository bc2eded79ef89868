"""Writes the tables of the full database corpus as CSV: a package index, source text, events.

    apt-cache dumpavail | python -m bench.tables ROOT FOLDER

ROOT is a mounted disk, whose text files become the largest table.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.realfiles import real_files

TEXT_BYTES = 260_000_000
EVENTS = 1_000_000
PHRASES = 200_000
PHRASE = 84  # the width of pgbench's filler column
COLUMNS = (
    *("Package", "Version", "Section", "Maintainer", "Installed-Size", "Size"),
    *("SHA256", "Filename", "Homepage", "Tag", "Description"),
)
RELATIONS = ("Depends", "Recommends", "Suggests", "Conflicts", "Breaks", "Provides")
Stanza = dict[str, str]


def stanzas(lines: Iterable[str]) -> Iterator[Stanza]:
    """The first stanza of every package of a Debian package index."""
    fields: Stanza = {}
    seen = set()
    key = ""
    for line in [*lines, "\n"]:
        if not line.strip():
            name = fields.get("Package")
            if name and name not in seen:
                seen.add(name)
                fields.setdefault("Description", fields.get("Description-en", ""))
                yield fields
            fields = {}
        elif line[0] in " \t":
            fields[key] = fields.get(key, "") + "\n" + line.strip()
        else:
            key, _, value = line.partition(":")
            fields[key] = value.strip()


def relations(number: int, stanza: Stanza) -> Iterator[list[object]]:
    for kind in RELATIONS:
        for item in stanza.get(kind, "").split(","):
            if found := re.match(r"\s*(\S+)\s*(?:\((.*?)\))?", item):
                yield [number, kind, found[1], found[2] or ""]


def source_lines(root: Path, paths: list[str]) -> Iterator[list[object]]:
    """Text files below usr and etc, line by line; fills `paths` with the names of all files seen."""
    total = number = 0
    for folder in ("etc", "usr"):
        for file in real_files(root / folder):
            path = str(file.relative_to(root))
            paths.append(path)
            if total > TEXT_BYTES or file.stat().st_size > 3_000_000:
                continue
            try:
                text = file.read_bytes().decode()
            except UnicodeDecodeError:
                continue
            if "\0" in text:
                continue
            total += len(text)
            for line_number, line in enumerate(text.split("\n"), 1):
                number += 1
                yield [number, path, line_number, line.replace("\r", "")]


def events(paths: list[str], chance: random.Random) -> Iterator[list[object]]:
    at = 1.7e9
    hosts = [
        f"10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}" for _ in range(20_000)
    ]
    for number in range(1, EVENTS + 1):
        at += chance.expovariate(10)
        status, size = chance.choice((200, 200, 200, 304, 404)), chance.randrange(100, 200_000)
        path, session = "/" + chance.choice(paths), f"{chance.getrandbits(64):016x}"
        yield [number, f"{at:.3f}", chance.choice(hosts), path, status, size, session]


def phrases(descriptions: list[str], chance: random.Random) -> Iterator[list[object]]:
    text = " ".join(description.replace("\n", " ") for description in descriptions)
    for number in range(PHRASES):
        start = chance.randrange(len(text) - PHRASE)
        yield [number, text[start : start + PHRASE]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()

    def write(table: str, rows: Iterable[list[object]]) -> None:
        with (options.folder / f"{table}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    chance = random.Random(7)
    packages = list(enumerate(stanzas(sys.stdin), 1))
    sizes = {"Installed-Size": "0", "Size": "0"}
    write("packages", ([n, *((sizes | each).get(column, "") for column in COLUMNS)] for n, each in packages))
    write("dependencies", (row for number, each in packages for row in relations(number, each)))
    paths: list[str] = []
    write("source_lines", source_lines(options.root, paths))
    write("access_events", events(paths, chance))
    write("phrases", phrases([each["Description"] for _, each in packages], chance))


if __name__ == "__main__":
    main()
