"""A stored disk seen as a dynamic VHDX file.

    0        file identifier, headers, region tables     1 MiB  an empty log
    2 MiB    metadata                                    3 MiB  the BAT, then the disk

A block that holds any data is fully present, at its own place. The others are not present, and the file has
zeros in their places. A writer adds new blocks at the end of a restored file or in those gaps.
"""

from __future__ import annotations

import sys
from array import array
from functools import lru_cache, partial
from typing import Final
from uuid import UUID, uuid5

from holdfast.formats.disks.base.block_view import ComputedSection, SectionView
from holdfast.formats.disks.base.view import Allocation, ViewImpossible
from holdfast.formats.disks.vhdx.format import (
    BAT,
    FILE_PARAMETERS,
    FULLY_PRESENT,
    HEADER_OFFSETS,
    HEADER_SIZE,
    IDENTIFIER,
    LOGICAL_SECTOR,
    METADATA,
    MIB,
    PHYSICAL_SECTOR,
    REGION_OFFSETS,
    SIZE_LIMIT,
    TABLE_SIZE,
    VIRTUAL_ID,
    VIRTUAL_SIZE,
    Header,
    bat_index,
    chunk_ratio,
    encode_header,
    encode_metadata,
    encode_regions,
)

_SECTOR: Final = 512
_PHYSICAL: Final = 4096
_METADATA_OFFSET: Final = 2 * MIB
_BAT_OFFSET: Final = 3 * MIB
_BLOCKS: Final = 1 << 20
"""Blocks of a disk at most: larger disks get larger blocks, so that a BAT, which QEMU loads whole, stays
below 9 MiB."""
_CREATOR: Final = "Holdfast"


class VhdxView(SectionView):
    """Implements View. `identity`: 16 bytes from which the file's GUIDs are made."""

    def __init__(self, size: int, allocation: Allocation, identity: bytes) -> None:
        if not size or size % _SECTOR or size > SIZE_LIMIT:
            raise ViewImpossible(
                f"a VHDX disk has 1 to {SIZE_LIMIT // _SECTOR} sectors of {_SECTOR} bytes, not {size} bytes"
            )
        self.block_size = max(MIB, 1 << (-(-size // _BLOCKS) - 1).bit_length())
        self._disk_size = size
        self._allocation = allocation
        self._identity = UUID(bytes=identity)
        self._ratio = chunk_ratio(self.block_size, _SECTOR)
        self._blocks = -(-size // self.block_size)
        self._entries = bat_index(self._blocks - 1, self._ratio) + 1
        self._bat_length = -(-8 * self._entries // MIB) * MIB
        data_start = _BAT_OFFSET + self._bat_length
        first, second = HEADER_OFFSETS
        identifier = IDENTIFIER + _CREATOR.encode("utf-16-le").ljust(512, b"\0")
        super().__init__(
            [
                ComputedSection(0, len(identifier), lambda: identifier),
                ComputedSection(first, HEADER_SIZE, partial(self._header, 1)),
                ComputedSection(second, HEADER_SIZE, partial(self._header, 2)),
                *(
                    ComputedSection(offset, TABLE_SIZE, partial(_region_table, self._bat_length))
                    for offset in REGION_OFFSETS
                ),
                ComputedSection(_METADATA_OFFSET, len(self._metadata()), self._metadata),
                _BatSection(self, self._bat_length),
            ],
            data_start=data_start,
            disk_size=size,
            size=data_start + self._blocks * self.block_size,
        )

    def bat(self, start: int, end: int) -> bytes:
        """Bytes [start, end) of the BAT."""
        first, last = start // 8, -(-end // 8)
        entries = array("Q", bytes(8 * (last - first)))
        block_size = self.block_size
        done, end_block = self._first_block(first), min(self._blocks, self._first_block(last))
        if done < end_block:
            runs = self._allocation(done * block_size, min(end_block * block_size, self._disk_size))
            for run_start, length in runs:
                block = max(done, run_start // block_size)
                done = max(done, min(end_block, -(-(run_start + length) // block_size)))
                while block < done:
                    until = min(done, (block // self._ratio + 1) * self._ratio)
                    place = self.data_start + block * block_size + FULLY_PRESENT
                    at = bat_index(block, self._ratio) - first
                    entries[at : at + until - block] = array(
                        "Q", range(place, place + (until - block) * block_size, block_size)
                    )
                    block = until
        if sys.byteorder == "big":
            entries.byteswap()
        return entries.tobytes()[start - 8 * first : end - 8 * first]

    def _first_block(self, entry: int) -> int:
        """The first block whose BAT entry is `entry` or comes after it."""
        chunk, inside = divmod(entry, self._ratio + 1)
        return chunk * self._ratio + inside

    def _header(self, sequence: int) -> bytes:
        guids = (uuid5(self._identity, what).bytes_le for what in ("file write", "data write"))
        return encode_header(Header(sequence), *guids)

    def _metadata(self) -> bytes:
        return encode_metadata(
            {
                FILE_PARAMETERS: self.block_size.to_bytes(8, "little"),
                VIRTUAL_SIZE: self._disk_size.to_bytes(8, "little"),
                VIRTUAL_ID: self._identity.bytes_le,
                LOGICAL_SECTOR: _SECTOR.to_bytes(4, "little"),
                PHYSICAL_SECTOR: _PHYSICAL.to_bytes(4, "little"),
            }
        )


class _BatSection:
    """The BAT, padded with zeros to the size of its region."""

    start = _BAT_OFFSET

    def __init__(self, view: VhdxView, length: int) -> None:
        self._view = view
        self.length = length

    def read(self, start: int, end: int) -> bytes:
        return self._view.bat(start, end)


@lru_cache(maxsize=16)
def _region_table(bat_length: int) -> bytes:
    """The region table. Cached: its checksum takes 3 ms, and almost all disks have the same table."""
    return encode_regions([(BAT, _BAT_OFFSET, bat_length), (METADATA, _METADATA_OFFSET, MIB)])
