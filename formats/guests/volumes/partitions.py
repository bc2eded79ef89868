"""Partition tables: GPT with its backup, MBR with logical partitions; sectors of 512 and 4096 bytes.

Partitions are numbered as Linux numbers them: GPT by their slot, MBR 1 to 4, logical ones from 5.
Source: UEFI specification 2.10 chapter 5; block/partitions/msdos.c of Linux.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.directory_tree import utf8
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.values import GuestDamaged

SECTORS = (512, 4096)

_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_MAX_LOGICAL = 128
_MAX_SLOTS = 1024
_MAX_SHOWN = 256
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_MBR_ENTRY = struct.Struct("<B3sB3sII")


class Partition(NamedTuple):
    """`start` and `size` in bytes, as the table says: they may lie outside of the disk."""

    number: int
    start: int
    size: int
    name: str


def read_partitions(disk: BlockDevice, is_known: Callable[[int, int], bool]) -> list[Partition] | None:
    """The partitions of a disk; None when there is no table.

    An MBR does not say how large its sectors are: `is_known`, called with the start and size of a
    partition, decides whether anything known stands there; 512 unless only 4096 finds something.
    """
    for read in (_primary, _backup):
        for sector in SECTORS:
            table = read(disk, sector)
            if table is not None:
                return table
    smallest = _mbr(disk, 512)
    if smallest is None or any(is_known(part.start, part.size) for part in smallest):
        return smallest
    largest = _mbr(disk, 4096)
    if largest is not None and any(is_known(part.start, part.size) for part in largest):
        return largest
    return smallest


def _primary(disk: BlockDevice, sector: int) -> list[Partition] | None:
    return _gpt(disk, sector, sector)


def _backup(disk: BlockDevice, sector: int) -> list[Partition] | None:
    """The table at the end, only where an MBR says that there is one or was."""
    mbr = _read(disk, 0, 512)
    if mbr[510:] == b"\x55\xaa" and not any(mbr[446 + 4 + 16 * slot] == _PROTECTIVE for slot in range(4)):
        return None
    return _gpt(disk, disk.size // sector * sector - sector, sector)


def _gpt(disk: BlockDevice, place: int, sector: int) -> list[Partition] | None:
    """A GPT whose header stands at `place`; None when it, or its entries, are not whole."""
    raw = _read(disk, place, 512)
    if raw[:8] != b"EFI PART":
        return None
    _, _, size, checksum, _, here, _, _, _, _, entries, count, width, entries_checksum = _HEADER.unpack_from(
        raw
    )
    if not 92 <= size <= 512 or here * sector != place:
        return None
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:size]) != checksum:
        return None
    if not 128 <= width <= 4096 or width % 128 or not 0 < count <= _MAX_SLOTS:
        return None
    table = _read(disk, entries * sector, count * width)
    if not table or zlib.crc32(table) != entries_checksum:
        return None
    found = []
    for slot in range(count):
        entry = table[slot * width : slot * width + 128]
        if entry[:16] == bytes(16):
            continue
        first, last = struct.unpack_from("<QQ", entry, 32)
        name = utf8(entry[56:128]).decode("utf-8", "replace").split("\0", 1)[0]
        found.append(Partition(slot + 1, first * sector, (last + 1 - first) * sector, name))
        if len(found) >= _MAX_SHOWN:
            break
    return found


def _mbr(disk: BlockDevice, sector: int) -> list[Partition] | None:
    raw = _read(disk, 0, 512)
    entries = _mbr_entries(raw)
    if entries is None or any(flag & 0x7F for flag, _, _, _ in entries):
        return None
    found = []
    for slot, (_, kind, start, size) in enumerate(entries, 1):
        if not kind or not size:
            continue
        if kind in _EXTENDED:
            continue
        found.append(Partition(slot, start * sector, size * sector, ""))
    number = 5
    for _, kind, start, size in entries:
        if kind in _EXTENDED and size:
            for logical in _logical(disk, start, sector):
                found.append(Partition(number, logical[0], logical[1], ""))
                number += 1
    return found or None


def _logical(disk: BlockDevice, first: int, sector: int) -> list[tuple[int, int]]:
    """(start, size) of the logical partitions: a chain of tables with one partition and a link each. A link
    is counted from the first table, a partition from its own."""
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    here: int | None = first
    while here is not None and here not in seen and len(seen) < _MAX_LOGICAL:
        seen.add(here)
        entries = _mbr_entries(_read(disk, here * sector, 512))
        link = None
        for _, kind, start, size in entries or ():
            if not size or not kind:
                continue
            if kind in _EXTENDED:
                link = first + start if link is None else link
            else:
                found.append(((here + start) * sector, size * sector))
        here = link
    return found


def _mbr_entries(raw: bytes) -> list[tuple[int, int, int, int]] | None:
    """(flag, kind, start, size) of the four slots, in sectors."""
    if raw[510:] != b"\x55\xaa":
        return None
    return [
        (flag, kind, start, size) for flag, _, kind, _, start, size in _MBR_ENTRY.iter_unpack(raw[446:510])
    ]


def _read(disk: BlockDevice, offset: int, length: int) -> bytes:
    """b"" for what is outside or cannot be read."""
    if offset < 0 or offset + length > disk.size:
        return b""
    try:
        return disk.read(offset, length)
    except GuestDamaged:
        return b""
