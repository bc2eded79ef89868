"""XFS: whether the log holds changes that are not yet in the file system itself.

Source: xlog_find_head and xlog_find_tail in fs/xfs/xfs_log_recover.c of Linux. The log is a ring of blocks of
512 bytes; each block begins with the number of the round in which it was written.
"""

from __future__ import annotations

from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.xfs.layout import (
    LOG_BLOCK,
    LOG_CYCLES,
    LOG_HEADER_UNIT,
    LOG_MAGIC,
    LOG_OPERATION,
    LOG_RECORD,
    LOG_RECORD_BLOCKS,
    LOG_UNMOUNT,
    LOG_VERSION_2,
)


def is_clean(device: BlockDevice, start: int, size: int) -> bool:
    """Whether the log of `size` bytes at `start` ends with the record that an unmount writes. Raises
    GuestDamaged."""
    log = _Log(device, start, size // LOG_BLOCK)
    head = log.head()
    for back in range(1, min(LOG_RECORD_BLOCKS, log.blocks) + 1):
        block = (head - back) % log.blocks
        record = LOG_RECORD.read(log.read(block, LOG_RECORD.size))
        if record.magic == LOG_MAGIC:
            headers = 1
            if record.version & LOG_VERSION_2:
                headers = max(-(-record.header_size // LOG_HEADER_UNIT), 1)
            operation = LOG_OPERATION.read(log.read((block + headers) % log.blocks, LOG_OPERATION.size))
            end = (block + headers + -(-record.length // LOG_BLOCK)) % log.blocks
            is_unmount = record.operations == 1 and bool(operation.flags & LOG_UNMOUNT)
            return end == head % log.blocks and is_unmount
    return False


class _Log:
    """The ring of `blocks` blocks at `start`."""

    def __init__(self, device: BlockDevice, start: int, blocks: int) -> None:
        self.blocks = blocks
        self._device = device
        self._start = start

    def read(self, block: int, length: int) -> bytes:
        """The first bytes of a block."""
        return self._device.read(self._start + block * LOG_BLOCK, length)

    def head(self) -> int:
        """The block that is written next: the first one of the older round, or the first never written."""
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
        first, second = LOG_CYCLES.unpack(self.read(block, LOG_CYCLES.size))
        return int(second if first == LOG_MAGIC else first)
