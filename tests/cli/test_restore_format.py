"""restore --format, and dump of a disk in another format, held against qemu-img."""

from __future__ import annotations

import random
import shutil
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.formats.disks.export_formats import VIEWS
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import ItemKind, Subject, SubjectKind
from holdfast.repo.store.local import LocalStore
from support.basics import make_snapshot, need, put_item
from support.cli import PASSWORD, Place, flip_byte

FORMATS = [*VIEWS]
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _tools() -> None:
    need(shutil.which("qemu-img"), "qemu-img")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def write_disk(path: Path, *, size: int = 200 * MIB + 512, seed: int = 7) -> Path:
    """A raw disk with data in odd places: at both ends, and across the edges of 2 MiB blocks."""
    noise = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        for offset in (0, 2 * MIB - 5000, size // 3 + 4096, size // 2, size - 3000):
            file.seek(offset)
            file.write(noise.randbytes(min(70_000, size - offset)))
    return path


def accepts(image: Path, format_: str, raw: Path) -> None:
    """qemu-img finds no fault with an image, and the same disk in it as in the raw one."""
    run = ["qemu-img", "check", "-q", "-f", format_, str(image)]
    assert subprocess.run(run, check=False, capture_output=True).returncode == 0
    run = ["qemu-img", "compare", "-f", format_, "-F", "raw", str(image), str(raw)]
    done = subprocess.run(run, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("format_", FORMATS)
def test_a_disk_goes_into_every_format_and_qemu_reads_it_back_the_same(format_: str, place: Place) -> None:
    raw = write_disk(place.root / "sda.raw")
    place.ok("backup", raw, "--name", "web01")
    image = place.root / f"out.{format_}"
    told = place.json("restore", "web01:disks/sda.raw", "--format", format_, "--target", image, "--verify")
    assert told["files"][0]["format"] == format_
    accepts(image, format_, raw)
    assert image.stat().st_blocks * 512 < 8 * MIB, "holes stay holes"
    assert image.stat().st_mtime_ns == raw.stat().st_mtime_ns


@pytest.mark.parametrize("format_", FORMATS)
def test_the_path_of_a_view_means_the_same_as_its_format(format_: str, place: Place) -> None:
    raw = write_disk(place.root / "sda.raw", size=20 * MIB)
    place.ok("backup", raw, "--name", "web01")
    folder = place.root / "out"
    folder.mkdir()
    place.ok("restore", f"web01:disks/sda.{format_}", "--target", folder)
    image = folder / f"sda.{format_}"
    accepts(image, format_, raw)
    dumped = place.root / "dumped"
    dumped.write_bytes(place.run("dump", f"web01:disks/sda.{format_}").stdout_bytes)
    assert dumped.read_bytes() == image.read_bytes()


def test_a_format_can_be_written_without_holes(place: Place) -> None:
    raw = write_disk(place.root / "sda.raw", size=20 * MIB)
    place.ok("backup", raw, "--name", "web01")
    image = place.root / "out.qcow2"
    place.ok("restore", "web01:disks/sda.qcow2", "--target", image, "--no-sparse")
    assert image.stat().st_blocks * 512 >= 20 * MIB
    accepts(image, "qcow2", raw)


def test_an_empty_looking_disk_can_be_restored_in_every_format(place: Place) -> None:
    raw = place.root / "sda.raw"
    with raw.open("wb") as file:
        file.truncate(40 * MIB)
    place.ok("backup", raw, "--name", "web01")
    for format_ in FORMATS:
        image = place.root / f"out.{format_}"
        place.ok("restore", f"web01:disks/sda.{format_}", "--target", image)
        accepts(image, format_, raw)


def store_vm(place: Place) -> dict[str, bytes]:
    """A snapshot of a VM with two disks and its definition."""
    noise = random.Random(3)
    contents = {
        "disks/sda.raw": noise.randbytes(64 << 10) + bytes(MIB) + noise.randbytes(64 << 10),
        "disks/sdb.raw": noise.randbytes(128 << 10),
        "definition/web01.xml": b"<domain/>",
    }
    with (
        closing(LocalStore.open(place.repository)) as store,
        Repository.open(store, lambda: PASSWORD, cache=place.root / "cache") as repository,
        Writer(repository) as writer,
    ):
        items = [
            replace(put_item(writer, repository, [data], path), kind=kind(path))
            for path, data in contents.items()
        ]
        writer.commit(replace(make_snapshot(*items), subject=Subject(SubjectKind.VM, "web01")))
    return contents


def kind(path: str) -> ItemKind:
    return ItemKind.DISK if path.startswith("disks/") else ItemKind.FILE


def test_a_whole_vm_goes_back_as_images_and_its_definition(place: Place) -> None:
    contents = store_vm(place)
    target = place.root / "back"
    place.ok("restore", "web01", "--format", "qcow2", "--target", target)
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert found == ["definition/web01.xml", "disks/sda.qcow2", "disks/sdb.qcow2"]
    assert (target / "definition/web01.xml").read_bytes() == b"<domain/>"
    for name in ("sda", "sdb"):
        raw = place.write(f"{name}.raw", contents[f"disks/{name}.raw"])
        accepts(target / f"disks/{name}.qcow2", "qcow2", raw)
    again = place.root / "raw"
    place.ok("restore", "web01:disks", "--format", "raw", "--target", again)
    assert (again / "disks/sda.raw").read_bytes() == contents["disks/sda.raw"]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["web01:disks/sda.vmdk", "--format", "qcow2"], 2, "contradicts"),
        (["web01:definition", "--format", "qcow2"], 1, "is for disks"),
        (["web01:disks/sdz.qcow2"], 1, "nothing at"),
        (["web01:disks/sda.raw", "--format", "floppy"], 2, "floppy"),
        (["web01:files/sda", "--format", "qcow2"], 2, "for items"),
        (["web01:files/sda/p1", "--verify"], 2, "for items"),
    ],
)
def test_what_makes_no_sense_is_refused(args: list[str], code: int, says: str, place: Place) -> None:
    store_vm(place)
    result = place.run("restore", *args, "--target", place.root / "x")
    assert result.exit_code == code
    assert says in result.stderr
    assert not (place.root / "x").exists()


def test_a_disk_that_is_there_is_not_replaced_unless_told(place: Place) -> None:
    store_vm(place)
    image = place.write("x.qcow2", "precious")
    result = place.run("restore", "web01:disks/sda.qcow2", "--target", image)
    assert result.exit_code == 1
    assert image.read_text() == "precious"
    place.ok("restore", "web01:disks/sda.qcow2", "--target", image, "--overwrite")
    assert image.read_bytes().startswith(b"QFI\xfb")


def test_damage_is_code_21_and_leaves_no_image(place: Place) -> None:
    store_vm(place)
    for pack in (place.repository / "packs").rglob("*"):
        if pack.is_file():
            flip_byte(pack, 300)
    result = place.run("restore", "web01:disks/sda.qcow2", "--target", place.root / "x.qcow2")
    assert result.exit_code == 21
    assert not [path for path in place.root.iterdir() if path.name.startswith("x.qcow2")]
