"""btrfs: the superblock, and the mapping of logical addresses to the device.

The tree log is not replayed, as with `mount -o rescue=nologreplay`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.content import VolumeExtent
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.btrfs import layout
from holdfast.formats.guests.filesystems.btrfs.layout import CHUNK, DISK_KEY, STRIPE, SUPER_BLOCK, SuperBlock
from holdfast.formats.guests.values.damage import GuestUnsupported, StructureDamaged


class MappedChunk(NamedTuple):
    """Maps `length` bytes from the logical address `start`. `copies` are the offsets of their copies on this
    device; there are none when the bytes are striped over several devices."""

    start: int
    length: int
    copies: tuple[int, ...]


def read_superblock(device: BlockDevice) -> tuple[SuperBlock, bytes]:
    """The checked superblock, and the system chunks in it, which are needed to read the other chunks.

    Raises StructureDamaged, GuestUnsupported.
    """
    raw = device.read(layout.SUPER_OFFSET, layout.SUPER_SIZE)
    stored = SUPER_BLOCK.read(raw)
    if stored.magic != layout.MAGIC:
        raise _super_damaged("magic number", stored.magic, str(layout.MAGIC))
    unknown = stored.incompat & ~layout.KNOWN_INCOMPAT
    if unknown:
        raise GuestUnsupported(
            "btrfs superblock", f"it needs features that this program does not know: {unknown:#x}"
        )
    sizes = ", ".join(map(str, layout.SIZES))
    if stored.sector_size not in layout.SIZES:
        raise _super_damaged("sector size", stored.sector_size, f"one of {sizes} bytes")
    if stored.node_size not in layout.SIZES or stored.node_size < stored.sector_size:
        limit = f"one of {sizes} bytes, and not less than the sector size {stored.sector_size}"
        raise _super_damaged("node size", stored.node_size, limit)
    size = stored.system_chunks_size
    if size > layout.MAX_SYSTEM_CHUNKS:
        raise _super_damaged("size of the system chunks", size, f"at most {layout.MAX_SYSTEM_CHUNKS} bytes")
    if stored.devices != 1:
        raise GuestUnsupported("btrfs superblock", f"the file system lies on {stored.devices} devices")
    return stored, raw[layout.SYSTEM_CHUNKS_OFFSET : layout.SYSTEM_CHUNKS_OFFSET + size]


class Chunks:
    """Where logical addresses lie on a device. All chunks are added before addresses are looked up."""

    def __init__(self, size: int, device_id: int) -> None:
        """`size` is that of the device, in bytes, `device_id` its number in the file system."""
        self._size = size
        self._device_id = device_id
        self._starts: list[int] = []
        self._chunks: list[MappedChunk] = []

    def add_system(self, raw: bytes) -> None:
        """Add the chunks in the superblock."""
        position = 0
        while position < len(raw):
            key = DISK_KEY.read(raw, position)
            if key.type != layout.CHUNK_ITEM:
                raise _super_damaged("type of a system chunk's key", key.type, f"{layout.CHUNK_ITEM}")
            position += DISK_KEY.size
            position += self.add(key.offset, raw[position:])

    def add(self, start: int, item: bytes) -> int:
        """Add one chunk, which begins at the logical address `start`; returns the bytes of its item."""
        chunk = CHUNK.read(item)
        if not 1 <= chunk.stripes <= layout.MAX_STRIPES:
            raise _chunk_damaged(start, "number of stripes", chunk.stripes, f"1 to {layout.MAX_STRIPES}")
        if not chunk.length or start + chunk.length >= 1 << 64:
            raise _chunk_damaged(start, "length", chunk.length, f"1 to {(1 << 64) - 1 - start} bytes")
        copies = []
        for number in range(chunk.stripes):
            stripe = STRIPE.read(item, CHUNK.size + number * STRIPE.size)
            if stripe.device == self._device_id and stripe.offset + chunk.length <= self._size:
                copies.append(stripe.offset)
        if chunk.type & layout.SPREAD and chunk.stripes > 1:
            copies = []
        if len(self._chunks) >= layout.MAX_CHUNKS:
            raise StructureDamaged(
                "btrfs chunk tree", "number of chunks", len(self._chunks) + 1, f"at most {layout.MAX_CHUNKS}"
            )
        index = bisect_right(self._starts, start)
        is_known = index and self._starts[index - 1] == start
        if not is_known:
            self._starts.insert(index, start)
            self._chunks.insert(index, MappedChunk(start, chunk.length, tuple(copies)))
        return CHUNK.size + chunk.stripes * STRIPE.size

    def copies(self, address: int, length: int) -> Iterator[int]:
        """The device offsets of the copies of a range that lies inside one chunk."""
        chunk = self._find(address)
        end = chunk.start + chunk.length
        if address + length > end:
            raise _chunk_damaged(chunk.start, "end of a range in it", address + length, f"at most {end}")
        for copy in chunk.copies:
            yield copy + address - chunk.start

    def extents(self, start: int, length: int, address: int) -> Iterator[VolumeExtent]:
        """The extents of a file whose `length` bytes from `start` have the logical address `address`."""
        while length:
            chunk = self._find(address)
            count = min(length, chunk.start + chunk.length - address)
            yield start, count, chunk.copies[0] + address - chunk.start
            start += count
            address += count
            length -= count

    def _find(self, address: int) -> MappedChunk:
        index = bisect_right(self._starts, address) - 1
        if index >= 0:
            chunk = self._chunks[index]
            if address < chunk.start + chunk.length:
                if chunk.copies:
                    return chunk
                raise GuestUnsupported(
                    f"btrfs chunk {chunk.start}", "no whole copy of it lies on this device"
                )
        raise StructureDamaged("btrfs", "logical address", address, "inside a chunk")


def _super_damaged(field: str, value: int | bytes, limit: str) -> StructureDamaged:
    return StructureDamaged("btrfs superblock", field, value, limit)


def _chunk_damaged(start: int, field: str, value: int, limit: str) -> StructureDamaged:
    return StructureDamaged(f"btrfs chunk {start}", field, value, limit)
