"""btrfs: the superblock, and logical addresses to places on the device.

Source: the on-disk format in the documentation of btrfs, and fs/btrfs of Linux. Little-endian. The tree log
is not replayed, as with `mount -o rescue=nologreplay`.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.content import VolumeExtent
from holdfast.formats.guests.filesystems.base.directory_tree import label_text
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.values import GuestDamaged

SUPER_OFFSET = 64 << 10
SUPER_SIZE = 4096
MAGIC = b"_BHRfS_M"
MAGIC_OFFSET = 0x40

_CHUNK_ITEM = 228
_CHUNK_HEAD = struct.Struct("<QQQQIIIHH")
_STRIPE = struct.Struct("<QQ16s")
_KEY = struct.Struct("<QBQ")
_MAX_STRIPES = 64
_MAX_CHUNKS = 1 << 20
_SPREAD = 0x8 | 0x40 | 0x80 | 0x100
"""RAID0, 10, 5 and 6: data that is spread over stripes. Everything else is copies."""
_KNOWN_INCOMPAT = 0x10FFF
"""backrefs, default subvolume, mixed groups, lzo, zstd, large metadata, extended references, RAID56, skinny
metadata, no holes, metadata UUID, RAID1C34, simple quotas. Not: zoned, extent tree v2, RAID stripe tree."""


class _Chunk(NamedTuple):
    start: int
    length: int
    copies: tuple[int, ...]


class SuperBlock:
    """The superblock, checked. Raises GuestDamaged for what does not hold together or is not known."""

    def __init__(self, device: BlockDevice) -> None:
        raw = device.read(SUPER_OFFSET, SUPER_SIZE)
        if raw[MAGIC_OFFSET : MAGIC_OFFSET + 8] != MAGIC:
            raise GuestDamaged(f"btrfs: no magic number at offset {SUPER_OFFSET + MAGIC_OFFSET}")
        (_, self.root, self.chunk_root, self.log_root) = struct.unpack_from("<QQQQ", raw, 0x48)
        (self.devices,) = struct.unpack_from("<Q", raw, 0x88)
        self.sector_size, self.node_size = struct.unpack_from("<II", raw, 0x90)
        (system_size,) = struct.unpack_from("<I", raw, 0xA0)
        (incompat,) = struct.unpack_from("<Q", raw, 0xBC)
        self.root_level, self.chunk_level = raw[0xC6], raw[0xC7]
        (self.device_id,) = struct.unpack_from("<Q", raw, 0xC9)
        self.label = label_text(raw[0x12B : 0x12B + 256])
        if incompat & ~_KNOWN_INCOMPAT:
            raise GuestDamaged(f"btrfs: needs features this program does not know: {incompat:#x}")
        if self.sector_size not in (4096, 8192, 16384, 32768, 65536):
            raise GuestDamaged(f"btrfs: sectors of {self.sector_size} bytes")
        if self.node_size not in (4096, 8192, 16384, 32768, 65536) or self.node_size < self.sector_size:
            raise GuestDamaged(f"btrfs: nodes of {self.node_size} bytes")
        if system_size > 2048:
            raise GuestDamaged(f"btrfs: {system_size} bytes of system chunks")
        self.system_chunks = raw[0x32B : 0x32B + system_size]


class Chunks:
    """Where logical addresses lie on a device. Chunks are added first."""

    def __init__(self, size: int, device_id: int) -> None:
        self._size = size
        self._device_id = device_id
        self._starts: list[int] = []
        self._chunks: list[_Chunk] = []

    def add_system(self, raw: bytes) -> None:
        """Those in the superblock, needed to read the others."""
        place = 0
        while place < len(raw):
            _, kind, start = _KEY.unpack_from(raw, place)
            if kind != _CHUNK_ITEM:
                raise GuestDamaged(f"btrfs: an item of type {kind} among the system chunks")
            place += _KEY.size
            place += self.add(start, raw[place:])

    def add(self, start: int, item: bytes) -> int:
        """One chunk; returns the bytes of its item."""
        length, _, _, kind, _, _, _, count, _ = _CHUNK_HEAD.unpack_from(item)
        if not 1 <= count <= _MAX_STRIPES or not length or start + length >= 1 << 64:
            raise GuestDamaged(f"btrfs: the chunk {start} is damaged")
        places = []
        for number in range(count):
            device, place, _ = _STRIPE.unpack_from(item, _CHUNK_HEAD.size + number * _STRIPE.size)
            if device == self._device_id and place + length <= self._size:
                places.append(place)
        if kind & _SPREAD and count > 1:
            places = []
        if len(self._chunks) >= _MAX_CHUNKS:
            raise GuestDamaged(f"btrfs: more than {_MAX_CHUNKS} chunks")
        index = bisect_right(self._starts, start)
        known = index and self._starts[index - 1] == start
        if not known:
            self._starts.insert(index, start)
            self._chunks.insert(index, _Chunk(start, length, tuple(places)))
        return int(_CHUNK_HEAD.size + count * _STRIPE.size)

    def places(self, logical: int, length: int) -> Iterator[int]:
        """Where the copies of a run inside one chunk lie on the device."""
        chunk = self._find(logical)
        if logical + length > chunk.start + chunk.length:
            raise GuestDamaged(f"btrfs: {length} bytes at {logical} leave their chunk")
        for copy in chunk.copies:
            yield copy + logical - chunk.start

    def pieces(self, start: int, length: int, logical: int) -> Iterator[VolumeExtent]:
        """ExtentContent of a file of which `length` bytes from `start` have a logical address."""
        while length:
            chunk = self._find(logical)
            count = min(length, chunk.start + chunk.length - logical)
            yield start, count, chunk.copies[0] + logical - chunk.start
            start += count
            logical += count
            length -= count

    def _find(self, logical: int) -> _Chunk:
        index = bisect_right(self._starts, logical) - 1
        if index >= 0:
            chunk = self._chunks[index]
            if logical < chunk.start + chunk.length:
                if chunk.copies:
                    return chunk
                raise GuestDamaged(f"btrfs: the address {logical} is spread over several devices")
        raise GuestDamaged(f"btrfs: the address {logical} is in no chunk")
