"""Reads VHDX images, dynamic and fixed. A log that was not replayed is replayed in memory.

Headers, region tables and log entries carry checksums; metadata and BAT do not, and damage there is noticed
only where it contradicts itself or the file. A disk that names a parent is refused.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass

from holdfast.formats.disks.base.blocks import BAD, HOLE, TABLE_WINDOW, ZERO, BlockImage
from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import read_exactly
from holdfast.formats.disks.base.image import Companions, Image, ImageFile
from holdfast.formats.disks.vhdx.format import (
    BAT,
    BLOCK_SIZE_LIMIT,
    ENTRY_LIMIT,
    FILE_PARAMETERS,
    FULLY_PRESENT,
    HAS_PARENT,
    HEADER_OFFSETS,
    HEADER_SIZE,
    IDENTIFIER,
    ITEM_IS_REQUIRED,
    ITEM_SIZES,
    LOGICAL_SECTOR,
    METADATA,
    METADATA_ENTRY,
    METADATA_HEAD,
    MIB,
    NO_GUID,
    NOT_PRESENT,
    PARENT_LOCATOR,
    PHYSICAL_SECTOR,
    REGION_ENTRY,
    REGION_HEAD,
    REGION_IS_REQUIRED,
    REGION_OFFSETS,
    SIZE_LIMIT,
    TABLE_SIZE,
    UNDEFINED,
    UNMAPPED,
    UNMAPPED_OLD,
    VIRTUAL_SIZE,
    ZEROED,
    Header,
    bat_index,
    chunk_ratio,
    decode_header,
    is_sound,
)
from holdfast.formats.disks.vhdx.log import replay_log

_BELOW_OFFSET = (1 << 20) - 1
"""The bits of a BAT entry that are not its offset."""
_NO_DATA = {
    NOT_PRESENT: HOLE,
    UNDEFINED: HOLE,
    ZEROED: ZERO,
    UNMAPPED: HOLE,
    UNMAPPED_OLD: HOLE,
}
"""States without data; the offset in the entry means nothing. The format lets undefined and unmapped blocks
read as anything: they read as zeros here, as in QEMU and Hyper-V."""


@dataclass(frozen=True, slots=True)
class _FileRange:
    """A range of the file, in bytes."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class _Parameters:
    """What the metadata say, in bytes."""

    size: int
    block_size: int
    logical_sector: int


