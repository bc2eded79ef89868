"""ext2, ext3 and ext4, byte by byte (Documentation/filesystems/ext4 of Linux). Little-endian.

    1024        1024 bytes   superblock
    next block               group descriptors, of 32 bytes, or of 64 and more with the feature `64bit`
    per group                bitmaps, a table of inodes, blocks of data

Offsets in the classes are those of the specification; sizes are in bytes, numbers of blocks in blocks.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, NamedTuple

from holdfast.formats.guests.filesystems.base.layout import At, Layout

SUPER_OFFSET: Final = 1024
SUPER_SIZE: Final = 1024
MAGIC: Final = 0xEF53
MAGIC_OFFSET: Final = 0x38
MAGIC_BYTES: Final = struct.pack("<H", MAGIC)
ROOT_INODE: Final = 2

# "The Super Block": s_feature_compat, s_feature_incompat, s_feature_ro_compat
COMPAT_HAS_JOURNAL: Final = 0x4
COMPAT_SPARSE_SUPER2: Final = 0x200
INCOMPAT_RECOVER: Final = 0x4
INCOMPAT_META_BG: Final = 0x10
INCOMPAT_EXTENTS: Final = 0x40
INCOMPAT_64BIT: Final = 0x80
INCOMPAT_LARGE_DIRECTORIES: Final = 0x4000
INCOMPAT_INLINE_DATA: Final = 0x8000
KNOWN_INCOMPAT: Final = (
    0x2  # file types in directories
    | INCOMPAT_RECOVER
    | INCOMPAT_META_BG
    | INCOMPAT_EXTENTS
    | INCOMPAT_64BIT
    | 0x100  # multiple mount protection
    | 0x200  # flexible groups
    | 0x400  # attributes in inodes of their own
    | 0x2000  # checksum seed
    | INCOMPAT_LARGE_DIRECTORIES
    | INCOMPAT_INLINE_DATA
    | 0x10000  # encrypted files
    | 0x20000  # folded case
)
"""Not known: compression, a journal device, data in directory entries."""
RO_COMPAT_SPARSE_SUPER: Final = 0x1
RO_COMPAT_HUGE_FILES: Final = 0x8
RO_COMPAT_OF_EXT4: Final = 0x8 | 0x10 | 0x20 | 0x40 | 0x200 | 0x400
"""huge_file, gdt_csum, dir_nlink, extra_isize, bigalloc, metadata_csum."""

# "Inode Table": i_flags
FLAG_ENCRYPTED: Final = 0x800
FLAG_HUGE: Final = 0x40000
FLAG_EXTENTS: Final = 0x80000
FLAG_INLINE: Final = 0x10000000

MAX_LOG_BLOCK_SIZE: Final = 6
"""Blocks are of 1024 << 0 to 1024 << 6 bytes."""
MAX_BLOCKS: Final = 1 << 48
MIN_INODE_SIZE: Final = 128
OLD_DESCRIPTOR_SIZE: Final = 32
MIN_64BIT_DESCRIPTOR_SIZE: Final = 64
MAX_EXTENT_DEPTH: Final = 5
MAX_ATTRIBUTE: Final = 64 << 10
"""Bytes of the value of an extended attribute on Linux."""
MAX_LINK: Final = 64 << 10
"""Bytes of a symbolic link's target: one block."""


class SuperBlock(NamedTuple):
    """struct ext4_super_block, "The Super Block"."""

    inodes: Annotated[int, At(0x00, "I")]
    blocks_low: Annotated[int, At(0x04, "I")]
    first_data_block: Annotated[int, At(0x14, "I")]
    log_block_size: Annotated[int, At(0x18, "I")]
    """Blocks are of 1024 << this bytes."""
    blocks_per_group: Annotated[int, At(0x20, "I")]
    inodes_per_group: Annotated[int, At(0x28, "I")]
    magic: Annotated[int, At(0x38, "H")]
    revision: Annotated[int, At(0x4C, "I")]
    """In revision 0 the fields from here on have fixed values."""
    inode_size: Annotated[int, At(0x58, "H")]
    compat: Annotated[int, At(0x5C, "I")]
    incompat: Annotated[int, At(0x60, "I")]
    ro_compat: Annotated[int, At(0x64, "I")]
    label: Annotated[bytes, At(0x78, "16s")]
    descriptor_size: Annotated[int, At(0xFE, "H")]
    """Bytes of a group descriptor, with the feature `64bit`."""
    first_meta_group: Annotated[int, At(0x104, "I")]
    """The first block of descriptors that is in its own group, with the feature `meta_bg`."""
    blocks_high: Annotated[int, At(0x150, "I")]
    backup_groups_0: Annotated[int, At(0x24C, "I")]
    backup_groups_1: Annotated[int, At(0x250, "I")]
    """The groups with a backup of the superblock, with the feature `sparse_super2`."""


class GroupDescriptor(NamedTuple):
    """struct ext4_group_desc, "Block Group Descriptors"; the first 32 bytes."""

    inode_table_low: Annotated[int, At(0x08, "I")]


class GroupDescriptor64(NamedTuple):
    """What the feature `64bit` adds to a group descriptor."""

    inode_table_high: Annotated[int, At(0x28, "I")]


