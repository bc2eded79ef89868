"""btrfs: unpacking compressed extents."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import zstandard
from dissect.util.compression import lzo

from holdfast.formats.guests.filesystems.btrfs.layout import MAX_COMPRESSED, ZLIB, ZSTD
from holdfast.formats.guests.values.damage import StructureDamaged

_STRUCTURE: Final = "btrfs compressed extent"
_LENGTH: Final = struct.Struct("<I")
"""Begins LZO data (bytes of it all, this included), and each of its segments (bytes that follow)."""


def unpack(data: bytes, compression: int, size: int, sector: int) -> bytes:
    """Decompress an extent to at most `size` bytes. `sector` is the sector size in bytes. Raises
    StructureDamaged."""
    try:
        if compression == ZLIB:
            return zlib.decompressobj().decompress(data, max(size, 1))
        if compression == ZSTD:
            return _unpack_zstd(data, size)
        return _unpack_lzo(data, size, sector)
    except (zlib.error, zstandard.ZstdError) as error:
        raise StructureDamaged(_STRUCTURE, "packed data", str(error), "zlib or zstd data") from error


def _unpack_zstd(data: bytes, size: int) -> bytes:
    declared = zstandard.get_frame_parameters(data).content_size
    if declared not in (zstandard.CONTENTSIZE_UNKNOWN, 0) and declared > size:
        raise StructureDamaged(_STRUCTURE, "size in its zstd frame", declared, f"at most {size} bytes")
    unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_COMPRESSED)
    return unpacker.decompress(data, max_output_size=max(size, 1))


def _unpack_lzo(data: bytes, size: int, sector: int) -> bytes:
    """Unpack segments of a sector each, none of whose headers crosses the end of a sector
    (fs/btrfs/lzo.c)."""
    (total,) = _LENGTH.unpack_from(data)
    if total > len(data):
        raise StructureDamaged(_STRUCTURE, "size of its LZO data", total, f"at most {len(data)} bytes")
    out = bytearray()
    position = _LENGTH.size
    while position < total and len(out) < size:
        left = sector - position % sector
        if left < _LENGTH.size:
            position += left
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if not length or position + length > total:
            limit = f"1 to {max(total - position, 1)} bytes"
            raise StructureDamaged(_STRUCTURE, "size of a packed segment", length, limit)
        out += _unpack_lzo_segment(data[position : position + length], sector)
        position += length
    return bytes(out[:size])


def _unpack_lzo_segment(data: bytes, size: int) -> bytes:
    try:
        unpacked: bytes = lzo.decompress(data, False, size)
    except BaseException as error:
        # The decoder is written in Rust, and panics where a match begins before the data: no Exception.
        if type(error).__name__ == "PanicException":
            raise StructureDamaged(_STRUCTURE, "packed segment", str(error), "LZO data") from error
        raise
    return unpacked
