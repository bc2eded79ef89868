"""VMware: reads a VM's directory with a `.vmx` file, from a datastore or a workstation's disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.base.errors import SourceError
from holdfast.formats.disks.base.errors import ImageRefused
from holdfast.ingest.exports.export import ExportBuilder, VmExport
from holdfast.ingest.exports.names import base_name, canonical_uuid
from holdfast.ingest.exports.opened import ExportDirectory, read_small

VMX_LIMIT: Final = 1 << 20
_LINE: Final = re.compile(r'\s*([A-Za-z0-9_.:-]+)\s*=\s*"([^"]*)"\s*')
_FILE_KEY: Final = re.compile(r"((?:scsi|sata|ide|nvme)\d{1,2}:\d{1,3})\.filename")
_DELTA: Final = re.compile(r"-\d{6}\.vmdk$", re.IGNORECASE)
_ENCODINGS: Final = {
    "utf-8": "utf-8",
    "windows-1252": "cp1252",
    "windows-1251": "cp1251",
    "windows-1250": "cp1250",
    "iso-8859-1": "latin-1",
    "shift_jis": "shift_jis",
    "gbk": "gbk",
    "gb18030": "gb18030",
    "big5": "big5",
    "euc-kr": "euc_kr",
}
_COMPANIONS: Final = (".nvram", ".vmsd", ".vmxf")
"""Suffixes of further definition files, which have the stem of the `.vmx` file."""


@dataclass(frozen=True, slots=True)
class VmxDisk:
    """A disk's address in the VM (`scsi0:0`) and its file name in the configuration."""

    bus: str
    location: str


def parse_vmx(data: bytes, name: str) -> dict[str, str]:
    """Values by lower-case key. Ignores lines that are not settings, as VMware does.

    Raises SourceError for a key with two different values or an unknown encoding.
    """
    said = re.search(rb'^[ \t]*\.encoding[ \t]*=[ \t]*"([^"\n]*)"', data, re.MULTILINE)
    label = said[1].decode("ascii", "replace").lower() if said else "utf-8"
    if label not in _ENCODINGS:
        raise SourceError(f"{name} says it is in {label!r}, which is not known")
    settings: dict[str, str] = {}
    for line in data.decode(_ENCODINGS[label], errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if match:
            value = re.sub(r"\|([0-9A-Fa-f]{2})", lambda code: chr(int(code[1], 16)), match[2])
            if settings.setdefault(match[1].lower(), value) != value:
                raise SourceError(f"{name} has two different values of {match[1]}")
    return settings


def vmx_disks(settings: Mapping[str, str]) -> list[VmxDisk]:
    """The attached disks, without CD-ROM drives and absent devices."""
    disks = []
    for key, location in settings.items():
        match = _FILE_KEY.fullmatch(key)
        if not match:
            continue
        bus = match[1]
        kind = settings.get(f"{bus}.devicetype", "disk").lower()
        is_disk = "cdrom" not in kind and "floppy" not in kind and not location.lower().endswith(".iso")
        if is_disk and location and settings.get(f"{bus}.present", "true").lower() == "true":
            disks.append(VmxDisk(bus, location))
    return disks


def read_vmx(path: Path, builder: ExportBuilder) -> VmExport:
    """Read a VM and its disks. Raises SourceError, or ImageRefused for encryption or snapshots."""
    folder = ExportDirectory(path.parent, builder.opened)
    file = builder.open_definition(path)
    data = read_small(file, VMX_LIMIT, "a VM's configuration")
    settings = parse_vmx(data, path.name)
    if "encryption.keysafe" in settings:
        raise ImageRefused(path.name, "the VM is encrypted; take the encryption away in VMware first")
    builder.add_definition(path.name, data, file.status.st_mtime_ns)
    wanted = {path.stem + suffix for suffix in _COMPANIONS}
    wanted |= {base_name(settings.get(key, "")) for key in ("nvram", "extendedconfigfile")}
    for name in folder.files():
        if name in wanted and name.lower().endswith(_COMPANIONS):
            builder.add_definition_file(folder, name)
    for disk in vmx_disks(settings):
        if _DELTA.search(disk.location):
            raise ImageRefused(
                base_name(disk.location),
                "holds only what changed since a snapshot; delete the VM's snapshots in VMware "
                "(which merges them), or export a clone",
            )
        builder.add_disk_file(folder, disk.location, None, disk.bus)
    uuid = canonical_uuid(settings.get("uuid.bios", "")) or canonical_uuid(settings.get("vc.uuid", ""))
    return builder.finish("vmware", settings.get("displayname", "") or path.stem, uuid)
