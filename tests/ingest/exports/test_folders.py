"""Folders as VMware, Hyper-V, libvirt and VirtualBox leave them: one VM, all its disks, none too many."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import HoldfastError, Refused, SourceError
from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused, UnclearFormat
from holdfast.ingest.exports.export import VmExport
from holdfast.ingest.exports.libvirt import parse_domain
from holdfast.ingest.exports.opened import ExportDirectory, OpenedFiles
from holdfast.ingest.exports.recognise import find_export
from holdfast.ingest.exports.virtualbox import parse_vbox
from holdfast.ingest.exports.vmx import parse_vmx, vmx_disks
from support.export import (
    MIB,
    UUID,
    VBOX,
    VMX,
    content_of,
    domain,
    domain_disk,
    ovf,
    put_disk,
    raw_disk,
)

SIZE = 9 * MIB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "web01"
    path.mkdir()
    return path


def found(path: Path, **options: object) -> VmExport:
    export = find_export(path, **options)  # type: ignore[arg-type]  # options by name
    assert export is not None
    return export


# ---- VMware -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "subformat",
    ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"],
)
def test_a_vmware_folder_is_one_vm_with_its_definition_files(folder: Path, subformat: str) -> None:
    disks = [
        put_disk(folder / f"web01{n}.vmdk", "vmdk", seed, "-o", f"subformat={subformat}")
        for seed, n in enumerate(("", "_1"))
    ]
    (folder / "web01.vmx").write_text(VMX)
    for suffix, data in (("nvram", b"\0nv"), ("vmsd", b""), ("vmxf", b"<x/>"), ("log", b"log")):
        (folder / f"web01.{suffix}").write_bytes(data)
    for path in (folder, folder / "web01.vmx"):
        with found(path) as export:
            assert (export.kind, export.name, export.warnings) == ("vmware", "web 01 _größe_", ())
            assert export.uuid == "5f1c2b3a-4d5e-4f60-8172-93a4b5c6d7e8"
            assert [(d.name, d.bus) for d in export.disks] == [("web01", "scsi0:0"), ("web01_1", "nvme0:0")]
            assert [content_of(d.image) for d in export.disks] == disks
            assert [d.name for d in export.definitions] == [
                "web01.vmx",
                "web01.nvram",
                "web01.vmsd",
                "web01.vmxf",
            ]
            whole = subformat in ("monolithicSparse", "streamOptimized")
            assert len(export.disks[0].files) == (1 if whole else 2)
            assert export.disks[0].files[0] == "web01.vmdk"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"web01.vmdk"', '"web01-000001.vmdk"', "since a snapshot"),
        ("config.version", 'encryption.keySafe = "vmware:key/list"\nconfig.version', "encrypted"),
        ('"web01.vmdk"', '"gone.vmdk"', "there is no 'gone.vmdk'"),
        ('"web01.vmdk"', '"../other/secret.vmdk"', "there is no 'secret.vmdk'"),
        ('"UTF-8"', '"KLINGON"', "klingon"),
        ("config.version", 'displayName = "other"\nconfig.version', "two different"),
    ],
)
def test_a_vmx_that_asks_too_much_is_refused(folder: Path, old: str, new: str, said: str) -> None:
    put_disk(folder / "web01.vmdk", "vmdk", 1)
    (folder / "web01.vmx").write_text(VMX.replace(old, new))
    with pytest.raises(HoldfastError, match=said):
        find_export(folder)


@given(st.text(max_size=60), st.binary(max_size=80))
def test_no_vmx_makes_its_parser_fail_otherwise(text: str, data: bytes) -> None:
    for vmx in (data, VMX.encode() + data, f'scsi0:0.fileName = "{text}"\n{text} = "{text}"'.encode()):
        with suppress(HoldfastError):
            vmx_disks(parse_vmx(vmx, "x.vmx"))


# ---- Hyper-V ------------------------------------------------------------------------------------------


@pytest.fixture
def hyperv(folder: Path) -> Path:
    for name in ("Virtual Machines", "Virtual Hard Disks", "Snapshots"):
        (folder / name).mkdir()
    (folder / "Virtual Machines" / f"{UUID.upper()}.vmcx").write_bytes(b"\1binary")
    (folder / "Virtual Machines" / f"{UUID.upper()}.vmrs").write_bytes(b"memory")
    return folder


def test_a_hyper_v_export_is_one_vm(hyperv: Path) -> None:
    disks = [put_disk(hyperv / "Virtual Hard Disks" / "web01.vhdx", "vhdx", 1)]
    disks.append(put_disk(hyperv / "Virtual Hard Disks" / "web01-data.vhd", "vpc", 2, "-o", "force_size=on"))
    with found(hyperv) as export:
        assert (export.kind, export.name, export.uuid) == ("hyper-v", "web01", UUID)
        assert [d.name for d in export.disks] == ["web01-data", "web01"]
        assert [content_of(d.image) for d in reversed(export.disks)] == disks
        assert [d.name for d in export.definitions] == [f"{UUID.upper()}.vmcx"]


def test_an_old_hyper_v_export_says_its_name_in_xml(hyperv: Path) -> None:
    put_disk(hyperv / "Virtual Hard Disks" / "a.vhdx", "vhdx", 1)
    (hyperv / "Virtual Machines" / f"{UUID.upper()}.vmcx").unlink()
    text = (
        '<?xml version="1.0" encoding="UTF-16" standalone="yes"?><configuration><properties>'
        '<name type="string">Web Server</name></properties></configuration>'
    )
    (hyperv / "Virtual Machines" / f"{UUID.upper()}.xml").write_text(text, encoding="utf-16")
    with found(hyperv) as export:
        assert (export.name, export.uuid) == ("Web Server", UUID)


@pytest.mark.parametrize("place", ["Virtual Hard Disks", "Snapshots"])
def test_checkpoints_are_refused_with_the_way_out(hyperv: Path, place: str) -> None:
    put_disk(hyperv / "Virtual Hard Disks" / "a.vhdx", "vhdx", 1)
    (hyperv / place / "a_1234.avhdx").write_bytes(b"x")
    with pytest.raises(ImageRefused, match=r"checkpoint.*export again"):
        find_export(hyperv)


def test_several_or_no_hyper_v_machines_are_refused(hyperv: Path) -> None:
    with pytest.raises(SourceError, match="no disk"):
        find_export(hyperv)
    (hyperv / "Virtual Machines" / "00000000-0000-4000-8000-000000000001.vmcx").write_bytes(b"x")
    with pytest.raises(Refused, match="2 VMs"):
        find_export(hyperv)


def test_a_linked_sub_folder_is_not_entered(hyperv: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    put_disk(elsewhere / "a.vhdx", "vhdx", 1)
    (hyperv / "Virtual Hard Disks").rmdir()
    (hyperv / "Virtual Hard Disks").symlink_to(elsewhere)
    with pytest.raises(SourceError, match="no disk"):
        find_export(hyperv)


def test_a_sub_folder_that_becomes_a_link_is_left(hyperv: Path, tmp_path: Path) -> None:
    """Between the look at it and the opening of a file whoever may write there can swap it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    put_disk(elsewhere / "a.vhdx", "vhdx", 1)
    put_disk(hyperv / "Virtual Hard Disks" / "a.vhdx", "vhdx", 2)
    opened = OpenedFiles()
    disks = ExportDirectory(hyperv, opened).folder("Virtual Hard Disks")
    assert disks is not None
    disks.open("a.vhdx")
    disks.path.rename(tmp_path / "away")
    disks.path.symlink_to(elsewhere)
    with pytest.raises(ImageRefused, match="became a symbolic link"):
        disks.open("a.vhdx")
    opened.close()


