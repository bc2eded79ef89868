"""Reads VDI images, dynamic and static. VDI has no checksums: only values that contradict each other or the
file are noticed as damage."""

from __future__ import annotations

import sys
from array import array
from typing import Final

from holdfast.formats.disks.base.blocks import BAD, HOLE, TABLE_WINDOW, ZERO, BlockImage
from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import read_exactly
from holdfast.formats.disks.base.image import Companions, Image, ImageFile
from holdfast.formats.disks.vdi.format import (
    BLOCK_LIMIT,
    DIFFERENCING,
    DYNAMIC,
    HEADER_SIZE,
    NOT_ALLOCATED,
    SECTOR,
    STATIC,
    UNDO,
    VERSION,
    ZEROED,
    Header,
    decode_header,
)

_LINKED: Final = {
    UNDO: "it is an undo image, which holds only what differs from another one",
    DIFFERENCING: "it is a differencing image, which holds only what differs from its parent",
}


class _Map:
    """The block map. Implements BlockTable."""

    def __init__(self, file: ImageFile, header: Header) -> None:
        self._file = file
        self._header = header
        self.window = TABLE_WINDOW // 4

    def entry_offset(self, block: int) -> int:
        return self._header.map_offset + 4 * block

    def load(self, first: int, count: int) -> array[int]:
        data = read_exactly(self._file, self.entry_offset(first), 4 * count, "the block map")
        if data == b"\xff" * len(data):
            return array("q", [HOLE]) * count
        entries = array("I", data)
        if sys.byteorder == "big":
            entries.byteswap()
        header = self._header
        base, stride, blocks = (
            header.data_offset + header.extra,
            header.block_size + header.extra,
            header.blocks,
        )
        absent = {NOT_ALLOCATED: HOLE, ZEROED: ZERO}
        return array(
            "q",
            [base + entry * stride if entry < blocks else absent.get(entry, BAD) for entry in entries],
        )


def open_vdi(file: ImageFile, companions: Companions) -> Image:
    """Open a VDI image. Raises ImageDamaged; ImageRefused for one that is part of a chain, and for versions
    other than 1.1."""
    header = decode_header(read_exactly(file, 0, HEADER_SIZE, "the header"))
    if header is None:
        raise ImageDamaged(file.name, "there is no VDI signature", offset=64)
    if header.version != VERSION:
        version = f"{header.version >> 16}.{header.version & 0xFFFF}"
        raise ImageRefused(file.name, f"it is VDI version {version}; only version 1.1 is known")
    if header.type not in (DYNAMIC, STATIC):
        raise ImageRefused(file.name, _LINKED.get(header.type, f"it is a VDI of type {header.type}"))
    if header.is_linked:
        raise ImageRefused(file.name, "it names an image below it and holds only what differs from that")
    _check_header(file, header)
    # VirtualBox keeps the size of a raw disk that ends inside a sector. Blocks are whole: its rest is there.
    size = -(-header.disk_size // SECTOR) * SECTOR
    return BlockImage(file, "vdi", size=size, block_size=header.block_size, table=_Map(file, header))


def _check_header(file: ImageFile, header: Header) -> None:
    if header.sector_size != SECTOR:
        raise ImageDamaged(file.name, f"a sector size of {header.sector_size} bytes", offset=360)
    block_size = header.block_size
    if block_size < SECTOR or block_size & block_size - 1:
        raise ImageDamaged(file.name, f"a block size of {block_size} bytes", offset=376)
    if header.blocks > BLOCK_LIMIT or header.disk_size > header.blocks * block_size:
        reason = f"a disk of {header.disk_size} bytes in {header.blocks} blocks of {block_size}"
        raise ImageDamaged(file.name, reason, offset=368)
    end = header.map_offset + 4 * header.blocks
    if header.map_offset < HEADER_SIZE or end > min(header.data_offset, file.size):
        reason = (
            f"a map of {header.blocks} blocks at {header.map_offset}, before data at {header.data_offset}, "
            f"in a file of {file.size}"
        )
        raise ImageDamaged(file.name, reason, offset=340)
