"""NTFS, byte by byte (documentation of the Linux-NTFS project; layout.h of ntfs-3g). Little-endian.

    0           512 bytes    boot sector
    anywhere                 master file table: a record for each file, of 1 KiB as a rule, made of attributes
    anywhere                 index blocks of directories, data of files

Records and index blocks are protected by fix-ups: a number replaces the last two bytes of each sector, and
these bytes are in a table instead. Sizes are in bytes; a cluster is the unit of space.
"""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

from holdfast.formats.guests.filesystems.base.layout import At, Layout

BOOT_SIZE: Final = 512
MAGIC: Final = b"NTFS    "
MAGIC_OFFSET: Final = 3
SECTOR_SIZES: Final = (256, 512, 1024, 2048, 4096)
MAX_CLUSTER: Final = 2 << 20
MIN_RECORD: Final = 512
MAX_RECORD: Final = 65536
"""Bytes of a record, and of an index block."""
RECORD_MAGIC: Final = b"FILE"
INDEX_MAGIC: Final = b"INDX"
FIX_UP_SECTOR: Final = 512

# Records that every volume has.
VOLUME_RECORD: Final = 3
ROOT_RECORD: Final = 5
FIRST_USER_RECORD: Final = 16
"""Records below are the file system's own files."""
RECORD_NUMBER: Final = 0xFFFFFFFFFFFF
"""The bits of a reference that are a record's number; its sequence number is above them."""
SEQUENCE_SHIFT: Final = 48

# Types of attributes.
STANDARD: Final = 0x10
ATTRIBUTE_LIST: Final = 0x20
FILE_NAME: Final = 0x30
VOLUME_NAME: Final = 0x60
VOLUME_INFORMATION: Final = 0x70
DATA: Final = 0x80
INDEX_ROOT: Final = 0x90
INDEX_ALLOCATION: Final = 0xA0
BITMAP: Final = 0xB0
REPARSE_POINT: Final = 0xC0
END: Final = b"\xff\xff\xff\xff"
DIRECTORY_INDEX: Final = "$I30".encode("utf-16-le")
"""The name of a directory's attributes."""

RECORD_IN_USE: Final = 0x1
RECORD_IS_DIRECTORY: Final = 0x2
COMPRESSED: Final = 0x00FF
SPARSE: Final = 0x8000
ENCRYPTED: Final = 0x4000
"""Flags of attributes."""
READ_ONLY: Final = 0x1
SYSTEM: Final = 0x4
OFFLINE: Final = 0x1000 | 0x400000
"""Flags of files."""
INDEX_LAST: Final = 0x2
VOLUME_DIRTY: Final = 0x1
DOS_NAME: Final = 2
"""The namespace of names that only DOS sees."""
TICKS_TO_1970: Final = 116_444_736_000_000_000
"""1970 in units of 100 ns since 1601."""

MAX_ATTRIBUTE_LIST: Final = 256 << 10
MAX_RECORDS: Final = 8192
"""Records that one file may be spread over."""
MAX_COMPRESSION_SHIFT: Final = 16
MAX_COMPRESSION_UNIT: Final = 1 << 20
MAX_REPARSE_POINT: Final = 64 << 10
MAX_BITMAP: Final = 1 << 20
"""Bytes of a directory's bitmap: 32 GiB of index in blocks of 4 KiB."""
MAX_STREAM: Final = 64 << 10
"""Bytes of a named stream that is shown as an extended attribute."""
MAX_STREAM_NAME: Final = 255


class BootSector(NamedTuple):
    """The boot sector."""

    magic: Annotated[bytes, At(3, "8s")]
    sector_size: Annotated[int, At(11, "H")]
    sectors_per_cluster: Annotated[int, At(13, "B")]
    """Above 0xF0: 2 to the power of (256 - this)."""
    table_cluster: Annotated[int, At(48, "Q")]
    """The first cluster of the master file table."""
    record_clusters: Annotated[int, At(64, "b")]
    """Clusters of a record; when negative, a record has 2 to the power of (-this) bytes."""


class FixUps(NamedTuple):
    """NTFS_RECORD: begins records and index blocks."""

    magic: Annotated[bytes, At(0, "4s")]
    offset: Annotated[int, At(4, "H")]
    """Offset of the number that ends each sector; the bytes that it replaced follow it."""
    numbers: Annotated[int, At(6, "H")]
    """Numbers of two bytes at that offset: this number, and one for each sector."""


class RecordHeader(NamedTuple):
    """MFT_RECORD."""

    sequence: Annotated[int, At(16, "H")]
    links: Annotated[int, At(18, "H")]
    first_attribute: Annotated[int, At(20, "H")]
    flags: Annotated[int, At(22, "H")]
    used: Annotated[int, At(24, "I")]
    allocated: Annotated[int, At(28, "I")]
    base: Annotated[int, At(32, "Q")]
    """The record that this one continues; 0: it continues none."""


