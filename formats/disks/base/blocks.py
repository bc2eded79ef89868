"""Images whose table says where in the file each block of the disk lies: VHDX, VHD, VDI.

The table is read in windows on demand. One window is kept, so a disk of any size takes 64 KiB of memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from holdfast.formats.disks.base.allocation import AllocationKind, AllocationRange
from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.files import fill_exactly
from holdfast.formats.disks.base.image import ImageExtent, ImageFile

HOLE: Final = -1
ZERO: Final = -2
BAD: Final = -3
"""Values that stand in place of a file offset. BAD: the format does not allow the table entry."""

TABLE_WINDOW: Final = 64 << 10
"""Bytes of a table that are read at a time."""

_KINDS: Final = {HOLE: AllocationKind.HOLE, ZERO: AllocationKind.ZERO, BAD: AllocationKind.BAD}


class BlockTable(Protocol):
    """Finds blocks in the file. `window` is the number of blocks of a window, which one call may load."""

    window: int

    def load(self, first: int, count: int) -> array[int]:
        """The places (signed 64 bit) of blocks [first, first + count), which lie in one window: the file
        offset of the block's bytes, or HOLE, ZERO, BAD. Raises ImageDamaged when the table cannot be read."""
        ...

    def entry_offset(self, block: int) -> int:
        """File offset of a block's entry."""
        ...


class BlockImage:
    """A disk whose blocks are found through a table. Implements Image."""

    def __init__(
        self, file: ImageFile, format_: str, *, size: int, block_size: int, table: BlockTable
    ) -> None:
        self.format = format_
        self.size = size
        self.block_size = block_size
        self._file = file
        self._table = table
        self._blocks = -(-size // block_size)
        self._first = 0
        self._places: array[int] = array("q")

    def place(self, block: int) -> int:
        """The place of a block of the disk: a file offset, HOLE, ZERO or BAD."""
        at = block - self._first
        if not 0 <= at < len(self._places):
            self._load(block)
            at = block - self._first
        return self._places[at]

    def ranges(self, start: int, end: int) -> Iterator[AllocationRange]:
        """How [start, end) of the disk is stored, in order and without gaps. Blocks that follow each other in
        the file are one range. Raises ImageDamaged when the table cannot be read."""
        block_size = self.block_size
        first, first_place = start, BAD
        at = start
        while at < end:
            inside = at % block_size
            place = self.place(at // block_size)
            if place >= 0:
                place += inside
                follows = first_place >= 0 and place - first_place == at - first
            else:
                follows = place == first_place
            if not follows:
                if at > first:
                    yield _allocation(first, at, first_place)
                first, first_place = at, place
            at = min(at + block_size - inside, end)
        if at > first:
            yield _allocation(first, at, first_place)

    def extents(self) -> Iterator[ImageExtent]:
        yield from merged(self._block_extents())

    def read_into(self, buffer: memoryview, offset: int) -> None:
        for stored in self.ranges(offset, offset + len(buffer)):
            self.fill(buffer[stored.start - offset :][: stored.length], stored)

    def fill(self, buffer: memoryview, stored: AllocationRange) -> None:
        """Fill the buffer with the bytes of a range from `ranges`. Raises ImageDamaged, as `read_into`."""
        if stored.kind is AllocationKind.DATA:
            what = f"the block of the disk's offset {stored.start}"
            fill_exactly(self._file, buffer, stored.file_offset, what)
        elif stored.kind is AllocationKind.BAD:
            block = stored.start // self.block_size
            where = self._table.entry_offset(block)
            raise ImageDamaged(
                self._file.name, f"the table entry of block {block} is impossible", offset=where
            )
        else:
            buffer[:] = bytes(len(buffer))

    def _load(self, block: int) -> None:
        window = self._table.window
        first = block // window * window
        self._places = self._table.load(first, min(window, self._blocks - first))
        self._first = first

    def _block_extents(self) -> Iterator[ImageExtent]:
        window, block_size = self._table.window, self.block_size
        left = self._file.size + block_size  # the last block may end with the disk
        for first in range(0, self._blocks, window):
            self.place(first)
            places = self._places  # `read_into` may load another window between two extents
            start, span = first * block_size, len(places) * block_size
            stored = len(places) - sum(map(places.count, (HOLE, ZERO, BAD)))
            left -= stored * block_size
            if left < 0:  # one block that is pointed to over and over would make a disk without end
                where = self._table.entry_offset(first)
                raise ImageDamaged(self._file.name, "the table has more blocks than the file", offset=where)
            # Almost all windows of a large disk are all hole or all data.
            if stored == len(places) or places.count(places[0]) == len(places):
                yield self._extent(start, span, places[0])
                continue
            for place in places:
                yield self._extent(start, block_size, place)
                start += block_size

    def _extent(self, start: int, length: int, place: int) -> ImageExtent:
        kind = _KINDS.get(place, AllocationKind.DATA).extent_kind
        return ImageExtent(start, min(length, self.size - start), kind)


def _allocation(start: int, end: int, place: int) -> AllocationRange:
    if place < 0:
        return AllocationRange(start, end - start, _KINDS[place], 0, 0)
    return AllocationRange(start, end - start, AllocationKind.DATA, place, 0)


def merged(extents: Iterable[ImageExtent]) -> Iterator[ImageExtent]:
    """Join adjacent extents of the same kind."""
    pending: ImageExtent | None = None
    for extent in extents:
        if pending is None:
            pending = extent
        elif pending.kind is extent.kind:
            pending = ImageExtent(pending.start, pending.length + extent.length, extent.kind)
        else:
            yield pending
            pending = extent
    if pending is not None:
        yield pending
