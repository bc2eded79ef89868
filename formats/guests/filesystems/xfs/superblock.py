"""XFS: the superblock, and the positions of blocks and inodes.

The log is not replayed, as with `mount -o norecovery`.
"""

from __future__ import annotations

from holdfast.formats.guests.filesystems.base.directory_tree import label_text
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.xfs import layout
from holdfast.formats.guests.filesystems.xfs.layout import SUPER_BLOCK, SuperBlock
from holdfast.formats.guests.values.damage import GuestUnsupported, StructureDamaged
from holdfast.formats.guests.values.values import GuestMissing


class XfsGeometry:
    """A checked superblock: sizes, features, and where blocks and inodes are.

    Raises StructureDamaged for values that the format does not allow, GuestUnsupported for unknown versions
    and features.
    """

    def __init__(self, device: BlockDevice) -> None:
        stored = SUPER_BLOCK.read(device.read(0, layout.SUPER_SIZE))
        self.version = stored.version & 0xF
        self._check_features(stored)
        _check_sizes(stored)
        self.block_size = stored.block_size
        self.directory_block = stored.block_size << stored.log_directory_block
        self.inode_size = stored.inode_size
        self.root = stored.root_inode
        self.log_start = stored.log_start
        """The log's first block; 0 when the log is on another device."""
        self.log_size = stored.log_blocks * stored.block_size
        if self.version == 5:
            self.has_types = bool(stored.incompat & layout.V5_FILE_TYPES)
        else:
            self.has_types = bool(stored.features2 & layout.V4_FILE_TYPES)
        self.label = label_text(stored.label)
        self._groups = stored.groups
        self._group_blocks = stored.group_blocks
        self._log_group = stored.log_group_blocks
        self._log_inodes = stored.log_inodes_per_block

    def inode_offset(self, inode: int) -> int:
        """Byte offset of an inode on the device. Raises GuestMissing, StructureDamaged."""
        block, index = inode >> self._log_inodes, inode & ((1 << self._log_inodes) - 1)
        if inode <= 0 or block >> self._log_group >= self._groups:
            raise GuestMissing(f"xfs: there is no inode {inode}")
        return self.block_offset(block) + index * self.inode_size

    def block_offset(self, block: int) -> int:
        """Byte offset on the device of a block, whose number holds its group and its position in the
        group."""
        group, position = block >> self._log_group, block & ((1 << self._log_group) - 1)
        if group >= self._groups or position >= self._group_blocks:
            raise StructureDamaged(
                "xfs",
                "block number",
                f"{block:#x}",
                f"block 0 to {self._group_blocks - 1} of group 0 to {self._groups - 1}",
            )
        return (group * self._group_blocks + position) * self.block_size

    def _check_features(self, stored: SuperBlock) -> None:
        if stored.magic != layout.MAGIC:
            raise _damaged("magic number", stored.magic, str(layout.MAGIC))
        if self.version not in (4, 5) or not stored.version & layout.V4_DIRECTORY2:
            raise GuestUnsupported(
                "xfs superblock", f"its version {stored.version:#x} is not known here: 4 and 5 are"
            )
        unknown = stored.incompat & ~layout.KNOWN_INCOMPAT
        if self.version == 5 and unknown:
            raise GuestUnsupported(
                "xfs superblock", f"it needs features that this program does not know: {unknown:#x}"
            )


def _check_sizes(stored: SuperBlock) -> None:
    size = stored.block_size
    if not layout.MIN_BLOCK_SIZE <= size <= layout.MAX_BLOCK_SIZE or size & (size - 1):
        raise _damaged(
            "block size",
            size,
            f"a power of two from {layout.MIN_BLOCK_SIZE} to {layout.MAX_BLOCK_SIZE} bytes",
        )
    inode = stored.inode_size
    if inode < layout.MIN_INODE_SIZE or inode << stored.log_inodes_per_block != size:
        raise _damaged(
            "inode size",
            f"{inode}, with 2^{stored.log_inodes_per_block} inodes a block",
            f"at least {layout.MIN_INODE_SIZE} bytes and fill blocks of {size}",
        )
    if not stored.groups:
        raise _damaged("number of allocation groups", stored.groups, "at least 1")
    log = stored.log_group_blocks
    if log > layout.MAX_LOG_GROUP_BLOCKS:
        raise _damaged("log2 of the blocks per group", log, f"at most {layout.MAX_LOG_GROUP_BLOCKS}")
    if not 0 < stored.group_blocks <= 1 << log:
        raise _damaged("blocks per group", stored.group_blocks, f"1 to {1 << log}")
    log = stored.log_directory_block
    if log > layout.MAX_LOG_DIRECTORY_BLOCK or size << log > layout.MAX_BLOCK_SIZE:
        raise _damaged(
            "size of a directory block", f"{size} << {log}", f"at most {layout.MAX_BLOCK_SIZE} bytes"
        )


def _damaged(field: str, value: int | str | bytes, limit: str) -> StructureDamaged:
    return StructureDamaged("xfs superblock", field, value, limit)