# ---- libvirt ------------------------------------------------------------------------------------------


def test_a_libvirt_domain_finds_its_disks_beside_it(folder: Path) -> None:
    disks = [put_disk(folder / "web01.qcow2", "qcow2", 1), raw_disk(folder / "data.img", 2)]
    text = domain(
        domain_disk("/var/lib/libvirt/images/web01.qcow2", "qcow2"),
        domain_disk("/srv/data.img", "raw", "vdb"),
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>"
        "<source protocol='rbd' name='pool/vm'/><target dev='vdc' bus='virtio'/></disk>",
        "<disk type='block' device='disk'><driver name='qemu' type='raw'/>"
        "<source dev='/dev/vg0/web'/><target dev='vdd' bus='virtio'/></disk>",
        "<disk type='file' device='floppy'><source file='/f.img'/></disk>",
    )
    (folder / "web01.xml").write_text(text)
    (folder / "other.xml").write_text("<note/>")
    for path in (folder, folder / "web01.xml"):
        with found(path) as export:
            assert (export.kind, export.name, export.uuid) == ("libvirt", "web01", UUID)
            assert [(d.name, d.bus, d.image.format) for d in export.disks] == [
                ("web01", "vda", "qcow2"),
                ("data", "vdb", "raw"),
            ]
            assert [content_of(d.image) for d in export.disks] == disks
            assert len(export.warnings) == 2
            assert "vdc" in export.warnings[0]
            assert "/dev/vg0/web" in export.warnings[1]
    assert find_export(folder / "other.xml") is None
    for text in ("<broken", "<!DOCTYPE html><html/>", "x" * 9_000_000):
        (folder / "other.xml").write_text(text)
        assert find_export(folder / "other.xml") is None


