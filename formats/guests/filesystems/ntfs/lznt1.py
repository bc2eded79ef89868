"""LZNT1, the compression of NTFS: chunks of 4 KiB, each stored or packed (MS-XCA, section 2.5).

A chunk begins with 2 bytes: its size less 1 (12 bits), and whether it is packed (the top bit). A packed chunk
consists of groups: a byte of flags, then 8 items, each a plain byte or 2 bytes that copy from the chunk's
output so far.
"""

from __future__ import annotations

import struct
from typing import Final

from holdfast.formats.guests.values.damage import StructureDamaged

_CHUNK: Final = 4096
_HEADER: Final = struct.Struct("<H")
_STRUCTURE: Final = "ntfs compressed data"


def decompress(data: bytes, size: int) -> bytes:
    """Unpack to `size` bytes; bytes behind the end of the data are zeros. Raises StructureDamaged."""
    out = bytearray()
    position = 0
    while position + _HEADER.size <= len(data) and len(out) < size:
        (header,) = _HEADER.unpack_from(data, position)
        if header == 0:
            break
        position += _HEADER.size
        end = position + (header & 0xFFF) + 1
        if end > len(data):
            raise StructureDamaged(_STRUCTURE, "end of a chunk", end, f"at most {len(data)}")
        chunk = _chunk(data, position, end) if header & 0x8000 else data[position:end]
        out += chunk
        if len(chunk) < _CHUNK:  # only the last chunk of a unit may be short
            out += bytes(-len(out) % _CHUNK)
        position = end
    del out[size:]
    return bytes(out) + bytes(size - len(out))


def _chunk(data: bytes, position: int, end: int) -> bytes:
    """Unpack the chunk in [position, end) of the data."""
    out = bytearray()
    bits = 12
    limit = 16
    while position < end:
        flags = data[position]
        position += 1
        if flags == 0:
            out += data[position : min(position + 8, end)]
            position += 8
            continue
        for _ in range(8):
            if position >= end:
                break
            if flags & 1:
                if position + 2 > end:
                    raise StructureDamaged(_STRUCTURE, "end of a copy", position + 2, f"at most {end}")
                token = data[position] | data[position + 1] << 8
                position += 2
                while len(out) > limit:  # the longer the output so far, the more bits has the distance
                    bits -= 1
                    limit <<= 1
                _copy(out, (token >> bits) + 1, (token & ((1 << bits) - 1)) + 3)
            else:
                out.append(data[position])
                position += 1
            flags >>= 1
    if len(out) > _CHUNK:
        raise StructureDamaged(_STRUCTURE, "size of an unpacked chunk", len(out), f"at most {_CHUNK} bytes")
    return bytes(out)


def _copy(out: bytearray, distance: int, length: int) -> None:
    """Append `length` bytes from `distance` before the end; they may overlap what is appended."""
    start = len(out) - distance
    if start < 0:
        raise StructureDamaged(_STRUCTURE, "distance of a copy", distance, f"1 to {len(out)}")
    if len(out) + length > _CHUNK:
        raise StructureDamaged(_STRUCTURE, "length of a copy", length, f"at most {_CHUNK - len(out)}")
    if distance >= length:
        out += out[start : start + length]
    else:
        pattern = bytes(out[start:])
        out += (pattern * (length // distance + 1))[:length]
