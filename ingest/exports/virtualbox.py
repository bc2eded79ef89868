"""VirtualBox: reads a directory with a `.vbox` file and its hard disks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element

from holdfast.base.errors import SourceError
from holdfast.formats.disks.base.errors import ImageRefused
from holdfast.ingest.exports.export import ExportBuilder, VmExport
from holdfast.ingest.exports.names import canonical_uuid
from holdfast.ingest.exports.opened import ExportDirectory, read_small
from holdfast.ingest.exports.safe_xml import XML_LIMIT, attribute, children, local, parse_xml

_FORMATS: Final = {"VDI": "vdi", "VMDK": "vmdk", "VHD": "vhd", "VHDX": "vhdx", "RAW": "raw", "QCOW": "qcow2"}


@dataclass(frozen=True, slots=True)
class VirtualBoxDisk:
    """A registered disk. `is_delta`: it is a differencing disk."""

    location: str
    format: str
    is_delta: bool
    is_encrypted: bool


@dataclass(frozen=True, slots=True)
class VirtualBoxMachine:
    """A parsed `.vbox` file. `disks` are the attached disks, each with its address (`SATA 0:0`)."""

    name: str
    uuid: str
    disks: tuple[tuple[str, VirtualBoxDisk], ...]


def parse_vbox(data: bytes, name: str) -> VirtualBoxMachine:
    """Parse a `.vbox` file. Raises SourceError if it is malformed or attaches an unregistered disk."""
    root = parse_xml(data, name)
    machine = next(children(root, "Machine"), None)
    if local(root) != "VirtualBox" or machine is None:
        raise SourceError(f"{name} describes no VirtualBox machine")
    registry = dict(_registered(machine))
    disks = []
    for bus, uuid in _attached(machine):
        if uuid not in registry:
            raise SourceError(f"{name} attaches the disk {uuid!r}, which it does not register")
        disks.append((bus, registry[uuid]))
    return VirtualBoxMachine(
        attribute(machine, "name"), canonical_uuid(attribute(machine, "uuid")), tuple(disks)
    )


def _registered(machine: Element) -> Iterator[tuple[str, VirtualBoxDisk]]:
    """(UUID, disk) of all registered disks; a disk element inside another one is a differencing disk."""
    todo = [(disk, False) for disk in children(machine, "MediaRegistry", "HardDisks", "HardDisk")]
    while todo:
        disk, is_delta = todo.pop()
        keys = {attribute(p, "name") for p in children(disk, "Property")}
        yield (
            attribute(disk, "uuid").lower(),
            VirtualBoxDisk(
                attribute(disk, "location"),
                attribute(disk, "format"),
                is_delta,
                any("CRYPT/" in key for key in keys),
            ),
        )
        todo += [(child, True) for child in children(disk, "HardDisk")]


def _attached(machine: Element) -> Iterator[tuple[str, str]]:
    """(bus, UUID) of attached disks. Controllers are under `Machine`, or since 7.0 under `Hardware`."""
    controllers = [*children(machine, "StorageControllers", "StorageController")]
    controllers += children(machine, "Hardware", "StorageControllers", "StorageController")
    for controller in controllers:
        for device in children(controller, "AttachedDevice"):
            image = next(children(device, "Image"), None)
            if attribute(device, "type") == "HardDisk" and image is not None:
                address = f"{attribute(device, 'port')}:{attribute(device, 'device')}"
                yield f"{attribute(controller, 'name')} {address}", attribute(image, "uuid").lower()


def read_vbox(path: Path, builder: ExportBuilder) -> VmExport:
    """Read a machine and its disks. Raises SourceError, ImageRefused."""
    folder = ExportDirectory(path.parent, builder.opened)
    file = builder.open_definition(path)
    data = read_small(file, XML_LIMIT, "a machine")
    machine = parse_vbox(data, path.name)
    builder.add_definition(path.name, data, file.status.st_mtime_ns)
    if f"{path.stem}.nvram" in folder.files():
        builder.add_definition_file(folder, f"{path.stem}.nvram")
    for bus, disk in machine.disks:
        if disk.is_delta:
            raise ImageRefused(
                disk.location,
                "holds only what changed since a snapshot; delete the VM's snapshots in VirtualBox (which "
                "merges them), or clone the VM",
            )
        if disk.is_encrypted:
            raise ImageRefused(disk.location, "is encrypted by VirtualBox; take the encryption away first")
        format_ = _FORMATS.get(disk.format.upper())
        if format_ is None:
            raise ImageRefused(disk.location, f"has the format {disk.format!r}, which is not known here")
        builder.add_disk_file(folder, disk.location, format_, bus)
    return builder.finish("virtualbox", machine.name or path.stem, machine.uuid)