def test_a_domain_says_the_format_and_the_content_does_not(folder: Path) -> None:
    """A guest that writes a qcow2 header into its raw disk gets just that back."""
    put_disk(folder / "a.img", "qcow2", 1)
    (folder / "a.xml").write_text(domain(domain_disk("/a.img", "raw")))
    with found(folder) as export:
        assert content_of(export.disks[0].image) == (folder / "a.img").read_bytes()
    (folder / "a.xml").write_text(domain(domain_disk("/b.raw", "qcow2")))
    raw_disk(folder / "b.raw", 1)
    with pytest.raises(ImageDamaged):
        find_export(folder / "a.xml")
    (folder / "a.xml").write_text(domain(domain_disk("/a.img", "qed")))
    with pytest.raises(ImageRefused, match="'qed'"):
        find_export(folder / "a.xml")


def test_a_disk_that_is_a_slice_of_a_file_is_not_taken_for_the_whole(folder: Path) -> None:
    raw_disk(folder / "data.img", 2)
    text = domain(domain_disk("/srv/data.img", "raw"))
    slices = "<slices><slice type='storage' offset='1048576' size='1048576'/></slices>"
    text = re.sub("(<source file=[^>]*)/>", rf"\1>{slices}</source>", text)
    assert slices in text
    (folder / "web01.xml").write_text(text)
    with pytest.raises(ImageRefused, match="slice"):
        find_export(folder)


def test_a_disk_that_lies_elsewhere_must_be_named(folder: Path, tmp_path: Path) -> None:
    content = put_disk(tmp_path / "web01.qcow2", "qcow2", 1)
    device = tmp_path / "web"
    device.symlink_to("web01.qcow2")
    block = "<disk type='block'><driver type='qcow2'/><source dev='/dev/vg0/web'/><target dev='vdb'/></disk>"
    (folder / "a.xml").write_text(domain(domain_disk(str(tmp_path / "web01.qcow2"), "qcow2"), block))
    with pytest.raises(SourceError, match=r"there is no 'web01\.qcow2' in .*name that file too"):
        find_export(folder)
    with found(folder, named=[tmp_path / "web01.qcow2", device]) as export:
        assert [content_of(d.image) for d in export.disks] == [content, content]
        assert export.warnings == ()


@given(st.data())
def test_no_mutation_makes_the_xml_parsers_fail_otherwise(data: st.DataObject) -> None:
    for text, parse in ((domain(domain_disk("/a", "raw")), parse_domain), (VBOX, parse_vbox)):
        changed = bytearray(text.encode())
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(changed)))
            end = data.draw(st.integers(at, min(len(changed), at + 40)))
            changed[at:end] = data.draw(st.binary(max_size=6) | st.sampled_from([b"<a>", b"'", b"/>"]))
        with suppress(HoldfastError):
            parse(bytes(changed), "x.xml")


# ---- VirtualBox ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True])
def test_a_virtualbox_folder_is_one_vm(folder: Path, old: bool) -> None:
    disks = [put_disk(folder / "web01.vdi", "vdi", 1), put_disk(folder / "data.vmdk", "vmdk", 2)]
    text = VBOX.replace("<Hardware>", "").replace("</Hardware>", "") if old else VBOX
    (folder / "web01.vbox").write_text(text)
    (folder / "web01.vbox-prev").write_text("old")
    (folder / "web01.nvram").write_bytes(b"nv")
    with found(folder) as export:
        assert (export.kind, export.name, export.uuid) == ("virtualbox", "web01", UUID)
        assert [(d.name, d.bus) for d in export.disks] == [("web01", "SATA 0:0"), ("data", "SATA 1:0")]
        assert [content_of(d.image) for d in export.disks] == disks
        assert [d.name for d in export.definitions] == ["web01.vbox", "web01.nvram"]


