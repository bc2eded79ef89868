"""A differencing VHD: a bitmap for each block says which sectors it holds; the parent has the others."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.formats.disks.base.allocation import AllocationKind, AllocationRange
from holdfast.formats.disks.base.blocks import BlockImage, merged
from holdfast.formats.disks.base.files import read_exactly
from holdfast.formats.disks.base.image import ExtentKind, Image, ImageExtent, ImageFile
from holdfast.formats.disks.vhd.format import SECTOR, bitmap_size


class DifferencingImage:
    """Implements Image. Keeps the bitmap of one block."""

    format = "vhd"

    def __init__(self, file: ImageFile, blocks: BlockImage, parent: Image) -> None:
        self.size = blocks.size
        self._file = file
        self._blocks = blocks
        self._parent = parent
        self._bitmap_block = -1
        self._bitmap = ""

    def extents(self) -> Iterator[ImageExtent]:
        """Blocks that the child has are data; all else is as the parent says."""
        yield from merged(self._layers())

    def read_into(self, buffer: memoryview, offset: int) -> None:
        block_size = self._blocks.block_size
        end = offset + len(buffer)
        for stored in self._blocks.ranges(offset, end):
            part = buffer[stored.start - offset :][: stored.length]
            if stored.kind is AllocationKind.HOLE:
                self._fill_parent(part, stored.start)
                continue
            if stored.kind is not AllocationKind.DATA:
                self._blocks.fill(part, stored)
                continue
            done = 0
            while done < len(part):
                at = stored.start + done
                block_part = part[done:][: block_size - at % block_size]
                self._fill_block(block_part, at, stored.file_offset + done)
                done += len(block_part)

    def _layers(self) -> Iterator[ImageExtent]:
        below = self._parent.extents()
        current = next(below, None)
        for extent in self._blocks.extents():
            if extent.kind is ExtentKind.DATA:
                yield extent
                continue
            at, end = extent.start, extent.start + extent.length
            while at < end:
                while current is not None and current.start + current.length <= at:
                    current = next(below, None)
                kind, until = ExtentKind.HOLE, end  # the parent may be smaller
                if current is not None:
                    kind, until = current.kind, min(end, current.start + current.length)
                yield ImageExtent(at, until - at, kind)
                at = until

    def _fill_block(self, buffer: memoryview, offset: int, file_offset: int) -> None:
        """Fill the buffer with bytes of one block that the child has: the disk's from `offset`, stored from
        `file_offset`. Each sector comes from the child or the parent, as the block's bitmap says."""
        block, start = divmod(offset, self._blocks.block_size)
        bits = self._load_bitmap(block, file_offset - start)
        end = start + len(buffer)
        at = start
        while at < end:
            ours = bits[at // SECTOR]
            change = bits.find("1" if ours == "0" else "0", at // SECTOR)
            until = end if change < 0 else min(end, change * SECTOR)
            part = buffer[at - start : until - start]
            if ours == "1":
                where, place = offset + at - start, file_offset + at - start
                self._blocks.fill(part, AllocationRange(where, len(part), AllocationKind.DATA, place, 0))
            else:
                self._fill_parent(part, offset + at - start)
            at = until

    def _load_bitmap(self, block: int, place: int) -> str:
        """One digit for each sector of a block: 1 if the child has it. `place`: file offset of the data."""
        if block != self._bitmap_block:
            size = bitmap_size(self._blocks.block_size)
            data = read_exactly(self._file, place - size, size, "a block's bitmap")
            self._bitmap = format(int.from_bytes(data, "big"), f"0{8 * size}b")
            self._bitmap_block = block
        return self._bitmap

    def _fill_parent(self, buffer: memoryview, offset: int) -> None:
        below = max(0, min(len(buffer), self._parent.size - offset))
        if below:
            self._parent.read_into(buffer[:below], offset)
        buffer[below:] = bytes(len(buffer) - below)
