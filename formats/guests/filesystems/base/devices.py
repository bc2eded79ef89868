"""Block devices inside the worker: the disk, a range of a device, and devices mapped to ranges of others.

Offsets and lengths are in bytes. Every device checks its own bounds, so that a number read from a guest
reaches nothing outside of the volume it was read from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import DiskExtent, GuestDamaged

_LINE = 64 << 10
"""Bytes of a cache line."""
_LINES = 128
"""Lines that a cache keeps: 8 MiB."""
_MAX_EXTENTS = 1 << 16
"""Extents that `extents` returns. A terabyte in stripes of 64 KiB lies in 16 million: too many to be
useful."""


def check_range(size: int, offset: int, length: int) -> None:
    """Raise StructureDamaged when [offset, offset + length) is not inside a device of `size` bytes."""
    if offset < 0 or length < 0 or offset + length > size:
        raise StructureDamaged(
            "volume", "range to read", f"{offset} to {offset + length}", f"inside the volume's {size} bytes"
        )


class WholeDisk:
    """The disk itself, over a function (offset, length) -> bytes."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self.size = size
        self._read = read

    def read(self, offset: int, length: int) -> bytes:
        check_range(self.size, offset, length)
        data = self._read(offset, length)
        if len(data) != length:
            raise StructureDamaged("disk", f"number of bytes read at {offset}", len(data), f"{length}")
        return data

    def extents(self, offset: int, length: int) -> tuple[DiskExtent, ...] | None:
        check_range(self.size, offset, length)
        return (DiskExtent(offset, length, offset),) if length else ()


class DeviceRange:
    """A contiguous range of another device: a partition, or the payload of a container."""

    def __init__(self, device: BlockDevice, start: int, size: int) -> None:
        check_range(device.size, start, size)
        self.size = size
        self._device = device
        self._start = start

    def read(self, offset: int, length: int) -> bytes:
        check_range(self.size, offset, length)
        return self._device.read(self._start + offset, length)

    def extents(self, offset: int, length: int) -> tuple[DiskExtent, ...] | None:
        check_range(self.size, offset, length)
        below = self._device.extents(self._start + offset, length)
        if below is None:
            return None
        return tuple([DiskExtent(start - self._start, count, disk) for start, count, disk in below])


class MappedRange(NamedTuple):
    """Maps `length` bytes of a device, from its offset `start`, to `device` from `offset` on."""

    start: int
    length: int
    device: BlockDevice
    offset: int