def test_snapshots_and_encryption_of_virtualbox_are_refused(folder: Path) -> None:
    put_disk(folder / "web01.vdi", "vdi", 1)
    put_disk(folder / "data.vmdk", "vmdk", 1)
    delta = '<HardDisk uuid="{22222222-0000-4000-8000-000000000001}" location="S/x.vdi"/>'
    inner = f'type="Normal">{delta}</HardDisk>'
    text = VBOX.replace('type="Normal"/>', inner).replace(
        '<Image uuid="{11111111-0000-4000-8000-000000000001}',
        '<Image uuid="{22222222-0000-4000-8000-000000000001}',
    )
    (folder / "a.vbox").write_text(text)
    with pytest.raises(ImageRefused, match="since a snapshot"):
        find_export(folder)
    key = 'type="Normal"><Property name="CRYPT/KeyId" value="x"/></HardDisk>'
    (folder / "a.vbox").write_text(VBOX.replace('type="Normal"/>', key))
    with pytest.raises(ImageRefused, match="encrypted"):
        find_export(folder)
    (folder / "a.vbox").write_text(VBOX.replace('HardDisk uuid="{11111111', 'HardDisk uuid="{33333333'))
    with pytest.raises(SourceError, match="does not register"):
        find_export(folder)


# ---- folders without a definition, and what is none ---------------------------------------------------


def test_a_folder_of_disk_images_is_one_vm(folder: Path) -> None:
    disks = {
        "a": put_disk(folder / "a.qcow2", "qcow2", 1),
        "b": put_disk(folder / "b.vmdk", "vmdk", 2, "-o", "subformat=monolithicFlat"),
        "c": raw_disk(folder / "c.img", 3),
        "a-2": raw_disk(folder / "a.raw", 4),
    }
    (folder / ".hidden").write_text("not looked at")
    with found(folder) as export:
        assert (export.kind, export.name, export.uuid, export.definitions) == ("folder", "web01", "", ())
        assert {d.name: content_of(d.image) for d in export.disks} == disks


def test_an_ambiguous_image_needs_the_users_word(folder: Path) -> None:
    content = put_disk(folder / "a.img", "qcow2", 1)
    with pytest.raises(UnclearFormat):
        find_export(folder)
    with found(folder, disk_format="qcow2") as export:
        assert content_of(export.disks[0].image) == content
    with found(folder, disk_format="raw") as export:
        assert content_of(export.disks[0].image) == (folder / "a.img").read_bytes()


def test_a_folder_that_is_no_export_is_refused_with_what_is_in_the_way(folder: Path) -> None:
    with pytest.raises(SourceError, match="holds no disk images"):
        find_export(folder)
    raw_disk(folder / "a.raw", 1)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match=r"besides disk images it holds 'notes\.txt'"):
        find_export(folder)


def test_several_definitions_are_refused_by_name(folder: Path) -> None:
    raw_disk(folder / "a.raw", 1)
    (folder / "a.ovf").write_text(ovf([("a.raw", SIZE)]))
    (folder / "b.xml").write_text(domain(domain_disk("/a.raw", "raw")))
    with pytest.raises(Refused, match=r"several VMs \(a\.ovf, b\.xml\)"):
        find_export(folder)
    with found(folder / "a.ovf") as export:
        assert export.kind == "ovf"


@pytest.mark.parametrize("name", ["a.raw", "a.qcow2", "dump.sql", "noname", "a.tar", "a.vmcx"])
def test_other_files_are_no_exports(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert find_export(tmp_path / name) is None


@pytest.mark.parametrize("name", ["a.ova", "a.ovf", "a.vmx", "a.vbox", "a.xml", "a.vma", "a.vma.zst"])
def test_what_is_named_like_an_export_and_cannot_be_read_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        find_export(tmp_path / name, scratch=tmp_path)
    os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError, match="neither a file"):
        find_export(tmp_path / name, scratch=tmp_path)
    assert len(os.listdir("/proc/self/fd")) < 100  # noqa: PTH208  and nothing stays open
