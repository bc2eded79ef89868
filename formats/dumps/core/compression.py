"""Compressed streams, decoded a piece at a time whatever they hold."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from typing import Final, Protocol

import zstandard

_PIECE: Final = 1 << 20
"""Bytes that are unpacked at once, at most: a bomb fills this and no more."""
_XZ_MEMORY: Final = 256 << 20
"""Bytes that an xz stream may ask for; `xz -9` asks for 65 MiB."""
_ZSTD_WINDOW: Final = 1 << 27
"""Bytes of `zstd --ultra -22`'s window; --long=31 asks for more, and is refused."""
_ZSTD_BLOCK: Final = 128 << 10
_ZSTD_INPUT: Final = 512
"""Bytes that zstd's decoder gets at once. It returns all that they hold: up to 128 KiB for every four."""

ERRORS: Final = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError)
"""What a decoder raises for bytes that are none of its own."""


class Decoder(Protocol):
    """One stream. Raises one of ERRORS for bytes that are none."""

    @property
    def ended(self) -> bool:
        """The stream's own end was seen."""

    @property
    def rest(self) -> bytes:
        """What followed the end in what it was given."""

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """What these bytes hold, in pieces of about a MiB, some of which may be empty. Exhaust it."""


class Plain:
    """No compression. It may end anywhere."""

    ended = True
    rest = b""

    def unpack(self, data: bytes) -> Iterator[bytes]:
        yield data


class Zlib:
    """A zlib stream, or a member of a gzip file with `wbits=31`."""

    def __init__(self, wbits: int = zlib.MAX_WBITS) -> None:
        self._z: Final = zlib.decompressobj(wbits)

    @property
    def ended(self) -> bool:
        return self._z.eof

    @property
    def rest(self) -> bytes:
        return self._z.unused_data

    def unpack(self, data: bytes) -> Iterator[bytes]:
        yield self._z.decompress(data, _PIECE)
        while self._z.unconsumed_tail and not self._z.eof:
            yield self._z.decompress(self._z.unconsumed_tail, _PIECE)
        # What it has read but not given out, because there was no room.
        while not self._z.eof and (piece := self._z.decompress(b"", _PIECE)):
            yield piece


class Zstd:
    """A frame of a zstd file."""

    def __init__(self) -> None:
        decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._z: Final = decoder.decompressobj(write_size=_ZSTD_BLOCK)
        self._behind = b""

    @property
    def ended(self) -> bool:
        return self._z.eof

    @property
    def rest(self) -> bytes:
        return self._z.unused_data + self._behind if self._z.eof else b""

    def unpack(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _ZSTD_INPUT):
            if self._z.eof:
                self._behind += data[at:]
                return
            yield self._z.decompress(data[at : at + _ZSTD_INPUT])


class Library:
    """A stream of bz2 or lzma, which keep their own input."""

    def __init__(self, decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._decoder: Final = decoder

    @property
    def ended(self) -> bool:
        return self._decoder.eof

    @property
    def rest(self) -> bytes:
        return self._decoder.unused_data

    def unpack(self, data: bytes) -> Iterator[bytes]:
        yield self._decoder.decompress(data, _PIECE)
        while not self._decoder.eof and not self._decoder.needs_input:
            yield self._decoder.decompress(b"", _PIECE)


def gzip_member() -> Decoder:
    return Zlib(wbits=31)


def bzip2_stream() -> Decoder:
    return Library(bz2.BZ2Decompressor())


def xz_stream() -> Decoder:
    return Library(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
