"""A stored disk as a qcow2 image: computed header, refcounts and cluster tables, then the disk's own bytes.

    0                  header, one cluster
    refcount table     entry n: where refcount block n is
    refcount blocks    entry n: 1 if cluster n of the file is used, else 0
    L1 table           entry n: where L2 table n is
    L2 tables          entry n: where cluster n of the disk is, 0 if it holds no data
    data_start         the disk

All tables of a kind are adjacent. So each kind is one array of numbers, of which any part can be computed by
itself.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final, NamedTuple

from holdfast.base.ranges import joined
from holdfast.formats.disks.base.view import Allocation, ViewImpossible, ViewPart
from holdfast.formats.disks.qcow2.format import (
    COPIED,
    OFFSET_LIMIT,
    REFCOUNT_TABLE_LIMIT,
    SECTOR,
    encode_head,
)

_CLUSTER_BITS: Final = range(16, 22)
"""64 KiB, which QEMU uses too, and larger ones for disks of petabytes, up to QEMU's limit."""
_PIECE: Final = 64 << 10
"""Bytes of tables that are computed at a time."""


class _Layout(NamedTuple):
    """File offsets in bytes. Each part ends where the next one begins."""

    cluster_bits: int
    table: int
    """File offset of the refcount table; the others likewise."""
    blocks: int
    l1: int
    l2: int
    disk: int
    end: int

    @property
    def fits(self) -> bool:
        """Whether QEMU's limits hold. The limit of the L1 table is not checked: refcounts of 16 bits reach
        theirs first."""
        table_size = 8 * ((self.l1 - self.blocks) >> self.cluster_bits)
        return table_size <= REFCOUNT_TABLE_LIMIT and self.end <= OFFSET_LIMIT


