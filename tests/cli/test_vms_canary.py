"""A file of the host that nobody handed over: no crafted image, export or guest brings it into a backup, a
message, a restored file or the mount."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.formats.disks.vhdx import format as vhdx
from support.cli import Place
from support.disk import run
from support.export import MIB, qcow2, tar
from support.fuse import need_fuse
from support.hostile_exports import CANARY, CRAFTED, backing, flat_vmdk
from support.old_disk import write_vhd, write_vhdx
from support.vm import nothing_committed, restored, told

SONG = b"the canary sings"

Craft = Callable[[Path, Path], Path | None]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


@pytest.fixture
def canary(place: Place) -> Path:
    path = place.root / "host" / "canary.raw"
    path.parent.mkdir()
    path.write_bytes(CANARY)
    return path


@pytest.fixture
def folder(place: Place) -> Path:
    path = place.root / "export"
    path.mkdir()
    return path


def silent(place: Place, path: Path, *options: str | Path) -> str:
    """Back a crafted thing up, as well as it goes, twice with and without options. Neither what is said nor
    what is stored may hold the canary. Returns what was said."""
    said = ""
    for more in ([], ["--follow-backing"], options):
        for front in ([], ["-v"]):
            result = place.run(*front, "backup", path, *more)
            assert result.exit_code in (0, 1), result.output
            assert "internal error" not in result.output
            assert SONG.decode() not in result.output
            said += result.output
    for snapshot in place.json("snapshots")["snapshots"]:
        assert SONG.decode() not in str(snapshot)
        for name, content in restored(place, snapshot["id"]).items():
            assert SONG not in content, name
    place.ok("check")
    return said


# ---- exports ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("craft", CRAFTED, ids=lambda craft: craft.__name__)
def test_no_crafted_export_brings_it_in(
    place: Place, folder: Path, canary: Path, craft: Callable[[Path, Path], None]
) -> None:
    craft(folder, canary)
    if craft.__name__ == "sibling":  # which --follow-backing allows
        with nothing_committed(place):
            result = place.run("backup", folder)
        assert result.exit_code == 1
        assert SONG.decode() not in result.output
        return
    silent(place, folder)
    for file in [entry for entry in folder.iterdir() if entry.is_file() and not entry.is_symlink()]:
        if "letters" not in file.name:  # named by the user it may be read, of course
            silent(place, file)


def test_the_canary_would_be_heard(place: Place, folder: Path, canary: Path) -> None:
    """The same export brings it in when the user names the file: the tests here are not deaf."""
    backing(folder, canary)
    with pytest.raises(AssertionError):
        silent(place, folder, "--backing", canary)


# ---- images alone -------------------------------------------------------------------------------------


def parent_vhd(canary: Path) -> Path:
    """The canary as a disk that a differencing VHD could have as its parent."""
    sectors = {n: CANARY[n * 512 : n * 512 + 512] for n in range(len(CANARY) // 512)}
    return write_vhd(canary.with_name("parent.vhd"), sectors, size=MIB, unique_id=b"P" * 16)


def vhd_child(folder: Path, name: str, locators: dict[bytes, str]) -> Path:
    child = folder / "child.vhd"
    return write_vhd(
        child,
        {5: b"5" * 512},
        size=MIB,
        unique_id=b"C" * 16,
        parent_id=b"P" * 16,
        parent_name=name,
        locators=locators,
    )


def vhd_parent_path(folder: Path, canary: Path) -> Path:
    parent = parent_vhd(canary)
    return vhd_child(folder, str(parent), {b"W2ku": str(parent), b"W2ru": "../host/parent.vhd"})


def vhd_parent_windows_path(folder: Path, canary: Path) -> Path:
    parent_vhd(canary)
    return vhd_child(folder, "..\\host\\parent.vhd", {b"W2ru": ".\\..\\host\\parent.vhd"})


def vhd_parent_link(folder: Path, canary: Path) -> Path:
    (folder / "parent.vhd").symlink_to(parent_vhd(canary))
    return vhd_child(folder, "parent.vhd", {b"W2ru": ".\\parent.vhd"})


def vhdx_parent(folder: Path, canary: Path) -> Path:
    flags = {vhdx.FILE_PARAMETERS: struct.pack("<II", MIB, 2)}
    return write_vhdx(folder / "a.vhdx", size=4 * MIB, items=flags)


def backing_link(folder: Path, canary: Path) -> Path:
    (folder / "base.raw").symlink_to(canary)
    qcow2(folder / "a.qcow2", "-u", "-b", "base.raw", "-F", "raw")
    return folder / "a.qcow2"


def backing_of_a_backing_file(folder: Path, canary: Path) -> Path:
    qcow2(folder / "base.qcow2", "-b", str(canary), "-F", "raw")
    qcow2(folder / "a.qcow2", "-u", "-b", "base.qcow2", "-F", "qcow2")
    return folder / "a.qcow2"


def backing_by_parent_path(folder: Path, canary: Path) -> Path:
    qcow2(folder / "a.qcow2", "-u", "-b", "../host/canary.raw", "-F", "raw")
    return folder / "a.qcow2"


def backing_by_protocol(folder: Path, canary: Path) -> Path:
    qcow2(folder / "a.qcow2", "-u", "-b", f"file:{canary}", "-F", "raw")
    return folder / "a.qcow2"


def linked_data_file(folder: Path, canary: Path) -> Path:
    there = folder / "a.dat"
    qcow2(folder / "a.qcow2", "-o", "data_file=a.dat,data_file_raw=on,preallocation=metadata")
    there.unlink(missing_ok=True)
    canary.write_bytes(CANARY.ljust(MIB, b"\0"))
    there.symlink_to(canary)
    return folder / "a.qcow2"


def extent(name: Callable[[Path], str], *, link: str = "") -> Craft:
    def craft(folder: Path, canary: Path) -> Path:
        if link:
            (folder / link).symlink_to(canary)
        flat_vmdk(folder / "a.vmdk", name(canary))
        return folder / "a.vmdk"

    return craft


def extent_in_a_vmdk_in_a_linked_folder(folder: Path, canary: Path) -> Path:
    (folder / "there").symlink_to(canary.parent)
    flat_vmdk(folder / "a.vmdk", "there/canary.raw")
    return folder / "a.vmdk"


def raw_disk_with_a_header(folder: Path, canary: Path) -> Path:
    """A guest writes the header of an image with a backing file into its own disk."""
    qcow2(folder / "a.qcow2", "-b", str(canary), "-F", "raw")
    return (folder / "a.qcow2").rename(folder / "a.raw")


def ambiguous_disk_with_a_header(folder: Path, canary: Path) -> Path:
    return raw_disk_with_a_header(folder, canary).rename(folder / "a.img")


ALONE: dict[str, Craft] = {
    **{
        craft.__name__: craft
        for craft in (
            *(vhd_parent_path, vhd_parent_windows_path, vhd_parent_link, vhdx_parent, backing_link),
            *(backing_of_a_backing_file, backing_by_parent_path, backing_by_protocol, linked_data_file),
            *(extent_in_a_vmdk_in_a_linked_folder, raw_disk_with_a_header, ambiguous_disk_with_a_header),
        )
    },
    "extent_path": extent(str),
    "extent_parent_path": extent(lambda canary: "../host/canary.raw"),
    "extent_windows_path": extent(lambda canary: "..\\host\\canary.raw"),
    "extent_named_as_its_own": extent(lambda canary: "a-flat.vmdk", link="a-flat.vmdk"),
    "extent_split": extent(lambda canary: "a-f001.vmdk", link="a-f001.vmdk"),
}


@pytest.mark.parametrize("craft", ALONE.values(), ids=ALONE)
def test_no_crafted_image_brings_it_in(place: Place, folder: Path, canary: Path, craft: Craft) -> None:
    image = craft(folder, canary)
    assert image
    said = silent(place, image, "--disk-format", "raw")
    assert "holdfast: " in said or craft is raw_disk_with_a_header
    silent(place, folder)


def test_a_parent_that_the_user_names_is_read(place: Place, folder: Path, canary: Path) -> None:
    """None of them is silent because it is broken."""
    child = vhd_parent_path(folder, canary)
    place.ok("backup", child, "--backing", canary.with_name("parent.vhd"))
    assert SONG in restored(place, "child")["disks/child.raw"]


def test_a_wish_is_no_reason_to_read_what_was_named_for_another(place: Place, folder: Path) -> None:
    """Files are granted by the name that the user gave, not by the path that the image writes."""
    (folder / "base.raw").write_bytes(b"named".ljust(MIB, b"\0"))
    qcow2(folder / "a.qcow2", "-u", "-b", "/etc/base.raw", "-F", "raw")
    place.ok("backup", folder / "a.qcow2", "--backing", folder / "base.raw")
    assert restored(place, "a")["disks/a.raw"].startswith(b"named")


def test_a_link_that_the_user_names_is_the_users_choice(place: Place, folder: Path, canary: Path) -> None:
    (folder / "web01.raw").symlink_to(canary)
    place.ok("backup", folder / "web01.raw")
    assert restored(place, "web01") == {"disks/web01.raw": CANARY}


def test_an_archive_unpacks_nothing_anywhere(place: Place, folder: Path, canary: Path) -> None:
    """Members with paths of their own, links and devices among them, leave the host as it was."""
    evil = folder / "evil"
    evil.mkdir()
    (evil / "x.ovf").write_text("<Envelope/>")
    (evil / "hard").hardlink_to(canary)
    (evil / "link").symlink_to("/etc")
    archive = tar(folder / "x.ova", evil, "x.ovf", "hard", "link")
    archives = [archive]
    for name, prefix in (("absolute", f"{canary.parent}/planted/"), ("parent", "../host/")):
        options = ("--format=ustar", "-P", f"--transform=s,^,{prefix},")
        archives.append(tar(folder / f"{name}.ova", evil, "x.ovf", options=options))
    for path in archives:
        with nothing_committed(place):
            said = told(place.run("backup", path))
        assert "its member" in said
    assert list(canary.parent.iterdir()) == [canary]
    assert len(list(folder.iterdir())) == 1 + len(archives)


# ---- guests -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def haunted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Path]:
    """Two snapshots of a guest with links to the canary; in the second, folders stand where links were."""
    place = Place.make(tmp_path_factory.mktemp("haunted"))
    host = place.root / "host"
    host.mkdir()
    (host / "canary.raw").write_bytes(CANARY)
    for day in (1, 2):
        tree = place.root / f"tree{day}"
        tree.mkdir()
        (tree / "plain").write_bytes(b"plain")
        (tree / "absolute").symlink_to(host / "canary.raw")
        (tree / "relative").symlink_to("../" * 40 + str(host / "canary.raw").lstrip("/"))
        if day == 1:
            (tree / "etc").symlink_to(host)
        else:
            (tree / "etc").mkdir()
            (tree / "etc" / "canary.raw").write_bytes(b"the guest's own")
        disk = place.root / f"day{day}" / "sda.raw"
        disk.parent.mkdir()
        run("mkfs.ext4", "-q", "-d", tree, disk, "8M")
        place.ok("backup", disk, "--name", "web01", "--time", f"2026-11-2{day}T02:00:00")
    return place, host / "canary.raw"


DAY1 = "web01@2026-11-21_02-00-00:files/sda/p0"
DAY2 = "web01@2026-11-22_02-00-00:files/sda/p0"


@pytest.mark.parametrize("path", ["/absolute", "/relative", "/etc/canary.raw", "/etc"])
@pytest.mark.parametrize("verb", ["ls", "dump", "info"])
def test_no_command_follows_a_guests_link(haunted: tuple[Place, Path], verb: str, path: str) -> None:
    place, _ = haunted
    result = place.run(verb, DAY1 + path)
    assert SONG not in result.stdout_bytes
    assert SONG.decode() not in result.stderr
    assert "internal error" not in result.stderr
    if verb == "dump":
        assert (result.exit_code, result.stdout_bytes) == (1, b"")


def test_find_and_diff_do_not_follow_either(haunted: tuple[Place, Path]) -> None:
    place, _ = haunted
    found = place.run("find", "canary.raw")
    assert "2026-11-22" in found.stdout
    assert "2026-11-21" not in found.stdout, "nothing of that name is in the first snapshot"
    changed = place.run("diff", DAY1, DAY2)
    assert "etc/canary.raw" in changed.stdout
    assert SONG.decode() not in found.output + changed.output


def test_a_restored_link_is_a_link_and_nothing_is_written_through_it(haunted: tuple[Place, Path]) -> None:
    place, canary = haunted
    target = place.root / "restored"
    target.mkdir()
    place.ok("restore", DAY1, "--target", target)
    for name in ("absolute", "relative", "etc"):
        assert (target / name).is_symlink()
    assert sorted(path.name for path in target.iterdir() if not path.is_symlink()) == ["lost+found", "plain"]
    place.run("restore", DAY2, "--target", target, "--overwrite")
    assert canary.read_bytes() == CANARY, "the second restore met the first one's link"
    assert sorted(path.name for path in canary.parent.iterdir()) == ["canary.raw"]
    one = place.root / "one"
    place.run("restore", f"{DAY1}/absolute", "--target", one)
    assert one.is_symlink() or not one.exists() or SONG not in one.read_bytes()
    shutil.rmtree(target)


@pytest.fixture
def mounted(haunted: tuple[Place, Path]) -> Iterator[Path]:
    need_fuse()
    place, _ = haunted
    mnt = place.root / "mnt"
    mnt.mkdir()
    assert place.execute("mount", mnt).code == 0
    yield mnt / "vms/web01/2026-11-21_02-00-00/files/sda/p0"
    assert place.execute("umount", mnt).code == 0
    mnt.rmdir()


def test_the_mount_shows_a_guests_links_and_follows_none(haunted: tuple[Place, Path], mounted: Path) -> None:
    place, canary = haunted
    assert (mounted / "absolute").readlink() == canary
    assert (mounted / "etc").readlink() == canary.parent
    assert (mounted / "relative").is_symlink()
    copy = place.root / "copy"
    subprocess.run(["cp", "-a", mounted, copy], check=True)
    for path in copy.rglob("*"):
        assert path.is_symlink() or path.is_dir() or SONG not in path.read_bytes()
    assert sorted(path.name for path in copy.iterdir() if not path.is_symlink()) == ["lost+found", "plain"]
    grep = subprocess.run(["grep", "-rc", SONG, mounted], capture_output=True, check=False)
    assert grep.stdout.count(b"\n") == grep.stdout.count(b":0\n")
    shutil.rmtree(copy)


def test_a_link_cannot_be_opened_as_a_folder_of_the_mount(mounted: Path) -> None:
    """Nor is anything stored under it: what a path through it shows is the caller's own to see."""
    shown = subprocess.run(["find", mounted, "-name", "canary.raw"], capture_output=True, check=True)
    assert shown.stdout == b""
