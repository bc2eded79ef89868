"""NTFS: the content of compressed streams."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.formats.guests.filesystems.base.content import VolumeExtent, extents_within
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.ntfs.lznt1 import decompress
from holdfast.formats.guests.filesystems.ntfs.records import Attribute


class CompressedContent:
    """A stream in units that are compressed one by one. A unit with all of its clusters is stored
    uncompressed, one without clusters is zeros. The unit read last is kept."""

    def __init__(
        self, device: BlockDevice, extents: Sequence[VolumeExtent], first: Attribute, unit: int
    ) -> None:
        """`first` is the stream's first part, which has its size; `unit` is in bytes."""
        self.cost = len(extents) + unit // 64
        self._device = device
        self._extents = extents
        self._size = first.size
        self._valid = min(first.valid, first.size)
        self._unit = unit
        self._number = -1
        self._data = b""

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self._size)
        parts = []
        while 0 <= offset < end:
            number, inside = divmod(offset, self._unit)
            if offset >= self._valid:
                parts.append(bytes(end - offset))
                break
            if number != self._number:
                self._data = self._read_unit(number)
                self._number = number
            stop = min(self._unit, end - number * self._unit, self._valid - number * self._unit)
            parts.append(self._data[inside:stop])
            offset += stop - inside
        return b"".join(parts)

    def _read_unit(self, number: int) -> bytes:
        start = number * self._unit
        stored = [
            self._device.read(place, length)
            for _, length, place in extents_within(self._extents, start, start + self._unit)
            if place >= 0
        ]
        data = b"".join(stored)
        if len(data) == self._unit:
            return data
        return decompress(data, self._unit) if data else bytes(self._unit)
