"""A stored disk seen as a VMDK: monolithicSparse, 64 KiB grains.

    header | descriptor | redundant directory and tables | directory and tables | disk

The layout is QEMU's. All tables are present, so the directories can be computed. The grain at offset `d` of
the disk is at file offset `data_start + d`; a grain without any data is not in the table.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from typing import Final

from holdfast.base.ranges import joined
from holdfast.formats.disks.base.view import Allocation, ViewImpossible, ViewPart
from holdfast.formats.disks.vmdk.format import (
    ENTRIES,
    FLAG_REDUNDANT,
    FLAG_TEXT_CHECK,
    HEADER,
    HOSTED_MAGIC,
    SECTOR,
    TEXT_CHECK,
)

GRAIN: Final = 64 << 10
_GRAIN_SECTORS: Final = GRAIN // SECTOR
_TABLE_SECTORS: Final = ENTRIES * 4 // SECTOR
_DESCRIPTOR: Final = 1
_DESCRIPTOR_SECTORS: Final = 20
_REDUNDANT: Final = _DESCRIPTOR + _DESCRIPTOR_SECTORS
_MOST_SECTORS: Final = 1 << 32
"""Most sectors of the file: tables have 32 bits for the place of a grain."""
_PIECE: Final = 64 << 10
"""Bytes of tables that are made at a time; 64 KiB of grain tables describe 1 GiB of disk."""


class VmdkView:
    """Implements View. Raises ViewImpossible for a disk that is empty, ends inside a sector or has more than
    2 TiB."""

    def __init__(self, size: int, allocation: Allocation, identity: bytes) -> None:
        if size <= 0 or size % SECTOR:
            raise ViewImpossible(
                f"a VMDK holds whole sectors of {SECTOR} bytes, this disk is {size} bytes long"
            )
        self._disk = size
        self._allocation = allocation
        self._grains = -(-size // GRAIN)
        self._tables = -(-self._grains // ENTRIES)
        self._directory_sectors = -(-self._tables * 4 // SECTOR)
        self._directory = _REDUNDANT + self._directory_sectors + self._tables * _TABLE_SECTORS
        self._tables_end = self._directory + self._directory_sectors + self._tables * _TABLE_SECTORS
        self._first_grain = -(-self._tables_end // _GRAIN_SECTORS) * _GRAIN_SECTORS
        if self._first_grain + self._grains * _GRAIN_SECTORS > _MOST_SECTORS:
            raise ViewImpossible(f"a VMDK holds a little less than 2 TiB, this disk is {size} bytes long")
        self.data_start = self._first_grain * SECTOR
        self.size = self.data_start + self._grains * GRAIN
        self._head = self._make_head(identity)

    def parts(self, start: int, end: int) -> Iterator[ViewPart]:
        redundant, directory = _REDUNDANT * SECTOR, self._directory * SECTOR
        tables_end = self._tables_end * SECTOR
        if start < min(end, redundant):
            yield ViewPart(start, min(end, redundant) - start, self._head[start:end], -1)
        for base, stop in ((redundant, directory), (directory, tables_end)):
            for at in range(max(start, base), min(end, stop), _PIECE):
                until = min(at + _PIECE, end, stop)
                yield ViewPart(at, until - at, self._make_tables(base, at, until), -1)
        disk_end = self.data_start + self._disk
        for low, high, disk in (
            (tables_end, self.data_start, -1),
            (self.data_start, disk_end, 0),
            (disk_end, self.size, -1),
        ):
            at, until = max(start, low), min(end, high)
            if at < until:
                yield ViewPart(at, until - at, None, disk if disk < 0 else at - low)

    def tables(self) -> Iterator[tuple[int, int]]:
        """Leaves out tables of ranges of 32 MiB without data, which takes a walk over the allocation."""
        table = _TABLE_SECTORS * SECTOR
        yield 0, _REDUNDANT * SECTOR
        for base in (_REDUNDANT * SECTOR, self._directory * SECTOR):
            first_table = base + self._directory_sectors * SECTOR
            yield base, first_table
            for first, last in self._used_tables():
                yield first_table + first * table, first_table + last * table

    def _used_tables(self) -> Iterator[tuple[int, int]]:
        """Ranges (first, last) of the tables that are not all zeros."""
        span = ENTRIES * GRAIN
        data = self._allocation(0, self._disk)
        return joined((start // span, -(-(start + length) // span)) for start, length in data)

    def _make_tables(self, base: int, start: int, end: int) -> bytes:
        """Bytes [start, end) of the directory at `base` and of the tables behind it."""
        first_table = base + self._directory_sectors * SECTOR
        made = b""
        if start < first_table:
            first, last = (start - base) // 4, -(-(min(end, first_table) - base) // 4)
            sector = first_table // SECTOR
            used = range(
                sector + first * _TABLE_SECTORS,
                sector + min(last, self._tables) * _TABLE_SECTORS,
                _TABLE_SECTORS,
            )
            entries = array("I", used)
            entries.extend([0] * (last - first - len(entries)))
            skip = start - base - first * 4
            made = _packed(entries)[skip : skip + min(end, first_table) - start]
            start = min(end, first_table)
        if start < end:
            first, last = (start - first_table) // 4, -(-(end - first_table) // 4)
            skip = start - first_table - first * 4
            made += _packed(self._make_grains(first, last))[skip : skip + end - start]
        return made

    def _make_grains(self, first: int, last: int) -> array[int]:
        """Table entries of grains [first, last), which may lie behind the disk's end."""
        entries = array("I", bytes(4 * (last - first)))
        end = min(last, self._grains)
        if first >= end:
            return entries
        done = first
        for start, length in self._allocation(first * GRAIN, min(end * GRAIN, self._disk)):
            low, high = max(start // GRAIN, done), min(-(-(start + length) // GRAIN), end)
            if low < high:
                sector = self._first_grain + low * _GRAIN_SECTORS
                run = range(sector, sector + (high - low) * _GRAIN_SECTORS, _GRAIN_SECTORS)
                entries[low - first : high - first] = array("I", run)
                done = high
        return entries

    def _make_head(self, identity: bytes) -> bytes:
        header = HEADER.pack(
            HOSTED_MAGIC,
            1,
            FLAG_TEXT_CHECK | FLAG_REDUNDANT,
            self._disk // SECTOR,
            _GRAIN_SECTORS,
            _DESCRIPTOR,
            _DESCRIPTOR_SECTORS,
            ENTRIES,
            _REDUNDANT,
            self._directory,
            self._first_grain,
            0,
            TEXT_CHECK,
            0,
        )
        text = self._make_descriptor(identity).encode()
        return header.ljust(SECTOR, b"\0") + text.ljust(_DESCRIPTOR_SECTORS * SECTOR, b"\0")

    def _make_descriptor(self, identity: bytes) -> str:
        # ffffffff stands for no parent, fffffffe for a disk that was never opened.
        cid = int.from_bytes(identity[:4], "big") % 0xFFFFFFFE
        sectors = self._disk // SECTOR
        heads, per_track = _geometry(sectors)
        return (
            "# Disk DescriptorFile\n"
            "version=1\n"
            f"CID={cid:08x}\n"
            "parentCID=ffffffff\n"
            'createType="monolithicSparse"\n'
            "\n"
            "# Extent description\n"
            f'RW {sectors} SPARSE "disk.vmdk"\n'
            "\n"
            "# The Disk Data Base\n"
            "#DDB\n"
            "\n"
            'ddb.virtualHWVersion = "4"\n'
            f'ddb.longContentID = "{identity[4:16].hex()}{cid:08x}"\n'
            f'ddb.geometry.cylinders = "{max(1, min(sectors // (heads * per_track), 65535))}"\n'
            f'ddb.geometry.heads = "{heads}"\n'
            f'ddb.geometry.sectors = "{per_track}"\n'
            'ddb.adapterType = "lsilogic"\n'
        )


def _geometry(sectors: int) -> tuple[int, int]:
    """Heads and sectors of a track, as VMware's SCSI adapters translate."""
    gigabyte = (1 << 30) // SECTOR
    if sectors < gigabyte:
        return 64, 32
    if sectors < 2 * gigabyte:
        return 128, 32
    return 255, 63


def _packed(entries: array[int]) -> bytes:
    if sys.byteorder == "big":
        entries.byteswap()
    return entries.tobytes()
