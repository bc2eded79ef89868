"""XFS: whether the log holds changes that are not in their place yet.

Source: xlog_find_head and xlog_find_tail in fs/xfs/xfs_log_recover.c of Linux. A log of blocks of 512 bytes,
written round and round; each block starts with the number of the round.
"""

from __future__ import annotations

import struct

from holdfast.formats.guests.filesystems.base.interface import BlockDevice

_BLOCK = 512
_MAGIC = 0xFEEDBABE
_UNMOUNT = 0x20
_LONGEST = 2 * (256 << 10) // _BLOCK
"""Blocks of a record: 256 KiB with its heads, and what a log for stripes puts behind them."""
_HEAD_UNIT = 32 << 10
_RECORD = struct.Struct(">IIII")


def is_clean(device: BlockDevice, start: int, size: int) -> bool:
    """Whether the log of `size` bytes at `start` ends with the mark of an unmount. May raise GuestDamaged."""
    log = _Log(device, start, size // _BLOCK)
    head = log.head()
    for back in range(1, min(_LONGEST, log.blocks) + 1):
        place = (head - back) % log.blocks
        magic, _, version, length = _RECORD.unpack(log.read(place, _RECORD.size))
        if magic == _MAGIC:
            heads = 1
            if version & 2:
                heads = max(-(-struct.unpack(">I", log.read(place, 4, 320))[0] // _HEAD_UNIT), 1)
            (operations,) = struct.unpack(">I", log.read(place, 4, 40))
            flags = log.read((place + heads) % log.blocks, 10)[9]
            ends = (place + heads + -(-length // _BLOCK)) % log.blocks
            return ends == head % log.blocks and operations == 1 and bool(flags & _UNMOUNT)
    return False


class _Log:
    def __init__(self, device: BlockDevice, start: int, blocks: int) -> None:
        self.blocks = blocks
        self._device = device
        self._start = start

    def read(self, block: int, length: int, offset: int = 0) -> bytes:
        return self._device.read(self._start + block * _BLOCK + offset, length)

    def head(self) -> int:
        """The block that is written next: the first of the older round, or that was never written."""
        newest = self._round(0)
        low, high = 0, self.blocks
        if self._round(high - 1) == newest:
            return 0
        while high - low > 1:
            middle = (low + high) // 2
            if self._round(middle) == newest:
                low = middle
            else:
                high = middle
        return high

    def _round(self, block: int) -> int:
        first, second = struct.unpack(">II", self.read(block, 8))
        return int(second if first == _MAGIC else first)
