"""XFS, byte by byte ("XFS Algorithms & Data Structures", fs/xfs/libxfs/xfs_format.h of Linux). Big-endian.

    per allocation group     superblock, free space, tables of inodes, blocks of data
    first group, offset 0    512 bytes: the superblock that counts

Block and inode numbers have the number of their group in the high bits and that within the group in the low
ones. Version 5 has checksums: its structures have longer headers. Sizes are in bytes.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, NamedTuple

from holdfast.formats.guests.filesystems.base.layout import At, Layout

SUPER_SIZE: Final = 512
MAGIC: Final = b"XFSB"
V4_FILE_TYPES: Final = 0x200
V4_DIRECTORY2: Final = 0x2000
V5_FILE_TYPES: Final = 0x1
KNOWN_INCOMPAT: Final = 0xFF
"""ftype, sparse inodes, metadata UUID, big times, needs repair, many extents, exchange, parent pointers."""
MIN_BLOCK_SIZE: Final = 512
MAX_BLOCK_SIZE: Final = 65536
"""Bytes of a block, and of a directory block."""
MIN_INODE_SIZE: Final = 256
MAX_LOG_GROUP_BLOCKS: Final = 31
MAX_LOG_DIRECTORY_BLOCK: Final = 7


class SuperBlock(NamedTuple):
    """struct xfs_dsb, "Superblocks"."""

    magic: Annotated[bytes, At(0, "4s")]
    block_size: Annotated[int, At(4, "I")]
    log_start: Annotated[int, At(48, "Q")]
    """The log's first block; 0: the log is on another device."""
    root_inode: Annotated[int, At(56, "Q")]
    group_blocks: Annotated[int, At(84, "I")]
    groups: Annotated[int, At(88, "I")]
    log_blocks: Annotated[int, At(96, "I")]
    version: Annotated[int, At(100, "H")]
    """The version in the low 4 bits, features of version 4 above."""
    inode_size: Annotated[int, At(104, "H")]
    label: Annotated[bytes, At(108, "12s")]
    log_inodes_per_block: Annotated[int, At(123, "B")]
    log_group_blocks: Annotated[int, At(124, "B")]
    log_directory_block: Annotated[int, At(192, "B")]
    """log2 of the blocks of a directory block."""
    features2: Annotated[int, At(200, "I")]
    incompat: Annotated[int, At(216, "I")]


class StoredInode(NamedTuple):
    """struct xfs_dinode, "On-disk Inode", 100 bytes in versions 1 and 2. Read as a plain tuple, in this
    order."""

    magic: Annotated[bytes, At(0, "2s")]
    mode: Annotated[int, At(2, "H")]
    version: Annotated[int, At(4, "B")]
    format: Annotated[int, At(5, "B")]
    """What the data fork holds: one of FORMAT_*."""
    old_links: Annotated[int, At(6, "H")]
    """Links, in version 1."""
    uid: Annotated[int, At(8, "I")]
    gid: Annotated[int, At(12, "I")]
    links: Annotated[int, At(16, "I")]
    big_extents: Annotated[int, At(24, "Q")]
    """Extents of the data fork, with MANY_EXTENTS."""
    atime: Annotated[int, At(32, "Q")]
    mtime: Annotated[int, At(40, "Q")]
    ctime: Annotated[int, At(48, "Q")]
    size: Annotated[int, At(56, "Q")]
    blocks: Annotated[int, At(64, "Q")]
    extents: Annotated[int, At(76, "I")]
    """Extents of the data fork; of the attribute fork with MANY_EXTENTS."""
    attribute_extents: Annotated[int, At(80, "H")]
    fork_offset: Annotated[int, At(82, "B")]
    """Where the attribute fork begins, in units of 8 bytes after the fixed part; 0: there is none."""
    attribute_format: Annotated[int, At(83, "b")]
    flags: Annotated[int, At(90, "H")]


class InodeV3(NamedTuple):
    """What an inode of version 3 adds to StoredInode: 176 bytes in all. Version 5 of XFS has these inodes."""

    flags2: Annotated[int, At(120, "Q")]


class ExtentNode(NamedTuple):
    """struct xfs_btree_block, "B+tree Extent List": 24 bytes in version 4, 72 in version 5."""

    magic: Annotated[bytes, At(0, "4s")]
    level: Annotated[int, At(4, "H")]
    entries: Annotated[int, At(6, "H")]


