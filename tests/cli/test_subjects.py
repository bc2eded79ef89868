"""What keeps apart what is called the same: identity, the questions about it, and `holdfast subject`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from holdfast.repo.store.interface import FileKind
from support.cli import Place, files, flip_byte
from support.vm import make_export

NAME_TAKEN = "--same continues that history, --new-history begins another one"
README_POLICY = ("--keep-daily", "7", "--keep-weekly", "4", "--keep-monthly", "12")
SIZE = 8 << 20


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def disk(place: Place, path: str, *, seed: int = 1) -> Path:
    """A disk of more chunks than may all change at once."""
    file = place.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    made = place.disk("made.raw", seed=seed, size=SIZE)
    with made.open("r+b") as stream:
        for offset in range(0, SIZE, 128 << 10):
            stream.seek(offset)
            stream.write(f"{seed} at {offset}".encode() * 400)
    shutil.move(made, file)
    return file


def subjects(place: Place) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.json("subject", "list")["subjects"]
    return found


def labels(place: Place) -> list[str]:
    return sorted(each["label"] for each in subjects(place))


def test_two_disks_of_one_name_keep_a_history_each(place: Place) -> None:
    a, b = disk(place, "a/disk.raw", seed=1), disk(place, "b/disk.raw", seed=2)
    place.ok("backup", a)
    result = place.run("backup", b)
    assert result.exit_code == 0
    assert "this one is 'b/disk'" in result.stderr
    place.ok("forget", *README_POLICY)
    assert labels(place) == ["a/disk", "b/disk"]
    assert len(place.json("snapshots")["snapshots"]) == 2
    for label, source in (("a/disk", a), ("b/disk", b)):
        assert label in place.ok("snapshots")
        place.ok("restore", f"{label}@latest:disks/disk.raw", "--target", place.root / "out", "--overwrite")
        assert (place.root / "out").read_bytes() == source.read_bytes()


def test_the_same_path_on_another_host_is_another_disk(place: Place) -> None:
    source = disk(place, "disk.raw")
    for host in ("hv1", "hv2", "hv1"):
        place.ok("backup", source, "--host", host)
    assert [(each["label"], each["snapshots"]) for each in subjects(place)] == [
        ("hv1/disk", 2),
        ("hv2/disk", 1),
    ]


def test_a_bare_name_of_several_is_refused_with_the_names_to_type(place: Place) -> None:
    place.ok("backup", disk(place, "a/disk.raw"))
    place.ok("backup", disk(place, "b/disk.raw", seed=2))
    result = place.run("ls", "disk@latest")
    assert result.exit_code == 1
    assert "a/disk: vm" in result.stderr
    assert "b/disk: vm" in result.stderr
    assert place.ok("ls", "b/disk@latest")
    assert place.ok("ls", "vm/b/disk")


def test_a_given_name_follows_exports_wherever_they_lie(place: Place) -> None:
    first = disk(place, "2026-11-22/web01.raw")
    place.ok("backup", first, "--name", "web01")
    (place.root / "2026-11-23").mkdir()
    shutil.move(first, place.root / "2026-11-23/web01.raw")
    place.ok("backup", place.root / "2026-11-23/web01.raw", "--name", "web01")
    assert [(each["label"], each["snapshots"]) for each in subjects(place)] == [("web01", 2)]


def test_a_name_that_another_has_is_asked_about(place: Place) -> None:
    """An export that says its UUID, then a bare disk of that name: the facts say that they are two."""
    made = make_export("libvirt", place.root / "export")
    place.ok("backup", made.path)
    bare = disk(place, "web01.raw")
    result = place.run("backup", bare, "--name", "web01")
    assert result.exit_code == 2
    assert NAME_TAKEN in result.stderr
    assert len(place.json("snapshots")["snapshots"]) == 1
    place.ok("backup", bare, "--name", "web01", "--new-history")
    place.ok("backup", bare, "--name", "web01")
    assert sorted(each["snapshots"] for each in subjects(place)) == [1, 2]
    result = place.run("backup", bare, "--name", "web01", "--same", "--new-history")
    assert result.exit_code == 2


def test_same_goes_on_with_that_history_for_good(place: Place) -> None:
    made = make_export("libvirt", place.root / "export")
    place.ok("backup", made.path)
    bare = disk(place, "web01.raw")
    place.ok("backup", bare, "--name", "web01", "--same")
    place.ok("backup", bare, "--name", "web01")
    place.ok("backup", made.path)
    assert [(each["label"], each["snapshots"]) for each in subjects(place)] == [("web01", 4)]


def test_another_disk_under_the_same_path_stops(place: Place) -> None:
    path = disk(place, "disk.raw", seed=1)
    place.ok("backup", path)
    first = place.json("snapshots")["snapshots"]
    disk(place, "disk.raw", seed=2)
    result = place.run("backup", path)
    assert result.exit_code == 2
    assert "this is something else; no snapshot was made" in result.stderr
    assert "--new-history" in result.stderr
    assert place.json("snapshots")["snapshots"] == first
    about = place.json("backup", path, "--new-history")
    assert about["parent"] is None
    assert about["new"] == 0  # what the refused backup read was stored
    assert len(subjects(place)) == 2
    disk(place, "disk.raw", seed=3)
    assert place.json("backup", path, "--same")["parent"] == about["id"]


def test_a_disk_that_changed_by_half_goes_on(place: Place) -> None:
    path = disk(place, "disk.raw", seed=1)
    place.ok("backup", path)
    other = disk(place, "other.raw", seed=2).read_bytes()
    path.write_bytes(path.read_bytes()[: SIZE // 2] + other[SIZE // 2 :])
    place.ok("backup", path)
    assert [each["snapshots"] for each in subjects(place)] == [2]


# ---- several in one command


def test_several_exports_and_disks_give_a_snapshot_each(place: Place) -> None:
    paths = [disk(place, f"{name}.raw", seed=n) for n, name in enumerate(("vm1", "vm2", "vm3"))]
    place.ok("backup", *paths)
    place.ok("backup", *paths)
    assert [(each["label"], each["snapshots"]) for each in subjects(place)] == [
        ("vm1", 2),
        ("vm2", 2),
        ("vm3", 2),
    ]
    place.ok("backup", *paths, "--name", "one")
    assert place.json("info", "one")["size"] == 3 * SIZE


def test_a_folder_of_exports_is_walked_and_what_is_none_is_named(place: Place) -> None:
    folder = place.root / "exports"
    folder.mkdir()
    for kind, name in (("libvirt", "a"), ("vmware", "b")):
        make_export(kind, folder / name)
    (folder / "notes.txt").write_text("not a VM")
    result = place.run("backup", folder)
    assert result.exit_code == 0, result.output
    assert "notes.txt was left out" in result.stderr
    assert len(place.json("snapshots")["snapshots"]) == 2


def test_folders_inside_of_an_export_are_no_vms(place: Place) -> None:
    """VirtualBox leaves its logs there, others their caches."""
    made = make_export("libvirt", place.root / "web01")
    (made.path / "Logs").mkdir()
    (made.path / "Logs" / "old.img").write_bytes(b"x" * 512)
    place.ok("backup", made.path)
    assert labels(place) == ["web01"]


def test_one_that_fails_of_several_leaves_the_others(place: Place) -> None:
    good, bad = disk(place, "good.raw"), place.write("bad.raw", b"x" * 1000)
    other = disk(place, "other.raw", seed=2)
    result = place.run("backup", good, other, bad)
    assert result.exit_code == 1
    assert labels(place) in ([], ["good", "other"])


@pytest.mark.parametrize("turned", [False, True])
def test_a_disk_and_a_dump_are_refused_with_the_commands_to_type(place: Place, turned: bool) -> None:
    paths = [disk(place, "vm.raw"), place.dump()]
    for options in ([], ["--name", "both"]):
        result = place.run("backup", *(reversed(paths) if turned else paths), *options)
        assert result.exit_code == 2
        assert f"`holdfast backup {paths[0]}`; `holdfast backup {paths[1]}`" in result.stderr
    assert place.json("snapshots")["snapshots"] == []


def test_a_disk_with_its_definition_is_one_vm_and_two_disks_with_one_are_not(place: Place) -> None:
    definition = place.write("notes.txt", "of the VM")
    one, two = disk(place, "one.raw"), disk(place, "two.raw", seed=2)
    place.ok("backup", one, definition)
    assert len(place.json("info", "one")["items"]) == 2
    result = place.run("backup", one, two, definition)
    assert result.exit_code == 2
    assert "--name NAME" in result.stderr


# ---- forget and subject


def three_days(place: Place, name: str = "web01") -> None:
    path = disk(place, f"{name}.raw")
    for day in (1, 2, 3):
        place.ok("backup", path, "--time", f"2026-11-0{day}T02:00:00")


def test_forget_does_not_take_the_newest_of_several_for_a_bare_name(place: Place) -> None:
    three_days(place)
    result = place.run("forget", "web01")
    assert result.exit_code == 2
    assert "'web01' has 3 snapshots" in result.stderr
    assert "holdfast subject drop web01" in result.stderr
    place.ok("forget", "web01@2026-11-01")
    place.ok("forget", "web01@latest")
    place.ok("forget", "web01")  # the last one left
    assert place.json("snapshots")["snapshots"] == []


def test_a_policy_that_keeps_nothing_is_for_a_named_subject_only(place: Place) -> None:
    three_days(place)
    assert place.run("forget", "--keep-last", "0").exit_code == 2
    assert place.run("forget", "--keep-last", "0", "--allow-empty").exit_code == 2
    assert place.run("forget", "--name", "web01", "--keep-last", "0").exit_code == 2
    place.ok("forget", "--name", "web01", "--keep-last", "0", "--allow-empty")
    assert place.json("snapshots")["snapshots"] == []


def test_drop_takes_all_of_a_subject_and_undelete_brings_it_back(place: Place) -> None:
    three_days(place)
    place.ok("backup", disk(place, "other.raw", seed=2))
    assert "3 snapshots would be forgotten" in place.ok("subject", "drop", "web01", "--dry-run")
    assert labels(place) == ["other", "web01"]
    place.ok("subject", "drop", "web01")
    assert labels(place) == ["other"]
    place.ok("undelete", "web01")
    assert [each["snapshots"] for each in subjects(place) if each["label"] == "web01"] == [3]


def test_rename_join_and_split(place: Place) -> None:
    a, b = disk(place, "a/disk.raw"), disk(place, "b/disk.raw", seed=2)
    place.ok("backup", a)
    place.ok("backup", b)
    place.ok("subject", "rename", "a/disk", "web01")
    place.ok("backup", a)
    assert labels(place) == ["disk", "web01"]
    assert place.run("subject", "rename", "web01", "x/y").exit_code == 2
    place.ok("subject", "join", "disk", "web01")
    place.ok("backup", b)
    assert [(each["label"], each["snapshots"]) for each in subjects(place)] == [("web01", 4)]
    assert place.run("subject", "join", "web01", "web01").exit_code == 1
    place.ok("subject", "split", "web01")
    assert sorted((each["label"], each["snapshots"]) for each in subjects(place)) == [
        ("disk", 2),
        ("web01", 2),
    ]
    newest = place.json("info", "web01")["id"]
    place.ok("subject", "split", "web01", newest)
    assert sorted(each["snapshots"] for each in subjects(place)) == [1, 1, 2]
    place.ok("check")


def test_subjects_of_other_kinds_are_not_joined(place: Place) -> None:
    place.ok("backup", disk(place, "web01.raw"))
    place.ok("backup", place.dump(), "--name", "shop")
    result = place.run("subject", "join", "shop", "web01")
    assert result.exit_code == 1
    assert "they cannot be one" in result.stderr
    assert labels(place) == ["shop", "web01"]


def test_a_record_that_cannot_be_read_is_told_and_no_rule_counts(place: Place) -> None:
    three_days(place)
    place.ok("subject", "rename", "web01", "www")
    for record in files(place.repository, FileKind.SUBJECTS.value):
        flip_byte(record, 80)
    result = place.run("forget", "--keep-last", "1")
    assert result.exit_code == 1
    assert "which snapshots belong together is unknown" in result.stderr
    assert len(place.json("snapshots")["snapshots"]) == 3
    assert place.run("check").exit_code == 21
    place.ok("restore", "web01@latest:disks/web01.raw", "--target", place.root / "out")
