"""Virtual machines through the command line: every image and every export goes in and comes out byte for
byte, and a damaged one leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.cli import Place
from support.disk import raw_disk, run
from support.export import MIB, UUID
from support.fuse import need_fuse
from support.vm import EXPORTS, IMAGES, make_export, make_image, nothing_committed, restored, told

DISK_SIZE = 16 * MIB
"""Whole blocks of every format, so that no image ends in what belongs to no disk."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with data, written zeros and holes. Nobody changes it."""
    return raw_disk(tmp_path_factory.mktemp("disk") / "disk", DISK_SIZE, seed=5)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A repository for images of one disk."""
    return Place.make(tmp_path_factory.mktemp("formats"))


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


# ---- images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", IMAGES)
def test_every_image_is_stored_as_the_disk_in_it(formats: Place, raw: Path, label: str) -> None:
    """And costs less than 1 % of new data when the disk was stored as another format before."""
    place = formats
    image = make_image(label, raw, place.root / label / "web01")
    name = label.replace(" ", "-")
    about = place.json("backup", image, "--name", name)
    if place.json("stats")["snapshots"] > 1:
        assert about["new"] < about["allocated"] / 100
    (item,) = about["items"]
    assert (about["kind"], about["name"], item["path"]) == ("vm", name, "disks/web01.raw")
    assert (about["consistency"], about["warnings"]) == ("crash", [])
    assert item["size"] == DISK_SIZE
    assert item["allocated"] < DISK_SIZE * 0.8
    target = place.root / f"{name}.out"
    place.ok("restore", f"{name}:disks/web01.raw", "--target", target, "--verify")
    assert target.read_bytes() == raw.read_bytes()


@pytest.mark.parametrize("label", [label for label in IMAGES if label != "raw"])
@pytest.mark.parametrize("first", ["raw", "other"])
def test_the_same_vm_in_another_format_the_next_day_is_nothing_new(
    place: Place, raw: Path, label: str, first: str
) -> None:
    images = [make_image(kind, raw, place.root / kind / "web01") for kind in ("raw", label)]
    one, two = images if first == "raw" else reversed(images)
    before = place.json("backup", one, "--name", "web01")
    after = place.json("backup", two, "--name", "web01")
    assert before["new"] > before["allocated"] * 0.9
    assert after["new"] < after["allocated"] / 100
    assert after["parent"] == before["id"]
    assert after["allocated"] == before["allocated"]
    recipes = [place.ok("info", about["id"]).partition("recipe")[2].split()[0] for about in (before, after)]
    assert recipes[0] == recipes[1]


def test_the_document_in_the_mount_says_what_the_disks_were_read_from(place: Place) -> None:
    need_fuse()
    made = make_export("hyper-v", place.root / "export")
    place.ok("backup", made.path, "--name", "web01")
    mnt = place.root / "mnt"
    mnt.mkdir()
    assert place.execute("mount", mnt).code == 0
    try:
        latest = mnt / "vms/web01/latest"
        about = json.loads((latest / "vm.json").read_text())
        assert {path: (latest / path).read_bytes() for path in made.items} == made.items
    finally:
        assert place.execute("umount", mnt).code == 0
    assert about["subject"] == {"kind": "vm", "name": "web01", "uuid": UUID}
    assert {disk["path"]: disk["source_format"] for disk in about["disks"]} == {
        "disks/web01.raw": "vhdx",
        "disks/data.raw": "vhd",
    }
    assert [each["path"] for each in about["definition"]] == [f"definition/{UUID.upper()}.vmcx"]


def test_an_ambiguous_name_is_asked_for(place: Place, raw: Path) -> None:
    """A guest can write a qcow2 header into its raw disk: only the user knows."""
    image = make_image("qcow2", raw, place.root / "web01").rename(place.root / "web01.img")
    with nothing_committed(place):
        said = told(place.run("backup", image))
        assert "--disk-format qcow2 or --disk-format raw" in said
    place.ok("backup", image, "--disk-format", "qcow2", "--name", "inside")
    place.ok("backup", image, "--disk-format", "raw", "--name", "outside")
    assert restored(place, "inside") == {"disks/web01.raw": raw.read_bytes()}
    assert restored(place, "outside") == {"disks/web01.raw": image.read_bytes()}


def test_a_raw_disk_called_img_is_not_asked_for(place: Place, raw: Path) -> None:
    image = Path(shutil.copy(raw, place.root / "web01.img"))
    place.ok("backup", image)
    assert restored(place, "web01") == {"disks/web01.raw": raw.read_bytes()}


@pytest.mark.parametrize("text", [b"SQLite format 3\0", b"--\n-- PostgreSQL database dump\n--\n\n"])
def test_a_guest_cannot_make_its_disk_pass_for_something_else(place: Place, text: bytes) -> None:
    """It may write what it wants into its first sector."""
    disk = place.disk("web01.raw")
    with disk.open("r+b") as file:
        file.write(text)
    about = place.json("backup", disk)
    assert (about["kind"], about["items"][0]["type"], about["consistency"]) == ("vm", "disk", "crash")
    assert restored(place, "web01") == {"disks/web01.raw": disk.read_bytes()}


@pytest.mark.parametrize("kind", [[], ["--kind", "vm"]])
def test_a_raw_disk_that_ends_inside_a_sector_is_cut_off(place: Place, raw: Path, kind: list[str]) -> None:
    disk = make_image("raw", raw, place.root / "web01")
    made = make_export("libvirt", place.root / "export")
    for path in (disk, made.path / "data.img"):
        truncate(path, 5 * MIB + 100)
    with nothing_committed(place):
        assert f"web01.raw: damaged at offset {5 * MIB}: " in told(place.run("backup", disk, *kind))
        assert f"data.img: damaged at offset {5 * MIB}: " in told(place.run("backup", made.path, *kind))
        truncate(disk, 0)
        assert "an empty file is no disk" in told(place.run("backup", disk, *kind))
    truncate(disk, 5 * MIB + 100)
    place.ok("backup", disk, "--kind", "files")
    assert restored(place, "web01") == {"web01.raw": disk.read_bytes()}


def test_a_disk_need_not_end_with_a_block(place: Place, raw: Path) -> None:
    disk = make_image("raw", raw, place.root / "web01")
    truncate(disk, 5 * MIB + 512)
    place.ok("backup", disk)
    assert restored(place, "web01") == {"disks/web01.raw": disk.read_bytes()}


@pytest.mark.parametrize("options", [["--bitmap", "b0"], ["--checkpoint", "b0"], ["--backing", "x"]])
def test_options_of_disks_are_refused_where_they_mean_nothing(place: Place, options: list[str]) -> None:
    with nothing_committed(place):
        result = place.run("backup", "--stdin", "--name", "x", *options, input=b"x")
        assert (result.exit_code, options[0] in result.stderr) == (2, True)
        if options[0] == "--bitmap":
            made = make_export("libvirt", place.root / "export")
            assert "only a live disk" in told(place.run("backup", made.path, *options))


@pytest.fixture
def chain(place: Place, raw: Path) -> tuple[Path, Path, bytes]:
    """A base, an image on top of it that changed some of it, and the disk that a guest sees."""
    folder = place.root / "chain"
    base = make_image("qcow2", raw, folder / "base")
    top = folder / "top.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", top)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 100k", "-c", "write -z 4M 1M", top)
    disk = bytearray(raw.read_bytes())
    disk[MIB : MIB + 102_400] = b"\7" * 102_400
    disk[4 * MIB : 5 * MIB] = bytes(MIB)
    return base, top, bytes(disk)


def test_a_backing_file_is_read_only_when_the_user_says_so(
    place: Place, chain: tuple[Path, Path, bytes]
) -> None:
    base, top, disk = chain
    with nothing_committed(place):
        said = told(place.run("backup", top))
        assert "top.qcow2: wants the file 'base.qcow2'" in said
        assert "--follow-backing" in said
    place.ok("backup", top, "--follow-backing", "--name", "followed")
    moved = base.rename(place.root / "base.qcow2")
    with nothing_committed(place):
        told(place.run("backup", top, "--follow-backing"))
    about = place.json("backup", top, "--backing", moved, "--name", "named")
    assert about["new"] == 0
    assert restored(place, "followed") == restored(place, "named") == {"disks/top.raw": disk}


def test_several_images_are_disks_of_one_vm(place: Place, raw: Path) -> None:
    one = make_image("qcow2", raw, place.root / "sda")
    two = make_image("vmdk split flat", raw, place.root / "sdb")
    notes = place.write("notes.txt", "a definition")
    about = place.json("backup", one, two, notes, "--kind", "vm", "--name", "web01")
    disk = raw.read_bytes()
    assert about["name"] == "web01"
    assert restored(place, "web01") == {
        "disks/sda.raw": disk,
        "disks/sdb.raw": disk,
        "definition/notes.txt": b"a definition",
    }


# ---- exports ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXPORTS)
def test_every_export_is_one_snapshot_of_one_vm(place: Place, kind: str) -> None:
    made = make_export(kind, place.root / "export")
    about = place.json("backup", made.path)
    assert (about["kind"], about["name"], about["uuid"]) == ("vm", made.name, made.uuid)
    assert about["source"] == made.path.name
    assert (about["warnings"], about["consistency"]) == ([], "crash")
    assert {item["path"]: item["type"] for item in about["items"]} == {
        path: "disk" if path.startswith("disks/") else "file" for path in made.items
    }
    assert restored(place, about["id"]) == made.items
    again = place.json("backup", made.path)
    assert (again["new"], again["parent"]) == (0, about["id"])
    place.ok("check", "--read-data")
    shutil.rmtree(place.root / "export")


def test_a_vm_keeps_its_history_when_it_is_renamed_and_moved_to_another_hypervisor(place: Place) -> None:
    ids: list[str] = []
    for number, kind in enumerate(("libvirt", "vmware", "ova", "virtualbox", "vma", "hyper-v")):
        made = make_export(kind, place.root / f"day {number}")
        about = place.json("backup", made.path, "--time", f"2026-11-2{number}T02:00:00")
        assert about["parent"] == (ids[-1] if ids else None)
        if ids:
            disks = sum(item["allocated"] for item in about["items"] if item["type"] == "disk")
            assert about["new"] < disks / 100, "the same disks in other formats"
        ids.append(about["id"])
    shown = place.ok("snapshots")
    assert shown.count("(vm)") == 1, "one group"
    assert "day 5 (vm)" in shown, "under its latest name"
    other = place.json("backup", place.root / "day 0", "--name", "clone")
    assert (other["name"], other["parent"]) == ("clone", ids[-1])


def test_the_folder_one_stands_in_has_a_name_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_export("folder", place.root / "export")
    monkeypatch.chdir(made.path)
    about = place.json("backup", ".")
    assert (about["name"], about["source"]) == ("export", "export")


def test_a_name_given_goes_before_the_one_in_the_export(place: Place) -> None:
    made = make_export("ova", place.root / "export")
    about = place.json("backup", made.path, "--name", "renamed")
    assert (about["name"], about["uuid"]) == ("renamed", UUID)
    assert place.json("info", "renamed")["id"] == about["id"]


def test_two_vms_in_a_folder_are_not_one(place: Place) -> None:
    """Each gets a snapshot, unless one is named; naming the definition picks one."""
    made = make_export("libvirt", place.root / "export")
    text = (made.path / "dumped.xml").read_text()
    (made.path / "other.xml").write_text(text.replace("<name>web01", "<name>web02").replace(UUID, UUID[::-1]))
    with nothing_committed(place):
        result = place.run("backup", made.path, "--name", "web01")
        assert "several VMs (dumped.xml, other.xml)" in told(result)
    assert place.json("backup", made.path / "other.xml")["name"] == "web02"
    place.ok("backup", made.path)
    assert [s["name"] for s in place.json("snapshots")["snapshots"]] == ["web02", "web01", "web02"]
    assert restored(place, "web02")["disks/web01.raw"] == made.items["disks/web01.raw"]


# ---- damage -------------------------------------------------------------------------------------------


def damaged_part(label: str, image: Path) -> Path:
    """The file of an image that holds most of it."""
    return max(image.parent.glob(f"{image.stem}*"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("left", [0.9, 0.5, 0.01])
@pytest.mark.parametrize("label", [label for label in IMAGES if label != "raw"])
def test_a_truncated_image_is_told_with_its_place_and_leaves_nothing(
    formats: Place, raw: Path, label: str, left: float
) -> None:
    place = formats
    image = make_image(label, raw, place.root / f"{label} {left}" / "web01")
    part = damaged_part(label, image)
    truncate(part, int(part.stat().st_size * left) // 512 * 512)
    with nothing_committed(place):
        said = told(place.run("backup", image))
    assert part.name in said
    assert "damaged at offset " in said


@pytest.mark.parametrize("kind", [kind for kind in EXPORTS if kind not in ("folder", "libvirt")])
def test_a_truncated_export_is_told_with_its_place_and_leaves_nothing(place: Place, kind: str) -> None:
    made = make_export(kind, place.root / "export")
    files = [file for file in place.root.joinpath("export").rglob("*") if file.is_file()]
    part = max(files, key=lambda file: file.stat().st_size)
    truncate(part, part.stat().st_size * 2 // 3 // 512 * 512)
    with nothing_committed(place):
        said = told(place.run("backup", made.path))
    assert part.name in said
    assert ("does not match its manifest" if kind == "ovf" else "at offset ") in said


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("kind", ["ova", "ovf"])
@pytest.mark.parametrize("where", ["disk", "descriptor"])
def test_what_its_manifest_denies_is_not_stored(place: Place, kind: str, where: str) -> None:
    made = make_export(kind, place.root / "export")
    path = made.path
    name = "web01-disk1.vmdk" if where == "disk" else "web01.ovf"
    if kind == "ova":
        inside = b"KDMV" if where == "disk" else b"ovftool"
        flip(path, path.read_bytes().index(inside) + (70_000 if where == "disk" else 0))
    else:
        flip(path / name, 70_000 if where == "disk" else (path / name).read_bytes().index(b"ovftool"))
    with nothing_committed(place):
        said = told(place.run("backup", path))
    assert name in said
    assert "SHA256" in said


def test_a_manifest_that_lists_what_is_not_there_is_refused(place: Place) -> None:
    made = make_export("ovf", place.root / "export")
    with (made.path / "web01.mf").open("a") as file:
        file.write("SHA256(gone.iso)= " + "0" * 64 + "\n")
    with nothing_committed(place):
        assert "'gone.iso', which is not there" in told(place.run("backup", made.path))


@pytest.mark.parametrize("label", ["qcow2 zlib", "qcow2 zstd", "vmdk stream"])
def test_a_damaged_compressed_block_ends_the_backup(place: Place, raw: Path, label: str) -> None:
    """It is found in the middle of the run, when much is stored already."""
    image = make_image(label, raw, place.root / "web01")
    size = image.stat().st_size
    with image.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xee" * 140_000)  # whole clusters: raw deflate in the middle of one may go unnoticed
    with nothing_committed(place):
        said = told(place.run("backup", image))
    assert "web01." in said
    assert "damaged at offset " in said
    offset = int(said.partition("at offset ")[2].split(":")[0])
    assert size // 2 - (64 << 10) - 4096 <= offset <= size // 2 + 140_000


@pytest.mark.parametrize("where", ["header", "extent", "cluster"])
def test_a_damaged_vzdump_leaves_nothing(place: Place, where: str) -> None:
    made = make_export("vma", place.root / "export")
    data = made.path.read_bytes()
    offset = {"header": 3000, "extent": data.index(b"VMAE") + 100, "cluster": 0}[where]
    if where == "cluster":
        truncate(made.path, made.path.stat().st_size - 4096)
    else:
        flip(made.path, offset)
    with nothing_committed(place):
        said = told(place.run("backup", made.path))
    assert made.path.name in said
    assert "at offset " in said


@pytest.mark.parametrize("packing", ["gz", "zst", "lzo"])
def test_a_packed_vzdump_with_a_flipped_bit_leaves_nothing(place: Place, packing: str) -> None:
    made = make_export(f"vma.{packing}", place.root / "export")
    flip(made.path, made.path.stat().st_size // 2)
    with nothing_committed(place):
        assert made.path.name in told(place.run("backup", made.path))


def test_a_disk_that_cannot_be_opened_leaves_nothing_of_the_others(place: Place) -> None:
    made = make_export("libvirt", place.root / "export")
    (made.path / "data.img").unlink()
    with nothing_committed(place):
        assert "there is no 'data.img'" in told(place.run("backup", made.path))


def test_a_folder_that_is_no_export_says_what_would_be_one(place: Place) -> None:
    folder = place.root / "etc"
    folder.mkdir()
    (folder / "passwd").write_text("root")
    with nothing_committed(place):
        assert "no export of a VM" in told(place.run("backup", folder))


def test_a_live_disk_and_an_export_of_one_vm_have_one_history(place: Place) -> None:
    uuid = "6f1d5a10-0000-4000-8000-0000000000aa"
    disk = place.disk()
    place.ok("backup", disk, "--name", "web01", "--uuid", uuid.upper(), "--time", "2026-11-22T02:00:00")
    place.ok("backup", disk, "--name", "renamed", "--uuid", uuid, "--time", "2026-11-23T02:00:00")
    first, second = place.json("snapshots")["snapshots"]
    assert second["parent"] == first["id"]
    assert {first["uuid"], second["uuid"]} == {uuid}
    assert place.run("backup", disk, "--name", "x", "--uuid", "no-uuid").exit_code == 2
