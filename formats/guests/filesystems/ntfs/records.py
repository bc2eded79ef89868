"""NTFS: the boot sector, records of the master file table, and their attributes.

Source: the documentation of the Linux-NTFS project and ntfs-3g's layout.h. Little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.content import VolumeExtent, add_extent, read_extents
from holdfast.formats.guests.filesystems.base.directory_tree import MAX_SIZE
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.values import GuestDamaged, GuestMissing

STANDARD = 0x10
ATTRIBUTE_LIST = 0x20
FILE_NAME = 0x30
VOLUME_NAME = 0x60
VOLUME_INFORMATION = 0x70
DATA = 0x80
INDEX_ROOT = 0x90
INDEX_ALLOCATION = 0xA0
BITMAP = 0xB0
REPARSE_POINT = 0xC0

COMPRESSED = 0x00FF
_SPARSE = 0x8000
ENCRYPTED = 0x4000

_END = b"\xff\xff\xff\xff"
_IN_USE = 0x1
_FOLDER = 0x2
_SECTOR = 512
_MAX_LIST = 256 << 10
_MAX_RECORDS = 8192
"""Records one file may be spread over."""
_HEAD = struct.Struct("<4sHHQHHHHIIQ")
_ATTRIBUTE = struct.Struct("<IIBBHHH")
_NONRESIDENT = struct.Struct("<QQHHIQQQ")
_LIST_ENTRY = struct.Struct("<IHBBQQH")


class Attribute(NamedTuple):
    """`data` is the value of a resident attribute; otherwise `runs` map it, from cluster `lowest` on."""

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
    number: int
    sequence: int
    is_folder: bool
    base: int
    attributes: tuple[Attribute, ...]

    def find(self, type_: int, name: bytes = b"") -> Attribute | None:
        for attribute in self.attributes:
            if attribute.type == type_ and attribute.name == name:
                return attribute
        return None


class Boot:
    """The boot sector, checked. Raises GuestDamaged when it is none of NTFS."""

    def __init__(self, device: BlockDevice) -> None:
        raw = device.read(0, 512)
        (sector, per_cluster) = struct.unpack_from("<HB", raw, 11)
        if raw[3:11] != b"NTFS    ":
            raise GuestDamaged("ntfs: no magic number at offset 3")
        if sector not in (256, 512, 1024, 2048, 4096):
            raise GuestDamaged(f"ntfs: sectors of {sector} bytes")
        self.cluster_size = sector * (1 << 256 - per_cluster if per_cluster > 0xF0 else per_cluster)
        size = self.cluster_size
        if not 0 < size <= 2 << 20 or size & (size - 1):
            raise GuestDamaged(f"ntfs: clusters of {size} bytes")
        (table,) = struct.unpack_from("<Q", raw, 48)
        self.table_offset = table * size
        (per_record,) = struct.unpack_from("<b", raw, 64)
        self.record_size = 1 << -per_record if per_record < 0 else per_record * size
        if not 512 <= self.record_size <= 65536 or self.record_size & (self.record_size - 1):
            raise GuestDamaged(f"ntfs: records of {self.record_size} bytes")


class MasterTable:
    """The master file table: records by their number."""

    def __init__(self, device: BlockDevice, boot: Boot) -> None:
        self._device = device
        self.cluster_size = boot.cluster_size
        self._record_size = boot.record_size
        first = _parse(device.read(boot.table_offset, boot.record_size), 0)
        data = first.find(DATA)
        if data is None or data.data is not None:
            raise GuestDamaged("ntfs: the master file table has no place")
        self._size = data.size
        self._pieces: list[VolumeExtent] = self._mapped([data], 0, first=0)
        # A fragmented table lists its other parts in records that lie in the parts known so far.
        for number in self._listed(first, DATA):
            part = self._parsed(number).find(DATA)
            if part is not None and part.data is None and part.lowest:
                for piece in self._mapped([part], 0, first=part.lowest):
                    add_extent(self._pieces, *piece)

    def record(self, number: int) -> Record:
        """A base record with the attributes that stand in others. GuestMissing when it is not in use."""
        record = self._parsed(number)
        if record.base:
            raise GuestMissing(f"ntfs: record {number} belongs to another")
        if record.find(ATTRIBUTE_LIST) is None:
            return record
        attributes = list(record.attributes)
        for other in self._listed(record, None):
            part = self._parsed(other)
            if part.base & 0xFFFFFFFFFFFF != number:
                raise GuestDamaged(f"ntfs: record {other} is no part of {number}")
            attributes += part.attributes
        return record._replace(attributes=tuple(attributes))

    def pieces(self, parts: Sequence[Attribute], number: int) -> list[VolumeExtent]:
        """The pieces of an attribute that is not resident, its parts in any order. Holes are pieces without
        a place: where a piece is missing, a part is."""
        pieces = self._mapped(parts, number, first=0)
        head = min(parts, key=_lowest)
        end = pieces[-1][0] + pieces[-1][1] if pieces else 0
        if end < min(head.valid, head.size):
            raise GuestDamaged(f"ntfs: record {number}: an attribute of {head.size} bytes ends at {end}")
        return pieces

    def _mapped(self, parts: Sequence[Attribute], number: int, *, first: int) -> list[VolumeExtent]:
        """The pieces of some parts, the first of which must start at the cluster `first`."""
        pieces: list[VolumeExtent] = []
        expected = first
        for part in sorted(parts, key=_lowest):
            if part.lowest != expected:
                raise GuestDamaged(f"ntfs: record {number}: cluster {expected} of an attribute is nowhere")
            for count, place in _runs(part.runs, number):
                size = self.cluster_size
                add_extent(pieces, expected * size, count * size, place * size if place >= 0 else -1)
                expected += count
        return pieces

    def _parsed(self, number: int) -> Record:
        size = self._record_size
        if number < 0 or (number + 1) * size > self._size:
            raise GuestMissing(f"ntfs: no record {number}")
        raw = read_extents(self._device, self._pieces, self._size, number * size, size)
        return _parse(raw, number)

    def _listed(self, record: Record, type_: int | None) -> Iterator[int]:
        """Numbers of the other records that hold attributes (of a type) of this one."""
        listing = record.find(ATTRIBUTE_LIST)
        if listing is None:
            return
        data = self.value(listing, record.number, _MAX_LIST)
        seen = {record.number}
        place = 0
        while place + 26 <= len(data):
            found, length, _, _, _, reference, _ = _LIST_ENTRY.unpack_from(data, place)
            if length < 26:
                raise GuestDamaged(f"ntfs: record {record.number}: its list of attributes is damaged")
            place += length
            number = reference & 0xFFFFFFFFFFFF
            if number in seen or type_ not in (None, found):
                continue
            seen.add(number)
            if len(seen) > _MAX_RECORDS:
                raise GuestDamaged(f"ntfs: record {record.number} is in more than {_MAX_RECORDS} records")
            yield number

    def value(self, attribute: Attribute, number: int, limit: int) -> bytes:
        """The whole value of an attribute in one part, up to `limit` bytes."""
        if attribute.data is not None:
            return attribute.data
        if attribute.size > limit:
            raise GuestDamaged(f"ntfs: record {number}: an attribute of {attribute.size} bytes")
        pieces = self.pieces([attribute], number)
        return read_extents(self._device, pieces, attribute.size, 0, attribute.size)


def fix_up(raw: bytes, magic: bytes) -> bytearray:
    """A record or index block with the last two bytes of each sector put back. Raises GuestDamaged when the
    block was written in part."""
    if raw[:4] != magic:
        raise GuestDamaged(f"ntfs: no {magic.decode()} block")
    data = bytearray(raw)
    place, count = struct.unpack_from("<HH", raw, 4)
    if count != len(raw) // _SECTOR + 1 or place + count * 2 > len(raw):
        raise GuestDamaged("ntfs: the fix-ups of a block are damaged")
    mark = raw[place : place + 2]
    end = _SECTOR
    for at in range(place + 2, place + count * 2, 2):
        if data[end - 2 : end] != mark:
            raise GuestDamaged("ntfs: a block was written in part")
        data[end - 2 : end] = raw[at : at + 2]
        end += _SECTOR
    return data


def _parse(raw: bytes, number: int) -> Record:
    data = fix_up(raw, b"FILE")
    _, _, _, _, sequence, _, place, flags, used, _, base = _HEAD.unpack_from(data)
    if not flags & _IN_USE:
        raise GuestMissing(f"ntfs: record {number} is not in use")
    attributes = []
    end = min(used, len(data))
    while place + 4 <= end and data[place : place + 4] != _END:
        if place + 24 > end:
            raise GuestDamaged(f"ntfs: record {number}: an attribute at {place} of {end}")
        type_, length, nonresident, name_length, name_place, attribute_flags, _ = _ATTRIBUTE.unpack_from(
            data, place
        )
        if length < 24 or length % 8 or place + length > end:
            raise GuestDamaged(f"ntfs: record {number}: an attribute of {length} bytes")
        raw_attribute = bytes(data[place : place + length])
        name = raw_attribute[name_place : name_place + name_length * 2] if name_length else b""
        if nonresident:
            lowest, _, runs, unit, _, allocated, size, valid = _NONRESIDENT.unpack_from(raw_attribute, 16)
            if unit > 16 or size > MAX_SIZE:
                raise GuestDamaged(f"ntfs: record {number}: an attribute of {size} bytes in units of {unit}")
            if attribute_flags & (COMPRESSED | _SPARSE) and not lowest and runs >= 72:
                (allocated,) = struct.unpack_from("<Q", raw_attribute, 64)
            attributes.append(
                Attribute(
                    type_, name, attribute_flags, None, raw_attribute[runs:], lowest, unit, size, valid,
                    allocated,
                )
            )  # fmt: skip
        else:
            size, start = struct.unpack_from("<IH", raw_attribute, 16)
            if start + size > length:
                raise GuestDamaged(f"ntfs: record {number}: a value reaches to {start + size} of {length}")
            value = raw_attribute[start : start + size]
            attributes.append(Attribute(type_, name, attribute_flags, value, b"", 0, 0, size, size, 0))
        place += length
    return Record(number, sequence, bool(flags & _FOLDER), base, tuple(attributes))


def _runs(raw: bytes, number: int) -> Iterator[tuple[int, int]]:
    """(count, cluster) of mapping pairs; the cluster of a hole is -1."""
    place = cluster = 0
    while place < len(raw) and raw[place]:
        count_size, offset_size = raw[place] & 0xF, raw[place] >> 4
        middle = place + 1 + count_size
        end = middle + offset_size
        count = int.from_bytes(raw[place + 1 : middle], "little", signed=True)
        if not 1 <= count_size <= 8 or offset_size > 8 or count <= 0 or end > len(raw):
            raise GuestDamaged(f"ntfs: record {number}: its runs are damaged")
        if offset_size:
            cluster += int.from_bytes(raw[middle:end], "little", signed=True)
            if cluster < 0:
                raise GuestDamaged(f"ntfs: record {number}: a run at cluster {cluster}")
        yield count, cluster if offset_size else -1
        place = end


def _lowest(attribute: Attribute) -> int:
    return attribute.lowest
