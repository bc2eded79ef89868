"""OVF packages as archive and as folder: read in place, held against their manifest, plain files only."""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import HoldfastError, Refused, SourceError
from holdfast.ingest.exports.manifest import parse_manifest
from holdfast.ingest.exports.ovf import parse_ovf
from holdfast.ingest.exports.recognise import find_export
from support.export import MIB, UUID, content_of, convert, manifest, ovf, raw_disk, tar

SIZE = 9 * MIB
DISKS = ("web01-disk1.vmdk", "web01-disk2.vmdk")
NAMES = ("web01.ovf", "web01.mf", *DISKS)


@pytest.fixture
def package(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """A folder with an OVF package of two disks, and the disks."""
    folder = tmp_path / "web01"
    folder.mkdir()
    disks = []
    for seed, name in enumerate(DISKS, 1):
        disks.append(raw_disk(tmp_path / "raw", seed))
        convert(tmp_path / "raw", folder / name, "vmdk", "-o", "subformat=streamOptimized")
    (folder / "web01.ovf").write_text(ovf([(name, SIZE) for name in DISKS]))
    (folder / "web01.mf").write_text(manifest(folder, "web01.ovf", *DISKS))
    return folder, disks


def check_package(path: Path, disks: Sequence[bytes], kind: str) -> None:
    export = find_export(path)
    assert export is not None
    with export:
        assert (export.kind, export.name, export.uuid, export.warnings) == (kind, "web01", UUID, ())
        assert [(d.name, d.bus, d.files) for d in export.disks] == [
            ("web01-disk1", "scsi0:0", DISKS[:1]),
            ("web01-disk2", "scsi0:1", DISKS[1:]),
        ]
        assert [content_of(d.image) for d in export.disks] == disks
        assert [d.image.format for d in export.disks] == ["vmdk", "vmdk"]
        assert [d.name for d in export.definitions] == ["web01.ovf", "web01.mf"]
        assert all(d.mtime > 10**18 for d in export.disks)
        assert all(d.mtime > 10**18 for d in export.definitions)
        assert export.changed() == []


# ---- whole packages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["--format=ustar", "--format=gnu", "--format=pax", "--format=v7"])
def test_an_ova_is_read_in_place(package: tuple[Path, list[bytes]], tmp_path: Path, options: str) -> None:
    folder, disks = package
    check_package(tar(tmp_path / "x.ova", folder, *NAMES, options=(options,)), disks, "ova")


def test_an_ova_made_of_a_whole_folder_is_read_too(package: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    """`tar c .` puts `./` before every name."""
    folder, disks = package
    archive = tar(tmp_path / "x.ova", folder, ".")
    export = find_export(archive)
    assert export is not None
    with export:
        assert [content_of(d.image) for d in export.disks] == disks


def test_a_folder_and_its_descriptor_are_the_same_package(package: tuple[Path, list[bytes]]) -> None:
    folder, disks = package
    check_package(folder, disks, "ovf")
    check_package(folder / "web01.ovf", disks, "ovf")


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256", "SHA512"])
def test_every_usual_digest_is_known(package: tuple[Path, list[bytes]], algorithm: str) -> None:
    folder, disks = package
    text = manifest(folder, "web01.ovf", *DISKS, algorithm=algorithm).replace("(", " (").replace(")=", ") =")
    (folder / "web01.mf").write_text(text + "\n")
    check_package(folder, disks, "ovf")


def test_other_formats_and_raw_disks_are_taken_by_their_names(tmp_path: Path) -> None:
    content = raw_disk(tmp_path / "a.raw", 1)
    for format_, suffix in (("qcow2", "qcow2"), ("vpc", "vhd"), ("vhdx", "vhdx"), ("vdi", "vdi")):
        options = ("-o", "force_size=on") if format_ == "vpc" else ()
        convert(tmp_path / "a.raw", tmp_path / f"{suffix}.{suffix}", format_, *options)
    names = ["a.raw", "qcow2.qcow2", "vhd.vhd", "vhdx.vhdx", "vdi.vdi"]
    (tmp_path / "web01.ovf").write_text(ovf([(name, SIZE) for name in names]))
    export = find_export(tmp_path / "web01.ovf")
    assert export is not None
    with export:
        assert [d.image.format for d in export.disks] == ["raw", "qcow2", "vhd", "vhdx", "vdi"]
        assert all(content_of(d.image) == content for d in export.disks)
        assert export.warnings == ()


def test_an_ovirt_disk_has_no_suffix_and_its_format_in_an_attribute(tmp_path: Path) -> None:
    content = raw_disk(tmp_path / "raw", 1)
    convert(tmp_path / "raw", tmp_path / "f3e2", "qcow2")
    text = ovf([("f3e2", SIZE)], disk='ovf:volume-format="COW"').replace("vmdk.html#streamOptimized", "none")
    (tmp_path / "vm.ovf").write_text(text)
    export = find_export(tmp_path / "vm.ovf")
    assert export is not None
    with export:
        assert export.disks[0].image.format == "qcow2"
        assert content_of(export.disks[0].image) == content


def test_chunks_and_gzip_are_put_together(tmp_path: Path) -> None:
    content = raw_disk(tmp_path / "raw", 1)
    data = gzip.compress(convert(tmp_path / "raw", tmp_path / "q", "qcow2").read_bytes(), mtime=0)
    step = len(data) // 3 + 1
    for number in range(3):
        (tmp_path / f"d.qcow2.gz.{number:09d}").write_bytes(data[number * step : (number + 1) * step])
    attributes = f'ovf:compression="gzip" ovf:chunkSize="{step}" ovf:size="{len(data)}"'
    (tmp_path / "vm.ovf").write_text(ovf([("d.qcow2.gz", SIZE)], file=attributes))
    export = find_export(tmp_path / "vm.ovf", scratch=tmp_path)
    assert export is not None
    with export:
        disk = export.disks[0]
        assert (disk.name, disk.image.format, len(disk.files)) == ("d", "qcow2", 3)
        assert content_of(disk.image) == content
    with pytest.raises(Refused, match="no folder to unpack"):
        find_export(tmp_path / "vm.ovf")
    (tmp_path / "d.qcow2.gz.000000002").unlink()
    with pytest.raises(SourceError, match="2 chunks"):
        find_export(tmp_path / "vm.ovf", scratch=tmp_path)


def test_a_packed_disk_that_is_larger_than_its_descriptor_says_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "d.raw.gz").write_bytes(gzip.compress(bytes(200 * MIB), mtime=0))
    (tmp_path / "vm.ovf").write_text(ovf([("d.raw.gz", MIB)], file='ovf:compression="gzip"'))
    with pytest.raises(SourceError, match=f"d.raw unpacks to more than {MIB + MIB // 16 + 64 * MIB} bytes"):
        find_export(tmp_path / "vm.ovf", scratch=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.raw.gz", "vm.ovf"]


def test_plain_chunks_are_one_disk(tmp_path: Path) -> None:
    content = raw_disk(tmp_path / "raw", 1)
    for number in range(3):
        (tmp_path / f"d.raw.{number:09d}").write_bytes(content[number * 4 * MIB : (number + 1) * 4 * MIB])
    (tmp_path / "vm.ovf").write_text(ovf([("d.raw", SIZE)], file=f'ovf:chunkSize="{4 * MIB}"'))
    export = find_export(tmp_path / "vm.ovf")
    assert export is not None
    with export:
        assert content_of(export.disks[0].image, 300_000) == content
    os.truncate(tmp_path / "d.raw.000000001", 3 * MIB)
    with pytest.raises(SourceError, match="not all"):
        find_export(tmp_path / "vm.ovf")


def test_what_the_descriptor_says_otherwise_is_a_warning(tmp_path: Path) -> None:
    raw_disk(tmp_path / "a b.raw", 1)
    (tmp_path / "web.iso").write_bytes(b"iso")
    (tmp_path / "web.nvram").write_bytes(b"nvram")
    more = '<File ovf:href="web.iso" ovf:id="i"/><File ovf:href="web.nvram" ovf:id="n"/></References>'
    text = ovf([("a%20b.raw", 9)], disk='ovf:capacityAllocationUnits="byte * 2^30"', file='ovf:size="7"')
    empty = '<Disk ovf:capacity="1" ovf:diskId="blank"/></DiskSection>'
    text = text.replace("</References>", more).replace("</DiskSection>", empty)
    (tmp_path / "vm.ovf").write_text(text)
    export = find_export(tmp_path / "vm.ovf")
    assert export is not None
    with export:
        assert [d.name for d in export.disks] == ["a b"]
        assert [d.name for d in export.definitions] == ["vm.ovf", "web.nvram"]
        said = "\n".join(export.warnings)
        assert "not the 9663676416 of its descriptor" in said
        assert "bytes, not the 7 of its descriptor" in said
        assert "'blank' has no file" in said
        assert "'web.iso' is no disk" in said


# ---- manifests ----------------------------------------------------------------------------------------


def test_a_member_that_does_not_match_the_manifest_is_named(
    package: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    folder, _ = package
    with (folder / DISKS[1]).open("r+b") as file:
        file.seek(70_000)
        byte = file.read(1)
        file.seek(70_000)
        file.write(bytes([byte[0] ^ 1]))
    for path in (folder, tar(tmp_path / "x.ova", folder, *NAMES)):
        with pytest.raises(SourceError, match=r"web01-disk2\.vmdk does not match its manifest"):
            find_export(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SHA256(gone.vmdk)= " + 64 * "0" + "\n", "'gone.vmdk', which is not there"),
        ("SHA256(../x)= " + 64 * "0" + "\n", "which is not there"),
        ("SHA256(web01.ovf)= abcd\n", "line 1"),
        ("MD5(web01.ovf)= " + 32 * "0" + "\n", "line 1"),
        ("nonsense\n", "line 1"),
        ("SHA1(a)= " + 40 * "0" + "\nSHA1(a)= " + 40 * "1" + "\n", "two different"),
    ],
)
def test_a_manifest_that_cannot_be_checked_is_refused(
    package: tuple[Path, list[bytes]], text: str, said: str
) -> None:
    (package[0] / "web01.mf").write_text(text)
    with pytest.raises(SourceError, match=said):
        find_export(package[0])


def test_a_file_without_a_digest_is_said(package: tuple[Path, list[bytes]]) -> None:
    folder, _ = package
    (folder / "web01.mf").write_text(manifest(folder, DISKS[0]))
    export = find_export(folder)
    assert export is not None
    with export:
        assert any("no digest of web01.ovf" in w for w in export.warnings)
        assert any(f"no digest of {DISKS[1]}" in w for w in export.warnings)


@given(st.binary(max_size=200))
def test_no_manifest_makes_its_parser_fail_otherwise(data: bytes) -> None:
    for text in (data, b"SHA256(" + data + b")= " + 64 * b"0"):
        with suppress(HoldfastError):
            parse_manifest(text, "x.mf")


# ---- descriptors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<!--Gen", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><!--Gen', "declares"),
        ("<!--Gen", '<!ENTITY e "x"><!--Gen', "declares"),
        ('"UTF-8"', '"UTF-7"', "UTF-7"),
        ("<Name>", "<Name>&e;", "well-formed"),
        ("<Name>", "<a>" * 70 + "</a>" * 70 + "<Name>", "too deep"),
        ("<Name>", "<a/>" * 100_001 + "<Name>", "too many"),
        ("<Name>", "<a>" + "x" * (8 << 20) + "</a><Name>", "more than|too much"),
        ("Envelope", "Umschlag", "no OVF descriptor"),
        ("VirtualSystem", "Virtual", "no VM"),
        ('fileRef="file1"', 'fileRef="file9"', "not referenced"),
        ('href="web01-disk1.vmdk"', 'href="../web01-disk1.vmdk"', "no plain file name"),
        ('href="web01-disk1.vmdk"', 'href="%2e%2e%2fx.vmdk"', "not there|no plain"),
        ('href="web01-disk1.vmdk"', 'href="/etc/passwd"', "no plain file name"),
        ('href="web01-disk1.vmdk"', 'href="http://host/x.vmdk"', "no plain file name"),
        ('href="web01-disk1.vmdk"', 'href="gone.vmdk"', "not there"),
        ('href="web01-disk2.vmdk"', 'href="web01-disk1.vmdk"', "same file"),
        ('fileRef="file1"', 'fileRef="file1" ovf:parentRef="vmdisk2"', "differs from another"),
        ('href="web01-disk1.vmdk"', 'href="web01-disk1.vmdk" ovf:compression="bzip2"', "not known"),
        ("</Envelope>", '<VirtualSystem ovf:id="b"/></Envelope>', "2 VMs"),
    ],
)
def test_a_descriptor_that_asks_too_much_is_refused(
    package: tuple[Path, list[bytes]], old: str, new: str, said: str
) -> None:
    folder, _ = package
    (folder / "web01.mf").unlink()
    text = (folder / "web01.ovf").read_text()
    assert old in text
    (folder / "web01.ovf").write_text(text.replace(old, new))
    with pytest.raises(HoldfastError, match=said):
        find_export(folder)


