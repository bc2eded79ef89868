"""ext2, ext3 and ext4: superblock, group descriptors, and where an inode stands.

Source: Documentation/filesystems/ext4 of Linux. Little-endian; the journal is not replayed, as with
`mount -o noload`.
"""

from __future__ import annotations

import struct

from holdfast.formats.guests.filesystems.base.directory_tree import label_text
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.values import GuestDamaged, GuestMissing

SUPER_OFFSET = 1024
SUPER_SIZE = 1024
MAGIC = 0xEF53

_HAS_JOURNAL = 0x4
_SPARSE_SUPER2 = 0x200
_FILETYPE = 0x2
_RECOVER = 0x4
_META_BG = 0x10
_EXTENTS = 0x40
_64BIT = 0x80
_LARGE_DIRECTORIES = 0x4000
_KNOWN_INCOMPAT = (
    _FILETYPE | _RECOVER | _META_BG | _EXTENTS | _64BIT | 0x100 | 0x200 | 0x400
    | 0x2000 | _LARGE_DIRECTORIES | 0x8000 | 0x10000 | 0x20000
)  # fmt: skip
"""recover, multiple mount protection, flexible groups, big attributes, checksum seed, inline data, encrypted
files, folded case. Not: compression, a journal device, data in directories."""
_SPARSE_SUPER = 0x1
_HUGE_FILES = 0x8
_EXT4_RO_COMPAT = 0x8 | 0x10 | 0x20 | 0x40 | 0x200 | 0x400
"""huge_file, gdt_csum, dir_nlink, extra_isize, bigalloc, metadata_csum."""


class Super:
    """The superblock, checked. Raises GuestDamaged for what does not hold together or is not known."""

    def __init__(self, device: BlockDevice) -> None:
        raw = device.read(SUPER_OFFSET, SUPER_SIZE)
        self._device = device
        (inodes, blocks_low) = struct.unpack_from("<II", raw)
        (first_block, log_block) = struct.unpack_from("<II", raw, 0x14)
        (self._blocks_per_group,) = struct.unpack_from("<I", raw, 0x20)
        (self._inodes_per_group,) = struct.unpack_from("<I", raw, 0x28)
        (magic,) = struct.unpack_from("<H", raw, 0x38)
        (revision,) = struct.unpack_from("<I", raw, 0x4C)
        (inode_size,) = struct.unpack_from("<H", raw, 0x58)
        compat, incompat, ro_compat = struct.unpack_from("<III", raw, 0x5C)
        if revision == 0:
            compat = incompat = ro_compat = 0
            inode_size = 128
        if magic != MAGIC:
            raise GuestDamaged(f"ext: no magic number at offset {SUPER_OFFSET}")
        if incompat & ~_KNOWN_INCOMPAT:
            raise GuestDamaged(f"ext: needs features this program does not know: {incompat:#x}")
        if log_block > 6:
            raise GuestDamaged(f"ext: blocks of 2^{10 + log_block} bytes")
        self.block_size = 1024 << log_block
        self.blocks = blocks_low
        if incompat & _64BIT:
            self.blocks |= struct.unpack_from("<I", raw, 0x150)[0] << 32
        self.inode_size = inode_size
        if inode_size < 128 or inode_size & (inode_size - 1) or inode_size > self.block_size:
            raise GuestDamaged(f"ext: inodes of {inode_size} bytes")
        if not self._blocks_per_group or not self._inodes_per_group or first_block > 1:
            raise GuestDamaged("ext: groups of nothing")
        if not 1 <= self.blocks - first_block <= 1 << 48:
            raise GuestDamaged(f"ext: {self.blocks} blocks")
        self.inodes = inodes
        self._first_block = first_block
        self._groups = -((first_block - self.blocks) // self._blocks_per_group)
        self._descriptor_size = 32
        if incompat & _64BIT:
            (self._descriptor_size,) = struct.unpack_from("<H", raw, 0xFE)
            if not 64 <= self._descriptor_size <= self.block_size or self._descriptor_size % 8:
                raise GuestDamaged(f"ext: group descriptors of {self._descriptor_size} bytes")
        (first_meta,) = struct.unpack_from("<I", raw, 0x104)
        self._first_meta = first_meta if incompat & _META_BG else None
        self._sparse = bool(ro_compat & _SPARSE_SUPER)
        self._backups = struct.unpack_from("<II", raw, 0x24C) if compat & _SPARSE_SUPER2 else None
        self.large_directories = bool(incompat & _LARGE_DIRECTORIES)
        self.huge_files = bool(ro_compat & _HUGE_FILES)
        self.label = label_text(raw[0x78:0x88])
        self.has_log = bool(incompat & _RECOVER)
        if incompat & (_EXTENTS | _64BIT | 0x8000) or ro_compat & _EXT4_RO_COMPAT:
            self.kind = "ext4"
        else:
            self.kind = "ext3" if compat & _HAS_JOURNAL else "ext2"

    def inode_offset(self, inode: int) -> int:
        """Where an inode stands on the device, in bytes."""
        if not 1 <= inode <= self.inodes:
            raise GuestMissing(f"ext: no inode {inode}")
        group, index = divmod(inode - 1, self._inodes_per_group)
        if group >= self._groups:
            raise GuestDamaged(f"ext: inode {inode} would be in group {group} of {self._groups}")
        descriptor = self._device.read(self._descriptor_offset(group), self._descriptor_size)
        (table,) = struct.unpack_from("<I", descriptor, 8)
        if self._descriptor_size >= 64:
            table |= struct.unpack_from("<I", descriptor, 0x28)[0] << 32
        if not self._first_block < table < self.blocks:
            raise GuestDamaged(f"ext: the inodes of group {group} would be in block {table}")
        return int(table * self.block_size + index * self.inode_size)

    def _descriptor_offset(self, group: int) -> int:
        per_block = self.block_size // self._descriptor_size
        block, index = divmod(group, per_block)
        if self._first_meta is None or block < self._first_meta:
            place = SUPER_OFFSET // self.block_size + 1 + block
        else:  # the descriptors of a meta group stand in its first group
            first = block * per_block
            place = self._first_block + first * self._blocks_per_group + self._has_super(first)
            if block == 0 and self.block_size == SUPER_OFFSET and self._first_block == 0:
                place += 1  # bigalloc counts blocks of 1 KiB from 0 as well
        return int(place * self.block_size + index * self._descriptor_size)

    def _has_super(self, group: int) -> bool:
        if group == 0:
            return True
        if self._backups is not None:
            return group in self._backups
        if group == 1 or not self._sparse:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1
