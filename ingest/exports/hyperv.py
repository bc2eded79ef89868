"""Hyper-V: reads the directory that `Export-VM` writes.

It holds `Virtual Machines/GUID.vmcx` (binary; `.xml` before Windows Server 2016), `Virtual Hard Disks` and
`Snapshots`. The binary configuration is stored and not parsed: the VM's disks are those in
`Virtual Hard Disks`.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Final

from holdfast.base.errors import Refused, SourceError
from holdfast.formats.disks.base.errors import ImageRefused
from holdfast.ingest.exports.export import ExportBuilder, VmExport
from holdfast.ingest.exports.names import canonical_uuid
from holdfast.ingest.exports.opened import ExportDirectory, read_small
from holdfast.ingest.exports.safe_xml import XML_LIMIT, parse_xml, text_of

MACHINES: Final = "Virtual Machines"
_DISKS: Final = "Virtual Hard Disks"
_SNAPSHOTS: Final = "Snapshots"
_DEFINITIONS: Final = (".vmcx", ".xml", ".vmgs")
_DELTAS: Final = (".avhdx", ".avhd")


def machine_files(folder: ExportDirectory) -> list[str]:
    """Names of the VM configurations in the directory's `Virtual Machines`; a usable export has one VM."""
    machines = folder.folder(MACHINES)
    names = machines.files() if machines else []
    return [n for n in names if n.lower().endswith((".vmcx", ".xml")) and canonical_uuid(PurePath(n).stem)]


def read_hyperv(path: Path, builder: ExportBuilder) -> VmExport:
    """Read an export. Raises SourceError, or Refused for several VMs or differencing disks of checkpoints."""
    folder = ExportDirectory(path, builder.opened)
    machines, disks = folder.folder(MACHINES), folder.folder(_DISKS)
    found = machine_files(folder)
    guids = {canonical_uuid(PurePath(name).stem) for name in found}
    if machines is None or not guids:
        raise SourceError(f"{path} has no configuration of a VM in {MACHINES!r}")
    if len(guids) > 1:
        raise Refused(f"{path} holds {len(guids)} VMs ({', '.join(sorted(guids))}); export them one by one")
    guid = guids.pop()
    for directory in (disks, folder.folder(_SNAPSHOTS)):
        for name in directory.files() if directory else ():
            if name.lower().endswith(_DELTAS):
                raise ImageRefused(
                    name,
                    "holds only what changed since a checkpoint; delete the VM's checkpoints in Hyper-V "
                    "(which merges them) and export again",
                )
    for name in machines.files():
        if name.lower().endswith(_DEFINITIONS) and canonical_uuid(PurePath(name).stem) == guid:
            builder.add_definition_file(machines, name)
    for name in disks.files() if disks else ():
        assert disks
        if name.lower().endswith((".vhdx", ".vhd")):
            builder.add_disk_file(disks, name, None)
    return builder.finish("hyper-v", _name(machines, found) or path.resolve().name, guid)


def _name(machines: ExportDirectory, found: list[str]) -> str:
    """The VM's name where the configuration is XML; "" where it is binary."""
    for name in found:
        if name.lower().endswith(".xml"):
            root = parse_xml(read_small(machines.open(name), XML_LIMIT, "a VM's configuration"), name)
            return text_of(root, "properties", "name")
    return ""
