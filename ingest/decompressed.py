"""Compressed streams, unpacked on the way in: a compressed dump shares nothing with yesterday's."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import zstandard

from holdfast.ingest.source import HEAD_SIZE, Source, SourceExtent
from holdfast.ingest.wrapped import Wrapped
from holdfast.repo.snapshot import BadRange

_INPUT: Final = 256 << 10
"""Bytes of compressed data that are read at once."""
PEEK: Final = 1 << 20
"""Bytes that hold the first block of any compressed stream: bzip2 has the largest, of 900,000 bytes, and
gives nothing before a block is whole."""
_PIECE: Final = 1 << 20
"""Bytes that are unpacked at once, at most: a bomb fills this and no more."""
_XZ_MEMORY: Final = 256 << 20
"""Bytes that an xz stream may ask for; `xz -9` asks for 65 MiB."""
_ZSTD_WINDOW: Final = 1 << 27
"""Bytes of `zstd --ultra -22`'s window; --long=31 asks for more, and is refused."""
_ZSTD_BLOCK: Final = 128 << 10
_SLICE: Final = 8 << 10
"""Bytes that a decoder gets at once. When they are damaged, it returns nothing of what they hold."""
_ZSTD_SLICE: Final = 1 << 10
"""zstd's returns all that they hold, up to 128 KiB for every four bytes."""
_ERRORS: Final = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError, ValueError)


class _Decoder(Protocol):
    """One member of a stream."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def unpack(self, data: bytes, limit: int) -> bytes:
        """At most about `limit` bytes; call it with b"" for more of the same."""
        ...


class _Zlib:
    def __init__(self) -> None:
        self._z = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._z.eof

    @property
    def unused_data(self) -> bytes:
        return self._z.unused_data

    def unpack(self, data: bytes, limit: int) -> bytes:
        return self._z.decompress(self._z.unconsumed_tail + data, limit)


class _Zstd:
    """One frame. What a slice holds comes at once, whatever the limit."""

    def __init__(self) -> None:
        decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._decoder = decoder.decompressobj(write_size=_ZSTD_BLOCK)

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def unpack(self, data: bytes, limit: int) -> bytes:
        return self._decoder.decompress(data)


class _Library:
    """bz2 and lzma, which keep their own input."""

    def __init__(self, decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._decoder = decoder

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def unpack(self, data: bytes, limit: int) -> bytes:
        return self._decoder.decompress(data, limit)


_DECODERS: Final[dict[str, Callable[[], _Decoder]]] = {
    "gzip": _Zlib,
    "zstd": _Zstd,
    "bzip2": lambda: _Library(bz2.BZ2Decompressor()),
    "xz": lambda: _Library(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
}
_MAGIC: Final = {
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
}
_SUFFIXES: Final = {"gzip": ("gz",), "zstd": ("zst", "zstd"), "xz": ("xz",), "bzip2": ("bz2",)}


def compression(head: bytes) -> str:
    """ "gzip", "zstd", "xz" or "bzip2" by the first bytes; "" for none of them."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def plain_name(name: str, format_: str) -> str:
    """The name without the compression's own suffix."""
    stem, _, suffix = name.rpartition(".")
    return stem if stem and suffix.lower() in _SUFFIXES[format_] else name


def unpacked_head(head: bytes) -> bytes:
    """The first bytes of what a compressed stream with this head holds, as far as the head tells."""
    format_ = compression(head)
    if not format_:
        return b""
    pieces: list[bytes] = []
    stream = _stream(format_, iter((head, b"")).__next__)
    try:
        for piece in stream:
            pieces.append(piece)
            if sum(map(len, pieces)) >= HEAD_SIZE:
                break
    except _ERRORS:
        pass  # the head ends within the stream, or is no such stream: what came out counts
    return b"".join(pieces)[:HEAD_SIZE]


class DecompressedSource(Wrapped):
    """What a compressed source holds. Its end is where the compressed data ends; when that is early or
    damaged, `bad` says so, with no length: nobody knows how much is missing. `plain_name` is what the file
    would be called unpacked."""

    def __init__(self, source: Source, format_: str) -> None:
        super().__init__(source)
        self.format: Final = format_
        self.plain_name: Final = plain_name(source.name, format_)
        self.size = None
        self.head = unpacked_head(source.head)
        self._place = 0
        self._bad: list[BadRange] = []
        self._pieces = self._unpack()
        self._rest = memoryview(b"")

    @property
    def bad(self) -> list[BadRange]:
        return self._bad

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        yield SourceExtent(0, None, is_hole=False)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Offsets must follow one another."""
        done = 0
        while done < len(buffer):
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
                if not self._rest:
                    break
            part = self._rest[: len(buffer) - done]
            buffer[done : done + len(part)] = part
            self._rest = self._rest[len(part) :]
            done += len(part)
        return done

    def _unpack(self) -> Iterator[bytes]:
        made = 0
        try:
            for piece in _stream(self.format, self._input):
                made += len(piece)
                yield piece
            if self.source.bad:
                raise ValueError("not all of it could be read")
        except _ERRORS as error:
            self._bad.append(
                BadRange(made, 0, f"the {self.format} data behind ends early or is damaged: {error}")
            )
            self._drain()

    def _drain(self) -> None:
        """Read a stream to its end: a command that cannot print what is left would never exit."""
        while self.source.size is None and self._input():
            pass

    def _input(self) -> bytes:
        size = self.source.size
        buffer = memoryview(bytearray(_INPUT if size is None else min(_INPUT, size - self._place)))
        count = self.source.read_into(buffer, self._place) if buffer else 0
        self._place += count
        return bytes(buffer[:count])


def _stream(format_: str, read: Callable[[], bytes]) -> Iterator[bytes]:
    """All members of a stream, unpacked, in pieces that are never empty. Raises one of _ERRORS when it ends
    early; zeros behind a member are padding, as gzip has it."""
    slices = _slices(read, _ZSTD_SLICE if format_ == "zstd" else _SLICE)
    data = next(slices, b"")
    while data:
        decoder = _DECODERS[format_]()
        while not decoder.eof:
            piece = decoder.unpack(data, _PIECE)
            if piece:
                yield piece
            data = b""
            if not piece and not decoder.eof:
                data = next(slices, b"")
                if not data:
                    raise EOFError("the stream ends early")
        data = decoder.unused_data.lstrip(b"\0")
        while not data:
            more = next(slices, b"")
            if not more:
                return
            data = more.lstrip(b"\0")


def _slices(read: Callable[[], bytes], length: int) -> Iterator[bytes]:
    while data := read():
        for start in range(0, len(data), length):
            yield data[start : start + length]
