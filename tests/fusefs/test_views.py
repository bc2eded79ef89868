"""Disks as images of other formats in the mount: accepted by QEMU, equal to the disk, bootable."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.formats.disks.export_formats import VIEWS
from holdfast.ingest.sources.source import FileSource
from holdfast.repo.snapshots.snapshot import SubjectKind
from holdfast.repo.store.local import LocalStore
from support.basics import MemorySource, backup, need, new_repository, random_bytes
from support.boot import TOKEN, boot, make_guest, need_emulator
from support.fuse import Place, names, need_fuse

pytestmark = pytest.mark.fuse

MIB = 1 << 20
DISK = random_bytes(3 * MIB + 512, 1) + bytes(70 * MIB) + random_bytes(MIB + 8192, 2) + bytes(MIB + 1024)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    need_fuse()
    place = Place(tmp_path / "repository", tmp_path / "mnt", tmp_path / "state")
    place.mountpoint.mkdir()
    with new_repository(LocalStore.create(place.root), tmp_path / "cache"):
        pass
    yield place
    place.clean_up()


def disks(place: Place) -> Path:
    return place.mountpoint / "vms/web01/latest/disks"


def qemu_img(*words: str | Path) -> str:
    need(shutil.which("qemu-img"), "the program qemu-img")
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def test_qemu_accepts_every_format_and_finds_the_disk_in_it(place: Place, tmp_path: Path) -> None:
    with place.opened() as repository:
        backup(repository, MemorySource(DISK, "sda.raw"), name="web01", kind=SubjectKind.VM)
    original = tmp_path / "original.raw"
    original.write_bytes(DISK)
    with place.mounted():
        assert names(disks(place)) == sorted(["sda.raw", *(f"sda.{name}" for name in VIEWS)])
        for name in VIEWS:
            view = disks(place) / f"sda.{name}"
            qemu_img("check", "-f", name, view)
            assert "identical" in qemu_img("compare", "-f", name, "-F", "raw", view, original)
            assert int(json.loads(qemu_img("info", "--output=json", view))["virtual-size"]) == len(DISK)


def test_holes_are_holes_in_the_views_that_can_say_so(place: Place) -> None:
    with place.opened() as repository:
        backup(repository, MemorySource(DISK, "sda.raw"), name="web01", kind=SubjectKind.VM)
    with place.mounted():
        for name in ("qcow2", "vmdk"):
            runs = json.loads(qemu_img("map", "-f", name, "--output=json", disks(place) / f"sda.{name}"))
            data = sum(run["length"] for run in runs if run["data"])
            assert 4 * MIB <= data <= 6 * MIB


def test_a_view_read_in_any_pieces_is_the_same_file(place: Place) -> None:
    with place.opened() as repository:
        backup(repository, MemorySource(DISK, "sda.raw"), name="web01", kind=SubjectKind.VM)
    seeds = random.Random(3)
    with place.mounted():
        for name in VIEWS:
            path = disks(place) / f"sda.{name}"
            whole = path.read_bytes()
            assert len(whole) == path.stat().st_size
            with path.open("rb", buffering=0) as file:
                for _ in range(100):
                    offset = seeds.randrange(len(whole))
                    length = seeds.choice([1, 512, 4097, 70_000, 1 << 20])
                    file.seek(offset)
                    assert file.read(length) == whole[offset : offset + length]


def test_views_give_way_to_items_of_the_same_name(place: Place) -> None:
    with place.opened() as repository:
        stored = backup(
            repository,
            MemorySource(DISK[: 2 * MIB], "sda.raw"),
            MemorySource(b"<domain/>", "vm.xml"),
            name="web01",
            kind=SubjectKind.VM,
        )
    assert [item.path for item in stored.stored.snapshot.items] == ["disks/sda.raw", "definition/vm.xml"]
    with place.mounted():
        assert names(disks(place).parent) == ["definition", "disks", "files", "vm.json"]


@pytest.mark.parametrize("format_", ["raw", *VIEWS])
def test_a_guest_boots_from_the_mount_through_an_overlay(place: Place, tmp_path: Path, format_: str) -> None:
    need_emulator()
    guest = make_guest(tmp_path)
    with place.opened() as repository, FileSource(guest) as source:
        backup(repository, source, name="web01")
    overlay = tmp_path / "overlay.qcow2"
    with place.mounted():
        backing = disks(place) / f"guest.{format_}"
        qemu_img("create", "-q", "-f", "qcow2", "-b", backing, "-F", format_, overlay)
        printed = boot(overlay, tmp_path)
    assert f"BOOTED {TOKEN}" in printed
    assert "WROTE written by the guest" in printed
