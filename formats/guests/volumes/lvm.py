"""LVM2: the volume groups in the physical volumes of one disk, and their logical volumes as devices.

Linear and striped volumes are mapped to the disk; of mirrors the first image is read. Thin pools, snapshots
and caches are listed, but not opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.devices import (
    DeviceRange,
    LinearDevice,
    MappedRange,
    StripedDevice,
)
from holdfast.formats.guests.filesystems.base.directory_tree import PARSE_ERRORS
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.values.damage import GuestUnsupported, StructureDamaged
from holdfast.formats.guests.volumes.lvm_metadata import SECTOR, PhysicalVolume, Section, Value, parse_text

_MAX_DEPTH = 4
_MAX_VOLUMES = 4096
_MAX_SEGMENTS = 100_000
_MAX_NUMBER = (1 << 54) - 1
"""Numbers of sectors up to this fit into 63 bits as bytes."""
_OTHERS = {
    "thin-pool": "a pool of thin volumes",
    "thin": "a thin volume",
    "snapshot": "a snapshot",
    "cache": "a cached volume",
    "cache-pool": "a cache",
    "writecache": "a volume with a write cache",
    "vdo": "a deduplicated volume (VDO)",
    "vdo-pool": "a pool of deduplicated volumes (VDO)",
    "raid5": "RAID 5",
    "raid6": "RAID 6",
    "raid10": "RAID 10",
    "integrity": "a volume with checksums",
}


class LogicalVolume(NamedTuple):
    """A logical volume of `size` bytes. `device` is None when it cannot be opened; then `text` tells why."""

    group: str
    name: str
    size: int
    device: BlockDevice | None
    text: str


def logical_volumes(found: Sequence[tuple[PhysicalVolume, BlockDevice]]) -> list[LogicalVolume]:
    """The visible volumes of all groups. Of several descriptions of one group the newest is used."""
    devices = {volume.id: device for volume, device in found}
    groups: dict[str, tuple[int, str, Section]] = {}
    for volume, _ in found:
        try:
            name, group = _group(volume.text)
            id_, number = _text(group, "id"), _number(group, "seqno")
        except PARSE_ERRORS:
            continue
        if id_ not in groups or groups[id_][0] < number:
            groups[id_] = (number, name, group)
    volumes: list[LogicalVolume] = []
    for _, name, group in groups.values():
        try:
            volumes += _Group(name, group, devices).visible()
        except PARSE_ERRORS as error:
            volumes.append(LogicalVolume(name, "unknown", 0, None, f"damaged volume group: {error}"))
    return volumes


def group_name(volume: PhysicalVolume) -> str:
    """The name of a physical volume's group; "" when the volume holds no description of it."""
    try:
        return _group(volume.text)[0]
    except PARSE_ERRORS:
        return ""


