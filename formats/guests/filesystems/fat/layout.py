"""FAT12, FAT16, FAT32 and exFAT, byte by byte. Little-endian.

Source: Microsoft "FAT: General Overview of On-Disk Format" 1.03, and fs/fat of Linux where they differ;
Microsoft "exFAT file system specification" 1.00.

    sector 0            512 bytes    boot sector
    reserved sectors
    tables              an entry for each cluster: the next one of its file
    FAT12, FAT16        the top directory, of fixed size
    clusters            from number 2 on: files and directories

A directory is slots of 32 bytes. Sizes are in bytes if nothing else is said.
"""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

from holdfast.formats.guests.filesystems.base.layout import At, Layout

BOOT_SIZE: Final = 512
BOOT_JUMPS: Final = (b"\xeb", b"\xe9")
"""Instructions that boot sectors begin with."""
BOOT_MAGIC: Final = b"\x55\xaa"
BOOT_MAGIC_OFFSET: Final = 510
FIRST_CLUSTER: Final = 2
FAT12_CLUSTERS: Final = 4084
"""Clusters of the largest FAT12."""
FAT32_ENTRY_MASK: Final = 0x0FFFFFFF
"""The bits of a 32-bit entry that are in use."""
SLOT: Final = 32
ROOT: Final = 1
"""The inode number of the top directory, which has no slot."""
MAX_DIRECTORY: Final = 65536 * SLOT
EXFAT_MAX_DIRECTORY: Final = 256 << 20

SECTOR_SIZES: Final = (512, 1024, 2048, 4096)
MAX_TABLES: Final = 4
MEDIA: Final = (0xF0, *range(0xF8, 0x100))
ACTIVE_TABLE_ONLY: Final = 0x80
"""Flag of FAT32: only one table is used; its number is in the low 4 bits."""
EXTENDED_SIGNATURE: Final = 0x29
"""Begins an extended boot record that has a label."""

# Attributes of a directory entry.
READ_ONLY: Final = 0x01
LABEL: Final = 0x08
DIRECTORY: Final = 0x10
LONG_NAME: Final = 0x0F
ATTRIBUTE_MASK: Final = 0x3F
ATTRIBUTES_OFFSET: Final = 11
LOWER_BASE: Final = 0x08
LOWER_EXTENSION: Final = 0x10
"""Flags of Windows NT: the name, or its extension, is shown in small letters."""
DELETED: Final = 0xE5
ESCAPED_E5: Final = 0x05
"""Stands for 0xE5 as the first byte of a name."""
DOT: Final = 0x2E
"""Begins the names `.` and `..`."""

LONG_LAST: Final = 0x40
LONG_ORDER_MASK: Final = 0x3F
MAX_LONG_ENTRIES: Final = 20


class BootSector(NamedTuple):
    """The BIOS parameter block that all versions share."""

    sector_size: Annotated[int, At(11, "H")]
    sectors_per_cluster: Annotated[int, At(13, "B")]
    reserved_sectors: Annotated[int, At(14, "H")]
    tables: Annotated[int, At(16, "B")]
    root_entries: Annotated[int, At(17, "H")]
    """Slots of the top directory; 0 in FAT32."""
    sectors_16: Annotated[int, At(19, "H")]
    media: Annotated[int, At(21, "B")]
    table_sectors_16: Annotated[int, At(22, "H")]
    sectors_32: Annotated[int, At(32, "I")]
    signature: Annotated[int, At(38, "B")]
    label: Annotated[bytes, At(43, "11s")]


class BootSector32(NamedTuple):
    """The fields from byte 36 on in FAT32."""

    table_sectors: Annotated[int, At(36, "I")]
    flags: Annotated[int, At(40, "H")]
    root_cluster: Annotated[int, At(44, "I")]
    signature: Annotated[int, At(66, "B")]
    label: Annotated[bytes, At(71, "11s")]


class ShortEntry(NamedTuple):
    """A directory entry. Read as a plain tuple, in this order."""

    attributes: Annotated[int, At(11, "B")]
    read_date: Annotated[int, At(18, "H")]
    cluster_high: Annotated[int, At(20, "H")]
    """In FAT32; OS/2 kept the number of extended attributes here."""
    write_time: Annotated[int, At(22, "H")]
    write_date: Annotated[int, At(24, "H")]
    cluster_low: Annotated[int, At(26, "H")]
    size: Annotated[int, At(28, "I")]


