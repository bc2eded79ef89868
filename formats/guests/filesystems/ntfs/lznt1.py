"""LZNT1, the compression of NTFS: chunks of 4 KiB, each stored or a list of copies (MS-XCA, section 2.5)."""

from __future__ import annotations

import struct

from holdfast.formats.guests.values.values import GuestDamaged

_CHUNK = 4096


def decompress(data: bytes, size: int) -> bytes:
    """At most `size` bytes; what the data does not reach is zeros, as in NTFS."""
    out = bytearray()
    place = 0
    while place + 2 <= len(data) and len(out) < size:
        (head,) = struct.unpack_from("<H", data, place)
        if head == 0:
            break
        place += 2
        end = place + (head & 0xFFF) + 1
        if end > len(data):
            raise GuestDamaged("ntfs: compressed data ends early")
        chunk = _chunk(data, place, end) if head & 0x8000 else data[place:end]
        out += chunk
        if len(chunk) < _CHUNK:  # only the last chunk of a unit may be short
            out += bytes(-len(out) % _CHUNK)
        place = end
    del out[size:]
    return bytes(out) + bytes(size - len(out))


def _chunk(data: bytes, place: int, end: int) -> bytes:
    out = bytearray()
    bits = 12
    limit = 16
    while place < end:
        flags = data[place]
        place += 1
        if flags == 0:
            out += data[place : min(place + 8, end)]
            place += 8
            continue
        for _ in range(8):
            if place >= end:
                break
            if flags & 1:
                if place + 2 > end:
                    raise GuestDamaged("ntfs: compressed data ends in a copy")
                token = data[place] | data[place + 1] << 8
                place += 2
                while len(out) > limit:  # the farther in the chunk, the more bits for the distance
                    bits -= 1
                    limit <<= 1
                distance = (token >> bits) + 1
                length = (token & ((1 << bits) - 1)) + 3
                start = len(out) - distance
                if start < 0 or len(out) + length > _CHUNK:
                    raise GuestDamaged("ntfs: compressed data copies from outside")
                if distance >= length:
                    out += out[start : start + length]
                else:
                    pattern = bytes(out[start:])
                    out += (pattern * (length // distance + 1))[:length]
            else:
                out.append(data[place])
                place += 1
            flags >>= 1
    if len(out) > _CHUNK:
        raise GuestDamaged("ntfs: a compressed chunk is too long")
    return bytes(out)