def test_utf_16_is_read_and_hides_no_entities() -> None:
    text = ovf([("a.vmdk", 1)], name="größe").replace('"UTF-8"', '"UTF-16"')
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        assert parse_ovf(text.encode(encoding), "x.ovf").name == "größe"
        with pytest.raises(SourceError, match="declares"):
            parse_ovf(text.replace("<!--", '<!DOCTYPE a [<!ENTITY b "c">]><!--').encode(encoding), "x.ovf")
    assert parse_ovf(b"\xef\xbb\xbf" + ovf([]).encode(), "x.ovf").name == "web01"


def test_versions_and_dialects_are_read_alike() -> None:
    one = ovf([("a.vmdk", 1 << 30)])
    two = one.replace("envelope/1", "envelope/2")
    system, end = one.index("<VirtualSystem "), one.index("</Envelope>")
    grouped = f"{one[:system]}<VirtualSystemCollection>{one[system:end]}</VirtualSystemCollection></Envelope>"
    virtualbox = ovf([("a.vmdk", 1 << 30)], more=f'<vbox:Machine uuid="{{{UUID}}}"/>').replace(
        "uuid.bios", "x"
    )
    for text in (one, two, grouped, virtualbox):
        found = parse_ovf(text.encode(), "x.ovf")
        assert (found.uuid, found.name) == (UUID, "web01")
        assert [(d.file.href, d.capacity, d.bus) for d in found.disks] == [("a.vmdk", 1 << 30, "scsi0:0")]


@given(st.data())
def test_no_mutation_makes_the_parser_fail_otherwise(data: st.DataObject) -> None:
    text = bytearray(ovf([("a.vmdk", 1), ("b.vmdk", 2)]).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(at, min(len(text), at + 40)))
        text[at:end] = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"<a>", b'"', b"/>", b"-->", b"&lt;"])
        )
    with suppress(HoldfastError):
        parse_ovf(bytes(text), "x.ovf")