class LongEntry(NamedTuple):
    """A part of a long name, before the entry that it belongs to."""

    order: Annotated[int, At(0, "B")]
    """Counts down to 1; LONG_LAST is set in the first one, which holds the name's end."""
    name_0: Annotated[bytes, At(1, "10s")]
    checksum: Annotated[int, At(13, "B")]
    """Of the short name that follows."""
    name_1: Annotated[bytes, At(14, "12s")]
    name_2: Annotated[bytes, At(28, "4s")]


class ExfatBootSector(NamedTuple):
    """The main boot sector of exFAT, section 3.1. Offsets and lengths are in sectors."""

    magic: Annotated[bytes, At(3, "8s")]
    table_offset: Annotated[int, At(80, "I")]
    table_length: Annotated[int, At(84, "I")]
    heap_offset: Annotated[int, At(88, "I")]
    """Of cluster 2."""
    clusters: Annotated[int, At(92, "I")]
    root_cluster: Annotated[int, At(96, "I")]
    flags: Annotated[int, At(106, "H")]
    sector_shift: Annotated[int, At(108, "B")]
    cluster_shift: Annotated[int, At(109, "B")]
    tables: Annotated[int, At(110, "B")]


class ExfatFile(NamedTuple):
    """A file entry, section 7.4. Read as a plain tuple, in this order."""

    type: Annotated[int, At(0, "B")]
    secondary: Annotated[int, At(1, "B")]
    """Entries that belong to it and follow."""
    checksum: Annotated[int, At(2, "H")]
    attributes: Annotated[int, At(4, "H")]
    written: Annotated[int, At(12, "I")]
    read: Annotated[int, At(16, "I")]
    written_hundredths: Annotated[int, At(21, "B")]
    written_zone: Annotated[int, At(23, "B")]
    read_zone: Annotated[int, At(24, "B")]


class ExfatStream(NamedTuple):
    """A stream extension entry, section 7.6, the first one after a file entry. Read as a plain tuple."""

    type: Annotated[int, At(0, "B")]
    flags: Annotated[int, At(1, "B")]
    name_length: Annotated[int, At(3, "B")]
    valid: Annotated[int, At(8, "Q")]
    """Bytes that were ever written; what follows is zeros."""
    cluster: Annotated[int, At(20, "I")]
    size: Annotated[int, At(24, "Q")]


BOOT_SECTOR: Final = Layout(BootSector, "<", "fat boot sector")
BOOT_SECTOR_32: Final = Layout(BootSector32, "<", "fat boot sector")
SHORT_ENTRY: Final = Layout(ShortEntry, "<", "fat directory entry")
LONG_ENTRY: Final = Layout(LongEntry, "<", "fat long name")
EXFAT_BOOT_SECTOR: Final = Layout(ExfatBootSector, "<", "exfat boot sector")
EXFAT_FILE: Final = Layout(ExfatFile, "<", "exfat file entry")
EXFAT_STREAM: Final = Layout(ExfatStream, "<", "exfat stream entry")

# exFAT
EXFAT_MAGIC: Final = b"EXFAT   "
EXFAT_MAGIC_OFFSET: Final = 3
EXFAT_SECTOR_SHIFTS: Final = (9, 12)
EXFAT_MAX_CLUSTER_SHIFT: Final = 25
EXFAT_SECOND_TABLE: Final = 0x1
"""Flag: the second of two tables is the active one."""
FILE_TYPE: Final = 0x85
STREAM_TYPE: Final = 0xC0
NAME_TYPE: Final = 0xC1
LABEL_TYPE: Final = 0x83
SECONDARY_TYPE: Final = 0xC0
"""The bits of the type that all entries after a file entry have."""
MIN_SECONDARY: Final = 2
MAX_SECONDARY: Final = 18
NO_CHAIN: Final = 0x02
"""Flag of a stream: its clusters follow each other, and the table has no chain for them."""
NAME_UNITS_OFFSET: Final = 2
"""Offset of the characters, of two bytes each, in name and label entries."""
LABEL_LENGTH: Final = 11
CHECKSUM_BYTES: Final = (2, 3)
"""Offsets in a file entry that its checksum leaves out: its own."""
