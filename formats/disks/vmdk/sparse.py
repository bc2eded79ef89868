"""One sparse extent of a VMDK: its header, its tables, its grains.

Tables are read one at a time and checked as a whole when they are read: every entry must point to a grain
that is in the file. Where there is a second set of tables, the two must agree.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from operator import attrgetter
from typing import Final, NamedTuple

from holdfast.base.lru import Lru
from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.files import fill_exactly, read_exactly
from holdfast.formats.disks.base.image import ExtentKind, ImageExtent, ImageFile
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
"""Of a header and its footer. The others may differ: the footer's word counts."""


class GrainRange(NamedTuple):
    """Neighbouring grains of one table that are stored alike. `start` is an index in the table, `length` a
    count of grains; `sector` is where their data begins in the file, 0 without data."""

    start: int
    length: int
    kind: ExtentKind
    sector: int


class SparseExtent:
    """An open sparse extent; offsets are bytes of the extent. One thread at a time."""

    def __init__(self, file: ImageFile, layout: SparseLayout) -> None:
        self._file = file
        self._layout = layout
        self.size = layout.capacity * SECTOR
        self._grain = layout.grain * SECTOR
        self._tables: Lru[int, array[int] | None] = Lru(_TABLES_KEPT)
        self._pages: dict[int, tuple[int, array[int]]] = {}
        self._compressed = CompressedGrains(file, layout) if layout.compressed else None

    def extents(self) -> Iterator[ImageExtent]:
        """All of [0, size) in order, as runs of a kind within a table."""
        span = self._layout.entries * self._grain
        left = self._file.size
        for index in range(self._layout.table_count):
            start = index * span
            table = self._table(index)
            if table is None:
                yield ImageExtent(start, min(span, self.size - start), ExtentKind.HOLE)
                continue
            left -= 4 * len(table)
            for run in self._runs(table, 0, len(table)):
                at = start + run.start * self._grain
                length = min(run.length * self._grain, self.size - at)
                if run.kind is ExtentKind.DATA and self._compressed is None:
                    left -= length
                if left < 0:  # one table or grain, pointed to over and over, would make a disk without end
                    where = self._layout.directory * SECTOR + 4 * index
                    reason = "more tables or grains than the file has"
                    raise ImageDamaged(self._file.name, reason, offset=where)
                yield ImageExtent(at, length, run.kind)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        span = self._layout.entries * self._grain
        done = 0
        while done < len(buffer):
            index, within = divmod(offset + done, span)
            part = buffer[done : done + span - within]
            table = self._table(index)
            if table is None:
                part[:] = bytes(len(part))
            else:
                self._read_table(part, table, index, within)
            done += len(part)

    def _read_table(self, buffer: memoryview, table: array[int], index: int, within: int) -> None:
        """Fill the buffer with the bytes from offset `within` of the range that a table describes."""
        end = within + len(buffer)
        for run in self._runs(table, within // self._grain, -(-end // self._grain)):
            start = run.start * self._grain
            first, last = max(start, within), min(start + run.length * self._grain, end)
            part = buffer[first - within : last - within]
            if run.kind is not ExtentKind.DATA:
                part[:] = bytes(len(part))
            elif self._compressed is None:
                fill_exactly(self._file, part, run.sector * SECTOR + first - start, "a grain")
            else:
                sectors = table[run.start : run.start + run.length]
                grain = index * self._layout.entries + run.start
                self._compressed.read_into(part, grain, sectors, first - start)

    # ---- tables ---------------------------------------------------------------------------------------

    def _table(self, index: int) -> array[int] | None:
        """A grain table, without entries for what is behind the extent's end; None where there is none."""
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
        """Raise for grains that are not in the file. `left` is the extent's sectors from the table on."""
        layout = self._layout
        least = GRAIN_MARKER.size + 1 if layout.compressed else self._grain
        last = (self._file.size - least) // SECTOR
        if max(table) <= last and layout.lowest <= min(filter(None, table), default=layout.lowest):
            return
        for number, grain in enumerate(table):
            if grain == 0 or (grain == ZEROED_GRAIN and layout.zeroed_grains):
                continue
            if not layout.compressed:  # the last grain may end with the disk
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

        A grain that only the redundant table lacks is believed: a writer that was interrupted between the
        two leaves that behind, and every reader takes the first.
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
        """In a stream a table stands behind its marker, or right behind the table before it."""
        marker = read_exactly(self._file, (sector - 1) * SECTOR, MARKER.size, "a marker")
        if MARKER.unpack(marker)[1:] == (0, MARK_TABLE):
            return
        size = -(-self._layout.entries * 4 // SECTOR)
        if index and self._directory_entry(self._layout.directory, index - 1) + size == sector:
            return
        raise ImageDamaged(self._file.name, "a grain table without a marker", offset=(sector - 1) * SECTOR)

    def _runs(self, table: array[int], start: int, end: int) -> Iterator[GrainRange]:
        """The ranges of equal kind in grains [start, end) of a table. Data grains that do not follow one
        another in the file begin a new range, unless they are compressed."""
        step = 0 if self._layout.compressed else self._layout.grain
        zeroed = ZEROED_GRAIN if self._layout.zeroed_grains else 0
        last = min(end, len(table))
        at = start
        while at < last:
            first = table[at]
            stop = at + 1
            if first in (0, zeroed):
                while stop < last and table[stop] == first:
                    stop += 1
                yield GrainRange(at, stop - at, ExtentKind.ZERO if first else ExtentKind.HOLE, 0)
            else:
                expected = first + step
                while stop < last and (table[stop] == expected if step else table[stop] > zeroed):
                    stop += 1
                    expected += step
                yield GrainRange(at, stop - at, ExtentKind.DATA, first)
            at = stop


def open_hosted(file: ImageFile) -> tuple[HostedHeader, SparseExtent]:
    """Open a hosted sparse extent, be it plain or a stream. The descriptor in it is left to the caller.

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
    """Open a sparse extent that a descriptor names, hosted or ESX's, whichever it is."""
    magic = read_exactly(file, 0, min(file.size, len(ESX_MAGIC)), "the VMDK header")
    if magic != ESX_MAGIC:
        return open_hosted(file)[1]
    layout = parse_esx(read_exactly(file, 0, ESX_HEADER.size, "the VMDK header"), file.name)
    _check_directories(file, layout)
    return SparseExtent(file, layout)


def _read_footer(file: ImageFile, header: HostedHeader) -> HostedHeader:
    """The header with its directory, as a stream repeats it before its end."""
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
