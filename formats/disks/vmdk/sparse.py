"""One sparse extent of a VMDK: its header, its tables, its grains.

A table is checked as a whole when it is read: every entry must point to a grain inside the file. If there is
a redundant set of tables, the two must agree.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from holdfast.base.lru import Lru
from holdfast.formats.disks.base.allocation import AllocationKind, AllocationRange
from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.files import fill_exactly, read_exactly
from holdfast.formats.disks.base.image import ImageExtent, ImageFile
from holdfast.formats.disks.vmdk.format import (
    DIRECTORY_AT_END,
    ESX_HEADER,
    ESX_MAGIC,
    GRAIN_MARKER,
    HEADER,
    MARK_DIRECTORY,
    MARK_FOOTER,
    MARK_TABLE,
    MARKER,
    SECTOR,
    ZEROED_GRAIN,
    HostedHeader,
    SparseLayout,
    parse_esx,
    parse_hosted,
)
from holdfast.formats.disks.vmdk.stream import CompressedGrains

_TABLES_KEPT: Final = 16
_DIRECTORY_PAGE: Final = 1024
"""Entries of the directory that are read at a time."""
_SAME: Final = attrgetter("version", "flags", "capacity", "grain", "entries", "compression")
"""The fields in which header and footer must agree. For all others the footer is right."""


class SparseExtent:
    """An open sparse extent; offsets are bytes of the extent. One thread at a time."""

    def __init__(self, file: ImageFile, layout: SparseLayout) -> None:
        self._file = file
        self._layout = layout
        self.size = layout.capacity * SECTOR
        self._grain = layout.grain * SECTOR
        self._span = layout.entries * self._grain
        self._tables: Lru[int, array[int] | None] = Lru(_TABLES_KEPT)
        self._pages: dict[int, tuple[int, array[int]]] = {}
        self._compressed = CompressedGrains(file, layout) if layout.compressed else None

    def extents(self) -> Iterator[ImageExtent]:
        """All of [0, size) in order. Ranges of one kind are joined only within a table."""
        left = self._file.size
        for index in range(self._layout.table_count):
            table = self._table(index)
            left -= 4 * len(table) if table is not None else 0
            start = index * self._span
            for stored in self._ranges(index, table, start, min(start + self._span, self.size)):
                if stored.kind is AllocationKind.DATA:
                    left -= stored.length
                if left < 0:  # one table or grain, pointed to over and over, would make a disk without end
                    where = self._layout.directory * SECTOR + 4 * index
                    reason = "more tables or grains than the file has"
                    raise ImageDamaged(self._file.name, reason, offset=where)
                yield ImageExtent(stored.start, stored.length, stored.kind.extent_kind)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        at, end = offset, offset + len(buffer)
        while at < end:
            index = at // self._span
            stop = min(end, (index + 1) * self._span)
            table = self._table(index)
            for stored in self._ranges(index, table, at, stop):
                self._fill(buffer[stored.start - offset :][: stored.length], index, table, stored)
            at = stop

    def _fill(
        self, buffer: memoryview, index: int, table: array[int] | None, stored: AllocationRange
    ) -> None:
        """Fill the buffer with the bytes of a range of the disk that table `index` describes."""
        if stored.kind is AllocationKind.DATA:
            fill_exactly(self._file, buffer, stored.file_offset, "a grain")
        elif stored.kind is AllocationKind.PACKED:
            assert table is not None
            assert self._compressed is not None
            first, skip = divmod(stored.start, self._grain)
            entry = first - index * self._layout.entries
            count = -(-(skip + stored.length) // self._grain)
            self._compressed.read_into(buffer, first, table[entry : entry + count], skip)
        else:
            buffer[:] = bytes(len(buffer))

    # ---- tables ---------------------------------------------------------------------------------------

    def _table(self, index: int) -> array[int] | None:
        """Grain table `index`, without entries behind the end of the extent; None if it lists no grains."""
        if index in self._tables:
            return self._tables.get(index)
        layout = self._layout
        sector = self._directory_entry(layout.directory, index)
        table = self._load_table(sector) if sector else None
        if layout.streamed and sector:
            self._check_table_marker(index, sector)
        if layout.redundant:
            self._compare_tables(index, sector, table)
        if table is not None:
            left = layout.capacity - index * layout.entries * layout.grain
            del table[-(-left // layout.grain) :]
            self._check_entries(table, sector, left)
            if not any(table):
                table = None
        self._tables.put(index, table)
        return table

    def _directory_entry(self, directory: int, index: int) -> int:
        page, entry = divmod(index, _DIRECTORY_PAGE)
        held, entries = self._pages.get(directory, (-1, array("I")))
        if held != page:
            count = min(_DIRECTORY_PAGE, self._layout.table_count - page * _DIRECTORY_PAGE)
            at = directory * SECTOR + page * _DIRECTORY_PAGE * 4
            entries = _entries(read_exactly(self._file, at, count * 4, "the grain directory"))
            self._pages[directory] = page, entries
        sector = entries[entry]
        if 0 < sector < self._layout.lowest:
            raise ImageDamaged(
                self._file.name,
                f"a grain table in the header, at sector {sector}",
                offset=directory * SECTOR + index * 4,
            )
        return sector

    def _load_table(self, sector: int) -> array[int]:
        return _entries(read_exactly(self._file, sector * SECTOR, self._layout.entries * 4, "a grain table"))

    def _check_entries(self, table: array[int], sector: int, left: int) -> None:
        """Raise ImageDamaged for grains outside of the file. `left`: sectors from the table's first grain to
        the end of the extent."""
        layout = self._layout
        least = GRAIN_MARKER.size + 1 if layout.compressed else self._grain
        last = (self._file.size - least) // SECTOR
        if max(table) <= last and layout.lowest <= min(filter(None, table), default=layout.lowest):
            return
        for number, grain in enumerate(table):
            if grain == 0 or (grain == ZEROED_GRAIN and layout.zeroed_grains):
                continue
            if not layout.compressed:  # the last grain may be shorter: it ends with the disk
                needed = min(layout.grain, left - number * layout.grain)
                last = self._file.size // SECTOR - needed
            if not layout.lowest <= grain <= last:
                raise ImageDamaged(
                    self._file.name,
                    f"a grain at sector {grain}, where the file of {self._file.size} bytes holds none",
                    offset=sector * SECTOR + number * 4,
                )

    def _compare_tables(self, index: int, sector: int, table: array[int] | None) -> None:
        """Raise when the redundant tables contradict the others.

        A grain that only the redundant table lacks is accepted: a writer that was interrupted between the two
        leaves that behind, and all readers use the first table.
        """
        other_sector = self._directory_entry(self._layout.redundant, index)
        other = self._load_table(other_sector) if other_sector else None
        if table == other:
            return
        for number in range(self._layout.entries):
            mine, theirs = table[number] if table else 0, other[number] if other else 0
            if theirs not in (0, mine):
                raise ImageDamaged(
                    self._file.name,
                    f"grain tables that contradict each other: sectors {mine} and {theirs} for one grain",
                    offset=sector * SECTOR + number * 4,
                )

    def _check_table_marker(self, index: int, sector: int) -> None:
        """Raise ImageDamaged unless the table follows its marker, or the previous table directly."""
        marker = read_exactly(self._file, (sector - 1) * SECTOR, MARKER.size, "a marker")
        if MARKER.unpack(marker)[1:] == (0, MARK_TABLE):
            return
        size = -(-self._layout.entries * 4 // SECTOR)
        if index and self._directory_entry(self._layout.directory, index - 1) + size == sector:
            return
        raise ImageDamaged(self._file.name, "a grain table without a marker", offset=(sector - 1) * SECTOR)

    def _ranges(
        self, index: int, table: array[int] | None, start: int, end: int
    ) -> Iterator[AllocationRange]:
        """How [start, end) of the extent, which table `index` describes, is stored: in order, without gaps.

        Grains that follow each other in the file are one range. So are neighbouring compressed grains,
        wherever they are in the file."""
        if table is None:
            yield AllocationRange(start, end - start, AllocationKind.HOLE, 0, 0)
            return
        size, base = self._grain, index * self._span
        step = 0 if self._compressed else self._layout.grain
        kind = AllocationKind.PACKED if self._compressed else AllocationKind.DATA
        zeroed = ZEROED_GRAIN if self._layout.zeroed_grains else 0
        i, last = (start - base) // size, -(-(end - base) // size)
        at, inside = start, start % size if step else 0
        while i < last:
            first = table[i]
            i += 1
            if first in (0, zeroed):
                while i < last and table[i] == first:
                    i += 1
                stop = base + i * size if i < last else end
                absent = AllocationKind.ZERO if first else AllocationKind.HOLE
                yield AllocationRange(at, stop - at, absent, 0, 0)
            else:
                expected = first + step
                while i < last and (table[i] == expected if step else table[i] > zeroed):
                    i += 1
                    expected += step
                stop = base + i * size if i < last else end
                yield AllocationRange(at, stop - at, kind, first * SECTOR + inside, 0)
            at, inside = stop, 0


def open_hosted(file: ImageFile) -> tuple[HostedHeader, SparseExtent]:
    """Open a hosted sparse extent, plain or a stream. Does not read the descriptor inside.

    Raises ImageDamaged for a stream whose end is missing.
    """
    header = parse_hosted(read_exactly(file, 0, HEADER.size, "the VMDK header"), file.name, 0)
    if file.size < header.overhead * SECTOR:
        raise ImageDamaged(
            file.name, f"it ends before its first grain, at sector {header.overhead}", offset=file.size
        )
    if header.directory == DIRECTORY_AT_END:
        layout = _read_footer(file, header).layout(streamed=True)
        marker = read_exactly(file, max(0, layout.directory - 1) * SECTOR, MARKER.size, "a marker")
        if MARKER.unpack(marker)[1:] != (0, MARK_DIRECTORY):
            raise ImageDamaged(
                file.name, "a grain directory without a marker", offset=(layout.directory - 1) * SECTOR
            )
    else:
        layout = header.layout(streamed=False)
    _check_directories(file, layout)
    return header, SparseExtent(file, layout)


def open_sparse(file: ImageFile) -> SparseExtent:
    """Open a sparse extent that a descriptor names: a hosted one or one of ESX, by its magic."""
    magic = read_exactly(file, 0, min(file.size, len(ESX_MAGIC)), "the VMDK header")
    if magic != ESX_MAGIC:
        return open_hosted(file)[1]
    layout = parse_esx(read_exactly(file, 0, ESX_HEADER.size, "the VMDK header"), file.name)
    _check_directories(file, layout)
    return SparseExtent(file, layout)


def _read_footer(file: ImageFile, header: HostedHeader) -> HostedHeader:
    """Read the footer of a stream: its header again, with the place of the grain directory."""
    at = file.size - 3 * SECTOR
    if at < SECTOR:
        raise ImageDamaged(file.name, "a stream without its end: it was cut off", offset=file.size)
    tail = read_exactly(file, at, 3 * SECTOR, "the footer")
    if MARKER.unpack_from(tail)[1:] != (0, MARK_FOOTER) or any(tail[-SECTOR:][: MARKER.size]):
        raise ImageDamaged(file.name, "a stream without its end: it was cut off", offset=at)
    footer = parse_hosted(tail[SECTOR : SECTOR + HEADER.size], file.name, at + SECTOR)
    if footer.directory == DIRECTORY_AT_END or _SAME(footer) != _SAME(header):
        raise ImageDamaged(file.name, "a footer that contradicts the header", offset=at + SECTOR)
    return footer


def _check_directories(file: ImageFile, layout: SparseLayout) -> None:
    for sector in {layout.directory, layout.redundant or layout.directory}:
        if not layout.lowest <= sector <= (file.size - layout.table_count * 4) // SECTOR:
            raise ImageDamaged(
                file.name,
                f"the grain directory, {layout.table_count * 4} bytes at sector {sector}, is not in the file",
                offset=min(sector * SECTOR, file.size),
            )


def _entries(data: bytes) -> array[int]:
    entries = array("I", data)
    if sys.byteorder == "big":
        entries.byteswap()
    return entries
