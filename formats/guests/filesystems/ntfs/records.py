"""NTFS: the boot sector, the records of the master file table, and their attributes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from holdfast.formats.guests.filesystems.base.content import VolumeExtent, add_extent, read_extents
from holdfast.formats.guests.filesystems.base.directory_tree import MAX_SIZE
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.ntfs import layout
from holdfast.formats.guests.filesystems.ntfs.layout import (
    ATTRIBUTE_HEADER,
    ATTRIBUTE_LIST,
    ATTRIBUTE_MIN,
    BOOT_SECTOR,
    COMPRESSED,
    COMPRESSED_SIZE,
    DATA,
    END,
    FIX_UP_SECTOR,
    FIX_UPS,
    LIST_ENTRY,
    MAX_COMPRESSION_SHIFT,
    NONRESIDENT,
    RECORD_HEADER,
    RECORD_IN_USE,
    RECORD_IS_DIRECTORY,
    RECORD_MAGIC,
    RECORD_NUMBER,
    RESIDENT,
    SPARSE,
)
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import GuestMissing


class Attribute(NamedTuple):
    """An attribute of a record. Sizes are in bytes.

    `data` is the value of a resident attribute. For any other it is None, and `runs` map the value to
    clusters, from its cluster `lowest` on. `unit` is log2 of the clusters of a compression unit.
    """

    type: int
    name: bytes
    flags: int
    data: bytes | None
    runs: bytes
    lowest: int
    unit: int
    size: int
    valid: int
    allocated: int


class Record(NamedTuple):
    """A file's record. `base` is the record that it continues, 0 when it continues none."""

    number: int
    sequence: int
    is_directory: bool
    base: int
    attributes: tuple[Attribute, ...]

    def find(self, type_: int, name: bytes = b"") -> Attribute | None:
        """The first attribute of a type with a name, in UTF-16LE."""
        for attribute in self.attributes:
            if attribute.type == type_ and attribute.name == name:
                return attribute
        return None


class NtfsGeometry(NamedTuple):
    """The checked boot sector. Sizes and the offset of the master file table are in bytes."""

    cluster_size: int
    record_size: int
    table_offset: int


def read_boot_sector(device: BlockDevice) -> NtfsGeometry:
    """Read and check the boot sector. Raises StructureDamaged."""
    boot = BOOT_SECTOR.read(device.read(0, layout.BOOT_SIZE))
    if boot.magic != layout.MAGIC:
        raise _boot_damaged("magic number", boot.magic, str(layout.MAGIC))
    if boot.sector_size not in layout.SECTOR_SIZES:
        sizes = ", ".join(map(str, layout.SECTOR_SIZES))
        raise _boot_damaged("sector size", boot.sector_size, f"one of {sizes} bytes")
    count = boot.sectors_per_cluster
    cluster = boot.sector_size * (1 << 256 - count if count > 0xF0 else count)
    if not 0 < cluster <= layout.MAX_CLUSTER or cluster & (cluster - 1):
        raise _boot_damaged("cluster size", cluster, f"a power of two up to {layout.MAX_CLUSTER} bytes")
    record = 1 << -boot.record_clusters if boot.record_clusters < 0 else boot.record_clusters * cluster
    if not layout.MIN_RECORD <= record <= layout.MAX_RECORD or record & (record - 1):
        limit = f"a power of two from {layout.MIN_RECORD} to {layout.MAX_RECORD} bytes"
        raise _boot_damaged("record size", record, limit)
    return NtfsGeometry(cluster, record, boot.table_cluster * cluster)