class ExtentRoot(NamedTuple):
    """struct xfs_bmdr_block: the root of that tree, in an inode. Keys follow, then pointers."""

    level: Annotated[int, At(0, "H")]
    entries: Annotated[int, At(2, "H")]


class ExtentRecord(NamedTuple):
    """struct xfs_bmbt_rec, "Extent List": unwritten (1 bit), first block of the file (54), first block on the
    device (52), number of blocks (21)."""

    high: Annotated[int, At(0, "Q")]
    low: Annotated[int, At(8, "Q")]


class DataEntry(NamedTuple):
    """struct xfs_dir2_data_entry, "Block Directories"; the name follows, then a file type and padding to
    8."""

    inode: Annotated[int, At(0, "Q")]
    name_length: Annotated[int, At(8, "B")]


class UnusedEntry(NamedTuple):
    """struct xfs_dir2_data_unused: free space in a directory block."""

    free_tag: Annotated[bytes, At(0, "2s")]
    length: Annotated[int, At(2, "H")]


class BlockTail(NamedTuple):
    """struct xfs_dir2_block_tail: ends a directory of one block. Leaf entries of 8 bytes stand before it."""

    entries: Annotated[int, At(0, "I")]
    stale: Annotated[int, At(4, "I")]


class ShortAttributes(NamedTuple):
    """struct xfs_attr_sf_hdr, "Shortform Attributes"; 4 bytes."""

    size: Annotated[int, At(0, "H")]
    entries: Annotated[int, At(2, "B")]


class BlockInfo(NamedTuple):
    """struct xfs_da_blkinfo: begins the blocks of attributes."""

    forward: Annotated[int, At(0, "I")]
    """The next block of the same level; 0: the last."""
    magic: Annotated[int, At(8, "H")]


class NodeEntry(NamedTuple):
    """struct xfs_da_node_entry: an inner node's pointer to a node below."""

    hash: Annotated[int, At(0, "I")]
    before: Annotated[int, At(4, "I")]


class LeafEntry(NamedTuple):
    """struct xfs_attr_leaf_entry, "Leaf Attributes". Read as a plain tuple, in this order."""

    hash: Annotated[int, At(0, "I")]
    offset: Annotated[int, At(4, "H")]
    flags: Annotated[int, At(6, "B")]
    padding: Annotated[int, At(7, "B")]


class LocalAttribute(NamedTuple):
    """struct xfs_attr_leaf_name_local; name and value follow."""

    value_length: Annotated[int, At(0, "H")]
    name_length: Annotated[int, At(2, "B")]


class RemoteAttribute(NamedTuple):
    """struct xfs_attr_leaf_name_remote; the name follows."""

    value_block: Annotated[int, At(0, "I")]
    value_length: Annotated[int, At(4, "I")]
    name_length: Annotated[int, At(8, "B")]


class LogRecord(NamedTuple):
    """struct xlog_rec_header, "Log Record"."""

    magic: Annotated[int, At(0, "I")]
    cycle: Annotated[int, At(4, "I")]
    version: Annotated[int, At(8, "I")]
    length: Annotated[int, At(12, "I")]
    """Bytes of the record behind its headers."""
    operations: Annotated[int, At(40, "I")]
    header_size: Annotated[int, At(320, "I")]
    """Bytes of log that one header of 512 bytes describes, in version 2."""


class LogOperation(NamedTuple):
    """struct xlog_op_header, "Log Operations"."""

    flags: Annotated[int, At(9, "B")]


SUPER_BLOCK: Final = Layout(SuperBlock, ">", "xfs superblock")
INODE: Final = Layout(StoredInode, ">", "xfs inode")
INODE_V3: Final = Layout(InodeV3, ">", "xfs inode")
EXTENT_NODE: Final = Layout(ExtentNode, ">", "xfs extent node")
EXTENT_ROOT: Final = Layout(ExtentRoot, ">", "xfs extent root")
EXTENT_RECORD: Final = Layout(ExtentRecord, ">", "xfs extent")
DATA_ENTRY: Final = Layout(DataEntry, ">", "xfs directory entry")
UNUSED_ENTRY: Final = Layout(UnusedEntry, ">", "xfs unused directory entry")
BLOCK_TAIL: Final = Layout(BlockTail, ">", "xfs directory block tail")
SHORT_ATTRIBUTES: Final = Layout(ShortAttributes, ">", "xfs shortform attributes")
BLOCK_INFO: Final = Layout(BlockInfo, ">", "xfs attribute block")
NODE_ENTRY: Final = Layout(NodeEntry, ">", "xfs attribute node entry")
LEAF_ENTRY: Final = Layout(LeafEntry, ">", "xfs attribute leaf entry")
LOCAL_ATTRIBUTE: Final = Layout(LocalAttribute, ">", "xfs attribute")
REMOTE_ATTRIBUTE: Final = Layout(RemoteAttribute, ">", "xfs attribute")
LOG_RECORD: Final = Layout(LogRecord, ">", "xfs log record")
LOG_OPERATION: Final = Layout(LogOperation, ">", "xfs log operation")