class AttributeHeader(NamedTuple):
    """ATTR_RECORD. Read as a plain tuple, in this order."""

    type: Annotated[int, At(0, "I")]
    length: Annotated[int, At(4, "I")]
    is_nonresident: Annotated[int, At(8, "B")]
    name_length: Annotated[int, At(9, "B")]
    """In units of two bytes."""
    name_offset: Annotated[int, At(10, "H")]
    flags: Annotated[int, At(12, "H")]


class ResidentAttribute(NamedTuple):
    """The rest of ATTR_RECORD when the record holds the value."""

    size: Annotated[int, At(16, "I")]
    offset: Annotated[int, At(20, "H")]


class NonresidentAttribute(NamedTuple):
    """The rest of ATTR_RECORD when clusters hold the value. Read as a plain tuple, in this order."""

    lowest: Annotated[int, At(16, "Q")]
    """The first cluster of the value that this attribute maps."""
    runs_offset: Annotated[int, At(32, "H")]
    compression_shift: Annotated[int, At(34, "H")]
    """log2 of the clusters of a compression unit."""
    allocated: Annotated[int, At(40, "Q")]
    size: Annotated[int, At(48, "Q")]
    valid: Annotated[int, At(56, "Q")]
    """Bytes that were ever written; what follows is zeros."""


class CompressedSize(NamedTuple):
    """The end of ATTR_RECORD when clusters hold the value and it is compressed or sparse."""

    taken: Annotated[int, At(64, "Q")]


class ListEntry(NamedTuple):
    """ATTR_LIST_ENTRY: 26 bytes; a name follows."""

    type: Annotated[int, At(0, "I")]
    length: Annotated[int, At(4, "H")]
    reference: Annotated[int, At(16, "Q")]
    id: Annotated[int, At(24, "H")]


class StandardInformation(NamedTuple):
    """STANDARD_INFORMATION; times in units of 100 ns since 1601. Read as a plain tuple, in this order."""

    written: Annotated[int, At(8, "Q")]
    changed: Annotated[int, At(16, "Q")]
    read: Annotated[int, At(24, "Q")]
    flags: Annotated[int, At(32, "I")]


class VolumeInformation(NamedTuple):
    """VOLUME_INFORMATION."""

    flags: Annotated[int, At(10, "H")]


class IndexRoot(NamedTuple):
    """INDEX_ROOT; an index header follows."""

    block_size: Annotated[int, At(8, "I")]


class IndexHeader(NamedTuple):
    """INDEX_HEADER: where entries begin and end, from its own start."""

    first: Annotated[int, At(0, "I")]
    end: Annotated[int, At(4, "I")]


class IndexEntry(NamedTuple):
    """INDEX_ENTRY: 16 bytes; a FILE_NAME_ATTR follows as its key. Read as a plain tuple, in this order."""

    reference: Annotated[int, At(0, "Q")]
    length: Annotated[int, At(8, "H")]
    key_length: Annotated[int, At(10, "H")]
    flags: Annotated[int, At(12, "H")]


BOOT_SECTOR: Final = Layout(BootSector, "<", "ntfs boot sector")
FIX_UPS: Final = Layout(FixUps, "<", "ntfs record or index block")
RECORD_HEADER: Final = Layout(RecordHeader, "<", "ntfs record")
ATTRIBUTE_HEADER: Final = Layout(AttributeHeader, "<", "ntfs attribute")
RESIDENT: Final = Layout(ResidentAttribute, "<", "ntfs attribute")
NONRESIDENT: Final = Layout(NonresidentAttribute, "<", "ntfs attribute")
COMPRESSED_SIZE: Final = Layout(CompressedSize, "<", "ntfs attribute")
LIST_ENTRY: Final = Layout(ListEntry, "<", "ntfs attribute list")
STANDARD_INFORMATION: Final = Layout(StandardInformation, "<", "ntfs standard information")
VOLUME_INFO: Final = Layout(VolumeInformation, "<", "ntfs volume information")
INDEX_ROOT_HEADER: Final = Layout(IndexRoot, "<", "ntfs index root")
INDEX_HEADER: Final = Layout(IndexHeader, "<", "ntfs index header")
INDEX_ENTRY: Final = Layout(IndexEntry, "<", "ntfs index entry")

ATTRIBUTE_MIN: Final = 24
"""Bytes of the shortest attribute."""
INDEX_ROOT_SIZE: Final = 16
INDEX_BLOCK_HEADER: Final = 24
"""Offset of the index header in an INDEX_ROOT, and in an index block."""
KEY_OFFSET: Final = 16
NAME_KEY_SIZE: Final = 66
"""Bytes of a FILE_NAME_ATTR without its name."""
NAME_SPACE_OFFSET: Final = 65
"""Offset of a name's namespace in a FILE_NAME_ATTR."""
ENTRY_NAME_LENGTH_OFFSET: Final = KEY_OFFSET + 64
ENTRY_NAME_SPACE_OFFSET: Final = KEY_OFFSET + NAME_SPACE_OFFSET
ENTRY_NAME_OFFSET: Final = KEY_OFFSET + NAME_KEY_SIZE
"""Offsets in an INDEX_ENTRY: units of two bytes of the name, its namespace, the name."""
