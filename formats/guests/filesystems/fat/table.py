"""FAT: the boot sector, and chains of clusters out of the table.

Source: Microsoft "FAT: General Overview of On-Disk Format" 1.03, and fs/fat of Linux where they differ.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence

from holdfast.formats.guests.filesystems.base.content import VolumeExtent, add_extent
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.values import GuestDamaged

_FAT12_CLUSTERS = 4084
_STEP = 4096
"""Entries of the table taken at once."""
SLOT = 32
"""Bytes of an entry in a folder, of exFAT too."""
_READ_STEP = 64 << 10


class Boot:
    """The boot sector, checked. Raises GuestDamaged when it is none of FAT."""

    def __init__(self, device: BlockDevice) -> None:
        raw = device.read(0, 512)
        sector, per_cluster, reserved, tables, root_entries, small_total, media, small_table = (
            struct.unpack_from("<HBHBHHBH", raw, 11)
        )
        (large_total,) = struct.unpack_from("<I", raw, 32)
        (large_table, extended) = struct.unpack_from("<IH", raw, 36)
        if sector not in (512, 1024, 2048, 4096) or not per_cluster or per_cluster & (per_cluster - 1):
            raise GuestDamaged(f"fat: sectors of {sector} bytes, clusters of {per_cluster} sectors")
        if not reserved or not 1 <= tables <= 4 or (media < 0xF8 and media != 0xF0):
            raise GuestDamaged(f"fat: {reserved} reserved sectors, {tables} tables, media {media:#x}")
        table = small_table or large_table
        total = small_total or large_total
        self.cluster_size = sector * per_cluster
        self.root_size = root_entries * 32
        self.root_offset = (reserved + tables * table) * sector
        root_sectors = -(-self.root_size // sector)
        self.data_offset = self.root_offset + root_sectors * sector
        self.clusters = (total - self.data_offset // sector) // per_cluster
        if not table or self.clusters < 1 or self.data_offset >= device.size:
            raise GuestDamaged(f"fat: {total} sectors, tables of {table}")
        self.root_cluster = 0
        active = 0
        if not small_table:
            self.bits = 32
            (self.root_cluster,) = struct.unpack_from("<I", raw, 44)
            active = extended & 0xF if extended & 0x80 else 0
            label = raw[71:82]
        else:
            self.bits = 16 if self.clusters > _FAT12_CLUSTERS else 12
            label = raw[43:54]
        self.label = label if raw[66 if self.bits == 32 else 38] == 0x29 else b""
        # Some programs make a table too short for the last clusters: they are not used, as in Linux.
        self.clusters = min(self.clusters, table * sector * 8 // self.bits - 2)
        if active >= tables or self.clusters < 1:
            raise GuestDamaged(f"fat: {self.clusters} clusters in {tables} tables of {table} sectors")
        self.table_offset = (reserved + active * table) * sector


def slots(device: BlockDevice, pieces: Sequence[VolumeExtent]) -> Iterator[tuple[int, bytes]]:
    """(number, entry) of what stands in a folder up to its end. The number is the place on the device, in
    entries."""
    for _, length, start in pieces:
        for step in range(0, length, _READ_STEP):
            data = device.read(start + step, min(_READ_STEP, length - step))
            number = (start + step) // SLOT
            for offset in range(0, len(data), SLOT):
                if data[offset] == 0:
                    return
                yield number + offset // SLOT, data[offset : offset + SLOT]


class FatTable:
    """Chains of clusters. `first` is the place of cluster 2 on the device; `mask` of the bits that count in
    an entry (28 of 32 in FAT32)."""

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
        self._device = device
        self._offset = offset
        self._bits = bits
        self._end = clusters + 2
        self._first = first
        self._cluster_size = cluster_size
        self._mask = mask
        self._at = -1
        self._step = array("I" if bits == 32 else "H")

    def chain(self, cluster: int, size: int, *, exact: bool = True) -> list[VolumeExtent]:
        """The pieces of a file of `size` bytes, the last one of a whole cluster. `exact`: GuestDamaged when
        the chain is shorter; otherwise the chain decides and `size` is the limit."""
        pieces: list[VolumeExtent] = []
        needed = -(-size // self._cluster_size)
        if not exact:
            needed = min(needed, self._end - 2)
        elif needed > self._end - 2:
            raise GuestDamaged(f"fat: a file of {size} bytes in {self._end - 2} clusters")
        position = 0
        while position < needed:
            if not 2 <= cluster < self._end:
                if exact:
                    raise GuestDamaged(f"fat: a chain of {position} clusters where {needed} are needed")
                return pieces
            first, limit = cluster, min(cluster + needed - position, self._end)
            cluster = self.next(first)
            last = first + 1
            while cluster == last and last < limit:
                cluster = self.next(last)
                last += 1
            count = last - first
            add_extent(pieces, position * self._cluster_size, count * self._cluster_size, self.place(first))
            position += count
        if not exact and 2 <= cluster < self._end:
            raise GuestDamaged(f"fat: a chain of more than {needed} clusters")
        return pieces

    def run(self, cluster: int, size: int) -> list[VolumeExtent]:
        """The piece of a file in clusters that follow each other."""
        needed = -(-size // self._cluster_size)
        if not needed:
            return []
        if cluster < 2 or cluster + needed > self._end:
            raise GuestDamaged(f"fat: no clusters {cluster} to {cluster + needed}")
        return [(0, needed * self._cluster_size, self.place(cluster))]

    def place(self, cluster: int) -> int:
        """Where a cluster lies on the device."""
        return self._first + (cluster - 2) * self._cluster_size

    def next(self, cluster: int) -> int:
        """What the table says of a cluster: the next one; below 2 or past the end at the end."""
        if not 2 <= cluster < self._end:
            return 0
        if self._bits == 12:
            (pair,) = struct.unpack("<H", self._device.read(self._offset + cluster * 3 // 2, 2))
            return int(pair >> 4 if cluster & 1 else pair & 0xFFF)
        number, inside = divmod(cluster, _STEP)
        if number != self._at:
            width = self._bits // 8
            start = number * _STEP
            raw = self._device.read(self._offset + start * width, min(_STEP, self._end - start) * width)
            self._step = array("I" if width == 4 else "H", raw)
            if sys.byteorder == "big":
                self._step.byteswap()
            self._at = number
        return self._step[inside] & self._mask