class _Group:
    """One volume group: maps its logical volumes to the physical ones, `devices` by their ID."""

    def __init__(self, name: str, group: Section, devices: Mapping[str, BlockDevice]) -> None:
        self._name = name
        self._extent = _number(group, "extent_size") * SECTOR
        if not 0 < self._extent <= 1 << 44:
            raise _damaged(name, "extent size", self._extent, f"1 to {1 << 44} bytes")
        self._volumes = _section(group, "logical_volumes") if "logical_volumes" in group else {}
        if len(self._volumes) > _MAX_VOLUMES:
            raise _damaged(name, "number of logical volumes", len(self._volumes), f"at most {_MAX_VOLUMES}")
        self._physical = _section(group, "physical_volumes")
        self._devices = devices
        self._made: dict[str, BlockDevice] = {}
        """Devices of volumes that were mapped before: many segments of others may use one."""

    def visible(self) -> Iterable[LogicalVolume]:
        """The volumes that LVM shows, with their devices; a damaged one does not hide the others."""
        for name, description in self._volumes.items():
            size = 0
            try:
                if not isinstance(description, dict) or "VISIBLE" not in _list(description, "status"):
                    continue
                segments = _segments(description)
                size = sum(_number(segment, "extent_count") for segment in segments) * self._extent
                device: BlockDevice | None = self._volume(name, 0)
                text = ""
            except PARSE_ERRORS as error:
                device = None
                text = str(error)
            yield LogicalVolume(self._name, name, size, device, text)

    def _volume(self, name: Value, depth: int) -> BlockDevice:
        """The device of a logical volume, which others at `depth` levels above use."""
        if not isinstance(name, str):
            raise _damaged(self._name, "name of a logical volume", repr(name), "a string")
        if depth > _MAX_DEPTH:
            structure = f"{self._name}/{name}"
            raise _damaged(structure, "depth of nested volumes", depth, f"at most {_MAX_DEPTH}")
        if name in self._made:
            return self._made[name]
        parts = []
        position = 0
        for segment in _segments(_section(self._volumes, name)):
            start = _number(segment, "start_extent") * self._extent
            length = _number(segment, "extent_count") * self._extent
            if start != position or length <= 0:
                found, limit = f"{length} bytes at {start}", f"at least 1 byte at {position}"
                raise _damaged(f"{self._name}/{name}", "segment", found, limit)
            device = self._segment(segment, length, depth)
            parts.append(MappedRange(start, length, device, 0))
            position += length
        self._made[name] = parts[0].device if len(parts) == 1 else LinearDevice(parts)
        return self._made[name]

    def _segment(self, segment: Section, length: int, depth: int) -> BlockDevice:
        kind = _text(segment, "type")
        if kind in ("striped", "linear"):
            stripes = self._places(_list(segment, "stripes"), length, depth)
            if len(stripes) == 1:
                return stripes[0]
            return StripedDevice(stripes, _number(segment, "stripe_size") * SECTOR, length)
        if kind == "mirror":
            return self._places(_list(segment, "mirrors")[:2], length, depth)[0]
        if kind == "raid1":  # pairs of metadata and image
            return DeviceRange(self._volume(_list(segment, "raids")[1], depth + 1), 0, length)
        what = _OTHERS.get(kind, f"an LVM volume of type {kind[:40]}")
        raise GuestUnsupported(f"lvm group {self._name}", f"{what}; it cannot be opened here")

    def _places(self, pairs: Sequence[Value], length: int, depth: int) -> list[BlockDevice]:
        """The devices that pairs of a name and a first extent refer to, each for its share of `length`
        bytes."""
        if not pairs or len(pairs) % 2:
            raise _damaged(self._name, "number of values of stripes", len(pairs), "even, at least 2")
        share = length // (len(pairs) // 2)
        return [
            self._place(name, first, share, depth)
            for name, first in zip(pairs[::2], pairs[1::2], strict=True)
        ]

    def _place(self, name: Value, first: Value, length: int, depth: int) -> BlockDevice:
        if not isinstance(name, str) or not isinstance(first, int):
            raise _damaged(self._name, "stripe", f"{name!r}, {first!r}", "a name and a number")
        if name not in self._physical:
            return DeviceRange(self._volume(name, depth + 1), first * self._extent, length)
        volume = _section(self._physical, name)
        device = self._devices.get(_text(volume, "id").replace("-", ""))
        if device is None:
            last = volume.get("device")
            where = f" (last seen as {last[:40]})" if isinstance(last, str) else ""
            needs = f"it needs the physical volume {_text(volume, 'id')[:60]}{where}, on another disk"
            raise GuestUnsupported(f"lvm group {self._name}", needs)
        return DeviceRange(device, _number(volume, "pe_start") * SECTOR + first * self._extent, length)


def _group(text: str) -> tuple[str, Section]:
    for name, value in parse_text(text).items():
        if isinstance(value, dict):
            return name, value
    raise StructureDamaged("lvm description", "number of volume groups", 0, "1")


def _segments(volume: Section) -> list[Section]:
    count = _number(volume, "segment_count")
    if not 0 < count <= _MAX_SEGMENTS:
        raise StructureDamaged("lvm volume", "segment_count", count, f"1 to {_MAX_SEGMENTS}")
    return [_section(volume, f"segment{number}") for number in range(1, count + 1)]


def _number(section: Section, name: str) -> int:
    value = section.get(name)
    if not isinstance(value, int) or not 0 <= value <= _MAX_NUMBER:
        raise StructureDamaged("lvm description", name, repr(value), f"a number from 0 to {_MAX_NUMBER}")
    return value


def _text(section: Section, name: str) -> str:
    value = section.get(name)
    if not isinstance(value, str):
        raise StructureDamaged("lvm description", name, repr(value), "a string")
    return value


def _list(section: Section, name: str) -> list[Value]:
    value = section.get(name)
    if not isinstance(value, list):
        raise StructureDamaged("lvm description", name, repr(value), "a list")
    return value


def _section(section: Section, name: str) -> Section:
    value = section.get(name)
    if not isinstance(value, dict):
        raise StructureDamaged("lvm description", name, repr(value), "a section")
    return value


def _damaged(name: str, field: str, value: int | str, limit: str) -> StructureDamaged:
    return StructureDamaged(f"lvm group {name}", field, value, limit)