def _lay_out(size: int, cluster_bits: int) -> _Layout:
    cluster = 1 << cluster_bits
    clusters = -(-size // cluster)
    l2 = -(-clusters // (cluster // 8))
    l1 = -(-8 * l2 // cluster)
    # Refcounts count the clusters that they are in themselves.
    table = blocks = 0
    while True:
        total = 1 + table + blocks + l1 + l2 + clusters
        wanted = -(-total // (cluster // 2))
        if wanted == blocks:
            break
        blocks, table = wanted, -(-8 * wanted // cluster)
    starts = accumulate(n * cluster for n in (1, table, blocks, l1, l2, clusters))
    return _Layout(cluster_bits, *starts)


class _TableRange(NamedTuple):
    """The range [start, end) of the file, in bytes: an array of numbers of `width` bytes each.

    `make(first, last)` computes the numbers [first, last); None if all of them are zero."""

    start: int
    end: int
    width: int
    make: Callable[[int, int], array[int] | None]


class Qcow2View:
    """A qcow2 image, version 3, around a disk of `size` bytes; its size is rounded up to whole sectors,
    as QEMU does with raw disks. Raises ViewImpossible for more than about 64 PiB."""

    def __init__(self, size: int, allocation: Allocation, identity: bytes) -> None:
        del identity  # qcow2 has no place for it
        layout = next((found for bits in _CLUSTER_BITS if (found := _lay_out(size, bits)).fits), None)
        if layout is None:
            raise ViewImpossible(f"a disk of {size} bytes is larger than qcow2 can hold")
        self._disk = size
        self._allocation = allocation
        self._cluster = cluster = 1 << layout.cluster_bits
        self.data_start = layout.disk
        self.size = layout.end
        blocks = (layout.l1 - layout.blocks) // cluster
        tables = (layout.disk - layout.l2) // cluster
        self._head = encode_head(
            size=-(-size // SECTOR) * SECTOR,
            cluster_bits=layout.cluster_bits,
            l1_offset=layout.l1,
            l1_entries=tables,
            refcount_table_offset=layout.table,
            refcount_table_clusters=(layout.blocks - layout.table) // cluster,
        )
        self._regions = (
            _TableRange(layout.table, layout.blocks, 8, self._addresses(layout.blocks, blocks, 0)),
            _TableRange(layout.blocks, layout.l1, 2, self._refcounts),
            _TableRange(layout.l1, layout.l2, 8, self._addresses(layout.l2, tables, COPIED)),
            _TableRange(layout.l2, layout.disk, 8, self._l2_entries),
        )

    def parts(self, start: int, end: int) -> Iterator[ViewPart]:
        at = start
        if at < min(end, self._cluster):
            stop = min(end, self._cluster)
            yield ViewPart(at, stop - at, self._head[at:stop].ljust(stop - at, b"\0"), -1)
            at = stop
        for region in self._regions:
            while at < min(end, region.end):
                stop = min(end, region.end, region.start + ((at - region.start) // _PIECE + 1) * _PIECE)
                yield self._table_part(region, at, stop)
                at = stop
        stop = min(end, self.data_start + self._disk)
        if at < stop:
            yield ViewPart(at, stop - at, None, at - self.data_start)
            at = stop
        if at < end:
            yield ViewPart(at, end - at, None, -1)

    def tables(self) -> Iterator[tuple[int, int]]:
        return joined(self._table_ranges())

    def _table_ranges(self) -> Iterator[tuple[int, int]]:
        """(start, end) of the header and of whole clusters of tables, without those that are all zeros.

        They ascend by start and may overlap."""
        yield 0, self._cluster
        table, blocks, l1, l2 = self._regions
        metadata = -(-self.data_start // (self._cluster * self._cluster // 2))
        yield table.start, blocks.start + metadata * self._cluster
        yield from self._clusters_of(blocks, self._cluster // 2, self.data_start)
        yield l1.start, l1.end
        yield from self._clusters_of(l2, self._cluster // 8, 0)

    def _clusters_of(self, region: _TableRange, entries: int, shift: int) -> Iterator[tuple[int, int]]:
        """(start, end) of those tables of a region, of `entries` entries each, that describe any data. What
        the region describes begins `shift` bytes before the disk."""
        span = entries * self._cluster
        for start, length in self._allocation(0, self._disk) if self._disk else ():
            first, last = (start + shift) // span, (start + length - 1 + shift) // span
            yield region.start + first * self._cluster, region.start + (last + 1) * self._cluster

    def _table_part(self, region: _TableRange, start: int, end: int) -> ViewPart:
        first = (start - region.start) // region.width
        last = -(-(end - region.start) // region.width)
        numbers = region.make(first, last)
        if numbers is None:
            return ViewPart(start, end - start, None, -1)
        if sys.byteorder == "little":
            numbers.byteswap()
        skip = start - region.start - first * region.width
        return ViewPart(start, end - start, numbers.tobytes()[skip : skip + end - start], -1)

    def _addresses(self, base: int, count: int, flags: int) -> Callable[[int, int], array[int]]:
        """A function that gives file offsets, with `flags`, of the `count` tables that begin at `base`."""
        cluster = self._cluster

        def make(first: int, last: int) -> array[int]:
            stop = max(first, min(last, count))
            numbers = array(
                "Q", range(flags + base + first * cluster, flags + base + stop * cluster, cluster)
            )
            numbers.frombytes(bytes(8 * (last - stop)))
            return numbers

        return make

    def _refcounts(self, first: int, last: int) -> array[int] | None:
        tables = self.data_start // self._cluster
        used = max(0, min(last, tables) - first)
        numbers = array("H", bytes(2 * (last - first)))
        numbers[:used] = array("H", [1]) * used
        runs = list(self._runs(first - tables, last - tables))
        for start, stop in runs:
            numbers[start - first + tables : stop - first + tables] = array("H", [1]) * (stop - start)
        return numbers if used or runs else None

    def _l2_entries(self, first: int, last: int) -> array[int] | None:
        numbers: array[int] | None = None
        flagged = COPIED + self.data_start
        for start, stop in self._runs(first, last):
            if numbers is None:
                numbers = array("Q", bytes(8 * (last - first)))
            offsets = range(flagged + start * self._cluster, flagged + stop * self._cluster, self._cluster)
            numbers[start - first : stop - first] = array("Q", offsets)
        return numbers

    def _runs(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """(first, last) of the ranges of disk clusters in [first, last) that hold data."""
        start, end = max(0, first * self._cluster), min(self._disk, last * self._cluster)
        if start >= end:
            return
        for at, length in self._allocation(start, end):
            low = max(start, at) // self._cluster
            high = -(-min(end, at + length) // self._cluster)
            if low < high:
                yield low, high
