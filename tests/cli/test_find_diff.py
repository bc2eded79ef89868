"""find and diff over three snapshots of an ext4 guest that the kernel wrote to in between."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.formats.disks.export_formats import VIEWS
from holdfast.tree.nodes import DiskNode
from holdfast.tree.snapshot_tree import SnapshotTree
from support.cli import Place, files, flip_byte
from support.guest_images import blank, mounted, run

OLD, NEW = "web01@{0}", "web01@latest"
TIME = 1_600_000_000_000_000_000
ROOT = "files/sda/p0"


@dataclass(frozen=True, slots=True)
class Made:
    """The repository, and the IDs of the snapshots in it, oldest first."""

    place: Place
    ids: tuple[str, ...]

    def diff(self, *args: str | Path) -> dict[str, dict[str, Any]]:
        """The changes by path."""
        lines = [json.loads(line) for line in self.place.ok("diff", *args, "--json").splitlines()]
        return {line["path"]: line for line in lines if line["message_type"] == "change"}

    def find(self, *args: str) -> dict[str, list[dict[str, Any]]]:
        """The versions by path."""
        told = self.place.ok("find", *args, "--json").splitlines()
        lines = [json.loads(line) for line in told]
        return {line["path"]: line["versions"] for line in lines if line["message_type"] == "match"}


def fill(top: Path) -> None:
    noise = random.Random(4)
    for folder in ("etc/ssh", "home/ann", "gone/deep"):
        (top / folder).mkdir(parents=True)
    (top / "etc/passwd").write_text("root")
    (top / "etc/hosts").write_text("127.0.0.1")
    (top / "etc/ssh/passwd").write_text("other")
    (top / "gone/deep/file").write_text("x")
    (top / "home/ann/forged").write_bytes(noise.randbytes(300_000))
    (top / "home/ann/same").write_bytes(noise.randbytes(500_000))
    (top / "home/ann/moved").write_bytes(noise.randbytes(100_000))
    (top / "home/ann/touched").write_bytes(noise.randbytes(10_000))
    (top / "home/ann/turns").write_text("a file")
    (top / "link").symlink_to("etc/passwd")
    (top / "Upper.CONF").write_text("")


def change(top: Path) -> None:
    (top / "etc/passwd").write_text("root and ann")
    (top / "etc/hosts").chmod(0o600)
    os.chown(top / "etc/hosts", 5, 6)
    os.utime(top / "etc/hosts", ns=(TIME, TIME))
    shutil.rmtree(top / "gone")
    (top / "new").mkdir()
    (top / "new/file").write_text("y")
    forged = top / "home/ann/forged"
    before = forged.stat()
    with forged.open("r+b") as file:
        file.seek(250_000)
        file.write(b"evil")
    os.utime(forged, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(top / "home/ann/touched", ns=(TIME, TIME))
    shutil.copy2(top / "home/ann/moved", top / "copy")
    os.replace(top / "copy", top / "home/ann/moved")  # noqa: PTH105
    (top / "home/ann/turns").unlink()
    (top / "home/ann/turns").mkdir()
    (top / "link").unlink()
    (top / "link").symlink_to("etc/shadow")


def nothing(top: Path) -> None:
    """Not even a mount, which would write."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = Place.make(tmp_path_factory.mktemp("finddiff"))
    image, mount = place.root / "sda.raw", place.root / "mnt"
    run("mkfs.ext4", "-q", "-F", "-I", "256", "-b", "4096", blank(image, 64 << 20))
    for step in (fill, nothing, change):
        if step is not nothing:
            with mounted(image, mount) as top:
                step(top)
        place.ok("backup", image, "--name", "web01")
    ids = [stored["id"] for stored in place.json("snapshots")["snapshots"]]
    place.ok("backup", place.dump(), "--name", "shop")
    return Made(place, tuple(ids))


# ---- diff -----------------------------------------------------------------------------------------------


def test_diff_tells_exactly_what_changed(made: Made) -> None:
    changes = made.diff(made.ids[0], made.ids[2])
    told = {
        path.removeprefix(ROOT + "/"): (found["change"], *found.get("what", []))
        for path, found in changes.items()
    }
    assert told == {
        "disks/sda.raw": ("modified", "content"),
        "etc/hosts": ("modified", "mode", "owner", "time"),
        "etc/passwd": ("modified", "content", "time"),
        "gone": ("removed",),
        "gone/deep": ("removed",),
        "gone/deep/file": ("removed",),
        "new": ("added",),
        "new/file": ("added",),
        "home/ann/forged": ("modified", "content"),
        "home/ann/touched": ("modified", "time"),
        "home/ann/turns": ("modified", "type"),
        "link": ("modified", "target", "time"),
    }
    disk = changes["disks/sda.raw"]
    assert 0 < disk["differing"] < 10 << 20


