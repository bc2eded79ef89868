"""VHD, byte by byte (Virtual Hard Disk Image Format Specification 1.0, 2006). Everything is big endian.

A fixed disk is the disk's bytes and the footer. A dynamic or differencing disk is a copy of the footer, the
dynamic header, the block allocation table, blocks, and the footer.

    footer     0  8 "conectix"       8  4 features           12  4 version 1.0
              16  8 offset of the dynamic header             24  4 time   28  4 creator   32  4 its version
              36  4 creator's host  40  8 original size      48  8 current size
              56  2 cylinders       58  1 heads              59  1 sectors a track
              60  4 type            64  4 checksum           68 16 unique ID              84  1 saved state
    header     0  8 "cxsparse"       8  8 all ones           16  8 offset of the table    24  4 version 1.0
              28  4 entries         32  4 block size         36  4 checksum
              40 16 parent's unique ID                       56  4 parent's time
              64 512 parent's name in UTF-16                576 24 each, eight parent locators:
               0  4 platform         4  4 space               8  4 length                 16  8 file offset
    table      4 bytes an entry: the sector of the block in the file, or all ones
    block      a bitmap of its sectors, the first in the top bit, filled up to 512 bytes; then the sectors
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

SECTOR: Final = 512
FOOTER_SIZE: Final = 512
HEADER_SIZE: Final = 1024
COOKIE: Final = b"conectix"
HEADER_COOKIE: Final = b"cxsparse"
FIXED: Final = 2
DYNAMIC: Final = 3
DIFFERENCING: Final = 4
NOT_ALLOCATED: Final = 0xFFFFFFFF
LOCATOR_LIMIT: Final = 4096
"""Bytes of a parent locator that is read; a Windows path has 260 characters, or 32,767 in theory."""

_FOOTER: Final = struct.Struct(">8sIIQI4s4s4sQQHBBII16sB")
_HEADER: Final = struct.Struct(">8sQQIIII16sII512s192s")
_LOCATOR: Final = struct.Struct(">4sIIIQ")
_VERSION: Final = 1 << 16
_LARGEST_GEOMETRY: Final = 65535 * 16 * 255
"""Sectors that cylinders, heads and sectors can count: about 127 GiB."""
_UTF16_LOCATORS: Final = (b"W2ru", b"W2ku")
"""Locators that are a path in UTF-16, relative and absolute. Little endian, unlike all else."""


@dataclass(frozen=True, slots=True)
class Footer:
    """`size` in bytes, `geometry` in sectors, `header_offset` of the dynamic header."""

    version: int
    header_offset: int
    creator: bytes
    size: int
    geometry: int
    type: int
    unique_id: bytes

    @property
    def disk_size(self) -> int:
        """Bytes of the disk that the guest sees.

        Virtual PC, and QEMU before its 'qem2', give their guests what the geometry counts and write a size
        that may be larger; everybody else means the size. A geometry at its limit says nothing. These are
        the rules of QEMU since 10.0; earlier ones took the geometry of every creator they did not know.
        """
        if self.creator in (b"vpc ", b"qemu") and self.geometry != _LARGEST_GEOMETRY:
            return self.geometry * SECTOR
        return self.size // SECTOR * SECTOR


@dataclass(frozen=True, slots=True)
class Locator:
    """Where a path to the parent stands in the file."""

    length: int
    offset: int


@dataclass(frozen=True, slots=True)
class DynamicHeader:
    """`locators`: those whose paths can be read here, best first."""

    version: int
    table_offset: int
    entries: int
    block_size: int
    parent_id: bytes
    parent_name: str
    locators: tuple[Locator, ...]


def checksum(data: bytes, at: int) -> int:
    """The one's complement of the sum of all bytes but the four of the checksum itself."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF


def is_supported(version: int) -> bool:
    return version >> 16 == _VERSION >> 16


def decode_footer(data: bytes) -> Footer | None:
    """The footer in `data`; None when it has no signature or its checksum is wrong."""
    fields = _FOOTER.unpack_from(data)
    cookie, _, version, header_offset, _, creator, _, _, _, size, cylinders, heads, sectors = fields[:13]
    type_, stored, unique_id = fields[13:16]
    if cookie != COOKIE or stored != checksum(data, 64):
        return None
    return Footer(version, header_offset, creator, size, cylinders * heads * sectors, type_, unique_id)


def decode_header(data: bytes) -> DynamicHeader | None:
    """The dynamic header in `data`; None when it has no signature or its checksum is wrong."""
    fields = _HEADER.unpack_from(data)
    cookie, _, table_offset, version, entries, block_size, stored, parent_id = fields[:8]
    if cookie != HEADER_COOKIE or stored != checksum(data, 36):
        return None
    name = fields[10].decode("utf-16-be", "replace").split("\0", 1)[0]
    found: dict[bytes, Locator] = {}
    for platform, _, length, _, offset in _LOCATOR.iter_unpack(fields[11]):
        if platform in _UTF16_LOCATORS and 0 < length <= LOCATOR_LIMIT:
            found.setdefault(platform, Locator(length, offset))
    locators = tuple(found[platform] for platform in _UTF16_LOCATORS if platform in found)
    return DynamicHeader(version, table_offset, entries, block_size, parent_id, name, locators)


def bitmap_size(block_size: int) -> int:
    """Bytes of a block's bitmap, padded to whole sectors."""
    return -(-block_size // (8 * SECTOR * SECTOR)) * SECTOR
