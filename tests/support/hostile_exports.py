"""Exports of VMs that name a file elsewhere, which must not be read."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from support.export import (
    domain,
    domain_disk,
    ovf,
    qcow2,
    raw_disk,
    tar,
)

CANARY = b"the canary sings " * 4096
"""A whole number of sectors, so that it can pass for a disk."""


def flat_vmdk(path: Path, extent: str) -> None:
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\nRW {len(CANARY) // 512} FLAT "{extent}" 0\n'
        'ddb.adapterType = "ide"\n'
    )


def backing(folder: Path, canary: Path) -> None:
    qcow2(folder / "a.qcow2", "-b", str(canary), "-F", "raw")
    (folder / "a.xml").write_text(domain(domain_disk("/a.qcow2", "qcow2")))


def backing_in_json(folder: Path, canary: Path) -> None:
    name = json.dumps({"driver": "raw", "file": {"driver": "file", "filename": str(canary)}})
    qcow2(folder / "a.qcow2", "-u", "-b", f"json:{name}", "-F", "raw")
    (folder / "a.xml").write_text(domain(domain_disk("/a.qcow2", "qcow2")))


def data_file(folder: Path, canary: Path) -> None:
    # qemu-img truncates what it makes a data file of: it gets another file, whose place the canary takes.
    there = canary.with_name("canary.dat")
    qcow2(folder / "a.qcow2", "-o", f"data_file={there},data_file_raw=on,preallocation=metadata")
    there.write_bytes(CANARY.ljust(1 << 20, b"\0"))
    (folder / "a.xml").write_text(domain(domain_disk("/a.qcow2", "qcow2")))


def sibling(folder: Path, canary: Path) -> None:
    """A file beside the image, which `--follow-backing` alone may allow."""
    shutil.copy(canary, folder / "letters.raw")
    qcow2(folder / "a.qcow2", "-b", str(folder / "letters.raw"), "-F", "raw")
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-b", "letters.raw", "-F", "raw", folder / "a.qcow2"], check=True
    )
    (folder / "a.xml").write_text(domain(domain_disk("/a.qcow2", "qcow2")))


def extent_path(folder: Path, canary: Path) -> None:
    flat_vmdk(folder / "a.vmdk", str(canary))
    (folder / "a.vmx").write_text('scsi0:0.fileName = "a.vmdk"\n')


def extent_sibling(folder: Path, canary: Path) -> None:
    """A file beside the disk that is no part of any: somebody's letters in a folder of downloads."""
    shutil.copy(canary, folder / "letters.txt")
    flat_vmdk(folder / "a.vmdk", "letters.txt")
    (folder / "a.vmx").write_text('scsi0:0.fileName = "a.vmdk"\n')


def extent_link(folder: Path, canary: Path) -> None:
    (folder / "a-flat.vmdk").symlink_to(canary)
    flat_vmdk(folder / "a.vmdk", "a-flat.vmdk")
    (folder / "a.vmx").write_text('scsi0:0.fileName = "a.vmdk"\n')


def extent_outside_archive(folder: Path, canary: Path) -> None:
    flat_vmdk(folder / "a.vmdk", str(canary))
    (folder / "a.ovf").write_text(ovf([("a.vmdk", len(CANARY))]))
    tar(folder / "a.ova", folder, "a.ovf", "a.vmdk")
    (folder / "a.ovf").unlink()


def vmx_path(folder: Path, canary: Path) -> None:
    (folder / "a.vmx").write_text(f'scsi0:0.fileName = "{canary}"\nnvram = "{canary}"\n')


def domain_path(folder: Path, canary: Path) -> None:
    (folder / "a.xml").write_text(domain(domain_disk(str(canary), "raw")))


def domain_device(folder: Path, canary: Path) -> None:
    block = f"<disk type='block'><source dev='{canary}'/><target dev='vda'/></disk>"
    (folder / "a.xml").write_text(domain(block))


def domain_entity(folder: Path, canary: Path) -> None:
    text = f'<!DOCTYPE d [<!ENTITY e SYSTEM "file://{canary}">]>' + domain(
        domain_disk("/a.raw", "raw"), name="&e;"
    )
    raw_disk(folder / "a.raw", 1)
    (folder / "a.xml").write_text(text)


