"""OVF descriptors: DMTF DSP0243, versions 1 and 2, as VMware, VirtualBox, oVirt and others write them.

A descriptor has `References` (files by id), a `DiskSection` (disks by id, each naming a file) and one
`VirtualSystem` with hardware items, of which those of type 17 attach disks to controllers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from xml.etree.ElementTree import Element

from holdfast.base.errors import Refused, SourceError
from holdfast.formats.disks.base.errors import ImageRefused
from holdfast.ingest.exports.names import canonical_uuid
from holdfast.ingest.exports.safe_xml import attribute, children, local, parse_xml, text_of

_DISK: Final = "17"
_CONTROLLERS: Final = {"5": "ide", "6": "scsi", "20": "sata"}
"""CIM resource types."""
_UNITS: Final = re.compile(r"byte(?:\s*\*\s*(?P<base>2|10)\s*\^\s*(?P<power>\d{1,2}))?", re.IGNORECASE)
_FORMATS: Final = (("vmdk", "vmdk"), ("qcow", "qcow2"), ("vhdx", "vhdx"), ("vhd", "vhd"), ("vdi", "vdi"))
"""What the URI of a disk format has in it."""
_VOLUME_FORMATS: Final = {"COW": "qcow2", "RAW": "raw"}
"""oVirt says it in an attribute of its own, and names files without a suffix."""


@dataclass(frozen=True, slots=True)
class OvfFile:
    """A file of the package, sizes in bytes. `size` None: not given. `chunk_size` None: not split."""

    href: str
    size: int | None
    packing: str
    chunk_size: int | None


@dataclass(frozen=True, slots=True)
class OvfDisk:
    """A disk and its file. `capacity` (bytes) and `format` are None if the descriptor lacks them."""

    id: str
    file: OvfFile
    capacity: int | None
    format: str | None
    bus: str


@dataclass(frozen=True, slots=True)
class OvfDescriptor:
    """A parsed descriptor. `others` are files of the package that are not disks."""

    name: str
    uuid: str
    disks: tuple[OvfDisk, ...]
    others: tuple[OvfFile, ...]
    warnings: tuple[str, ...]


def parse_ovf(data: bytes, name: str) -> OvfDescriptor:
    """Parse a descriptor. Raises SourceError, or Refused for several VMs or differencing disks."""
    root = parse_xml(data, name)
    if local(root) != "Envelope":
        raise SourceError(f"{name} is no OVF descriptor: its root is {local(root)!r}")
    system = _only_system(root, name)
    files = {attribute(f, "id"): _file(f, name) for f in children(root, "References", "File")}
    buses = _buses(system)
    disks, warnings = [], []
    for disk in children(root, "DiskSection", "Disk"):
        id_ = attribute(disk, "diskId")
        reference = attribute(disk, "fileRef")
        if attribute(disk, "parentRef"):
            raise ImageRefused(name, f"its disk {id_!r} holds only what differs from another disk")
        if not reference:
            warnings.append(f"the disk {id_!r} has no file: it is created empty when the VM is imported")
        elif reference not in files:
            raise SourceError(
                f"{name}: the disk {id_!r} is in the file {reference!r}, which is not referenced"
            )
        else:
            disks.append(OvfDisk(id_, files[reference], _capacity(disk), _format(disk), buses.get(id_, "")))
    used = {disk.file.href for disk in disks}
    if len(used) < len(disks):
        raise SourceError(f"{name}: two of its disks are in the same file")
    others = tuple(file for file in files.values() if file.href not in used)
    title = text_of(system, "Name") or attribute(system, "id")
    return OvfDescriptor(title, _uuid(system), tuple(disks), others, tuple(warnings))


def _only_system(root: Element, name: str) -> Element:
    systems = list(children(root, "VirtualSystem"))
    groups = list(children(root, "VirtualSystemCollection"))
    while groups:  # as deep as the parser allows
        group = groups.pop()
        systems += children(group, "VirtualSystem")
        groups += children(group, "VirtualSystemCollection")
    if not systems:
        raise SourceError(f"{name} describes no VM")
    if len(systems) > 1:
        them = ", ".join(repr(attribute(system, "id")) for system in systems[:10])
        raise Refused(f"{name} describes {len(systems)} VMs ({them}); export them one by one")
    return systems[0]


def _file(element: Element, name: str) -> OvfFile:
    packing = attribute(element, "compression")
    if packing not in ("", "identity", "gzip"):
        raise SourceError(f"{name}: a file is compressed with {packing!r}, which is not known")
    return OvfFile(
        href=attribute(element, "href"),
        size=_number(attribute(element, "size")),
        packing="gz" if packing == "gzip" else "",
        chunk_size=_number(attribute(element, "chunkSize")) or None,
    )


def _number(text: str) -> int | None:
    """The number; None for other text, such as placeholders (`${size}`)."""
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None


def _capacity(disk: Element) -> int | None:
    number = _number(attribute(disk, "capacity"))
    units = _UNITS.fullmatch(attribute(disk, "capacityAllocationUnits") or "byte")
    if number is None or units is None:
        return None
    factor: int = int(units["base"] or 1) ** int(units["power"] or 0)
    return number * factor


def _format(disk: Element) -> str | None:
    volume = _VOLUME_FORMATS.get(attribute(disk, "volume-format").upper())
    if volume:
        return volume
    uri = attribute(disk, "format").lower()
    return next((format_ for mark, format_ in _FORMATS if mark in uri), None)


def _buses(system: Element) -> dict[str, str]:
    """Addresses of disks, such as `scsi0:1`, by disk ID."""
    items = [*children(system, "VirtualHardwareSection", "Item")]
    items += children(system, "VirtualHardwareSection", "StorageItem")
    controllers: dict[str, str] = {}
    for item in items:
        kind = _CONTROLLERS.get(text_of(item, "ResourceType"))
        if kind:
            address = _number(text_of(item, "Address"))
            controllers[text_of(item, "InstanceID")] = f"{kind}{address or 0}"
    buses = {}
    for item in items:
        disk = re.fullmatch(r"(?:ovf:)?/disk/(.+)", text_of(item, "HostResource"))
        controller = controllers.get(text_of(item, "Parent"))
        if text_of(item, "ResourceType") == _DISK and disk and controller:
            unit = _number(text_of(item, "AddressOnParent"))
            buses[disk[1]] = f"{controller}:{unit or 0}"
    return buses


def _uuid(system: Element) -> str:
    """The VM's UUID. OVF has no element for it, so this tries those of VirtualBox, VMware and others."""
    said = [attribute(machine, "uuid") for machine in children(system, "Machine")]  # VirtualBox
    for hardware in children(system, "VirtualHardwareSection"):
        for extra in (*children(hardware, "ExtraConfig"), *children(hardware, "Config")):  # VMware
            if attribute(extra, "key") == "uuid.bios":
                said.append(attribute(extra, "value"))
        said.append(text_of(hardware, "System", "VirtualSystemIdentifier"))
    said += [
        attribute(system, "id"),
        *(attribute(s, "id") for s in children(system, "OperatingSystemSection")),
    ]
    return next((uuid for uuid in map(canonical_uuid, said) if uuid), "")
