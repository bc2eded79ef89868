"""Proxmox: reads backups `vzdump-qemu-VMID-TIME.vma`, plain or compressed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.formats.disks.base.image import ImageFile
from holdfast.ingest.exports.export import ExportBuilder, VmExport
from holdfast.ingest.exports.names import canonical_uuid
from holdfast.ingest.exports.unpacked import PACKINGS, unpack
from holdfast.ingest.exports.vma import VMSTATE, VmaArchive

_NAME: Final = re.compile(rf"(?P<archive>.+\.vma)(?:\.(?P<packing>{'|'.join(PACKINGS)}))?", re.IGNORECASE)
_VMID: Final = re.compile(r"vzdump-qemu-(\d+)-")
_DRIVE: Final = re.compile(r"((?:ide|sata|scsi|virtio|efidisk|tpmstate)\d+): *(.*)")
_CONFIG: Final = "qemu-server.conf"


@dataclass(frozen=True, slots=True)
class VmConfig:
    """A parsed `qemu-server.conf`. `drives` are the keys of its disks, such as `scsi0`."""

    name: str
    uuid: str
    drives: tuple[str, ...]


def is_vzdump(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def parse_config(data: bytes) -> VmConfig:
    """Parse the VM's own section; ignore the sections of snapshots that follow it."""
    name = uuid = ""
    drives = []
    for line in data.decode(errors="replace").splitlines():
        if line.startswith("["):
            break
        drive = _DRIVE.fullmatch(line.strip())
        if line.startswith("name:"):
            name = line[5:].strip()
        elif line.startswith("smbios1:"):
            found = re.search(r"(?:^|[ ,:])uuid=([^,\s]+)", line)
            uuid = canonical_uuid(found[1]) if found else ""
        elif drive and "media=cdrom" not in drive[2].split(",") and not drive[2].startswith("none"):
            drives.append(drive[1])
    return VmConfig(name, uuid, tuple(drives))


def read_vzdump(path: Path, builder: ExportBuilder) -> VmExport:
    """Read an archive. Raises SourceError for damage, Refused for a compressed one without scratch."""
    match = _NAME.fullmatch(path.name)
    assert match
    packed = builder.open_definition(path)
    file: ImageFile = packed
    if match["packing"]:
        permissions = builder.permissions
        packing = match["packing"].lower()
        file = builder.opened.add(
            unpack(packed, packing, permissions.scratch, match["archive"], permissions.progress)
        )
    archive = VmaArchive(file)
    mtime = archive.header.time * 10**9
    config = VmConfig("", "", ())
    for name, data in archive.header.configs:
        builder.add_definition(name, data, mtime)
        if name == _CONFIG:
            config = parse_config(data)
    found = set()
    for device in archive.header.devices:
        if device.name == VMSTATE:
            builder.warn("the VM's memory is in the archive; it is not kept")
            continue
        bus = device.name.removeprefix("drive-").removesuffix("-backup")
        found.add(bus)
        builder.add_image(bus, archive.image(device), (path.name,), bus, mtime)
    for drive in config.drives:
        if drive not in found:
            builder.warn(f"the VM's disk {drive} is not in the archive")
    vmid = _VMID.match(path.name)
    return builder.finish("vzdump", config.name or (f"vm-{vmid[1]}" if vmid else path.name), config.uuid)
