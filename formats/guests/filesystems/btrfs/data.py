"""btrfs: the content of files, in extents that may be compressed or stand in the tree."""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

import zstandard
from dissect.util.compression import lzo

from holdfast.formats.guests.filesystems.base.content import MAX_EXTENTS, VolumeExtent, add_extent, read_extents
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.btrfs.chunks import Chunks
from holdfast.formats.guests.values.values import GuestDamaged

_INLINE = 0
_PREALLOCATED = 2
_ZLIB = 1
_LZO = 2
_ZSTD = 3
_HEAD = struct.Struct("<QQBBHB")
_PLACE = struct.Struct("<QQQQ")
_MAX_COMPRESSED = 1 << 20
"""Bytes of a compressed extent, packed or not; btrfs makes them of 128 KiB at most."""
_MAX_INLINE = 64 << 10


class StoredExtent(NamedTuple):
    """`data` when it stands in the tree; a hole when `logical` is 0; else bytes from `skip` of what the
    stored run decompresses to."""

    start: int
    length: int
    compression: int
    data: bytes | None
    logical: int
    stored: int
    skip: int
    unpacked: int


_start_of = attrgetter("start")


def parse_extents(items: Iterable[tuple[int, bytes]], inode: int) -> list[StoredExtent]:
    """The extents of a file, from (offset in the file, item); GuestDamaged when they overlap."""
    found: list[StoredExtent] = []
    end = 0
    for start, item in items:
        _, unpacked, compression, encryption, other, kind = _HEAD.unpack_from(item)
        if encryption or other or compression > _ZSTD:
            raise GuestDamaged(f"btrfs: inode {inode}: an extent is encoded in an unknown way")
        if kind == _INLINE:
            if unpacked > _MAX_INLINE:
                raise GuestDamaged(f"btrfs: inode {inode}: {unpacked} bytes stand in the tree")
            extent = StoredExtent(start, unpacked, compression, item[_HEAD.size :], 0, 0, 0, unpacked)
        else:
            logical, stored, skip, length = _PLACE.unpack_from(item, _HEAD.size)
            if compression and logical and max(stored, unpacked) > _MAX_COMPRESSED:
                raise GuestDamaged(f"btrfs: inode {inode}: {unpacked} bytes are compressed as one")
            if kind == _PREALLOCATED:
                logical = compression = 0
            # What is not compressed has its size in `stored`: Linux never used the other, and wrote it wrong.
            elif logical and skip + length > (unpacked if compression else stored):
                raise GuestDamaged(f"btrfs: inode {inode}: an extent reaches past its end")
            extent = StoredExtent(start, length, compression, None, logical, stored, skip, unpacked)
        if start < end or not extent.length or start + extent.length >= 1 << 63:
            raise GuestDamaged(f"btrfs: inode {inode}: its extents overlap at {start}")
        if len(found) >= MAX_EXTENTS:
            raise GuestDamaged(f"btrfs: inode {inode} is in more than {MAX_EXTENTS} extents")
        end = start + extent.length
        found.append(extent)
    return found


def plain_extents(extents: Sequence[StoredExtent], chunks: Chunks) -> list[VolumeExtent] | None:
    """The pieces of a file; None when some of it is compressed or stands in the tree."""
    pieces: list[VolumeExtent] = []
    for extent in extents:
        if extent.data is not None or extent.compression:
            return None
        if extent.logical:
            for piece in chunks.pieces(extent.start, extent.length, extent.logical + extent.skip):
                add_extent(pieces, *piece)
    return pieces


class MixedContent:
    """Content of which parts are compressed or stand in the tree. The extent unpacked last is kept."""

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
        if extent.data is None and not extent.logical:
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
            data = self._run(extent.logical + extent.skip + inside, length)
        return data + bytes(length - len(data))  # packed extents end where only zeros follow

    def _unpack(self, extent: StoredExtent) -> bytes:
        logical, data = self._unpacked
        if logical != extent.logical:
            packed = self._run(extent.logical, extent.stored)
            data = unpack(packed, extent.compression, extent.unpacked, self._sector)
            self._unpacked = (extent.logical, data)
        return data

    def _run(self, logical: int, length: int) -> bytes:
        pieces = list(self._chunks.pieces(0, length, logical))
        return read_extents(self._device, pieces, length, 0, length)


def unpack(data: bytes, compression: int, size: int, sector: int) -> bytes:
    """Decompress an extent of at most `size` bytes."""
    try:
        if compression == _ZLIB:
            return zlib.decompressobj().decompress(data, max(size, 1))
        if compression == _ZSTD:
            declared = zstandard.get_frame_parameters(data)
            if declared.content_size not in (zstandard.CONTENTSIZE_UNKNOWN, 0) and (
                declared.content_size > size
            ):
                raise GuestDamaged(f"btrfs: an extent of {size} bytes unpacks to {declared.content_size}")
            unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_COMPRESSED)
            return unpacker.decompress(data, max_output_size=max(size, 1))
        return _unlzo(data, size, sector)
    except (zlib.error, zstandard.ZstdError) as error:
        raise GuestDamaged(f"btrfs: an extent cannot be unpacked: {error}") from error


def _unlzo(data: bytes, size: int, sector: int) -> bytes:
    """Segments of a sector each, none of whose headers crosses the end of a sector (fs/btrfs/lzo.c)."""
    (total,) = struct.unpack_from("<I", data)
    if total > len(data):
        raise GuestDamaged(f"btrfs: an extent holds {total} packed bytes of {len(data)}")
    out = bytearray()
    place = 4
    while place < total and len(out) < size:
        left = sector - place % sector
        if left < 4:
            place += left
        (length,) = struct.unpack_from("<I", data, place)
        place += 4
        if not length or place + length > total:
            raise GuestDamaged(f"btrfs: a packed segment of {length} bytes")
        out += _unlzo_segment(data[place : place + length], sector)
        place += length
    return bytes(out[:size])


def _unlzo_segment(data: bytes, size: int) -> bytes:
    try:
        unpacked: bytes = lzo.decompress(data, False, size)
    except BaseException as error:
        # The decoder is written in Rust, and panics where a match begins before the data: no Exception.
        if type(error).__name__ == "PanicException":
            raise GuestDamaged(f"btrfs: a packed segment is damaged: {error}") from error
        raise
    return unpacked
