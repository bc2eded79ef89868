"""The tree of a repository as a value: snapshots in, directories out."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from holdfast.repo.snapshots.snapshot import ItemKind, Subject
from holdfast.tree.build import build_tree
from holdfast.tree.nodes import ImageNode, ItemNode
from holdfast.tree.snapshot import nanoseconds
from support.basics import NOW, make_snapshot
from support.trees import DATABASE, FILES, VM, example, folder_at, item, link_at, paths_of, stored, walk


def test_empty_repository_has_the_four_folders() -> None:
    nodes = walk(build_tree([], born=7).root)
    assert list(nodes) == ["vms", "databases", "files", "snapshots"]
    assert {node.mtime for node in nodes.values()} == {7}


def test_each_kind_has_its_place() -> None:
    nodes = paths_of(
        stored(1, Subject(VM, "web01"), "disks/sda.raw", "disks/sdb.raw"),
        stored(2, Subject(DATABASE, "shop", engine="postgresql"), "dump.sql"),
        stored(3, Subject(DATABASE, "odd"), "dump.sql"),
        stored(4, Subject(FILES, "etc"), "hosts", "ssh/keys/host.pub", "ssh/sshd_config"),
    )
    time = "2026-11-22_02-00-00"
    files = {path for path, node in nodes.items() if isinstance(node, ItemNode)}
    assert files == {
        f"vms/web01/{time}/disks/sda.raw",
        f"vms/web01/{time}/disks/sdb.raw",
        f"databases/postgresql/shop/{time}/dump.sql",
        f"databases/other/odd/{time}/dump.sql",
        f"files/etc/{time}/hosts",
        f"files/etc/{time}/ssh/keys/host.pub",
        f"files/etc/{time}/ssh/sshd_config",
    }
    assert link_at(nodes, "snapshots/00000002") == f"../databases/postgresql/shop/{time}"
    assert link_at(nodes, "vms/web01/latest") == time


def test_latest_is_the_newest_and_folders_have_its_time() -> None:
    subject = Subject(VM, "web01")
    nodes = paths_of(
        stored(3, subject, "disks/a.raw", hours=24),
        stored(1, subject, "disks/a.raw", hours=48),
        stored(2, subject, "disks/a.raw"),
    )
    assert link_at(nodes, "vms/web01/latest") == "2026-11-24_02-00-00"
    newest = nanoseconds(NOW + timedelta(hours=48))
    assert nodes["vms/web01/2026-11-24_02-00-00"].mtime == newest
    assert nodes["vms/web01/2026-11-24_02-00-00/disks"].mtime == newest
    assert nodes["vms/web01/2026-11-22_02-00-00"].mtime == nanoseconds(NOW)
    assert nodes["vms"].mtime == nodes["vms/web01"].mtime == newest


def test_backups_of_one_second_are_told_apart() -> None:
    subject = Subject(FILES, "etc")
    nodes = paths_of(
        stored(7, subject, "a", hours=0.1 / 3600),
        stored(5, subject, "a"),
        stored(6, subject, "a", hours=0.2 / 3600),
    )
    folder = folder_at(nodes, "files/etc")
    assert list(folder.children) == [
        "2026-11-22_02-00-00",
        "2026-11-22_02-00-00_00000007",
        "2026-11-22_02-00-00_00000006",
        "latest",
    ]
    assert link_at(nodes, "files/etc/latest") == "2026-11-22_02-00-00_00000006"
    assert link_at(nodes, "snapshots/00000007") == "../files/etc/2026-11-22_02-00-00_00000007"


def test_renamed_machine_keeps_one_folder_under_its_newest_name() -> None:
    nodes = paths_of(
        stored(1, Subject(VM, "old", uuid="u1"), "disks/a.raw"),
        stored(2, Subject(VM, "new", uuid="u1"), "disks/a.raw", hours=1),
    )
    assert list(folder_at(nodes, "vms").children) == ["new"]
    assert len(folder_at(nodes, "vms/new").children) == 3


def test_of_two_machines_of_one_name_the_older_has_it_plain() -> None:
    first = stored(1, Subject(VM, "web01", uuid="u1"), "disks/a.raw", hours=1)
    second = stored(2, Subject(VM, "web01", uuid="u2"), "disks/a.raw", hours=2)
    names = list(folder_at(paths_of(second, first), "vms").children)
    assert names[0] == "web01"
    assert names[1].startswith("web01~")
    nodes = paths_of(first, second)
    assert list(folder_at(nodes, "vms").children) == names
    assert link_at(nodes, "snapshots/00000001").startswith("../vms/web01/")
    assert link_at(nodes, "snapshots/00000002").startswith(f"../vms/{names[1]}/")


def test_harmless_name_is_not_taken_by_one_that_had_to_be_changed() -> None:
    hostile = stored(1, Subject(VM, "a/b"), "disks/a.raw")
    honest = stored(2, Subject(VM, "a_b"), "disks/a.raw", hours=9)
    nodes = paths_of(hostile, honest)
    assert link_at(nodes, "snapshots/00000002").startswith("../vms/a_b/")
    assert link_at(nodes, "snapshots/00000001").startswith("../vms/a_b~")


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=300), unique=True, max_size=8))
def test_any_names_make_a_tree_that_the_kernel_takes(names: list[str]) -> None:
    snapshots = [stored(n, Subject(VM, name), "disks/a.raw") for n, name in enumerate(names)]
    vms = folder_at(paths_of(*snapshots), "vms")
    assert len(vms.children) == len(names)
    for name in vms.children:
        assert 0 < len(name.encode()) <= 255
        assert name not in (".", "..")
        assert not set(name) & set("/\0:")
    assert list(paths_of(*reversed(snapshots))) == list(paths_of(*snapshots))


def test_item_names_are_shown_as_they_are() -> None:
    nodes = paths_of(stored(1, Subject(FILES, "etc"), "a:b", "odd\nname/x"))
    time = "files/etc/2026-11-22_02-00-00"
    assert {f"{time}/a:b", f"{time}/odd\nname/x"} <= set(nodes)


def test_file_and_folder_of_one_name_do_not_hide_each_other() -> None:
    nodes = paths_of(stored(1, Subject(FILES, "etc"), "a", "a/b", "a/b", "latest"))
    files = [path for path, node in nodes.items() if isinstance(node, ItemNode)]
    assert len(files) == 4


def test_no_item_can_take_the_place_of_another_format() -> None:
    disks = [replace(item(path), kind=ItemKind.DISK) for path in ("disks/sda.raw", "disks/.raw", "sda.raw")]
    odd = [item("disks/sda.raw as qcow2"), item("disks/sda.raw as vmdk")]
    nodes = paths_of(stored(1, Subject(VM, "web01"), snapshot=make_snapshot(*disks, *odd)))
    assert len({node.key for node in nodes.values()}) == len(nodes), "inode numbers are made of keys"
    time = "vms/web01/2026-11-22_02-00-00"
    assert isinstance(nodes[f"{time}/disks/sda.qcow2"], ImageNode)
    assert all(PurePosixPath(path).name for path in nodes)
    assert f"{time}/disks/.qcow2" not in nodes, "a disk without a name has no files and no other formats"


def test_folders_of_snapshots_survive_a_rebuild() -> None:
    old = build_tree(example())
    new = build_tree(example(), old)
    assert all(new.snapshots[id_] is folder for id_, folder in old.snapshots.items())