class StoredInode(NamedTuple):
    """struct ext4_inode, "Inode Table"; the first 128 bytes. Read as a plain tuple, in this order."""

    mode: Annotated[int, At(0x00, "H")]
    uid_low: Annotated[int, At(0x02, "H")]
    size_low: Annotated[int, At(0x04, "I")]
    atime: Annotated[int, At(0x08, "i")]
    ctime: Annotated[int, At(0x0C, "i")]
    mtime: Annotated[int, At(0x10, "i")]
    deletion_time: Annotated[int, At(0x14, "i")]
    gid_low: Annotated[int, At(0x18, "H")]
    links: Annotated[int, At(0x1A, "H")]
    sectors_low: Annotated[int, At(0x1C, "I")]
    """Space that is taken, in sectors of 512 bytes, or in blocks with FLAG_HUGE."""
    flags: Annotated[int, At(0x20, "I")]
    block: Annotated[bytes, At(0x28, "60s")]
    """An extent tree's root, a block map, a short link, inline data, or a device number."""
    attribute_block_low: Annotated[int, At(0x68, "I")]
    size_high: Annotated[int, At(0x6C, "I")]
    sectors_high: Annotated[int, At(0x74, "H")]
    attribute_block_high: Annotated[int, At(0x76, "H")]
    uid_high: Annotated[int, At(0x78, "H")]
    gid_high: Annotated[int, At(0x7A, "H")]


class ExtraInode(NamedTuple):
    """The fields after the first 128 bytes of a larger inode. Read as a plain tuple, in this order."""

    extra_size: Annotated[int, At(0x80, "H")]
    """Bytes of fields behind the first 128; extended attributes follow them."""
    ctime_extra: Annotated[int, At(0x84, "I")]
    """Two bits above the 32 of the seconds, then 30 bits of nanoseconds."""
    mtime_extra: Annotated[int, At(0x88, "I")]
    atime_extra: Annotated[int, At(0x8C, "I")]


class ExtentHeader(NamedTuple):
    """struct ext4_extent_header, "Extent Tree"; records of 12 bytes follow."""

    magic: Annotated[int, At(0, "H")]
    entries: Annotated[int, At(2, "H")]
    depth: Annotated[int, At(6, "H")]
    """Levels of the tree below this node: 0 for a leaf."""


class ExtentRecord(NamedTuple):
    """struct ext4_extent in a leaf, struct ext4_extent_idx above. Read as a plain tuple, in this order.

    A leaf has the length in the low 16 bits of `low` (above 32768 the extent is unwritten and 32768 shorter)
    and bits 32 to 47 of the block in the high 16 bits, bits 0 to 31 in `high`. An index has bits 0 to 31 of
    the block of the node below in `low`, bits 32 to 47 in the low half of `high`.
    """

    logical: Annotated[int, At(0, "I")]
    """The first block of the file that the record covers."""
    low: Annotated[int, At(4, "I")]
    high: Annotated[int, At(8, "I")]


class DirectoryEntry(NamedTuple):
    """struct ext4_dir_entry_2, "Directory Entries"; the name follows. Read as a plain tuple, in this
    order."""

    inode: Annotated[int, At(0, "I")]
    """0: not in use."""
    length: Annotated[int, At(4, "H")]
    """Bytes up to the next entry."""
    name_length: Annotated[int, At(6, "B")]


class AttributeEntry(NamedTuple):
    """struct ext4_xattr_entry, "Extended Attributes"; the name follows, padded to 4 bytes."""

    name_length: Annotated[int, At(0, "B")]
    name_index: Annotated[int, At(1, "B")]
    """The prefix of the name: INDEX_USER and so on."""
    value_offset: Annotated[int, At(2, "H")]
    value_inode: Annotated[int, At(4, "I")]
    """The inode that holds the value; 0: the value is at `value_offset`."""
    value_size: Annotated[int, At(8, "I")]
    hash: Annotated[int, At(12, "I")]


SUPER_BLOCK: Final = Layout(SuperBlock, "<", "ext superblock")
DESCRIPTOR: Final = Layout(GroupDescriptor, "<", "ext group descriptor")
DESCRIPTOR64: Final = Layout(GroupDescriptor64, "<", "ext group descriptor")
INODE: Final = Layout(StoredInode, "<", "ext inode")
EXTRA_INODE: Final = Layout(ExtraInode, "<", "ext inode")
EXTENT_HEADER: Final = Layout(ExtentHeader, "<", "ext extent header")
EXTENT_RECORD: Final = Layout(ExtentRecord, "<", "ext extent")
DIRECTORY_ENTRY: Final = Layout(DirectoryEntry, "<", "ext directory entry")
ATTRIBUTE_ENTRY: Final = Layout(AttributeEntry, "<", "ext extended attribute")

EXTENT_MAGIC: Final = 0xF30A
EXTENT_RECORDS_OFFSET: Final = 12
UNWRITTEN: Final = 0x8000
"""Lengths of extents above this are of space that was never written: zeros."""
MIN_DIRECTORY_ENTRY: Final = 8

BLOCK_MAP: Final = struct.Struct("<15I")
"""i_block without extents: 12 blocks, then those of the first, second and third level of indirect blocks."""
DIRECT_BLOCKS: Final = 12
DEVICE_NUMBERS: Final = struct.Struct("<II")
"""i_block of a device: its number in the old form of 16 bits, else in the new one of 32."""

ATTRIBUTE_MAGIC: Final = struct.pack("<I", 0xEA020000)
"""Begins the attributes in an inode (4 bytes of header) and in a block (32 bytes of header)."""
ATTRIBUTE_BLOCK_HEADER: Final = 32
INDEX_USER: Final = 1
INDEX_ACL_ACCESS: Final = 2
INDEX_ACL_DEFAULT: Final = 3
INDEX_SYSTEM: Final = 7
INLINE_DATA: Final = (INDEX_SYSTEM, b"data")
"""The attribute that continues the inline data of a file or directory."""
