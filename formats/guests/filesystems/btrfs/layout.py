"""btrfs, byte by byte (the on-disk format in btrfs-dev-docs, include/uapi/linux/btrfs_tree.h of Linux).
Little-endian.

    64 KiB      4096 bytes   superblock: where the trees of chunks and of roots are
    anywhere                 nodes of B-trees; extents of files

All other addresses are logical: chunks map them to the device. An item of a tree has a key (object ID, type,
offset) and data, whose structure follows from the type. Sizes are in bytes.
"""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

from holdfast.formats.guests.filesystems.base.layout import At, Layout

SUPER_OFFSET: Final = 64 << 10
SUPER_SIZE: Final = 4096
MAGIC: Final = b"_BHRfS_M"
MAGIC_OFFSET: Final = 0x40
SIZES: Final = (4096, 8192, 16384, 32768, 65536)
"""Bytes that a sector or a node may have."""
SYSTEM_CHUNKS_OFFSET: Final = 0x32B
MAX_SYSTEM_CHUNKS: Final = 2048
KNOWN_INCOMPAT: Final = 0x10FFF
"""backrefs, default subvolume, mixed groups, lzo, zstd, large metadata, extended references, RAID56, skinny
metadata, no holes, metadata UUID, RAID1C34, simple quotas. Not: zoned, extent tree v2, RAID stripe tree."""

# btrfs_tree.h: types of items
INODE_ITEM: Final = 1
XATTR_ITEM: Final = 24
DIR_INDEX: Final = 96
EXTENT_DATA: Final = 108
ROOT_ITEM: Final = 132
ROOT_REF: Final = 156
CHUNK_ITEM: Final = 228

# btrfs_tree.h: object IDs
TOP_TREE: Final = 5
"""The tree of files at the top."""
CHUNK_OBJECT: Final = 256
FIRST_FREE: Final = 256
LARGEST: Final = (1 << 64) - 1
LAST_FREE: Final = LARGEST - 255

SPREAD: Final = 0x8 | 0x40 | 0x80 | 0x100
"""Types of chunks whose data is spread over stripes: RAID0, 10, 5 and 6. All others hold copies."""
MAX_STRIPES: Final = 64
MAX_CHUNKS: Final = 1 << 20
MAX_LEVEL: Final = 7
MAX_LINK: Final = 4096
MAX_ATTRIBUTE: Final = 64 << 10

INLINE: Final = 0
PREALLOCATED: Final = 2
"""Types of file extents besides the regular ones."""
ZLIB: Final = 1
LZO: Final = 2
ZSTD: Final = 3
"""Compressions of file extents; 0 is none."""
MAX_COMPRESSED: Final = 1 << 20
"""Bytes of a compressed extent, packed or not; Linux makes them of 128 KiB at most."""
MAX_INLINE: Final = 64 << 10


class SuperBlock(NamedTuple):
    """struct btrfs_super_block."""

    magic: Annotated[bytes, At(0x40, "8s")]
    generation: Annotated[int, At(0x48, "Q")]
    root: Annotated[int, At(0x50, "Q")]
    """Address of the tree of roots."""
    chunk_root: Annotated[int, At(0x58, "Q")]
    log_root: Annotated[int, At(0x60, "Q")]
    """Address of the tree log; 0: there is none."""
    devices: Annotated[int, At(0x88, "Q")]
    sector_size: Annotated[int, At(0x90, "I")]
    node_size: Annotated[int, At(0x94, "I")]
    system_chunks_size: Annotated[int, At(0xA0, "I")]
    incompat: Annotated[int, At(0xBC, "Q")]
    root_level: Annotated[int, At(0xC6, "B")]
    chunk_level: Annotated[int, At(0xC7, "B")]
    device_id: Annotated[int, At(0xC9, "Q")]
    label: Annotated[bytes, At(0x12B, "256s")]


class DiskKey(NamedTuple):
    """struct btrfs_disk_key: 17 bytes."""

    object: Annotated[int, At(0, "Q")]
    type: Annotated[int, At(8, "B")]
    offset: Annotated[int, At(9, "Q")]


class ChunkItem(NamedTuple):
    """struct btrfs_chunk without its stripes: 48 bytes."""

    length: Annotated[int, At(0, "Q")]
    type: Annotated[int, At(24, "Q")]
    stripes: Annotated[int, At(44, "H")]
    sub_stripes: Annotated[int, At(46, "H")]


class Stripe(NamedTuple):
    """struct btrfs_stripe: 32 bytes."""

    device: Annotated[int, At(0, "Q")]
    offset: Annotated[int, At(8, "Q")]
    device_uuid: Annotated[bytes, At(16, "16s")]


