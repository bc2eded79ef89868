"""A stored disk seen as a static VDI file: header, a map in which each block is at its own place, the disk.

It is static, not dynamic, though the file has holes where the disk has them. VirtualBox and QEMU put a new
block of a dynamic image behind as many blocks as its header counts. Here blocks are at their own places with
gaps between them, so data may already be there: `qemu-img check` finds no fault, and the first write destroys
a block.
"""

from __future__ import annotations

import sys
from array import array
from typing import Final
from uuid import UUID, uuid5

from holdfast.formats.disks.base.block_view import ComputedSection, SectionView
from holdfast.formats.disks.base.view import Allocation, ViewImpossible
from holdfast.formats.disks.vdi.format import HEADER_SIZE, SECTOR, STATIC, Header, encode_header

_BLOCK: Final = 1 << 20
"""The only block size that QEMU reads, and VirtualBox's own choice."""
_BLOCKS: Final = ((4095 << 20) - HEADER_SIZE) // 4
"""Blocks of a disk. The map ends where the data begin, for which the header has 32 bits."""


class VdiView(SectionView):
    """Implements View. The allocation plays no part: it is the file's holes. `identity`: 16 bytes from which
    the image's UUIDs are made."""

    def __init__(self, size: int, allocation: Allocation, identity: bytes) -> None:
        blocks = -(-size // _BLOCK)
        data_start = -(-(HEADER_SIZE + 4 * blocks) // _BLOCK) * _BLOCK
        if not size or size % SECTOR or blocks > _BLOCKS:
            raise ViewImpossible(
                f"a VDI disk has whole sectors of {SECTOR} bytes, up to {_BLOCKS} MiB, not {size} bytes"
            )
        self._blocks = blocks
        self._identity = UUID(bytes=identity)
        super().__init__(
            [ComputedSection(0, HEADER_SIZE, self._header), _MapSection(blocks)],
            data_start=data_start,
            disk_size=size,
            size=data_start + blocks * _BLOCK,
        )

    def _header(self) -> bytes:
        return encode_header(
            Header(
                type=STATIC,
                map_offset=HEADER_SIZE,
                data_offset=self.data_start,
                disk_size=self._disk_size,
                block_size=_BLOCK,
                blocks=self._blocks,
                allocated=self._blocks,
                uuid=self._identity.bytes_le,
                change_uuid=uuid5(self._identity, "change").bytes_le,
            )
        )


class _MapSection:
    """The block map: block n is block n of the file."""

    start = HEADER_SIZE

    def __init__(self, blocks: int) -> None:
        self.length = 4 * blocks

    def read(self, start: int, end: int) -> bytes:
        first, last = start // 4, -(-end // 4)
        entries = array("I", range(first, last))
        if sys.byteorder == "big":
            entries.byteswap()
        return entries.tobytes()[start - 4 * first : end - 4 * first]
