"""Reads the disks of a VMA archive without unpacking it.

Clusters are in the order in which the guest's disks were read and written, so reading at an offset needs an
index: 8 bytes per cluster (128 MiB for a disk of 1 TiB), twice that while it is built. It is built from the
extent headers, and its size follows from the extents that exist and not from the sizes in the header.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from typing import Final

from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.files import fill_exactly, read_exactly
from holdfast.formats.disks.base.image import ExtentKind, ImageExtent, ImageFile
from holdfast.ingest.exports.vma_format import (
    BLOCK,
    CLUSTER,
    CLUSTERS,
    EXTENT_HEADER,
    VmaDevice,
    VmaHeader,
    extent_clusters,
    read_header,
)

_ALL: Final = 0xFFFF
_STORED: Final = bytes(mask.bit_count() for mask in range(1 << 16))
"""Number of stored blocks by mask."""
_MASK_BITS: Final = 16
_UNIT: Final = 512
"""Bytes; all parts of an archive start at multiples of it."""
VMSTATE: Final = "vmstate"
"""The device that holds the VM's memory: a stream, whose size in the header is only an estimate."""


class VmaArchive:
    """The index of an archive. Raises ImageDamaged.

    It has one word per cluster of each device but `vmstate`: the file offset in units of 512 bytes, shifted
    by 16 bits, and the mask of stored blocks.
    """

    def __init__(self, file: ImageFile) -> None:
        self.file = file
        self.header: VmaHeader = read_header(file)
        if not any(device.name != VMSTATE for device in self.header.devices):
            raise ImageDamaged(file.name, "the archive has no disk", offset=4096)
        offsets, fields = self._walk()
        self._index = self._sort(offsets, fields)

    def image(self, device: VmaDevice) -> VmaImage:
        return VmaImage(self.file, device, self._index[device.id])

    def _walk(self) -> tuple[array[int], array[int]]:
        """File offsets of all extents, and the concatenated cluster fields of their headers."""
        offsets, fields = array("Q"), array("Q")
        limit = sum(device.clusters for device in self.header.devices)
        at = self.header.size
        while at < self.file.size:
            header = read_exactly(self.file, at, EXTENT_HEADER, "an extent's header")
            blocks, clusters = extent_clusters(header, self.header.uuid, self.file.name, at)
            end = at + EXTENT_HEADER + blocks * BLOCK
            if len(offsets) >= limit:
                raise ImageDamaged(self.file.name, "more extents than its devices have clusters", offset=at)
            if blocks > CLUSTERS * 16 or end > self.file.size:
                raise ImageDamaged(
                    self.file.name,
                    f"an extent reaches to {end}, the file ends at {self.file.size}",
                    offset=at,
                )
            offsets.append(at)
            fields.frombytes(clusters)
            at = end
        if sys.byteorder == "little":
            fields.byteswap()
        return offsets, fields

    def _sort(self, offsets: array[int], fields: array[int]) -> dict[int, array[int]]:
        name = self.file.name
        devices = {device.id: device for device in self.header.devices}
        present = [0] * 256
        for field in fields:
            present[field >> 32 & 0xFF] += 1
        index: dict[int, array[int]] = {}
        for device in self.header.devices:
            if device.name == VMSTATE:
                continue
            if present[device.id] != device.clusters:
                raise ImageDamaged(
                    name,
                    f"{device.name} has {present[device.id]} clusters of {device.clusters}: the archive is "
                    "cut off or was never finished",
                    offset=self.file.size,
                )
            index[device.id] = array("Q", bytes(8)) * device.clusters
        for number, at in enumerate(offsets):
            data = at + EXTENT_HEADER
            for field in fields[number * CLUSTERS : (number + 1) * CLUSTERS]:
                device_id, cluster, mask = field >> 32 & 0xFF, field & 0xFFFFFFFF, field >> 48
                if not device_id:
                    if mask:
                        raise ImageDamaged(name, "blocks of no device", offset=at)
                    continue
                table = index.get(device_id)
                if table is not None:
                    if cluster >= len(table) or table[cluster]:
                        what = "twice" if cluster < len(table) else "behind its end"
                        raise ImageDamaged(
                            name, f"cluster {cluster} of {devices[device_id].name} is there {what}", offset=at
                        )
                    table[cluster] = data // _UNIT << _MASK_BITS | mask
                elif device_id not in devices:
                    raise ImageDamaged(
                        name, f"a cluster of device {device_id}, which is not listed", offset=at
                    )
                data += _STORED[mask] * BLOCK
            end = offsets[number + 1] if number + 1 < len(offsets) else self.file.size
            if data != end:
                raise ImageDamaged(name, "an extent's blocks are not as many as its clusters say", offset=at)
        return index


class VmaImage:
    """One disk of an archive."""

    format = "vma"

    def __init__(self, file: ImageFile, device: VmaDevice, table: array[int]) -> None:
        self._file = file
        self._what = f"a cluster of {device.name}"
        self._table = table
        self.size = device.size

    def extents(self) -> Iterator[ImageExtent]:
        start, kind = 0, ExtentKind.ZERO
        for number, word in enumerate(self._table):
            mask = word & _ALL
            if mask in (0, _ALL):
                here = ExtentKind.DATA if mask else ExtentKind.ZERO
                if here is not kind:
                    yield from self._run(start, number * CLUSTER, kind)
                    start, kind = number * CLUSTER, here
                continue
            for block in range(16):
                here = ExtentKind.DATA if mask >> block & 1 else ExtentKind.ZERO
                if here is not kind:
                    edge = number * CLUSTER + block * BLOCK
                    yield from self._run(start, edge, kind)
                    start, kind = edge, here
        yield from self._run(start, self.size, kind)

    def _run(self, start: int, end: int, kind: ExtentKind) -> Iterator[ImageExtent]:
        end = min(end, self.size)
        if end > start:
            yield ImageExtent(start, end - start, kind)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Read a range of the disk. One read fetches all blocks that are adjacent in disk and file."""
        end = offset + len(buffer)
        start, file_offset = offset, -1  # of the adjacent blocks that are collected; -1 for zeros
        for at, here in self._blocks(offset, end):
            if here == (file_offset + at - start if file_offset >= 0 else -1):
                continue
            self._fill(buffer[start - offset : at - offset], file_offset)
            start, file_offset = at, here
        self._fill(buffer[start - offset :], file_offset)

    def _blocks(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """(disk offset, file offset or -1 for zeros) of the blocks of [offset, end), in order."""
        for number in range(offset // CLUSTER, -(-end // CLUSTER)):
            word = self._table[number]
            mask, file_offset = word & _ALL, (word >> _MASK_BITS) * _UNIT
            if mask in (0, _ALL):
                first = max(offset, number * CLUSTER)
                yield first, file_offset + first - number * CLUSTER if mask else -1
                continue
            for block in range(16):
                at = number * CLUSTER + block * BLOCK
                stored = mask >> block & 1
                first = max(offset, at)
                if first < min(at + BLOCK, end):
                    yield first, file_offset + first - at if stored else -1
                file_offset += BLOCK * stored

    def _fill(self, buffer: memoryview, file_offset: int) -> None:
        if not buffer:
            return
        if file_offset < 0:
            buffer[:] = bytes(len(buffer))
        else:
            fill_exactly(self._file, buffer, file_offset, self._what)