class NodeHeader(NamedTuple):
    """struct btrfs_header: 101 bytes."""

    address: Annotated[int, At(0x30, "Q")]
    items: Annotated[int, At(0x60, "I")]
    level: Annotated[int, At(0x64, "B")]


class LeafItem(NamedTuple):
    """struct btrfs_item: 25 bytes. Read as a plain tuple, in this order."""

    object: Annotated[int, At(0, "Q")]
    type: Annotated[int, At(8, "B")]
    key_offset: Annotated[int, At(9, "Q")]
    offset: Annotated[int, At(17, "I")]
    """Of the item's data, from the end of the node's header."""
    size: Annotated[int, At(21, "I")]


class NodePointer(NamedTuple):
    """struct btrfs_key_ptr: 33 bytes. Read as a plain tuple, in this order."""

    object: Annotated[int, At(0, "Q")]
    type: Annotated[int, At(8, "B")]
    key_offset: Annotated[int, At(9, "Q")]
    address: Annotated[int, At(17, "Q")]
    generation: Annotated[int, At(25, "Q")]


class InodeItem(NamedTuple):
    """struct btrfs_inode_item. Read as a plain tuple, in this order."""

    size: Annotated[int, At(16, "Q")]
    allocated: Annotated[int, At(24, "Q")]
    links: Annotated[int, At(40, "I")]
    uid: Annotated[int, At(44, "I")]
    gid: Annotated[int, At(48, "I")]
    mode: Annotated[int, At(52, "I")]
    device: Annotated[int, At(56, "Q")]
    atime: Annotated[int, At(112, "q")]
    atime_ns: Annotated[int, At(120, "I")]
    ctime: Annotated[int, At(124, "q")]
    ctime_ns: Annotated[int, At(132, "I")]
    mtime: Annotated[int, At(136, "q")]
    mtime_ns: Annotated[int, At(144, "I")]


class DirItem(NamedTuple):
    """struct btrfs_dir_item: 30 bytes; name and data follow. Read as a plain tuple, in this order."""

    object: Annotated[int, At(0, "Q")]
    key_type: Annotated[int, At(8, "B")]
    data_length: Annotated[int, At(25, "H")]
    name_length: Annotated[int, At(27, "H")]
    type: Annotated[int, At(29, "B")]


class RootItem(NamedTuple):
    """struct btrfs_root_item, behind the inode item that it begins with."""

    top_directory: Annotated[int, At(168, "Q")]
    address: Annotated[int, At(176, "Q")]
    level: Annotated[int, At(238, "B")]


class RootReference(NamedTuple):
    """struct btrfs_root_ref; the name follows."""

    directory: Annotated[int, At(0, "Q")]
    sequence: Annotated[int, At(8, "Q")]
    name_length: Annotated[int, At(16, "H")]


class FileExtent(NamedTuple):
    """struct btrfs_file_extent_item: 21 bytes; inline data or a FileExtentRange follows."""

    generation: Annotated[int, At(0, "Q")]
    unpacked_size: Annotated[int, At(8, "Q")]
    compression: Annotated[int, At(16, "B")]
    encryption: Annotated[int, At(17, "B")]
    other_encoding: Annotated[int, At(18, "H")]
    type: Annotated[int, At(20, "B")]


class FileExtentRange(NamedTuple):
    """The end of struct btrfs_file_extent_item, of an extent outside of the tree."""

    address: Annotated[int, At(21, "Q")]
    """0: a hole."""
    stored_size: Annotated[int, At(29, "Q")]
    skip: Annotated[int, At(37, "Q")]
    """Bytes of the unpacked extent before those of the file."""
    length: Annotated[int, At(45, "Q")]


SUPER_BLOCK: Final = Layout(SuperBlock, "<", "btrfs superblock")
DISK_KEY: Final = Layout(DiskKey, "<", "btrfs key of a system chunk")
CHUNK: Final = Layout(ChunkItem, "<", "btrfs chunk")
STRIPE: Final = Layout(Stripe, "<", "btrfs stripe of a chunk")
NODE_HEADER: Final = Layout(NodeHeader, "<", "btrfs node header")
LEAF_ITEM: Final = Layout(LeafItem, "<", "btrfs item")
NODE_POINTER: Final = Layout(NodePointer, "<", "btrfs node pointer")
INODE: Final = Layout(InodeItem, "<", "btrfs inode item")
DIR_ITEM: Final = Layout(DirItem, "<", "btrfs directory item")
ROOT: Final = Layout(RootItem, "<", "btrfs root item")
ROOT_REFERENCE: Final = Layout(RootReference, "<", "btrfs root reference")
FILE_EXTENT: Final = Layout(FileExtent, "<", "btrfs file extent")
FILE_EXTENT_RANGE: Final = Layout(FileExtentRange, "<", "btrfs file extent")