def test_diff_of_one_name_is_the_latest_and_the_one_before(made: Made) -> None:
    told = made.place.ok("diff", "web01")
    assert f"M {ROOT}/etc/passwd  (content, 4 B -> 12 B, time)" in told
    assert f"M {ROOT}/etc/hosts  (mode 0644 -> 0600, owner 0:0 -> 5:6, time)" in told
    assert f"- {ROOT}/gone/  (2 names below, 1 B in files)\n" in told
    assert f"{ROOT}/gone/" not in told.replace(f"- {ROOT}/gone/  (2", "")
    assert "2 added" in told
    assert told.startswith(made.ids[1][:8])


def test_diff_names_what_is_in_a_folder_that_went_when_told_to(made: Made) -> None:
    folded, told = made.place.ok("diff", "web01"), made.place.ok("diff", "web01", "--all")
    assert f"- {ROOT}/gone/\n" in told
    assert told.count(f"- {ROOT}/gone/") == 3
    assert told.splitlines()[-1] == folded.splitlines()[-1]


def test_nothing_changed_is_told_without_a_look_inside(made: Made) -> None:
    assert "no difference" in made.place.ok("diff", made.ids[0], made.ids[1])
    result = made.place.run("diff", made.ids[0])
    assert result.exit_code == 1
    assert "no snapshot before" in result.stderr


def test_diff_keeps_to_a_path(made: Made) -> None:
    whole = f"{ROOT}/etc"
    for args in (
        (made.ids[0], made.ids[2], whole),
        (f"{made.ids[0]}:{whole}", f"{made.ids[2]}:{whole}"),
        (f"web01:{whole}",),
    ):
        assert set(made.diff(*args)) == {f"{whole}/passwd", f"{whole}/hosts"}
    assert set(made.diff(made.ids[0], made.ids[2], "disks")) == {"disks/sda.raw"}
    assert set(made.diff(made.ids[0], made.ids[2], f"{ROOT}/link")) == {f"{ROOT}/link"}
    assert set(made.diff(made.ids[0], made.ids[2], f"{ROOT}/new")) == {f"{ROOT}/new", f"{ROOT}/new/file"}


def test_two_different_folders_can_be_compared(made: Made) -> None:
    found = made.diff(f"{made.ids[0]}:{ROOT}/etc", f"{made.ids[0]}:{ROOT}/etc/ssh")
    told = {path.removeprefix(f"{ROOT}/etc/ssh/"): line["change"] for path, line in found.items()}
    assert told == {
        "hosts": "removed",
        "passwd": "modified",
        "ssh": "removed",
        "ssh/passwd": "removed",
    }


def test_diff_stat_gives_sums_only(made: Made) -> None:
    told = made.place.ok("diff", "web01", "--stat")
    assert "2 added (1 B in files), 3 removed" in told
    assert "passwd" not in told


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["web01", "web01", "nope"], "in either of the two"),
        (["web01:disks", f"web01:{ROOT}"], "different kinds"),
        (["web01", "nobody"], "no snapshot"),
    ],
)
def test_what_cannot_be_compared_is_explained(args: list[str], says: str, made: Made) -> None:
    result = made.place.run("diff", *args)
    assert result.exit_code == 1
    assert says in result.stderr


# ---- find -----------------------------------------------------------------------------------------------


def test_find_shows_each_version_and_who_has_it(made: Made) -> None:
    versions = made.find("passwd")[f"{ROOT}/etc/passwd"]
    assert [(v["size"], v["snapshots"]) for v in versions] == [(4, 2), (12, 1)]
    assert versions[0]["first"]["id"] == made.ids[0]
    assert versions[0]["last"]["id"] == made.ids[1]
    assert versions[1]["first"]["id"] == versions[1]["last"]["id"] == made.ids[2]
    told = made.place.ok("find", "passwd")
    assert told.splitlines()[0] == "web01 (vm)"
    assert "in 2 snapshots: " in told
    assert "found 2 paths in 4 snapshots" in told