class MasterTable:
    """The master file table: records by their number. Raises StructureDamaged."""

    def __init__(self, device: BlockDevice, boot: NtfsGeometry) -> None:
        self._device = device
        self.cluster_size = boot.cluster_size
        self._record_size = boot.record_size
        first = _parse(device.read(boot.table_offset, boot.record_size), 0)
        data = first.find(DATA)
        if data is None or data.data is not None:
            raise StructureDamaged("ntfs record 0", "number of mapped data attributes", 0, "at least 1")
        self._size = data.size
        self._extents: list[VolumeExtent] = self._mapped([data], 0, first=0)
        # A fragmented table lists its other parts in records that lie in the parts known so far.
        for number in self._listed(first, DATA):
            part = self._parsed(number).find(DATA)
            if part is not None and part.data is None and part.lowest:
                for start, length, place in self._mapped([part], 0, first=part.lowest):
                    add_extent(self._extents, start, length, place)

    def record(self, number: int) -> Record:
        """A file's first record, with the attributes in its other records too. Raises GuestMissing when it is
        not in use, or when it continues another."""
        record = self._parsed(number)
        if record.base:
            raise GuestMissing(f"ntfs record {number} continues another")
        if record.find(ATTRIBUTE_LIST) is None:
            return record
        attributes = list(record.attributes)
        for other in self._listed(record, None):
            part = self._parsed(other)
            if part.base & RECORD_NUMBER != number:
                raise _damaged(other, "record that it continues", part.base & RECORD_NUMBER, f"{number}")
            attributes += part.attributes
        return record._replace(attributes=tuple(attributes))

    def extents(self, parts: Sequence[Attribute], number: int) -> list[VolumeExtent]:
        """The extents of an attribute that is not resident, from its parts in any order.

        Holes are extents without a place, so a gap means that a part is missing: StructureDamaged.
        """
        extents = self._mapped(parts, number, first=0)
        first = min(parts, key=_lowest)
        end = extents[-1][0] + extents[-1][1] if extents else 0
        needed = min(first.valid, first.size)
        if end < needed:
            raise _damaged(number, "end of the clusters of an attribute", end, f"at least {needed}")
        return extents

    def _mapped(self, parts: Sequence[Attribute], number: int, *, first: int) -> list[VolumeExtent]:
        """The extents of some parts, the first of which must begin at the cluster `first`."""
        extents: list[VolumeExtent] = []
        expected = first
        size = self.cluster_size
        for part in sorted(parts, key=_lowest):
            if part.lowest != expected:
                raise _damaged(number, "first cluster of an attribute's part", part.lowest, f"{expected}")
            for count, cluster in _runs(part.runs, number):
                place = cluster * size if cluster >= 0 else -1
                add_extent(extents, expected * size, count * size, place)
                expected += count
        return extents

    def _parsed(self, number: int) -> Record:
        size = self._record_size
        if number < 0 or (number + 1) * size > self._size:
            raise GuestMissing(f"ntfs: there is no record {number}")
        raw = read_extents(self._device, self._extents, self._size, number * size, size)
        return _parse(raw, number)

    def _listed(self, record: Record, type_: int | None) -> Iterator[int]:
        """The numbers of the other records that hold attributes of this one: all of them, or those with
        attributes of a type."""
        listing = record.find(ATTRIBUTE_LIST)
        if listing is None:
            return
        data = self.value(listing, record.number, layout.MAX_ATTRIBUTE_LIST)
        seen = {record.number}
        position = 0
        while position + LIST_ENTRY.size <= len(data):
            entry = LIST_ENTRY.read(data, position)
            if entry.length < LIST_ENTRY.size:
                field = f"length of the attribute list's entry at {position}"
                raise _damaged(record.number, field, entry.length, f"at least {LIST_ENTRY.size} bytes")
            position += entry.length
            number = entry.reference & RECORD_NUMBER
            if number in seen or type_ not in (None, entry.type):
                continue
            seen.add(number)
            if len(seen) > layout.MAX_RECORDS:
                limit = f"at most {layout.MAX_RECORDS}"
                raise _damaged(record.number, "number of its records", len(seen), limit)
            yield number

    def value(self, attribute: Attribute, number: int, limit: int) -> bytes:
        """The whole value of an attribute in one part. Raises StructureDamaged when it is longer than `limit`
        bytes."""
        if attribute.data is not None:
            return attribute.data
        if attribute.size > limit:
            raise _damaged(number, "size of an attribute", attribute.size, f"at most {limit} bytes")
        extents = self.extents([attribute], number)
        return read_extents(self._device, extents, attribute.size, 0, attribute.size)


def fix_up(raw: bytes, magic: bytes, kind: str, number: int) -> bytearray:
    """Restore the last two bytes of each sector of a record or index block. `kind` and `number` name it in
    messages.

    Raises StructureDamaged, also when the block was written in part.
    """
    found, offset, count = FIX_UPS.unpack(raw)
    if found != magic:
        raise StructureDamaged(f"{kind} {number}", "magic number", found, str(magic))
    sectors = len(raw) // FIX_UP_SECTOR
    end = offset + count * 2
    if count != sectors + 1:
        raise StructureDamaged(f"{kind} {number}", "number of fix-ups", count, f"{sectors + 1}")
    if end > len(raw):
        raise StructureDamaged(f"{kind} {number}", "end of the fix-ups", end, f"at most {len(raw)}")
    data = bytearray(raw)
    mark = raw[offset : offset + 2]
    tail = FIX_UP_SECTOR
    for position in range(offset + 2, end, 2):
        if data[tail - 2 : tail] != mark:
            field = f"end of its sector at {tail - FIX_UP_SECTOR}"
            limit = f"{mark!r}: the block was written in part"
            raise StructureDamaged(f"{kind} {number}", field, bytes(data[tail - 2 : tail]), limit)
        data[tail - 2 : tail] = raw[position : position + 2]
        tail += FIX_UP_SECTOR
    return data


