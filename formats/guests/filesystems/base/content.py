"""The content of a guest's file inside the worker: where its bytes lie on the volume, and reading them.

A VolumeExtent is (start, length, place), in bytes: `length` bytes of the file from its offset `start` lie on
the volume at `place`, or are zeros where `place` is negative. The extents of a file are in order and do not
overlap; bytes in no extent are zeros. They are plain tuples because a directory of 20,000 files makes as many
of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Protocol, TypeAlias

from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.damage import GuestUnsupported, StructureDamaged
from holdfast.formats.guests.values.values import DiskExtent

VolumeExtent: TypeAlias = tuple[int, int, int]

MAX_EXTENTS = 1_000_000
"""Most extents of one file: a terabyte in extents of 1 MiB. Bounds the memory of a hostile file."""
_MAX_HANDED_OVER = 20_000
"""Most extents that are sent with an entry. Files in more extents are read by the parser."""
_MAX_KEPT = 200_000
"""Sum of the costs of the contents that a cache keeps."""
_MAX_FILES = 64
"""Files whose content a cache keeps."""

_start_of = itemgetter(0)


class Content(Protocol):
    """The bytes of one file. `cost` is the memory that keeping it takes, in units of about 64 bytes."""

    cost: int

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes from `offset`, fewer than `length` only at the end. Raises GuestDamaged."""
        ...


class ExtentContent:
    """Content that the volume holds unchanged, in extents."""

    def __init__(self, device: BlockDevice, extents: Sequence[VolumeExtent], size: int) -> None:
        self.cost = len(extents) + 1
        self._device = device
        self._extents = extents
        self._size = size

    def read(self, offset: int, length: int) -> bytes:
        return read_extents(self._device, self._extents, self._size, offset, length)


class InlineContent:
    """Content that the file system keeps in its own tables."""

    def __init__(self, data: bytes) -> None:
        self.cost = len(data) // 64 + 1
        self._data = data

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length] if offset >= 0 else b""


class UnreadableContent:
    """Content that this program cannot decode: every read raises GuestUnsupported with the file and the
    reason."""

    cost = 1

    def __init__(self, structure: str, reason: str) -> None:
        self._structure = structure
        self._reason = reason

    def read(self, offset: int, length: int) -> bytes:
        raise GuestUnsupported(self._structure, self._reason)


class ContentCache:
    """The contents of the files read last, so that reading one in steps finds its extents once."""

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


def add_extent(extents: list[VolumeExtent], start: int, length: int, place: int) -> None:
    """Append an extent, joined with the last one where they touch.

    Raises StructureDamaged when it begins before the end of the last one, when it is empty (a tree of empty
    extents that leads to itself would be walked without end), or when there are more than MAX_EXTENTS.
    """
    if length <= 0:
        raise StructureDamaged("file extent", f"length at offset {start}", length, "at least 1 byte")
    if extents:
        last_start, last_length, last_place = extents[-1]
        end = last_start + last_length
        if start < end:
            raise StructureDamaged(
                "file extent", "start", start, f"at least {end}, so that extents do not overlap"
            )
        follows = place == last_place + last_length if last_place >= 0 and place >= 0 else place == last_place
        if start == end and follows:
            extents[-1] = (last_start, last_length + length, last_place)
            return
        if len(extents) >= MAX_EXTENTS:
            raise StructureDamaged("file", "number of extents", len(extents) + 1, f"at most {MAX_EXTENTS}")
    extents.append((start, length, place))


def read_extents(
    device: BlockDevice, extents: Sequence[VolumeExtent], size: int, offset: int, length: int
) -> bytes:
    """Read bytes of a file of `size` bytes; fewer than `length` only at its end."""
    end = min(offset + length, size)
    if offset < 0 or offset >= end:
        return b""
    parts = []
    position = offset
    for start, count, place in extents_within(extents, offset, end):
        if start > position:
            parts.append(bytes(start - position))
        parts.append(bytes(count) if place < 0 else device.read(place, count))
        position = start + count
    if position < end:
        parts.append(bytes(end - position))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def extents_within(extents: Sequence[VolumeExtent], start: int, end: int) -> Iterator[VolumeExtent]:
    """The extents that overlap [start, end) of the file, clipped to it."""
    for index in range(max(bisect_right(extents, start, key=_start_of) - 1, 0), len(extents)):
        first, count, place = extents[index]
        if first >= end:
            return
        skip = max(start - first, 0)
        count = min(count, end - first) - skip
        if count > 0:
            yield first + skip, count, place + skip if place >= 0 else -1


def disk_extents(
    device: BlockDevice, extents: Sequence[VolumeExtent], size: int
) -> tuple[DiskExtent, ...] | None:
    """Map the extents of a file of `size` bytes from the volume to the disk; they cover [0, size). None when
    the disk does not hold the bytes unchanged, or when the extents are too many to be sent along."""
    found: list[DiskExtent] = []
    position = 0
    for start, length, place in extents:
        if start >= size:
            break
        end = min(start + length, size)
        if start > position:
            _append(found, position, start - position, -1)
        if place < 0:
            _append(found, start, end - start, -1)
        else:
            below = device.extents(place, end - start)
            if below is None:
                return None
            for first, count, disk in below:
                _append(found, start + first - place, count, disk if disk >= 0 else -1)
        position = end
        if len(found) > _MAX_HANDED_OVER:
            return None
    if position < size:
        _append(found, position, size - position, -1)
    return tuple(found)


def _append(found: list[DiskExtent], start: int, length: int, disk: int) -> None:
    if found:
        last = found[-1]
        if disk == (last.disk + last.length if last.disk >= 0 and disk >= 0 else last.disk):
            found[-1] = DiskExtent(last.start, last.length + length, last.disk)
            return
    found.append(DiskExtent(start, length, disk))