class _Bat:
    """The block allocation table. No window contains the entry of a sector bitmap: its size and the distance
    of bitmaps are powers of two, and the size is at most the distance."""

    def __init__(self, file: ImageFile, region: _FileRange, parameters: _Parameters) -> None:
        self._file = file
        self._region = region
        self._ratio = chunk_ratio(parameters.block_size, parameters.logical_sector)
        self.window = min(self._ratio, TABLE_WINDOW // 8)

    def entry_offset(self, block: int) -> int:
        return self._region.start + 8 * bat_index(block, self._ratio)

    def load(self, first: int, count: int) -> array[int]:
        data = read_exactly(self._file, self.entry_offset(first), 8 * count, "the block allocation table")
        if data == bytes(len(data)):
            return array("q", [HOLE]) * count
        entries = array("Q", data)
        if sys.byteorder == "big":
            entries.byteswap()
        # An offset with bit 63 does not fit into a signed number, and no file is that large.
        present = _BELOW_OFFSET | 1 << 63
        return array(
            "q",
            [
                entry - FULLY_PRESENT
                if entry & present == FULLY_PRESENT and entry >= MIB
                else _NO_DATA.get(entry & _BELOW_OFFSET, BAD)
                for entry in entries
            ],
        )


def open_vhdx(file: ImageFile, companions: Companions) -> Image:
    """Open a VHDX image. Raises ImageDamaged; ImageRefused for a differencing disk, for features that must be
    understood and are not, and for a log too large to replay in memory."""
    if read_exactly(file, 0, len(IDENTIFIER), "the file identifier") != IDENTIFIER:
        raise ImageDamaged(file.name, "there is no VHDX file identifier", offset=0)
    header = _current_header(file)
    if header.version != 1:
        raise ImageRefused(file.name, f"it is VHDX version {header.version}; only version 1 is known")
    if header.log_guid != NO_GUID:
        file = replay_log(file, header)
    bat, metadata = _read_regions(file)
    parameters = _read_metadata(file, metadata)
    table = _Bat(file, bat, parameters)
    blocks = -(-parameters.size // parameters.block_size)
    if blocks and table.entry_offset(blocks - 1) + 8 > bat.start + bat.length:
        reason = f"{blocks} blocks do not fit into a block allocation table of {bat.length} bytes"
        raise ImageDamaged(file.name, reason, offset=bat.start)
    return BlockImage(file, "vhdx", size=parameters.size, block_size=parameters.block_size, table=table)


def _current_header(file: ImageFile) -> Header:
    """The valid header with the higher sequence number."""
    headers = []
    for offset in HEADER_OFFSETS:
        header = decode_header(read_exactly(file, offset, HEADER_SIZE, "a header"))
        if header is not None:
            headers.append(header)
    if not headers:
        raise ImageDamaged(file.name, "neither of the two headers is valid", offset=HEADER_OFFSETS[0])
    # Disk2vhd writes two equal headers with equal numbers.
    if len(headers) == 2 and headers[0] != headers[1] and headers[0].sequence == headers[1].sequence:
        raise ImageDamaged(file.name, "two headers with one sequence number differ", offset=HEADER_OFFSETS[1])
    return max(headers, key=lambda header: header.sequence)


def _read_regions(file: ImageFile) -> tuple[_FileRange, _FileRange]:
    """Where the BAT and the metadata are."""
    for offset in REGION_OFFSETS:
        data = read_exactly(file, offset, TABLE_SIZE, "a region table")
        if is_sound(data, b"regi"):
            break
    else:
        raise ImageDamaged(file.name, "neither of the two region tables is valid", offset=REGION_OFFSETS[0])
    _, _, count, _ = REGION_HEAD.unpack_from(data)
    if count > ENTRY_LIMIT:
        raise ImageDamaged(file.name, f"a region table with {count} entries", offset=offset)
    found: dict[bytes, _FileRange] = {}
    for index in range(count):
        at = REGION_HEAD.size + index * REGION_ENTRY.size
        guid, start, length, flags = REGION_ENTRY.unpack_from(data, at)
        if guid not in (BAT, METADATA):
            if flags & REGION_IS_REQUIRED:
                raise ImageRefused(file.name, f"it has a region of an unknown kind {guid.hex()}")
            continue
        if guid in found or start < MIB or start % MIB or not length or start + length > file.size:
            reason = f"a region of {length} bytes at {start}, in a file of {file.size}, or twice the same"
            raise ImageDamaged(file.name, reason, offset=offset + at)
        found[guid] = _FileRange(start, length)
    if len(found) != 2:
        raise ImageDamaged(
            file.name, "the region table does not name the BAT and the metadata", offset=offset
        )
    first, second = sorted(found.values(), key=lambda region: region.start)
    if first.start + first.length > second.start:
        raise ImageDamaged(file.name, "the BAT and the metadata lie over each other", offset=second.start)
    return found[BAT], found[METADATA]


def _read_metadata(file: ImageFile, region: _FileRange) -> _Parameters:
    where = region.start
    if region.length < TABLE_SIZE:
        raise ImageDamaged(file.name, f"a metadata region of {region.length} bytes", offset=where)
    table = read_exactly(file, where, TABLE_SIZE, "the metadata table")
    signature, count = METADATA_HEAD.unpack_from(table)
    if signature != b"metadata" or count > ENTRY_LIMIT:
        raise ImageDamaged(file.name, "there is no metadata table", offset=where)
    values: dict[bytes, int] = {}
    for index in range(count):
        at = METADATA_HEAD.size + index * METADATA_ENTRY.size
        guid, offset, length, flags = METADATA_ENTRY.unpack_from(table, at)
        if guid == PARENT_LOCATOR:
            continue
        if guid not in ITEM_SIZES:
            if flags & ITEM_IS_REQUIRED:
                raise ImageRefused(file.name, f"it has metadata of an unknown kind {guid.hex()}")
            continue
        inside = TABLE_SIZE <= offset <= region.length - length
        if guid in values or length != ITEM_SIZES[guid] or not inside:
            reason = f"a metadata item of {length} bytes at {offset} in its region, or twice the same"
            raise ImageDamaged(file.name, reason, offset=where + at)
        values[guid] = int.from_bytes(read_exactly(file, where + offset, length, "a metadata item"), "little")
    missing = {FILE_PARAMETERS, VIRTUAL_SIZE, LOGICAL_SECTOR, PHYSICAL_SECTOR} - values.keys()
    if missing:
        raise ImageDamaged(file.name, "the metadata lack the size of disk, block or sector", offset=where)
    return _check_parameters(file, where, values)


def _check_parameters(file: ImageFile, where: int, values: dict[bytes, int]) -> _Parameters:
    block_size, flags = values[FILE_PARAMETERS] & 0xFFFFFFFF, values[FILE_PARAMETERS] >> 32
    if flags & HAS_PARENT:
        raise ImageRefused(
            file.name, "it is a differencing disk, which holds only what differs from its parent"
        )
    if not MIB <= block_size <= BLOCK_SIZE_LIMIT or block_size & block_size - 1:
        raise ImageDamaged(file.name, f"a block size of {block_size} bytes", offset=where)
    logical, size = values[LOGICAL_SECTOR], values[VIRTUAL_SIZE]
    if logical not in (512, 4096) or values[PHYSICAL_SECTOR] not in (512, 4096):
        raise ImageDamaged(file.name, f"a logical sector size of {logical} bytes", offset=where)
    if size > SIZE_LIMIT or size % logical:
        raise ImageDamaged(file.name, f"a disk of {size} bytes", offset=where)
    return _Parameters(size, block_size, logical)