def _parse(raw: bytes, number: int) -> Record:
    data = fix_up(raw, RECORD_MAGIC, "ntfs record", number)
    sequence, _, position, flags, used, _, base = RECORD_HEADER.unpack(data)
    if not flags & RECORD_IN_USE:
        raise GuestMissing(f"ntfs record {number} is not in use")
    attributes = []
    unpack_header = ATTRIBUTE_HEADER.unpack
    end = min(used, len(data))
    while position + 4 <= end and data[position : position + 4] != END:
        if position + ATTRIBUTE_MIN > end:
            limit = f"at most {end - ATTRIBUTE_MIN}"
            raise _damaged(number, "offset of an attribute", position, limit)
        header = unpack_header(data, position)
        length = header[1]
        if length < ATTRIBUTE_MIN or length % 8 or position + length > end:
            limit = f"a multiple of 8 from {ATTRIBUTE_MIN} to {end - position}"
            raise _damaged(number, f"length of the attribute at {position}", length, limit)
        attributes.append(_parse_attribute(bytes(data[position : position + length]), header, number))
        position += length
    return Record(number, sequence, bool(flags & RECORD_IS_DIRECTORY), base, tuple(attributes))


def _parse_attribute(raw: bytes, header: tuple[Any, ...], number: int) -> Attribute:
    type_, _, is_nonresident, name_length, name_offset, flags = header
    name = raw[name_offset : name_offset + name_length * 2] if name_length else b""
    if not is_nonresident:
        size, start = RESIDENT.unpack(raw)
        end = start + size
        if end > len(raw):
            raise _damaged(number, f"end of the value of attribute {type_:#x}", end, f"at most {len(raw)}")
        return Attribute(type_, name, flags, raw[start:end], b"", 0, 0, size, size, 0)
    lowest, runs, unit, allocated, size, valid = NONRESIDENT.unpack(raw)
    if unit > MAX_COMPRESSION_SHIFT:
        limit = f"at most {MAX_COMPRESSION_SHIFT}"
        raise _damaged(number, f"compression unit of attribute {type_:#x}", unit, limit)
    if size > MAX_SIZE:
        raise _damaged(number, f"size of attribute {type_:#x}", size, f"at most {MAX_SIZE} bytes")
    if flags & (COMPRESSED | SPARSE) and not lowest and runs >= COMPRESSED_SIZE.size:
        allocated = COMPRESSED_SIZE.read(raw).taken
    return Attribute(type_, name, flags, None, raw[runs:], lowest, unit, size, valid, allocated)


def _runs(raw: bytes, number: int) -> Iterator[tuple[int, int]]:
    """(number of clusters, first cluster) of mapping pairs; the first cluster of a hole is -1.

    A pair is a byte with the sizes of both numbers, in its low and its high half, then the numbers
    themselves, the second one relative to the last.
    """
    position = cluster = 0
    while position < len(raw) and raw[position]:
        count_size, offset_size = raw[position] & 0xF, raw[position] >> 4
        middle = position + 1 + count_size
        end = middle + offset_size
        count = int.from_bytes(raw[position + 1 : middle], "little", signed=True)
        if not 1 <= count_size <= 8 or offset_size > 8 or end > len(raw):
            sizes = f"{count_size} and {offset_size} bytes"
            limit = f"1 to 8 and 0 to 8 bytes, which end at {len(raw)} at most"
            raise _damaged(number, f"size of the mapping pair at {position}", sizes, limit)
        if count <= 0:
            raise _damaged(number, "number of clusters of a run", count, "at least 1")
        if offset_size:
            cluster += int.from_bytes(raw[middle:end], "little", signed=True)
            if cluster < 0:
                raise _damaged(number, "first cluster of a run", cluster, "at least 0")
        yield count, cluster if offset_size else -1
        position = end


def _lowest(attribute: Attribute) -> int:
    return attribute.lowest


def _damaged(number: int, field: str, value: int | str, limit: str) -> StructureDamaged:
    return StructureDamaged(f"ntfs record {number}", field, value, limit)


def _boot_damaged(field: str, value: int | bytes, limit: str) -> StructureDamaged:
    return StructureDamaged("ntfs boot sector", field, value, limit)
