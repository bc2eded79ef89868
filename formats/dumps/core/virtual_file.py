"""Virtual files: ranges of a stored stream joined with generated text. Nothing is copied."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, NamedTuple

from holdfast.formats.disks.base.view import ViewPart


class VirtualRange(NamedTuple):
    """`length` bytes of a virtual file: `data`, or when that is None those of the stream from `start`."""

    length: int
    data: bytes | None
    start: int


def text(data: bytes) -> VirtualRange:
    return VirtualRange(len(data), data, -1)


def stored_range(start: int, length: int) -> VirtualRange:
    return VirtualRange(length, None, start)


class VirtualFile:
    """A virtual file, with the interface of `disks.base.view.View`. Immutable; for any thread."""

    __slots__ = ("_pieces", "_starts", "data_start", "mode", "mtime", "size", "target")

    def __init__(
        self, pieces: Iterable[VirtualRange], *, mode: int = 0o444, mtime: int | None = None, target: str = ""
    ) -> None:
        """Adjacent ranges of `pieces` are merged. `mtime` is in ns since 1970, None for that of the dump;
        `target` is that of a symbolic link, "" for a file."""
        self._pieces: Final = _merged(pieces)
        self._starts: Final = list(accumulate((piece.length for piece in self._pieces), initial=0))
        self.size = self._starts[-1]
        self.data_start = 0
        self.mode: Final = mode
        self.mtime: Final = mtime
        self.target: Final = target

    @property
    def pieces(self) -> tuple[VirtualRange, ...]:
        return self._pieces

    def parts(self, start: int, end: int) -> Iterator[ViewPart]:
        """Yield the parts of [start, end), in order, clipped, without gaps; `end` is at most the size."""
        at = bisect_right(self._starts, start) - 1
        while start < end:
            piece, base = self._pieces[at], self._starts[at]
            stop = min(end, self._starts[at + 1])
            data = None if piece.data is None else piece.data[start - base : stop - base]
            yield ViewPart(start, stop - start, data, -1 if data is not None else piece.start + start - base)
            start = stop
            at += 1

    def tables(self) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of the ranges that are generated text."""
        for piece, start in zip(self._pieces, self._starts, strict=False):
            if piece.data is not None:
                yield start, start + piece.length


def _merged(pieces: Iterable[VirtualRange]) -> tuple[VirtualRange, ...]:
    merged: list[VirtualRange] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if not piece.length:
            continue
        if last and piece.data is None and last.data is None and last.start + last.length == piece.start:
            merged[-1] = VirtualRange(last.length + piece.length, None, last.start)
        elif last and piece.data is not None and last.data is not None:
            merged[-1] = text(last.data + piece.data)
        else:
            merged.append(piece)
    return tuple(merged)
