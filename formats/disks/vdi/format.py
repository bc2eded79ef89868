"""VDI, byte by byte (VirtualBox, include/VBox/vd-ifs and Storage/VDICore.h). Everything is little endian.

  0  64  text                      64   4  signature           68   4  version 1.1
 72   4  header size from here on  76   4  type                80   4  flags        84 256  comment
340   4  offset of the block map  344   4  offset of the data
348   4  cylinders                352   4  heads              356   4  sectors     360   4  sector size
364   4  zero                     368   8  disk size          376   4  block size
380   4  extra bytes before each block     384   4  blocks    388   4  blocks allocated
392  16  UUID of the image        408  16  of its last change
424  16  of the image before it   440  16  and that one's last change: none but for differencing images
456  16  geometry once more

block map: 4 bytes a block: its number among the blocks of the file, all ones, or all ones less one
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

SIGNATURE: Final = 0xBEDA107F
VERSION: Final = 0x00010001
SECTOR: Final = 512
HEADER_SIZE: Final = 512
DYNAMIC: Final = 1
STATIC: Final = 2
UNDO: Final = 3
DIFFERENCING: Final = 4
NOT_ALLOCATED: Final = 0xFFFFFFFF
ZEROED: Final = 0xFFFFFFFE
BLOCK_LIMIT: Final = 0x3FFFFFFF
"""Most blocks of an image; QEMU has the same limit."""
NO_UUID: Final = bytes(16)

_HEADER: Final = struct.Struct("<64sIIIII256sIIIIIIIQIIII16s16s16s16s16s40x")
_TEXT: Final = b"<<< Holdfast Virtual Disk Image >>>\n"
_SIZE_FROM_ITSELF: Final = 400
"""Header size of version 1.1 as VirtualBox writes it: all fields up to the second geometry."""


@dataclass(frozen=True, slots=True)
class Header:
    """Sizes and offsets in bytes. `extra` bytes precede each block in the file."""

    type: int
    map_offset: int
    data_offset: int
    disk_size: int
    block_size: int
    blocks: int
    allocated: int
    version: int = VERSION
    sector_size: int = SECTOR
    extra: int = 0
    uuid: bytes = NO_UUID
    change_uuid: bytes = NO_UUID
    linked: bytes = NO_UUID + NO_UUID

    @property
    def is_linked(self) -> bool:
        """Whether it names an image below it."""
        return any(self.linked)


def decode_header(data: bytes) -> Header | None:
    """The header in `data`, unchecked; None when it has no VDI signature."""
    fields = _HEADER.unpack_from(data)
    _, signature, version, _, type_, _, _, map_offset, data_offset, _, _, _, sector_size, _ = fields[:14]
    disk_size, block_size, extra, blocks, allocated, uuid, change, link, parent, _ = fields[14:]
    if signature != SIGNATURE:
        return None
    return Header(
        type=type_,
        map_offset=map_offset,
        data_offset=data_offset,
        disk_size=disk_size,
        block_size=block_size,
        blocks=blocks,
        allocated=allocated,
        version=version,
        sector_size=sector_size,
        extra=extra,
        uuid=uuid,
        change_uuid=change,
        linked=link + parent,
    )


def encode_header(header: Header) -> bytes:
    none = bytes(16)
    return _HEADER.pack(
        _TEXT,
        SIGNATURE,
        header.version,
        _SIZE_FROM_ITSELF,
        header.type,
        0,
        b"",
        header.map_offset,
        header.data_offset,
        0,
        0,
        0,
        header.sector_size,
        0,
        header.disk_size,
        header.block_size,
        header.extra,
        header.blocks,
        header.allocated,
        header.uuid,
        header.change_uuid,
        header.linked[:16],
        header.linked[16:],
        none,
    )
