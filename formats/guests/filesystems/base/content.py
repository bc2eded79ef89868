"""The content of a guest's file inside the worker: where its bytes lie on the volume, and reading them.

A piece is (start, length, place): bytes of the file from `start` lie on the volume at `place`, or are zeros
where `place` is negative. Pieces are in order and do not overlap; what none covers is zeros. Plain tuples:
a folder of 20,000 files makes as many of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Protocol, TypeAlias

from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.values import FileExtent, GuestDamaged

Piece: TypeAlias = tuple[int, int, int]

MAX_PIECES = 1_000_000
"""Pieces of one file; a terabyte in pieces of 1 MiB. Bounds the memory a hostile file can take."""
_MAX_EXTENTS = 20_000
"""Extents worth handing over with an entry; a file in more of them is read by the parser."""
_MAX_KEPT = 200_000
_MAX_FILES = 64

_start_of = itemgetter(0)


class Content(Protocol):
    """What a file holds. `cost` is what keeping it takes, in units of about 64 bytes."""

    cost: int

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`, fewer only at the end. Raises GuestDamaged."""
        ...


class Pieces:
    """Content that lies on the volume as it is."""

    def __init__(self, device: BlockDevice, pieces: Sequence[Piece], size: int) -> None:
        self.cost = len(pieces) + 1
        self._device = device
        self._pieces = pieces
        self._size = size

    def read(self, offset: int, length: int) -> bytes:
        return read_pieces(self._device, self._pieces, self._size, offset, length)


class Inline:
    """Content that stands in the file system's tables."""

    def __init__(self, data: bytes) -> None:
        self.cost = len(data) // 64 + 1
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length] if offset >= 0 else b""


class Unreadable:
    """Content that nobody here can decode: every read raises GuestDamaged with the reason."""

    cost = 1

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def read(self, offset: int, length: int) -> bytes:
        raise GuestDamaged(self._reason)


class ContentCache:
    """The contents of the files read last, so that reading one in steps finds its pieces once."""

    def __init__(self) -> None:
        self._kept: dict[int, Content] = {}
        self._cost = 0

    def get(self, inode: int) -> Content | None:
        return self._kept.get(inode)

    def put(self, inode: int, content: Content) -> None:
        while self._kept and (self._cost + content.cost > _MAX_KEPT or len(self._kept) >= _MAX_FILES):
            self._cost -= self._kept.pop(next(iter(self._kept))).cost
        self._kept[inode] = content
        self._cost += content.cost


def add_piece(pieces: list[Piece], start: int, length: int, place: int) -> None:
    """Append a piece, put together with the last one where they touch. GuestDamaged when it lies before
    the end of the last, or when there are too many, or when it is empty: a tree of such, which leads to
    itself, would be walked without end."""
    if length <= 0:
        raise GuestDamaged(f"a piece of a file has no length at {start}")
    if pieces:
        last_start, last_length, last_place = pieces[-1]
        end = last_start + last_length
        if start < end:
            raise GuestDamaged(f"the pieces of a file overlap at {start}")
        follows = place == last_place + last_length if last_place >= 0 and place >= 0 else place == last_place
        if start == end and follows:
            pieces[-1] = (last_start, last_length + length, last_place)
            return
        if len(pieces) >= MAX_PIECES:
            raise GuestDamaged(f"a file in more than {MAX_PIECES} pieces")
    pieces.append((start, length, place))


def read_pieces(device: BlockDevice, pieces: Sequence[Piece], size: int, offset: int, length: int) -> bytes:
    """Bytes of a file of `size` bytes; fewer only at its end."""
    end = min(offset + length, size)
    if offset < 0 or offset >= end:
        return b""
    parts = []
    position = offset
    for start, count, place in pieces_within(pieces, offset, end):
        if start > position:
            parts.append(bytes(start - position))
        parts.append(bytes(count) if place < 0 else device.read(place, count))
        position = start + count
    if position < end:
        parts.append(bytes(end - position))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def pieces_within(pieces: Sequence[Piece], start: int, end: int) -> Iterator[Piece]:
    """The parts of pieces that lie in [start, end) of the file."""
    for index in range(max(bisect_right(pieces, start, key=_start_of) - 1, 0), len(pieces)):
        first, count, place = pieces[index]
        if first >= end:
            return
        skip = max(start - first, 0)
        count = min(count, end - first) - skip
        if count > 0:
            yield first + skip, count, place + skip if place >= 0 else -1


def file_extents(device: BlockDevice, pieces: Sequence[Piece], size: int) -> tuple[FileExtent, ...] | None:
    """The extents of an entry: pieces taken down to the disk. None when they do not lie there as they are,
    or are too many to hand over."""
    found: list[FileExtent] = []
    position = 0
    for start, length, place in pieces:
        if start >= size:
            break
        end = min(start + length, size)
        if start > position:
            _add_extent(found, position, start - position, -1)
        if place < 0:
            _add_extent(found, start, end - start, -1)
        else:
            runs = device.runs(place, end - start)
            if runs is None:
                return None
            for run_start, run_length, disk in runs:
                _add_extent(found, start + run_start - place, run_length, disk if disk >= 0 else -1)
        position = end
        if len(found) > _MAX_EXTENTS:
            return None
    if position < size:
        _add_extent(found, position, size - position, -1)
    return tuple(found)


def _add_extent(found: list[FileExtent], start: int, length: int, disk: int) -> None:
    if found:
        last = found[-1]
        if disk == (last.disk + last.length if last.disk >= 0 and disk >= 0 else last.disk):
            found[-1] = FileExtent(last.start, last.length + length, last.disk)
            return
    found.append(FileExtent(start, length, disk))
