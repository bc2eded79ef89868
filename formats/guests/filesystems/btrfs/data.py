"""btrfs: the content of files, in extents that may be compressed or inline in the tree."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.content import (
    MAX_EXTENTS,
    VolumeExtent,
    add_extent,
    read_extents,
)
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.btrfs.chunks import Chunks
from holdfast.formats.guests.filesystems.btrfs.compression import unpack
from holdfast.formats.guests.filesystems.btrfs.layout import (
    FILE_EXTENT,
    FILE_EXTENT_RANGE,
    INLINE,
    MAX_COMPRESSED,
    MAX_INLINE,
    PREALLOCATED,
    ZSTD,
)
from holdfast.formats.guests.values.damage import GuestUnsupported, StructureDamaged


class StoredExtent(NamedTuple):
    """`length` bytes of a file from `start`.

    `data` holds them when they are inline in the tree. Otherwise they are a hole when `address` is 0. Else
    `stored` bytes at the logical address `address` decompress to `unpacked` bytes, of which they are those
    from `skip` on.
    """

    start: int
    length: int
    compression: int
    data: bytes | None
    address: int
    stored: int
    skip: int
    unpacked: int


_start_of = attrgetter("start")


def parse_extents(items: Iterable[tuple[int, bytes]], inode: int) -> list[StoredExtent]:
    """The extents of a file, from (offset in the file, item). Raises StructureDamaged, also when extents
    overlap."""
    found: list[StoredExtent] = []
    end = 0
    for start, item in items:
        extent = _parse_extent(start, item, inode)
        if start < end:
            raise _damaged(inode, "start of an extent", start, f"at least {end}, so that they do not overlap")
        end = start + extent.length
        if not extent.length or end >= 1 << 63:
            limit = f"1 to {(1 << 63) - 1 - start} bytes"
            raise _damaged(inode, f"length of the extent at {start}", extent.length, limit)
        if len(found) >= MAX_EXTENTS:
            raise _damaged(inode, "number of extents", len(found) + 1, f"at most {MAX_EXTENTS}")
        found.append(extent)
    return found


def _parse_extent(start: int, item: bytes, inode: int) -> StoredExtent:
    _, unpacked, compression, encryption, other, kind = FILE_EXTENT.unpack(item)
    if encryption or other or compression > ZSTD:
        encoding = f"compression {compression}, encryption {encryption}, other encoding {other}"
        raise GuestUnsupported(f"btrfs inode {inode}", f"the extent at {start} has {encoding}")
    if kind == INLINE:
        if unpacked > MAX_INLINE:
            raise _damaged(inode, "size of its inline extent", unpacked, f"at most {MAX_INLINE} bytes")
        return StoredExtent(start, unpacked, compression, item[FILE_EXTENT.size :], 0, 0, 0, unpacked)
    address, stored, skip, length = FILE_EXTENT_RANGE.unpack(item)
    if compression and address and max(stored, unpacked) > MAX_COMPRESSED:
        field = f"size of the compressed extent at {start}"
        raise _damaged(inode, field, max(stored, unpacked), f"at most {MAX_COMPRESSED} bytes")
    if kind == PREALLOCATED:
        address = compression = 0
    elif address:
        # The size of what is not compressed is `stored`: Linux never used `unpacked`, and wrote it wrong.
        size = unpacked if compression else stored
        if skip + length > size:
            raise _damaged(inode, f"end of the extent at {start}", skip + length, f"at most {size}")
    return StoredExtent(start, length, compression, None, address, stored, skip, unpacked)


def plain_extents(extents: Sequence[StoredExtent], chunks: Chunks) -> list[VolumeExtent] | None:
    """The extents of a file on the device; None when some of it is compressed or inline."""
    found: list[VolumeExtent] = []
    for extent in extents:
        if extent.data is not None or extent.compression:
            return None
        if extent.address:
            for start, length, offset in chunks.extents(
                extent.start, extent.length, extent.address + extent.skip
            ):
                add_extent(found, start, length, offset)
    return found


class MixedContent:
    """Content of which parts are compressed or inline. The extent unpacked last is kept."""

    def __init__(
        self, device: BlockDevice, chunks: Chunks, extents: Sequence[StoredExtent], size: int, sector: int
    ) -> None:
        self.cost = len(extents) * 4 + 2048
        self._device = device
        self._chunks = chunks
        self._extents = extents
        self._size = size
        self._sector = sector
        self._unpacked: tuple[int, bytes] = (-1, b"")

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self._size)
        if offset < 0 or offset >= end:
            return b""
        parts = []
        position = offset
        index = max(bisect_right(self._extents, offset, key=_start_of) - 1, 0)
        for extent in islice(self._extents, index, None):
            if extent.start >= end:
                break
            stop = min(extent.start + extent.length, end)
            if stop <= position:
                continue
            if extent.start > position:
                parts.append(bytes(extent.start - position))
                position = extent.start
            parts.append(self._part(extent, position - extent.start, stop - position))
            position = stop
        if position < end:
            parts.append(bytes(end - position))
        return b"".join(parts)

    def _part(self, extent: StoredExtent, inside: int, length: int) -> bytes:
        """`length` bytes of an extent from its offset `inside`."""
        if extent.data is None and not extent.address:
            return bytes(length)
        if extent.data is not None and not extent.compression:
            data = extent.data[inside : inside + length]
        elif extent.data is not None:
            data = unpack(extent.data, extent.compression, extent.unpacked, self._sector)
            data = data[inside : inside + length]
        elif extent.compression:
            inside += extent.skip
            data = self._unpack(extent)[inside : inside + length]
        else:
            data = self._stored(extent.address + extent.skip + inside, length)
        return data + bytes(length - len(data))  # packed extents end where only zeros follow

    def _unpack(self, extent: StoredExtent) -> bytes:
        address, data = self._unpacked
        if address != extent.address:
            packed = self._stored(extent.address, extent.stored)
            data = unpack(packed, extent.compression, extent.unpacked, self._sector)
            self._unpacked = (extent.address, data)
        return data

    def _stored(self, address: int, length: int) -> bytes:
        """Bytes at a logical address, as they are stored."""
        extents = list(self._chunks.extents(0, length, address))
        return read_extents(self._device, extents, length, 0, length)


def _damaged(inode: int, field: str, value: int, limit: str) -> StructureDamaged:
    return StructureDamaged(f"btrfs inode {inode}", field, value, limit)
