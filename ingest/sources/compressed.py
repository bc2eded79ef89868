"""Decompresses streams before they are stored: compressed dumps of two days share no chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from holdfast.formats.dumps.core.compression import (
    ERRORS,
    Decoder,
    Zstd,
    bzip2_stream,
    gzip_member,
    xz_stream,
)
from holdfast.ingest.sources.source import HEAD_SIZE, Source, SourceExtent
from holdfast.ingest.sources.wrapped import Wrapped
from holdfast.repo.snapshots.snapshot import BadRange

_INPUT: Final = 256 << 10
"""Most bytes of one read of compressed data."""
PEEK: Final = 1 << 20
"""Bytes that contain the first block of any compressed stream. The largest blocks are those of bzip2, 900,000
bytes, and it decompresses only whole blocks."""
_SLICE: Final = 8 << 10
"""Bytes that a decoder gets in one call. If they are damaged, all output of the call is lost."""
_ERRORS: Final = (*ERRORS, EOFError, ValueError)


_DECODERS: Final[dict[str, Callable[[], Decoder]]] = {
    "gzip": gzip_member,
    "zstd": Zstd,
    "bzip2": bzip2_stream,
    "xz": xz_stream,
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
    """The name without the suffix of its compression."""
    stem, _, suffix = name.rpartition(".")
    return stem if stem and suffix.lower() in _SUFFIXES[format_] else name


def unpacked_head(head: bytes) -> bytes:
    """The first decompressed bytes of a compressed stream with this head; b"" if it is not compressed."""
    format_ = compression(head)
    if not format_:
        return b""
    pieces: list[bytes] = []
    stream = _stream(format_, iter((head, b"")).__next__, _SLICE)
    try:
        for piece in stream:
            pieces.append(piece)
            if sum(map(len, pieces)) >= HEAD_SIZE:
                break
    except _ERRORS:
        pass  # the head ends within the stream, or is no stream of this format: keep the bytes so far
    return b"".join(pieces)[:HEAD_SIZE]


class DecompressedSource(Wrapped):
    """The decompressed content of a source.

    If the compressed data is damaged or ends early, `bad` has a range of length 0 at the end: it is unknown
    how much is missing. `plain_name` is the name without the suffix of the compression. The decoder
    is fed `slice_size` bytes at a time.
    """

    def __init__(self, source: Source, format_: str, *, slice_size: int = _SLICE) -> None:
        super().__init__(source)
        self.format: Final = format_
        self._slice_size: Final = slice_size
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
        """Fill the buffer. Each read must start where the one before ended."""
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
            for piece in _stream(self.format, self._input, self._slice_size):
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
        """Read a stream to its end, because a command that cannot write its output would never exit."""
        while self.source.size is None and self._input():
            pass

    def _input(self) -> bytes:
        size = self.source.size
        buffer = memoryview(bytearray(_INPUT if size is None else min(_INPUT, size - self._place)))
        count = self.source.read_into(buffer, self._place) if buffer else 0
        self._place += count
        return bytes(buffer[:count])


def _stream(format_: str, read: Callable[[], bytes], slice_size: int) -> Iterator[bytes]:
    """The decompressed bytes of all members of a stream, in non-empty parts.

    Ignores zeros after a member: they are padding, as in gzip. Raises one of _ERRORS for damaged data.
    """
    slices = _slices(read, slice_size)
    data = next(slices, b"")
    while data:
        decoder = _DECODERS[format_]()
        while not decoder.ended:
            data = data or next(slices, b"")
            if not data:
                raise EOFError("the stream ends early")
            yield from filter(None, decoder.unpack(data))
            data = b""
        data = decoder.rest.lstrip(b"\0")
        while not data:
            more = next(slices, b"")
            if not more:
                return
            data = more.lstrip(b"\0")


def _slices(read: Callable[[], bytes], size: int) -> Iterator[bytes]:
    while data := read():
        for start in range(0, len(data), size):
            yield data[start : start + size]
