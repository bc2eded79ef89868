"""The compressed streams within a custom archive: a block's, or a large object's."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

import zstandard

_PIECE: Final = 1 << 20
"""Bytes that are unpacked at once, at most: a bomb fills this and no more."""
_ZSTD_WINDOW: Final = 1 << 27
_ZSTD_INPUT: Final = 512
"""Bytes that the decoder gets at once. It returns all that they hold: up to 128 KiB for every four."""

ERRORS: Final = (zlib.error, zstandard.ZstdError)


class Decoder(Protocol):
    """One stream. Raises one of ERRORS for bytes that are none."""

    @property
    def ended(self) -> bool:
        """The stream's own end was seen."""

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """What these bytes hold, in pieces of about a MiB, some of which may be empty."""


class Plain:
    """No compression. It may end anywhere."""

    ended = True

    def unpack(self, data: bytes) -> Iterator[bytes]:
        yield data


class Zlib:
    def __init__(self) -> None:
        self._z: Final = zlib.decompressobj()

    @property
    def ended(self) -> bool:
        return self._z.eof

    def unpack(self, data: bytes) -> Iterator[bytes]:
        yield self._z.decompress(data, _PIECE)
        while self._z.unconsumed_tail and not self._z.eof:
            yield self._z.decompress(self._z.unconsumed_tail, _PIECE)
        if not self._z.eof:
            yield from self._held()
        if self._z.unused_data:
            raise zlib.error("something follows the end of a compressed stream")

    def _held(self) -> Iterator[bytes]:
        """What it has read but not given out, because there was no room."""
        while piece := self._z.decompress(b"", _PIECE):
            yield piece


class Zstd:
    def __init__(self) -> None:
        self._z: Final = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj(
            write_size=_PIECE
        )

    @property
    def ended(self) -> bool:
        return self._z.eof

    def unpack(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _ZSTD_INPUT):
            if self._z.eof:
                break
            yield self._z.decompress(data[at : at + _ZSTD_INPUT])
        if self._z.eof and (self._z.unused_data or at + _ZSTD_INPUT < len(data)):
            raise zstandard.ZstdError("something follows the end of a compressed stream")


DECODERS: Final[dict[str, type[Plain] | type[Zlib] | type[Zstd]]] = {
    "none": Plain,
    "gzip": Zlib,
    "zstd": Zstd,
}
