"""Partition tables: GPT with its backup, MBR with logical partitions, on sectors of 512 and 4096 bytes.

Partitions are numbered as Linux numbers them: GPT by their slot, MBR 1 to 4, logical ones from 5.
Source: UEFI specification 2.10 chapter 5; block/partitions/msdos.c of Linux.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Annotated, Final, NamedTuple

from holdfast.formats.guests.filesystems.base.directory_tree import utf8
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.layout import At, Layout
from holdfast.formats.guests.values.values import GuestDamaged

SECTORS = (512, 4096)

_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_MAX_LOGICAL = 128
_MAX_SLOTS = 1024
_MAX_SHOWN = 256
_GPT_MAGIC = b"EFI PART"
_GPT_MIN_HEADER = 92
_GPT_MIN_ENTRY = 128
_GPT_MAX_ENTRY = 4096
_GPT_UNUSED = bytes(16)
_MBR_SIZE = 512
_MBR_ENTRIES = 446
_MBR_MAGIC = b"\x55\xaa"
_MBR_MAGIC_OFFSET = 510
_BOOT_FLAG = 0x80


class _GptHeader(NamedTuple):
    """The GPT header, section 5.3.2. Little-endian, as all here; positions are in sectors."""

    magic: Annotated[bytes, At(0, "8s")]
    size: Annotated[int, At(12, "I")]
    checksum: Annotated[int, At(16, "I")]
    own_sector: Annotated[int, At(24, "Q")]
    entries_sector: Annotated[int, At(72, "Q")]
    entries: Annotated[int, At(80, "I")]
    entry_size: Annotated[int, At(84, "I")]
    entries_checksum: Annotated[int, At(88, "I")]


class _GptEntry(NamedTuple):
    """A GPT partition entry, section 5.3.3."""

    type: Annotated[bytes, At(0, "16s")]
    first_sector: Annotated[int, At(32, "Q")]
    last_sector: Annotated[int, At(40, "Q")]
    name: Annotated[bytes, At(56, "72s")]


class _MbrEntry(NamedTuple):
    """A slot of an MBR, section 5.2.1; start and size are in sectors."""

    flag: Annotated[int, At(0, "B")]
    kind: Annotated[int, At(4, "B")]
    start: Annotated[int, At(8, "I")]
    size: Annotated[int, At(12, "I")]


_HEADER: Final = Layout(_GptHeader, "<", "gpt header")
_ENTRY: Final = Layout(_GptEntry, "<", "gpt entry")
_MBR_ENTRY: Final = Layout(_MbrEntry, "<", "mbr entry")


class Partition(NamedTuple):
    """A partition. `start` and `size` are in bytes, as its table says: it may lie outside of the disk."""

    number: int
    start: int
    size: int
    name: str


def read_partitions(disk: BlockDevice, is_known: Callable[[int, int], bool]) -> list[Partition] | None:
    """The partitions of a disk; None when it has no table.

    An MBR does not hold its sector size. `is_known` gets the start and size of a partition, in bytes, and
    returns whether a known structure is there: sectors have 512 bytes, unless only 4096 leads to one.
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
    """The copy of the GPT at the disk's end, unless a sound MBR says that the disk has no GPT."""
    entries = _mbr_entries(_read(disk, 0, _MBR_SIZE))
    if entries is not None and not any(entry.kind == _PROTECTIVE for entry in entries):
        return None
    return _gpt(disk, disk.size // sector * sector - sector, sector)


def _gpt(disk: BlockDevice, offset: int, sector: int) -> list[Partition] | None:
    """The partitions of the GPT whose header is at an offset; None when it or its entries are damaged."""
    raw = _read(disk, offset, 512)
    if raw[: len(_GPT_MAGIC)] != _GPT_MAGIC:
        return None
    header = _HEADER.read(raw)
    width = header.entry_size
    is_sound = (
        _GPT_MIN_HEADER <= header.size <= len(raw)
        and header.own_sector * sector == offset
        and zlib.crc32(raw[:16] + bytes(4) + raw[20 : header.size]) == header.checksum
        and _GPT_MIN_ENTRY <= width <= _GPT_MAX_ENTRY
        and width % _GPT_MIN_ENTRY == 0
        and 0 < header.entries <= _MAX_SLOTS
    )
    if not is_sound:
        return None
    table = _read(disk, header.entries_sector * sector, header.entries * width)
    if not table or zlib.crc32(table) != header.entries_checksum:
        return None
    found = []
    for slot in range(header.entries):
        entry = _ENTRY.read(table, slot * width)
        if entry.type == _GPT_UNUSED:
            continue
        name = utf8(entry.name).decode("utf-8", "replace").split("\0", 1)[0]
        size = (entry.last_sector + 1 - entry.first_sector) * sector
        found.append(Partition(slot + 1, entry.first_sector * sector, size, name))
        if len(found) >= _MAX_SHOWN:
            break
    return found


def _mbr(disk: BlockDevice, sector: int) -> list[Partition] | None:
    """The partitions of an MBR; None when there is none, or when it is empty."""
    entries = _mbr_entries(_read(disk, 0, _MBR_SIZE))
    if entries is None or any(entry.flag & ~_BOOT_FLAG for entry in entries):
        return None
    found = [
        Partition(slot, entry.start * sector, entry.size * sector, "")
        for slot, entry in enumerate(entries, 1)
        if entry.kind and entry.size and entry.kind not in _EXTENDED
    ]
    number = 5
    for entry in entries:
        if entry.kind in _EXTENDED and entry.size:
            for start, size in _logical(disk, entry.start, sector):
                found.append(Partition(number, start, size, ""))
                number += 1
    return found or None


def _logical(disk: BlockDevice, first: int, sector: int) -> list[tuple[int, int]]:
    """(start, size) of the logical partitions, in bytes.

    They are a chain of tables with one partition and one link each. A link counts from the first table, the
    start of a partition from its own table.
    """
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    here: int | None = first
    while here is not None and here not in seen and len(seen) < _MAX_LOGICAL:
        seen.add(here)
        link = None
        for entry in _mbr_entries(_read(disk, here * sector, _MBR_SIZE)) or ():
            if not entry.size or not entry.kind:
                continue
            if entry.kind in _EXTENDED:
                link = first + entry.start if link is None else link
            else:
                found.append(((here + entry.start) * sector, entry.size * sector))
        here = link
    return found


def _mbr_entries(raw: bytes) -> list[_MbrEntry] | None:
    """The four slots; None when the magic number is missing."""
    if raw[_MBR_MAGIC_OFFSET:] != _MBR_MAGIC:
        return None
    return [_MBR_ENTRY.read(raw, _MBR_ENTRIES + slot * _MBR_ENTRY.size) for slot in range(4)]


def _read(disk: BlockDevice, offset: int, length: int) -> bytes:
    """Read bytes of the disk; b"" when they are outside of it or cannot be read."""
    if offset < 0 or offset + length > disk.size:
        return b""
    try:
        return disk.read(offset, length)
    except GuestDamaged:
        return b""
