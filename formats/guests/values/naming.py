r"""The names of disks, volumes and text files below `files/`; names as bytes and as text. No I/O.

    files/sda/p1/etc/passwd       a file system
    files/sda/p2.txt              says what a volume without a file system is: swap, LUKS, unknown
    files/sda/lvm/vg0/root/...    a logical volume

The mount and the command line both use this module, so they show the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final, TypeAlias

from holdfast.formats.guests.values.values import Volume
from holdfast.repo.snapshots.snapshot import Item, ItemKind

FILES: Final = "files"
"""The directory of a snapshot that shows the insides of its disks."""
_LONGEST: Final = 200
"""Characters of one component of a volume's path; LVM allows 127."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.+@-]")

Place: TypeAlias = tuple[str, ...]
"""The path of a volume below `files/DISK`, one name an element."""


def disk_name(item: Item) -> str:
    """The name of a disk in `files/`: `sda` for `disks/sda.raw`. "" for an item that is no disk."""
    return PurePosixPath(item.path).name.removesuffix(".raw") if item.kind is ItemKind.DISK else ""


def noted(volumes: Iterable[Volume]) -> Iterator[Volume]:
    """The volumes, each followed by a text volume when it has a file system and a text: `p1.txt` beside `p1`
    says that the file system was in use."""
    for volume in volumes:
        yield volume
        if volume.file_system and volume.text:
            yield replace(volume, file_system="")


def layout(volumes: Iterable[Volume]) -> dict[Place, Volume]:
    """The volumes of one disk by their places: text volumes as `.txt` files, the others as directories.

    Names that a guest chose (of LVM) are made harmless. Whatever a hostile disk holds, no two volumes get the
    same place, and no place is inside another.
    """
    placed: dict[Place, Volume] = {}
    above: set[Place] = set()
    numbers: dict[
        Place, int
    ] = {}  # the last number given for a place: thousands of volumes may want the same
    for volume in volumes:
        parts = [_safe(part) for part in volume.path.split("/") if part] or ["volume"]
        suffix = "" if volume.file_system else ".txt"
        wanted = place = (*parts[:-1], parts[-1] + suffix)
        number = numbers.get(wanted, 1)
        if number > 1:
            place = _numbered(parts, number, suffix)
        while place in placed or place in above or any(place[:n] in placed for n in range(1, len(place))):
            number += 1
            place = _numbered(parts, number, suffix)
        numbers[wanted] = number
        placed[place] = volume
        above.update(place[:n] for n in range(1, len(place)))
    return placed


def _numbered(parts: Sequence[str], number: int, suffix: str) -> Place:
    first, *others = parts
    if not others:
        return (f"{first}~{number}{suffix}",)
    return (f"{first}~{number}", *others[:-1], others[-1] + suffix)


def _safe(part: str) -> str:
    name = _UNSAFE.sub("_", part)[:_LONGEST]
    return name if name.strip(".") else "_" * len(name)


def text_document(volume: Volume) -> bytes:
    """The content of a text volume's file."""
    return volume.text.rstrip("\n").encode(errors="backslashreplace") + b"\n"


def to_text(name: bytes) -> str:
    """A name or path as text; bytes that are not UTF-8 become lone surrogates (surrogateescape)."""
    return name.decode(errors="surrogateescape")


def to_bytes(text: str) -> bytes:
    """The opposite of `to_text`."""
    return text.encode(errors="surrogateescape")
