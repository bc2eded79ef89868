"""FAT and exFAT: the chains of clusters in the table, and the slots of directories."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from holdfast.formats.guests.filesystems.base.content import VolumeExtent, add_extent
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.fat.layout import FIRST_CLUSTER, SLOT
from holdfast.formats.guests.values.damage import StructureDamaged

_STEP: Final = 4096
"""Entries of the table that are read at a time."""
_READ_STEP: Final = 64 << 10
"""Bytes of a directory that are read at a time."""
_PAIR: Final = struct.Struct("<H")
"""Two bytes that hold an entry of FAT12, of 12 bits."""


def slots(device: BlockDevice, extents: Sequence[VolumeExtent]) -> Iterator[tuple[int, bytes]]:
    """Yield (number, 32 bytes) of each slot of a directory up to its end mark. The number is the slot's
    offset on the device, in slots."""
    for _, length, start in extents:
        for step in range(0, length, _READ_STEP):
            data = device.read(start + step, min(_READ_STEP, length - step))
            number = (start + step) // SLOT
            for offset in range(0, len(data), SLOT):
                if data[offset] == 0:
                    return
                yield number + offset // SLOT, data[offset : offset + SLOT]


class FatTable:
    """The chains of clusters of a volume."""

    def __init__(
        self,
        device: BlockDevice,
        offset: int,
        *,
        bits: int,
        clusters: int,
        first: int,
        cluster_size: int,
        mask: int = 0xFFFFFFFF,
    ) -> None:
        """`offset` is the table's on the device, `bits` the size of its entries and `mask` those that count;
        `first` is the offset of cluster 2 on the device."""
        self._device = device
        self._offset = offset
        self._bits = bits
        self._end = clusters + FIRST_CLUSTER
        self._first = first
        self._cluster_size = cluster_size
        self._mask = mask
        self._step_number = -1
        self._step = array("I" if bits == 32 else "H")

    def chain(self, cluster: int, size: int, *, exact: bool = True) -> list[VolumeExtent]:
        """The extents of a file of `size` bytes that begins at a cluster; the last extent ends with its
        cluster.

        With `exact`, raises StructureDamaged when the chain is shorter. Without, the chain decides, and
        `size` is the limit.
        """
        extents: list[VolumeExtent] = []
        needed = -(-size // self._cluster_size)
        clusters = self._end - FIRST_CLUSTER
        if not exact:
            needed = min(needed, clusters)
        elif needed > clusters:
            raise StructureDamaged(
                "fat file", "number of clusters for its size", needed, f"at most {clusters}"
            )
        position = 0
        while position < needed:
            if not FIRST_CLUSTER <= cluster < self._end:
                if exact:
                    raise StructureDamaged(
                        "fat file", "length of its chain of clusters", position, f"{needed}"
                    )
                return extents
            first, limit = cluster, min(cluster + needed - position, self._end)
            cluster = self.next(first)
            last = first + 1
            while cluster == last and last < limit:
                cluster = self.next(last)
                last += 1
            count = last - first
            size, offset = count * self._cluster_size, position * self._cluster_size
            add_extent(extents, offset, size, self.place(first))
            position += count
        if not exact and FIRST_CLUSTER <= cluster < self._end:
            field = "clusters of its chain"
            raise StructureDamaged("fat directory", field, f"more than {needed}", f"at most {needed}")
        return extents

    def contiguous(self, cluster: int, size: int) -> list[VolumeExtent]:
        """The extent of a file of `size` bytes in clusters that follow each other."""
        needed = -(-size // self._cluster_size)
        if not needed:
            return []
        if cluster < FIRST_CLUSTER or cluster + needed > self._end:
            clusters = f"{cluster} to {cluster + needed - 1}"
            limit = f"{FIRST_CLUSTER} to {self._end - 1}"
            raise StructureDamaged("fat file", "range of its clusters", clusters, f"inside {limit}")
        return [(0, needed * self._cluster_size, self.place(cluster))]

    def place(self, cluster: int) -> int:
        """Byte offset of a cluster on the device."""
        return self._first + (cluster - FIRST_CLUSTER) * self._cluster_size

    def next(self, cluster: int) -> int:
        """The table's entry of a cluster: the next cluster; below 2 or past the last one at a file's end."""
        if not FIRST_CLUSTER <= cluster < self._end:
            return 0
        if self._bits == 12:
            (pair,) = _PAIR.unpack(self._device.read(self._offset + cluster * 3 // 2, _PAIR.size))
            return int(pair >> 4 if cluster & 1 else pair & 0xFFF)
        number, inside = divmod(cluster, _STEP)
        if number != self._step_number:
            width = self._bits // 8
            start = number * _STEP
            raw = self._device.read(self._offset + start * width, min(_STEP, self._end - start) * width)
            self._step = array("I" if width == 4 else "H", raw)
            if sys.byteorder == "big":
                self._step.byteswap()
            self._step_number = number
        return self._step[inside] & self._mask
