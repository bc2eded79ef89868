"""ext2, ext3 and ext4: the superblock, the group descriptors, and the position of an inode.

The journal is not replayed, as with `mount -o noload`.
"""

from __future__ import annotations

from holdfast.formats.guests.filesystems.base.directory_tree import label_text
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.ext import layout
from holdfast.formats.guests.filesystems.ext.layout import DESCRIPTOR, DESCRIPTOR64, SUPER_BLOCK, SuperBlock
from holdfast.formats.guests.values.damage import GuestUnsupported, StructureDamaged
from holdfast.formats.guests.values.values import GuestMissing


class ExtGeometry:
    """A checked superblock: sizes, features, and where each inode is.

    Raises StructureDamaged for values that the format does not allow, GuestUnsupported for unknown features.
    """

    def __init__(self, device: BlockDevice) -> None:
        stored = SUPER_BLOCK.read(device.read(layout.SUPER_OFFSET, layout.SUPER_SIZE))
        if stored.revision == 0:
            stored = stored._replace(compat=0, incompat=0, ro_compat=0, inode_size=layout.MIN_INODE_SIZE)
        self.kind = _kind(stored)
        self.blocks = stored.blocks_low
        self._descriptor_size = layout.OLD_DESCRIPTOR_SIZE
        if stored.incompat & layout.INCOMPAT_64BIT:
            self.blocks |= stored.blocks_high << 32
            self._descriptor_size = stored.descriptor_size
        self._check_features(stored)
        self._check_sizes(stored)
        self._device = device
        self.block_size = 1024 << stored.log_block_size
        self.inode_size = stored.inode_size
        self.inodes = stored.inodes
        self.large_directories = bool(stored.incompat & layout.INCOMPAT_LARGE_DIRECTORIES)
        self.huge_files = bool(stored.ro_compat & layout.RO_COMPAT_HUGE_FILES)
        self.label = label_text(stored.label)
        self.has_log = bool(stored.incompat & layout.INCOMPAT_RECOVER)
        self._blocks_per_group = stored.blocks_per_group
        self._inodes_per_group = stored.inodes_per_group
        self._first_block = stored.first_data_block
        self._groups = -((stored.first_data_block - self.blocks) // stored.blocks_per_group)
        self._first_meta = stored.first_meta_group if stored.incompat & layout.INCOMPAT_META_BG else None
        self._sparse = bool(stored.ro_compat & layout.RO_COMPAT_SPARSE_SUPER)
        self._group = -1
        self._table_offset = 0
        """Offset of the inode table of `_group`. It is kept, because files of one directory are mostly in one
        group."""
        self._backups = (
            (stored.backup_groups_0, stored.backup_groups_1)
            if stored.compat & layout.COMPAT_SPARSE_SUPER2
            else None
        )

    def inode_offset(self, inode: int) -> int:
        """Byte offset of an inode on the device. Raises GuestMissing, StructureDamaged."""
        if not 1 <= inode <= self.inodes:
            raise GuestMissing(f"{self.kind}: there is no inode {inode}: numbers go from 1 to {self.inodes}")
        group, index = divmod(inode - 1, self._inodes_per_group)
        if group != self._group:
            self._table_offset = self._find_table(group, inode)
            self._group = group
        return self._table_offset + index * self.inode_size

    def _find_table(self, group: int, inode: int) -> int:
        """Byte offset of the table of inodes of a group, which holds `inode`."""
        if group >= self._groups:
            raise StructureDamaged(
                f"{self.kind} inode {inode}", "group", group, f"below {self._groups}, the number of groups"
            )
        descriptor = self._device.read(self._descriptor_offset(group), self._descriptor_size)
        table = DESCRIPTOR.read(descriptor).inode_table_low
        if self._descriptor_size >= layout.MIN_64BIT_DESCRIPTOR_SIZE:
            table |= DESCRIPTOR64.read(descriptor).inode_table_high << 32
        if not self._first_block < table < self.blocks:
            raise StructureDamaged(
                f"{self.kind} group {group}",
                "block of the inode table",
                table,
                f"{self._first_block + 1} to {self.blocks - 1}",
            )
        return table * self.block_size

    def _check_features(self, stored: SuperBlock) -> None:
        if stored.magic != layout.MAGIC:
            raise self._damaged("magic number", f"{stored.magic:#x}", f"{layout.MAGIC:#x}")
        unknown = stored.incompat & ~layout.KNOWN_INCOMPAT
        if unknown:
            raise GuestUnsupported(
                f"{self.kind} superblock",
                f"it needs features that this program does not know: {unknown:#x}",
            )

    def _check_sizes(self, stored: SuperBlock) -> None:
        if stored.log_block_size > layout.MAX_LOG_BLOCK_SIZE:
            raise self._damaged(
                "log2 of the block size in KiB", stored.log_block_size, f"at most {layout.MAX_LOG_BLOCK_SIZE}"
            )
        block_size = 1024 << stored.log_block_size
        size = stored.inode_size
        if size < layout.MIN_INODE_SIZE or size & (size - 1) or size > block_size:
            raise self._damaged(
                "inode size", size, f"a power of two from {layout.MIN_INODE_SIZE} to {block_size} bytes"
            )
        if not stored.blocks_per_group:
            raise self._damaged("blocks per group", stored.blocks_per_group, "at least 1")
        if not stored.inodes_per_group:
            raise self._damaged("inodes per group", stored.inodes_per_group, "at least 1")
        if stored.first_data_block > 1:
            raise self._damaged("first data block", stored.first_data_block, "0 or 1")
        if not 1 <= self.blocks - stored.first_data_block <= layout.MAX_BLOCKS:
            raise self._damaged("number of blocks", self.blocks, f"1 to {layout.MAX_BLOCKS}")
        size = self._descriptor_size
        if stored.incompat & layout.INCOMPAT_64BIT and (
            not layout.MIN_64BIT_DESCRIPTOR_SIZE <= size <= block_size or size % 8
        ):
            raise self._damaged(
                "size of a group descriptor",
                size,
                f"a multiple of 8 from {layout.MIN_64BIT_DESCRIPTOR_SIZE} to {block_size} bytes",
            )

    def _damaged(self, field: str, value: int | str, limit: str) -> StructureDamaged:
        return StructureDamaged(f"{self.kind} superblock", field, value, limit)

    def _descriptor_offset(self, group: int) -> int:
        """Byte offset of a group's descriptor ("Block Group Descriptors", "Meta Block Groups")."""
        per_block = self.block_size // self._descriptor_size
        number, index = divmod(group, per_block)
        if self._first_meta is None or number < self._first_meta:
            block = layout.SUPER_OFFSET // self.block_size + 1 + number
        else:  # the descriptors of a meta group are in its first group
            first = number * per_block
            block = self._first_block + first * self._blocks_per_group + self._has_super(first)
            if number == 0 and self.block_size == layout.SUPER_OFFSET and self._first_block == 0:
                block += 1  # bigalloc counts blocks of 1 KiB from 0 as well
        return int(block * self.block_size + index * self._descriptor_size)

    def _has_super(self, group: int) -> bool:
        """Whether a group begins with a copy of the superblock."""
        if group == 0:
            return True
        if self._backups is not None:
            return group in self._backups
        if group == 1 or not self._sparse:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))


def _kind(stored: SuperBlock) -> str:
    """`ext2`, `ext3` or `ext4`, by the features in use."""
    of_ext4 = layout.INCOMPAT_EXTENTS | layout.INCOMPAT_64BIT | layout.INCOMPAT_INLINE_DATA
    if stored.incompat & of_ext4 or stored.ro_compat & layout.RO_COMPAT_OF_EXT4:
        return "ext4"
    return "ext3" if stored.compat & layout.COMPAT_HAS_JOURNAL else "ext2"


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1
