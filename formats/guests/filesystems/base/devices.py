"""Block devices inside the worker: the disk, a part of it, and devices put together from parts.

Offsets and lengths in bytes. Every device checks its own bounds, so that a number read from a guest reaches
nothing outside of the volume it was read from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.interface import BlockDevice, Run
from holdfast.formats.guests.values.values import GuestDamaged

_LINE = 64 << 10
_LINES = 128
"""Lines a cache keeps: 8 MiB."""
_MAX_RUNS = 1 << 16
"""A terabyte in stripes of 64 KiB lies in 16 million runs: nobody wants to be told all of them."""


def check_range(size: int, offset: int, length: int) -> None:
    """GuestDamaged when [offset, offset + length) is not inside a device of `size` bytes."""
    if offset < 0 or length < 0 or offset + length > size:
        raise GuestDamaged(f"bytes {offset} to {offset + length} lie outside of a device of {size} bytes")


class WholeDisk:
    """The disk itself, over a function (offset, length) -> bytes."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self.size = size
        self._read = read

    def read(self, offset: int, length: int) -> bytes:
        check_range(self.size, offset, length)
        data = self._read(offset, length)
        if len(data) != length:
            raise GuestDamaged(f"the disk gave {len(data)} of {length} bytes at offset {offset}")
        return data

    def runs(self, offset: int, length: int) -> tuple[Run, ...] | None:
        check_range(self.size, offset, length)
        return (Run(offset, length, offset),) if length else ()


class Part:
    """A run of another device: a partition, the payload of a container."""

    def __init__(self, device: BlockDevice, start: int, size: int) -> None:
        check_range(device.size, start, size)
        self.size = size
        self._device = device
        self._start = start

    def read(self, offset: int, length: int) -> bytes:
        check_range(self.size, offset, length)
        return self._device.read(self._start + offset, length)

    def runs(self, offset: int, length: int) -> tuple[Run, ...] | None:
        check_range(self.size, offset, length)
        below = self._device.runs(self._start + offset, length)
        if below is None:
            return None
        return tuple([Run(run.start - self._start, run.length, run.disk) for run in below])


class Segment(NamedTuple):
    """A run of a device that is put together: from `start`, the bytes of `device` from `offset`."""

    start: int
    length: int
    device: BlockDevice
    offset: int


class _Composed(ABC):
    """A device that is made of parts of others."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        return b"".join([device.read(place, count) for _, count, device, place in self._cut(offset, length)])

    def runs(self, offset: int, length: int) -> tuple[Run, ...] | None:
        found: list[Run] = []
        for start, count, device, place in self._cut(offset, length):
            below = device.runs(place, count)
            if below is None or len(found) > _MAX_RUNS:
                return None
            found += [Run(start + run.start - place, run.length, run.disk) for run in below]
        return merged(found)

    @abstractmethod
    def _cut(self, offset: int, length: int) -> list[Segment]:
        """The parts that make [offset, offset + length), in order."""


class Segmented(_Composed):
    """Runs of other devices, one after the other: a linear logical volume. `runs` of more than 65,536 pieces
    are None."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        """The segments must follow each other without gaps from 0; GuestDamaged otherwise."""
        position = 0
        for segment in segments:
            if segment.start != position or segment.length <= 0:
                raise GuestDamaged(f"a segment starts at {segment.start} where {position} was expected")
            check_range(segment.device.size, segment.offset, segment.length)
            position += segment.length
        self.size = position
        self._segments = list(segments)
        self._starts = [segment.start for segment in segments]

    def _cut(self, offset: int, length: int) -> list[Segment]:
        check_range(self.size, offset, length)
        cut = []
        index = bisect_right(self._starts, offset) - 1
        while length:
            segment = self._segments[index]
            inside = offset - segment.start
            count = min(length, segment.length - inside)
            cut.append(Segment(offset, count, segment.device, segment.offset + inside))
            offset += count
            length -= count
            index += 1
        return cut


class Striped(_Composed):
    """Devices of which stripes are taken in turn: a striped logical volume. `runs` of more than 65,536
    stripes are None."""

    def __init__(self, devices: Sequence[BlockDevice], stripe: int, size: int) -> None:
        """`stripe` bytes from each device in turn, `size` in all, a multiple of a row of stripes."""
        if stripe <= 0 or stripe % 512 or not devices or size % (stripe * len(devices)):
            raise GuestDamaged(f"{len(devices)} stripes of {stripe} bytes do not make a volume of {size}")
        for device in devices:
            check_range(device.size, 0, size // len(devices))
        self.size = size
        self._devices = list(devices)
        self._stripe = stripe

    def runs(self, offset: int, length: int) -> tuple[Run, ...] | None:
        return None if length // self._stripe > _MAX_RUNS else super().runs(offset, length)

    def _cut(self, offset: int, length: int) -> list[Segment]:
        check_range(self.size, offset, length)
        cut = []
        while length:
            number, inside = divmod(offset, self._stripe)
            row, column = divmod(number, len(self._devices))
            count = min(length, self._stripe - inside)
            cut.append(Segment(offset, count, self._devices[column], row * self._stripe + inside))
            offset += count
            length -= count
        return cut


class CachedDevice:
    """A device whose small reads come out of lines of 64 KiB: tables are read in many small pieces, and a
    read below costs a message to another process. At most 8 MiB are kept."""

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

    def runs(self, offset: int, length: int) -> tuple[Run, ...] | None:
        return self._device.runs(offset, length)

    def _load(self, number: int) -> bytes:
        """A line, or b"" when it cannot be read as a whole: then a small read is tried by itself."""
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


def merged(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The same runs with those put together that follow each other on the disk as well."""
    found: list[Run] = []
    for run in runs:
        if found:
            last = found[-1]
            together = run.disk == last.disk + last.length if run.disk >= 0 else last.disk < 0
            if together and last.start + last.length == run.start and (run.disk < 0) == (last.disk < 0):
                found[-1] = Run(last.start, last.length + run.length, last.disk)
                continue
        found.append(run)
    return tuple(found)
