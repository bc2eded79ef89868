"""The two-level tables of a qcow2 image, which say where the bytes of a range of the disk are.

Every entry is checked when it is used: reserved bits, alignment, and that what it points to is in the file.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

from holdfast.base.lru import Lru
from holdfast.formats.disks.base.allocation import AllocationKind, AllocationRange
from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.files import read_exactly
from holdfast.formats.disks.base.image import ImageFile
from holdfast.formats.disks.qcow2.format import (
    ALL_ALLOCATED,
    ALL_ZERO,
    COMPRESSED,
    COPIED,
    L1_RESERVED,
    L2_RESERVED,
    OFFSET_MASK,
    SECTOR,
    SUBCLUSTERS,
    ZERO,
    Qcow2Head,
)

_CACHE: Final = 1 << 20
"""Bytes of tables that are kept: 8 GiB of disk at clusters of 64 KiB. Never less than two tables."""
_L1_PIECE: Final = 8192
"""Entries of the L1 table that are read at once."""
_BITS: Final = 1 << SUBCLUSTERS | 1
"""Mask of the allocated bit and the zero bit of subcluster 0."""


class _Entry(NamedTuple):
    """An L2 entry, its subcluster bitmap, the disk offset of its cluster, the file offset of the entry."""

    value: int
    bitmap: int
    cluster: int
    at: int


class Qcow2Tables:
    """Looks up how ranges of the disk are stored. `data` is the file that holds the clusters."""

    def __init__(self, file: ImageFile, data: ImageFile, head: Qcow2Head) -> None:
        self._file = file
        self._data = data
        self._head = head
        self._span_bits = head.cluster_bits + head.l2_bits
        self._size_shift = 62 - (head.cluster_bits - 8)
        self._cache: Lru[tuple[int, int], array[int]] = Lru(max(2, _CACHE // head.cluster))

    def ranges(self, start: int, end: int) -> Iterator[AllocationRange]:
        """How [start, end) of the disk is stored, in order and without gaps.

        Clusters that follow each other in the file are one range, unless two L2 tables describe them. A
        compressed cluster is a range by itself.

        Raises ImageDamaged, with the offset of the entry that is wrong.
        """
        walk = self._extended_ranges if self._head.extended else self._plain_ranges
        last = -((-end) >> self._span_bits)
        at = start
        left = self._file.size // self._head.cluster
        while at < end:
            index = at >> self._span_bits
            where, following = self._l2_offset(index, last)
            stop = min(end, following << self._span_bits)
            if where:
                # One table that is pointed to over and over would make a walk without end.
                left -= 1
                if left < 0:
                    raise self._damaged(where, "more L2 tables than the file has room for")
                yield from walk(where, at, stop)
            else:
                yield AllocationRange(at, stop - at, AllocationKind.HOLE, 0, 0)
            at = stop

    def _l2_offset(self, index: int, last: int) -> tuple[int, int]:
        """(file offset of the L2 table of an L1 entry, 0 if it has none; index of the next entry to look at,
        which skips following entries without a table)."""
        first = index - index % _L1_PIECE
        l1 = self._table(self._head.l1_offset + 8 * first, min(_L1_PIECE, self._head.l1_entries - first))
        at = index - first
        entry = l1[at]
        if not entry:
            stop = min(last - first, len(l1))
            while at < stop and not l1[at]:
                at += 1
            return 0, first + at
        where = entry & OFFSET_MASK
        if entry & L1_RESERVED or where % self._head.cluster or not where:
            raise self._damaged(self._head.l1_offset + 8 * index, f"impossible L1 entry {entry:#018x}")
        if where + self._head.cluster > self._file.size:
            raise self._damaged(self._head.l1_offset + 8 * index, f"the L2 table at {where} is cut off")
        return where, index + 1

    def _table(self, offset: int, entries: int) -> array[int]:
        # The length is in the key: a crafted image can use one place as L1 and as L2 table.
        place = offset, entries
        table = self._cache.get(place)
        if table is None:
            table = array("Q")
            table.frombytes(read_exactly(self._file, offset, 8 * entries, "a table"))
            if sys.byteorder == "little":
                table.byteswap()
            self._cache.put(place, table)
        return table

    def _plain_ranges(self, where: int, at: int, stop: int) -> Iterator[AllocationRange]:
        bits = self._head.cluster_bits
        table = self._table(where, 1 << self._head.l2_bits)
        base = (at >> self._span_bits) << self._span_bits
        i, last = (at - base) >> bits, -((base - stop) >> bits)
        while i < last:
            value = table[i]
            j = i + 1
            if not value & COMPRESSED:
                # Entries that go on like this one, with its flags, are one range: the first is looked at.
                step = 1 << bits if value > ZERO else 0
                wanted = value + step
                while j < last and table[j] == wanted:
                    wanted += step
                    j += 1
            cluster = base + (i << bits)
            first, end = max(at, cluster), min(stop, base + (j << bits))
            yield self._range(_Entry(value, 0, cluster, where + 8 * i), first, end)
            i = j

    def _range(self, entry: _Entry, first: int, end: int) -> AllocationRange:
        """The range [first, end), which begins in the cluster of an entry."""
        if not entry.value:
            return AllocationRange(first, end - first, AllocationKind.HOLE, 0, 0)
        if entry.value & COMPRESSED:
            return self._packed(entry, first, end)
        host = self._host(entry)
        if entry.value & ZERO:
            if self._head.version < 3:
                raise self._wrong(entry)
            return AllocationRange(first, end - first, AllocationKind.ZERO, 0, 0)
        if not host and not self._head.external:
            raise self._wrong(entry)
        return self._stored(entry, first, end)

    def _host(self, entry: _Entry) -> int:
        host = entry.value & OFFSET_MASK
        misplaced = self._head.external and host != entry.cluster and (host or entry.value & COPIED)
        if entry.value & L2_RESERVED or host % self._head.cluster or misplaced:
            raise self._wrong(entry)
        return host

    def _stored(self, entry: _Entry, first: int, end: int) -> AllocationRange:
        host = (entry.value & OFFSET_MASK) + first - entry.cluster
        if host + end - first > self._data.size:
            reason = f"a cluster at {host} reaches past the end of {self._data.name} at {self._data.size}"
            raise self._damaged(entry.at, reason)
        return AllocationRange(first, end - first, AllocationKind.DATA, host, 0)

    def _packed(self, entry: _Entry, first: int, end: int) -> AllocationRange:
        host = entry.value & ((1 << self._size_shift) - 1)
        sectors = (entry.value & ~(COMPRESSED | COPIED)) >> self._size_shift
        if entry.value & COPIED or not host or self._head.external:
            raise self._wrong(entry)
        if host >= self._file.size:
            reason = f"a compressed cluster at {host}, the file ends at {self._file.size}"
            raise self._damaged(entry.at, reason)
        # The file may end inside the last sector.
        stored = min((sectors + 1) * SECTOR - host % SECTOR, self._file.size - host)
        return AllocationRange(first, end - first, AllocationKind.PACKED, host, stored)

    def _extended_ranges(self, where: int, at: int, stop: int) -> Iterator[AllocationRange]:
        bits = self._head.cluster_bits
        table = self._table(where, 2 << self._head.l2_bits)
        base = (at >> self._span_bits) << self._span_bits
        i, last = (at - base) >> bits, -((base - stop) >> bits)
        while i < last:
            value, bitmap = table[2 * i], table[2 * i + 1]
            j = i + 1
            uniform = not value & COMPRESSED and bitmap in (0, ALL_ALLOCATED, ALL_ZERO)
            if uniform:
                step = 1 << bits if value else 0
                wanted = value + step
                while j < last and table[2 * j] == wanted and table[2 * j + 1] == bitmap:
                    wanted += step
                    j += 1
            cluster = base + (i << bits)
            entry = _Entry(value, bitmap, cluster, where + 16 * i)
            first, end = max(at, cluster), min(stop, base + (j << bits))
            if uniform:
                yield self._subcluster_range(entry, 0, first, end)
            elif value & COMPRESSED:
                yield self._packed(entry, first, end)
            else:
                yield from self._subclusters(entry, first, end)
            i = j

    def _subclusters(self, entry: _Entry, first: int, stop: int) -> Iterator[AllocationRange]:
        """The ranges of [first, stop), which lies in one cluster whose subclusters differ."""
        size = self._head.cluster // SUBCLUSTERS
        while first < stop:
            i = j = (first - entry.cluster) // size
            alike = (entry.bitmap >> i) & _BITS
            while j < SUBCLUSTERS and (entry.bitmap >> j) & _BITS == alike:
                j += 1
            end = min(stop, entry.cluster + j * size)
            yield self._subcluster_range(entry, i, first, end)
            first = end

    def _subcluster_range(self, entry: _Entry, i: int, first: int, end: int) -> AllocationRange:
        """The range [first, end), which begins in subcluster `i` of the cluster of an entry."""
        host = self._host(entry)
        allocated, zero = (entry.bitmap >> i) & 1, (entry.bitmap >> (i + SUBCLUSTERS)) & 1
        backed = host or (self._head.external and entry.value & COPIED)
        if entry.value & ZERO or (allocated and (zero or not backed)):
            raise self._wrong(entry)
        if allocated:
            return self._stored(entry, first, end)
        return AllocationRange(first, end - first, AllocationKind.ZERO if zero else AllocationKind.HOLE, 0, 0)

    def _wrong(self, entry: _Entry) -> ImageDamaged:
        bitmap = f" with bitmap {entry.bitmap:#018x}" if self._head.extended else ""
        return self._damaged(entry.at, f"impossible L2 entry {entry.value:#018x}{bitmap}")

    def _damaged(self, offset: int, reason: str) -> ImageDamaged:
        return ImageDamaged(self._file.name, reason, offset=offset)