def ovf_path(folder: Path, canary: Path) -> None:
    (folder / "a.ovf").write_text(ovf([(str(canary), len(CANARY))]))


def ovf_parent_path(folder: Path, canary: Path) -> None:
    (folder / "a.ovf").write_text(ovf([("../host/canary.raw", len(CANARY))]))


def ovf_escaped_path(folder: Path, canary: Path) -> None:
    (folder / "a.ovf").write_text(ovf([("%2e%2e%2fhost%2fcanary.raw", len(CANARY))]))


def ovf_link(folder: Path, canary: Path) -> None:
    (folder / "a.raw").symlink_to(canary)
    (folder / "a.ovf").write_text(ovf([("a.raw", len(CANARY))]))


def ovf_extent_sibling(folder: Path, canary: Path) -> None:
    shutil.copy(canary, folder / "letters.txt")
    flat_vmdk(folder / "a.vmdk", "letters.txt")
    (folder / "a.ovf").write_text(ovf([("a.vmdk", len(CANARY))]))


def ovf_manifest_link(folder: Path, canary: Path) -> None:
    raw_disk(folder / "a.raw", 1)
    (folder / "a.ovf").write_text(ovf([("a.raw", 9 << 20)]))
    (folder / "a.mf").symlink_to(canary)


def ovf_entity(folder: Path, canary: Path) -> None:
    raw_disk(folder / "a.raw", 1)
    text = ovf([("a.raw", 9 << 20)], name="&e;")
    doctype = f'<!DOCTYPE d [<!ENTITY e SYSTEM "file://{canary}">]>\n<Envelope'
    (folder / "a.ovf").write_text(text.replace("<Envelope", doctype, 1))


def tar_link(folder: Path, canary: Path) -> None:
    (folder / "a.raw").symlink_to(canary)
    (folder / "a.ovf").write_text(ovf([("a.raw", len(CANARY))]))
    tar(folder / "a.ova", folder, "a.ovf", "a.raw")
    (folder / "a.ovf").unlink()


def tar_path(folder: Path, canary: Path) -> None:
    (folder / "a.ovf").write_text(ovf([("../host/canary.raw", len(CANARY))]))
    tar(folder / "a.ova", folder, "a.ovf")
    (folder / "a.ovf").unlink()


def nvram_link(folder: Path, canary: Path) -> None:
    raw_disk(folder / "a.raw", 1)
    (folder / "a.nvram").symlink_to(canary)
    (folder / "a.vmx").write_text('scsi0:0.fileName = "a.raw"\n')


def vbox_path(folder: Path, canary: Path) -> None:
    (folder / "a.vbox").write_text(
        f'<VirtualBox><Machine><MediaRegistry><HardDisks><HardDisk uuid="1" location="{canary}"'
        ' format="RAW"/></HardDisks></MediaRegistry><StorageControllers><StorageController>'
        '<AttachedDevice type="HardDisk">'
        '<Image uuid="1"/></AttachedDevice></StorageController></StorageControllers></Machine></VirtualBox>'
    )


def linked_disks(folder: Path, canary: Path) -> None:
    (folder / "a.raw").symlink_to(canary)
    raw_disk(folder / "b.raw", 1)


def hyperv_link(folder: Path, canary: Path) -> None:
    for name in ("Virtual Machines", "Virtual Hard Disks"):
        (folder / name).mkdir()
    (folder / "Virtual Machines" / "11111111-0000-4000-8000-000000000001.vmcx").symlink_to(canary)
    (folder / "Virtual Machines" / "11111111-0000-4000-8000-000000000001.xml").symlink_to(canary)
    (folder / "Virtual Hard Disks" / "a.vhdx").symlink_to(canary)


CRAFTED = [
    *(backing, backing_in_json, data_file, sibling, extent_path, extent_sibling, extent_link),
    *(extent_outside_archive, vmx_path, domain_path, domain_device, domain_entity, ovf_path, ovf_parent_path),
    *(
        ovf_escaped_path,
        ovf_extent_sibling,
        ovf_link,
        ovf_manifest_link,
        ovf_entity,
        tar_link,
        tar_path,
        nvram_link,
        vbox_path,
    ),
    *(linked_disks, hyperv_link),
]