@pytest.mark.parametrize(
    ("args", "paths"),
    [
        (["pass*"], ["etc/passwd", "etc/ssh/passwd"]),
        (["etc/passwd"], ["etc/passwd"]),
        (["/etc/passwd"], ["etc/passwd"]),
        (["*/passwd"], ["etc/passwd", "etc/ssh/passwd"]),
        (["/*/passwd"], ["etc/passwd"]),
        (["passwd", "--path", "/etc/ssh"], ["etc/ssh/passwd"]),
        (["passwd", "--path", f"{ROOT}/etc/ssh"], ["etc/ssh/passwd"]),
        (["passwd", "--path", "/nowhere"], []),
        (["passwd", "--path", "files/sdb"], []),
        (["gone", "file"], ["gone", "gone/deep/file", "new/file"]),
        (["file", "--snapshot", "web01@latest"], ["new/file"]),
        (["upper.conf"], []),
        (["upper.conf", "-i"], ["Upper.CONF"]),
        (["p0"], [""]),
    ],
)
def test_patterns_and_places(args: list[str], paths: list[str], made: Made) -> None:
    assert sorted(made.find(*args)) == [f"{ROOT}/{path}".rstrip("/") for path in sorted(paths)]


def test_find_finds_items_too_and_keeps_to_a_name(made: Made) -> None:
    assert set(made.find("sda.raw")) == {"disks/sda.raw"}
    assert len(made.find("sda.raw")["disks/sda.raw"][0]["first"]["id"]) == 64
    assert set(made.find("*.sql")) == {"dump.sql", "schema.sql", "tables/orders.sql"}
    assert made.find("passwd", "--name", "shop") == {}
    disks = {f"disks/sda.{suffix}" for suffix in ("raw", *VIEWS)}
    assert set(made.find("*", "--path", "disks")) == {"disks", *disks}


@pytest.mark.parametrize("pattern", ["orders", "ord*", "tables/orders", "orders.sql"])
def test_find_takes_the_name_of_a_table_for_its_file(pattern: str, made: Made) -> None:
    (version,) = made.find(pattern)["tables/orders.sql"]
    assert (version["type"], version["table"]) == ("file", "orders")
    told = made.place.ok("find", pattern)
    assert "\n  tables/orders.sql\n" in told
    assert "  table orders  " in told


@pytest.mark.parametrize(
    ("pattern", "path", "type_"),
    [
        ("disks", "disks", "folder"),
        ("files", "files", "folder"),
        ("sda", "files/sda", "folder"),
        ("sda.qcow2", "disks/sda.qcow2", "file"),
        ("snapshot.json", "snapshot.json", "file"),
        ("tables", "tables", "folder"),
    ],
)
def test_find_finds_whatever_the_mount_shows(pattern: str, path: str, type_: str, made: Made) -> None:
    versions = made.find(pattern)[path]
    assert {version["type"] for version in versions} == {type_}
    assert (versions[0]["mtime"] is None) == (type_ == "folder")


def test_a_disk_that_did_not_change_is_walked_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[str] = []
    original = SnapshotTree.close

    def counted(self: SnapshotTree, disk: DiskNode) -> None:
        walked.append(disk.name)
        original(self, disk)

    monkeypatch.setattr(SnapshotTree, "close", counted)
    made.find("passwd", "--name", "web01")
    assert walked == ["sda"] * 2, "three snapshots, two different disks"
    sizes = made.find("hosts")[f"{ROOT}/etc/hosts"]
    assert sum(version["snapshots"] for version in sizes) == 3


def test_nothing_to_search_is_told(made: Made) -> None:
    result = made.place.run("find", "x", "--name", "nobody")
    assert result.exit_code == 1
    assert "holdfast snapshots" in result.stderr
    assert made.place.run("find").exit_code == 2


# ---- damage ---------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_told_and_the_rest_found(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    image, mount = place.root / "sda.raw", place.root / "mnt"
    run("mkfs.ext4", "-q", "-F", blank(image, 32 << 20))
    with mounted(image, mount) as top:
        (top / "file").write_text("x")
    place.ok("backup", image, "--name", "web01")
    for pack in files(place.repository, "packs")[:1]:
        for offset in range(300, pack.stat().st_size - 3000, 200):
            flip_byte(pack, offset)
    place.ok("backup", place.dump(), "--name", "shop")
    result = place.run("find", "file", "dump.sql")
    assert result.exit_code == 3
    assert "not searched: damaged" in result.stderr
    assert "dump.sql" in result.stdout