# "On-disk Inode": di_magic, di_format, di_flags, di_flags2
INODE_MAGIC: Final = b"IN"
INODE_SIZES: Final = {1: 100, 2: 100, 3: 176}
"""Bytes of an inode's fixed part by its version; the data fork follows."""
FORMAT_DEVICE: Final = 0
FORMAT_LOCAL: Final = 1
FORMAT_EXTENTS: Final = 2
FORMAT_BTREE: Final = 3
FLAG_REALTIME: Final = 0x1
BIG_TIME: Final = 0x8
MANY_EXTENTS: Final = 0x10
BIG_TIME_EPOCH: Final = 1 << 31
"""Seconds before 1970 from which times are counted, with BIG_TIME."""
DEVICE: Final = struct.Struct(">I")
"""A data fork of FORMAT_DEVICE: 14 bits of the major number, 18 of the minor one."""

EXTENT_NODE_HEADERS: Final = {4: (b"BMAP", 24), 5: (b"BMA3", 72)}
"""Magic number and header size of an extent node, by the file system's version."""
EXTENT_ROOT_SIZE: Final = 4
MAX_EXTENT_LEVEL: Final = 9
UNWRITTEN: Final = 1 << 63

# "Directories"
DIRECTORY_BLOCK_MAGICS: Final = (b"XD2B", b"XDB3")
DIRECTORY_DATA_MAGICS: Final = (b"XD2D", b"XDD3")
DIRECTORY_HEADERS: Final = {4: 16, 5: 64}
"""Bytes of a directory block's header, by the file system's version."""
DIRECTORY_LEAF_START: Final = 1 << 35
"""Offset in a directory's fork from which on blocks index names and hold no entries."""
DIRECTORY_LEAF_ENTRY: Final = 8
FREE_TAG: Final = b"\xff\xff"

# "Symbolic Links"
MAX_LINK: Final = 1024
LINK_MAGIC: Final = b"XSLM"
LINK_HEADER: Final = 56

# "Extended Attributes": flags of an entry
ATTRIBUTE_LOCAL: Final = 0x1
ATTRIBUTE_ROOT: Final = 0x2
ATTRIBUTE_HIDDEN: Final = 0x4 | 0x8 | 0x80
"""Those of security modules, parent pointers, and attributes that were not written to their end."""
ATTRIBUTE_LEAF_MAGICS: Final = (0xFBEE, 0x3BEE)
ATTRIBUTE_NODE_MAGICS: Final = (0xFEBE, 0x3EBE)
ATTRIBUTE_LEAF_COUNTS: Final = {4: 12, 5: 56}
"""Offset of the number of entries in a leaf, by the file system's version."""
ATTRIBUTE_LEAF_ENTRIES: Final = {4: 32, 5: 80}
"""Offset of a leaf's first entry."""
ATTRIBUTE_NODE_ENTRIES: Final = {4: 16, 5: 64}
"""Offset of an inner node's first entry."""
ATTRIBUTE_COUNT: Final = struct.Struct(">H")
REMOTE_VALUE_MAGIC: Final = b"XARM"
REMOTE_VALUE_HEADER: Final = 56
MAX_ATTRIBUTE: Final = 64 << 10
MAX_ATTRIBUTE_DEPTH: Final = 6

# "Journaling Log"
LOG_BLOCK: Final = 512
LOG_MAGIC: Final = 0xFEEDBABE
LOG_UNMOUNT: Final = 0x20
"""Flag of the operation that an unmount writes last."""
LOG_VERSION_2: Final = 0x2
LOG_HEADER_UNIT: Final = 32 << 10
LOG_RECORD_BLOCKS: Final = 2 * (256 << 10) // LOG_BLOCK
"""Blocks of the longest record: 256 KiB with its headers, and as much padding to a stripe."""
LOG_CYCLES: Final = struct.Struct(">II")
"""The start of each block of the log: the number of the round, after LOG_MAGIC where a record begins."""
