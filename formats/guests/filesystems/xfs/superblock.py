"""XFS: superblock, and numbers of blocks and inodes taken apart.

Source: "XFS Algorithms and Data Structures" and fs/xfs/libxfs/xfs_format.h of Linux. Big-endian; the log is
not replayed, as with `mount -o norecovery`.
"""

from __future__ import annotations

import struct

from holdfast.formats.guests.filesystems.base.directory_tree import label_text
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.values import GuestDamaged, GuestMissing

MAGIC = b"XFSB"
_SIZE = 512
_V4_FTYPE = 0x200
_V4_DIRV2 = 0x2000
_FTYPE = 0x1
_KNOWN_INCOMPAT = 0xFF
"""ftype, sparse inodes, metadata UUID, big times, needs repair, many extents, exchange, parent pointers."""


class Super:
    """The superblock, checked. Raises GuestDamaged for what does not hold together or is not known."""

    def __init__(self, device: BlockDevice) -> None:
        raw = device.read(0, _SIZE)
        if raw[:4] != MAGIC:
            raise GuestDamaged("xfs: no magic number at offset 0")
        self.block_size: int = struct.unpack_from(">I", raw, 4)[0]
        (self.log_start, self.root) = struct.unpack_from(">QQ", raw, 48)
        """`log_start` is 0 when the log is on another device."""
        (blocks,) = struct.unpack_from(">I", raw, 96)
        self.log_size: int = blocks * self.block_size
        self._group_blocks: int = struct.unpack_from(">I", raw, 84)[0]
        self._groups: int = struct.unpack_from(">I", raw, 88)[0]
        version, _, size = struct.unpack_from(">HHH", raw, 100)
        self.inode_size = int(size)
        self._log_inodes, self._log_group = raw[123], raw[124]
        log_directory = raw[192]
        (features2,) = struct.unpack_from(">I", raw, 200)
        (incompat,) = struct.unpack_from(">I", raw, 216)
        self.version = version & 0xF
        if self.version not in (4, 5) or not version & _V4_DIRV2:
            raise GuestDamaged(f"xfs: version {self.version} is not known")
        if self.version == 5 and incompat & ~_KNOWN_INCOMPAT:
            raise GuestDamaged(f"xfs: needs features this program does not know: {incompat:#x}")
        size = self.block_size
        if size < 512 or size > 65536 or size & (size - 1):
            raise GuestDamaged(f"xfs: blocks of {size} bytes")
        if self.inode_size < 256 or self.inode_size << self._log_inodes != size:
            raise GuestDamaged(f"xfs: inodes of {self.inode_size} bytes in blocks of {size}")
        if self._log_group > 31 or not 0 < self._group_blocks <= 1 << self._log_group or not self._groups:
            raise GuestDamaged(f"xfs: {self._groups} groups of {self._group_blocks} blocks")
        if log_directory > 7 or size << log_directory > 65536:
            raise GuestDamaged(f"xfs: folder blocks of {size} << {log_directory} bytes")
        self.directory_block = size << log_directory
        self.has_types = bool(incompat & _FTYPE if self.version == 5 else features2 & _V4_FTYPE)
        self.label = label_text(raw[108:120])

    def inode_offset(self, inode: int) -> int:
        """Where an inode stands on the device, in bytes."""
        block, index = inode >> self._log_inodes, inode & ((1 << self._log_inodes) - 1)
        if inode <= 0 or block >> self._log_group >= self._groups:
            raise GuestMissing(f"xfs: no inode {inode}")
        return self.block_offset(block) + index * self.inode_size

    def block_offset(self, block: int) -> int:
        """Where a file system block, named by group and place in the group, stands on the device."""
        group, place = block >> self._log_group, block & ((1 << self._log_group) - 1)
        if group >= self._groups or place >= self._group_blocks:
            raise GuestDamaged(f"xfs: no block {block:#x}")
        return (group * self._group_blocks + place) * self.block_size
