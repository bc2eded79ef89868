"""libvirt: reads the domain XML that `virsh dumpxml` writes, and the disks beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element

from holdfast.formats.disks.base.errors import ImageRefused
from holdfast.ingest.exports.export import ExportBuilder, VmExport
from holdfast.ingest.exports.names import base_name, canonical_uuid
from holdfast.ingest.exports.opened import ExportDirectory, read_small
from holdfast.ingest.exports.safe_xml import XML_LIMIT, attribute, children, local, parse_xml, text_of

_FORMATS: Final = {
    "raw": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vpc": "vhd",
    "vhdx": "vhdx",
}
"""libvirt's (QEMU's) names of formats."""
_ROOT: Final = re.compile(rb"<domain[\s>]")


@dataclass(frozen=True, slots=True)
class DomainDisk:
    """A disk of a domain. `location` is a path, "" for network disks and volumes of pools.

    `is_slice` means that the image is a part of that file. `driver` is the format in the domain XML; it is
    never guessed from the image's content, which the guest controls.
    """

    target: str
    location: str
    is_file: bool
    is_slice: bool
    driver: str


@dataclass(frozen=True, slots=True)
class LibvirtDomain:
    name: str
    uuid: str
    disks: tuple[DomainDisk, ...]


def parse_domain(data: bytes, name: str) -> LibvirtDomain | None:
    """Parse a domain; None for another document. Raises SourceError for malformed or too large XML."""
    if not _ROOT.search(data):
        return None
    root = parse_xml(data, name)
    if local(root) != "domain":
        return None
    disks = tuple(
        _disk(disk)
        for disk in children(root, "devices", "disk")
        if (attribute(disk, "device") or "disk") in ("disk", "lun")
    )
    return LibvirtDomain(text_of(root, "name"), canonical_uuid(text_of(root, "uuid")), disks)


def _disk(disk: Element) -> DomainDisk:
    source = next(children(disk, "source"), None)
    target = next(children(disk, "target"), None)
    driver = next(children(disk, "driver"), None)
    path = attribute(source, "file") if source is not None else ""
    device = attribute(source, "dev") if source is not None else ""
    return DomainDisk(
        target=attribute(target, "dev") if target is not None else "",
        location=path or device,
        is_file=bool(path),
        is_slice=next(children(disk, "source", "slices", "slice"), None) is not None,
        driver=(attribute(driver, "type") if driver is not None else "") or "raw",
    )


def read_libvirt(path: Path, builder: ExportBuilder) -> VmExport | None:
    """Read a domain and its disks; None if the file is not a domain. Raises SourceError, ImageRefused."""
    file = builder.open_definition(path)
    data = read_small(file, XML_LIMIT, "a domain") if file.size <= XML_LIMIT else b""
    domain = parse_domain(data, path.name)
    if domain is None:
        return None
    folder = ExportDirectory(path.parent, builder.opened)
    builder.add_definition(path.name, data, file.status.st_mtime_ns)
    for disk in domain.disks:
        if not disk.is_file and not builder.permissions.named.holds(base_name(disk.location)):
            what = f"the device {disk.location}" if disk.location else "no file (network or storage pool)"
            builder.warn(f"the disk {disk.target} is {what} and was left out; it can be named besides")
            continue
        if disk.is_slice:
            raise ImageRefused(
                path.name, f"the disk {disk.target} is a slice of a file, which is not known here"
            )
        format_ = _FORMATS.get(disk.driver)
        if format_ is None:
            raise ImageRefused(
                path.name, f"the disk {disk.target} has the format {disk.driver!r}, not known here"
            )
        builder.add_disk_file(folder, disk.location, format_, disk.target)
    return builder.finish("libvirt", domain.name or path.stem, domain.uuid)
