r"""What things are called below `files/`: disks, volumes, documents; names as bytes and as text. No I/O.

    files/sda/p1/etc/passwd       a file system
    files/sda/p2.txt              what a volume is that has none: swap, LUKS, unknown
    files/sda/lvm/vg0/root/...    a logical volume

The mount and the command line agree through this module.
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
"""The folder of a snapshot that shows the insides of its disks."""
_LONGEST: Final = 200
"""Characters of one component of a volume's path; LVM allows 127."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.+@-]")

Place: TypeAlias = tuple[str, ...]
"""Where a volume stands below `files/DISK`, one name an element."""


def disk_name(item: Item) -> str:
    """What a disk is called in `files/`: `disks/sda.raw` is `sda`. "" for what is no disk."""
    return PurePosixPath(item.path).name.removesuffix(".raw") if item.kind is ItemKind.DISK else ""


def noted(volumes: Iterable[Volume]) -> Iterator[Volume]:
    """The volumes, and behind each with a file system of which there is something to say a text volume that
    says it: `p1.txt` beside `p1` tells that the file system was in use."""
    for volume in volumes:
        yield volume
        if volume.file_system and volume.text:
            yield replace(volume, file_system="")


def layout(volumes: Iterable[Volume]) -> dict[Place, Volume]:
    """Where the volumes of one disk stand: text volumes as `.txt` files, the others as folders.

    Names that a guest chose (of LVM) are made harmless. No two volumes get one place and none stands inside
    another, whatever a hostile disk says.
    """
    placed: dict[Place, Volume] = {}
    above: set[Place] = set()
    numbers: dict[Place, int] = {}  # of the last that wanted a place: thousands may want the same
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
    """A name or path as text; bytes that are not UTF-8 become lone surrogates, as Python has it."""
    return name.decode(errors="surrogateescape")


def to_bytes(text: str) -> bytes:
    """The opposite of `to_text`."""
    return text.encode(errors="surrogateescape")
