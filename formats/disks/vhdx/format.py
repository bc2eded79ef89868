"""VHDX, byte by byte ([MS-VHDX] revision 6). Everything is little endian; GUIDs in their mixed order.

    0        64 KiB  file identifier: "vhdxfile", creator in UTF-16 (512 bytes)
    64 KiB   4 KiB   header 1
    128 KiB  4 KiB   header 2: of two valid ones the higher sequence number holds
    192 KiB  64 KiB  region table 1: where the BAT and the metadata region are
    256 KiB  64 KiB  region table 2: the same
    1 MiB            log, metadata region, BAT and blocks, in any order, at multiples of 1 MiB

A header, a region table and a log entry have their CRC-32C at offset 4, summed with that field zero.

    header     0  4 "head"       4  4 CRC          8  8 sequence     16 16 file write GUID
              32 16 data write GUID               48 16 log GUID (zero: no log)
              64  2 log version  66 2 version (1) 68  4 log length   72  8 log offset
    region    16 bytes of head (4 "regi", 4 CRC, 4 entries, 4 zero), then entries of 32:
               0 16 GUID        16  8 file offset 24  4 length       28  4 1: required
    metadata  32 bytes of head (8 "metadata", 2 zero, 2 entries, 20 zero), then entries of 32:
               0 16 GUID        16  4 offset in the region, from 64 KiB on      20  4 length
              24  4 flags: 1 user's, 2 of the virtual disk, 4 required          28  4 zero
    BAT entry 64 bits: 3 state, 17 zero, 44 file offset in MiB

Between each `chunk_ratio` entries of the BAT and the next comes the entry of a sector bitmap, which only
differencing disks use.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import google_crc32c

MIB: Final = 1 << 20
IDENTIFIER: Final = b"vhdxfile"
HEADER_OFFSETS: Final = (64 << 10, 128 << 10)
HEADER_SIZE: Final = 4096
REGION_OFFSETS: Final = (192 << 10, 256 << 10)
TABLE_SIZE: Final = 64 << 10
"""Bytes of a region table, and of the metadata table; items follow it."""
ENTRY_LIMIT: Final = 2047
"""Entries of a region table, and of the metadata table."""
SIZE_LIMIT: Final = 64 << 40
BLOCK_SIZE_LIMIT: Final = 256 << 20
SECTORS_PER_BITMAP: Final = 1 << 23
NO_GUID: Final = bytes(16)

BAT: Final = UUID("2DC27766-F623-4200-9D64-115E9BFD4A08").bytes_le
METADATA: Final = UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le

FILE_PARAMETERS: Final = UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B").bytes_le
VIRTUAL_SIZE: Final = UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8").bytes_le
VIRTUAL_ID: Final = UUID("BECA12AB-B2E6-4523-93EF-C309E000C746").bytes_le
LOGICAL_SECTOR: Final = UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F").bytes_le
PHYSICAL_SECTOR: Final = UUID("CDA348C7-445D-4471-9CC9-E9885251C556").bytes_le
PARENT_LOCATOR: Final = UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C").bytes_le

ITEM_SIZES: Final = {
    FILE_PARAMETERS: 8,
    VIRTUAL_SIZE: 8,
    VIRTUAL_ID: 16,
    LOGICAL_SECTOR: 4,
    PHYSICAL_SECTOR: 4,
}
"""Metadata items of fixed size; the parent locator is as long as it is."""
ITEM_IS_VIRTUAL_DISK: Final = 2
ITEM_IS_REQUIRED: Final = 4
REGION_IS_REQUIRED: Final = 1
HAS_PARENT: Final = 2
"""Flag of the file parameters."""

NOT_PRESENT: Final = 0
UNDEFINED: Final = 1
ZEROED: Final = 2
UNMAPPED: Final = 3
UNMAPPED_OLD: Final = 5
"""The value of UNMAPPED in version 0.95 of the format; QEMU accepts it too."""
FULLY_PRESENT: Final = 6
PARTIALLY_PRESENT: Final = 7

_HEADER: Final = struct.Struct("<4sIQ16s16s16sHHIQ")
REGION_HEAD: Final = struct.Struct("<4sIII")
REGION_ENTRY: Final = struct.Struct("<16sQII")
METADATA_HEAD: Final = struct.Struct("<8s2xH20x")
METADATA_ENTRY: Final = struct.Struct("<16sIII4x")


@dataclass(frozen=True, slots=True)
class Header:
    """What one of the two headers says; offsets and lengths in bytes."""

    sequence: int
    log_guid: bytes = NO_GUID
    log_version: int = 0
    version: int = 1
    log_length: int = MIB
    log_offset: int = MIB


def checksum(data: bytes) -> int:
    """The CRC-32C of a structure that has it at offset 4."""
    head = google_crc32c.value(data[:4] + bytes(4))
    return int(google_crc32c.extend(head, data[8:]))


def is_sound(data: bytes, signature: bytes) -> bool:
    """Whether a structure begins with its signature and its checksum is right."""
    return data[:4] == signature and int.from_bytes(data[4:8], "little") == checksum(data)


def sealed(data: bytes) -> bytes:
    """The structure with its checksum filled in."""
    return data[:4] + checksum(data).to_bytes(4, "little") + data[8:]


def decode_header(data: bytes) -> Header | None:
    """None when its checksum is wrong: it was being written when the machine stopped."""
    if not is_sound(data, b"head"):
        return None
    _, _, sequence, _, _, log_guid, log_version, version, log_length, log_offset = _HEADER.unpack_from(data)
    return Header(sequence, log_guid, log_version, version, log_length, log_offset)


def encode_header(header: Header, file_write: bytes, data_write: bytes) -> bytes:
    fields = (header.log_guid, header.log_version, header.version, header.log_length, header.log_offset)
    data = _HEADER.pack(b"head", 0, header.sequence, file_write, data_write, *fields)
    return sealed(data.ljust(HEADER_SIZE, b"\0"))


def encode_regions(regions: list[tuple[bytes, int, int]]) -> bytes:
    """A region table: GUID, file offset and length of each region, all required."""
    data = REGION_HEAD.pack(b"regi", 0, len(regions), 0)
    data += b"".join(REGION_ENTRY.pack(*region, REGION_IS_REQUIRED) for region in regions)
    return sealed(data.ljust(TABLE_SIZE, b"\0"))


def encode_metadata(items: dict[bytes, bytes]) -> bytes:
    """The beginning of a metadata region: its table, then the items, all required."""
    data, content = METADATA_HEAD.pack(b"metadata", len(items)), b""
    for guid, value in items.items():
        kind = 0 if guid == FILE_PARAMETERS else ITEM_IS_VIRTUAL_DISK
        data += METADATA_ENTRY.pack(guid, TABLE_SIZE + len(content), len(value), kind | ITEM_IS_REQUIRED)
        content += value
    return data.ljust(TABLE_SIZE, b"\0") + content


def chunk_ratio(block_size: int, logical_sector: int) -> int:
    """Number of block entries in the BAT between two entries of sector bitmaps."""
    return SECTORS_PER_BITMAP * logical_sector // block_size


def bat_index(block: int, ratio: int) -> int:
    """The BAT entry of a block of the disk."""
    return block + block // ratio