class _MappedDevice(ABC):
    """A device whose bytes lie in ranges of other devices."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        return b"".join(
            [device.read(at, count) for _, count, device, at in self._segments_of(offset, length)]
        )

    def extents(self, offset: int, length: int) -> tuple[DiskExtent, ...] | None:
        found: list[DiskExtent] = []
        for start, count, device, at in self._segments_of(offset, length):
            below = device.extents(at, count)
            if below is None or len(found) > _MAX_EXTENTS:
                return None
            found += [DiskExtent(start + first - at, length_, disk) for first, length_, disk in below]
        return merged(found)

    @abstractmethod
    def _segments_of(self, offset: int, length: int) -> list[MappedRange]:
        """The ranges that cover [offset, offset + length), in order and clipped to it."""


class LinearDevice(_MappedDevice):
    """Ranges of other devices, one after the other: a linear logical volume."""

    def __init__(self, segments: Sequence[MappedRange]) -> None:
        """The segments must follow each other from 0 without gaps; StructureDamaged otherwise."""
        position = 0
        for segment in segments:
            if segment.start != position or segment.length <= 0:
                raise StructureDamaged(
                    "linear volume",
                    "segment",
                    f"{segment.length} bytes at {segment.start}",
                    f"at least 1 byte at {position}, where the one before ends",
                )
            check_range(segment.device.size, segment.offset, segment.length)
            position += segment.length
        self.size = position
        self._segments = list(segments)
        self._starts = [segment.start for segment in segments]

    def _segments_of(self, offset: int, length: int) -> list[MappedRange]:
        check_range(self.size, offset, length)
        found = []
        index = bisect_right(self._starts, offset) - 1
        while length:
            segment = self._segments[index]
            inside = offset - segment.start
            count = min(length, segment.length - inside)
            found.append(MappedRange(offset, count, segment.device, segment.offset + inside))
            offset += count
            length -= count
            index += 1
        return found


class StripedDevice(_MappedDevice):
    """Stripes of several devices in turn: a striped logical volume. `extents` is None for a range of more
    than 65,536 stripes."""

    def __init__(self, devices: Sequence[BlockDevice], stripe: int, size: int) -> None:
        """`stripe` bytes come from each device in turn. Raises StructureDamaged when `size`, in bytes, is not
        a whole number of rows of stripes."""
        if stripe <= 0 or stripe % 512 or not devices or size % (stripe * len(devices)):
            raise StructureDamaged(
                "striped volume",
                "size",
                f"{size} bytes in {len(devices)} stripes of {stripe}",
                "a multiple of all stripes, each a multiple of 512",
            )
        for device in devices:
            check_range(device.size, 0, size // len(devices))
        self.size = size
        self._devices = list(devices)
        self._stripe = stripe

    def extents(self, offset: int, length: int) -> tuple[DiskExtent, ...] | None:
        return None if length // self._stripe > _MAX_EXTENTS else super().extents(offset, length)

    def _segments_of(self, offset: int, length: int) -> list[MappedRange]:
        check_range(self.size, offset, length)
        found = []
        while length:
            number, inside = divmod(offset, self._stripe)
            row, column = divmod(number, len(self._devices))
            count = min(length, self._stripe - inside)
            found.append(MappedRange(offset, count, self._devices[column], row * self._stripe + inside))
            offset += count
            length -= count
        return found


class CachedDevice:
    """A device with a cache of lines of 64 KiB, at most 8 MiB: file systems read their tables in many small
    pieces, and each read of the device below costs a message to another process."""

    def __init__(self, device: BlockDevice) -> None:
        self.size = device.size
        self._device = device
        self._lines: dict[int, bytes] = {}

    def read(self, offset: int, length: int) -> bytes:
        number, inside = divmod(offset, _LINE)
        if inside >= 0 and inside + length <= _LINE and offset >= 0 and length >= 0:
            line = self._lines.get(number) or self._load(number)
            if inside + length <= len(line):
                return line[inside : inside + length]
        elif length <= 2 * _LINE and offset >= 0 and length >= 0 and offset + length <= self.size:
            head = _LINE - inside
            return self.read(offset, head) + self.read(offset + head, length - head)
        return self._device.read(offset, length)

    def extents(self, offset: int, length: int) -> tuple[DiskExtent, ...] | None:
        return self._device.extents(offset, length)

    def _load(self, number: int) -> bytes:
        """Read a line. Returns b"" when it cannot be read as a whole; the caller then reads only what it
        needs."""
        start = number * _LINE
        if start >= self.size:
            return b""
        try:
            line = self._device.read(start, min(_LINE, self.size - start))
        except GuestDamaged:
            return b""
        if len(self._lines) >= _LINES:
            del self._lines[next(iter(self._lines))]
        self._lines[number] = line
        return line


def merged(extents: Sequence[DiskExtent]) -> tuple[DiskExtent, ...]:
    """The same extents, with neighbours joined that follow each other on the disk too."""
    found: list[DiskExtent] = []
    for extent in extents:
        if found:
            last = found[-1]
            together = extent.disk == last.disk + last.length if extent.disk >= 0 else last.disk < 0
            if together and last.start + last.length == extent.start and (extent.disk < 0) == (last.disk < 0):
                found[-1] = DiskExtent(last.start, last.length + extent.length, last.disk)
                continue
        found.append(extent)
    return tuple(found)
