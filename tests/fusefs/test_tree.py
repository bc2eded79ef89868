"""The mount tree as a value: snapshots in, folders out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.types import ChunkID, SnapshotID
from holdfast.fusefs.inodes import ROOT, Inodes, number_of
from holdfast.repo.snapshots.snapshot import (
    BadRange,
    Item,
    ItemKind,
    Snapshot,
    StoredSnapshot,
    Subject,
    SubjectKind,
)
from holdfast.tree.build import Tree, build_tree
from holdfast.tree.names import safe_name, short_ids, time_name
from holdfast.tree.nodes import DirectoryNode, ImageNode, ItemNode, LinkNode, Node, TextNode
from holdfast.tree.snapshot import nanoseconds
from support.basics import NOW, make_item, make_snapshot

RECIPE = ChunkID(bytes(32))
VM, DATABASE, FILES = SubjectKind.VM, SubjectKind.DATABASE, SubjectKind.FILES


def item(path: str = "disks/sda.raw") -> Item:
    return make_item(RECIPE, 1000, path=path)


def stored(
    number: int, subject: Subject, *paths: str, hours: float = 0, snapshot: Snapshot | None = None
) -> StoredSnapshot:
    """A snapshot with a made-up ID that begins with `number`."""
    found = snapshot or make_snapshot(*(item(path) for path in paths), hours=hours)
    return StoredSnapshot(SnapshotID(f"{number:08x}".ljust(64, "0")), replace(found, subject=subject))


def walk(folder: DirectoryNode, path: str = "") -> dict[str, Node]:
    """Every node by its path."""
    found: dict[str, Node] = {}
    for name, node in folder.children.items():
        found[path + name] = node
        if isinstance(node, DirectoryNode):
            found |= walk(node, f"{path}{name}/")
    return found


def paths_of(*snapshots: StoredSnapshot) -> dict[str, Node]:
    return walk(build_tree(snapshots).root)


def folder_at(nodes: dict[str, Node], path: str) -> DirectoryNode:
    node = nodes[path]
    assert isinstance(node, DirectoryNode)
    return node


def link_at(nodes: dict[str, Node], path: str) -> str:
    node = nodes[path]
    assert isinstance(node, LinkNode)
    return node.target


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


def test_times_are_utc() -> None:
    assert time_name(NOW.astimezone(timezone(timedelta(hours=9)))) == "2026-11-22_02-00-00"


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


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("web01", "web01"),
        ("web01.example.org", "web01.example.org"),
        ("Büro 3 (alt)", "Büro 3 (alt)"),
        ("", "unnamed"),
        (".", "_"),
        ("..", "__"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("a\0b", "a_b"),
        ("a:b", "a_b"),
        ("\x1b[2J\r\n", "_[2J__"),
        ("gpj.\u202eexe", "gpj._exe"),
        ("\ud800", "_"),
    ],
)
def test_subject_names_are_made_safe(name: str, shown: str) -> None:
    assert safe_name(name) == shown


def test_long_names_are_cut_and_stay_apart() -> None:
    a, b = safe_name("ä" * 300 + "a"), safe_name("ä" * 300 + "b")
    assert a != b
    assert max(len(a.encode()), len(b.encode())) <= 210


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


def test_short_ids_are_longer_where_they_must_be() -> None:
    ids = ["0123456789ab", "0123456799ff", "fedcba987654", "0123456789cd"]
    assert short_ids(ids) == ["0123456789a", "012345679", "fedcba98", "0123456789c"]
    assert short_ids([]) == []


def about(nodes: dict[str, Node], path: str) -> dict[str, object]:
    node = nodes[path]
    assert isinstance(node, TextNode)
    found = json.loads(node.data)
    assert isinstance(found, dict)
    return found


def test_document_of_a_machine_tells_what_is_known() -> None:
    disk = replace(item(), bad=(BadRange(4096, 512, "I/O error"),))
    subject = Subject(VM, "web01", uuid="u1")
    document = about(
        paths_of(stored(1, subject, snapshot=make_snapshot(disk))), "vms/web01/2026-11-22_02-00-00/vm.json"
    )
    assert document["subject"] == {"kind": "vm", "name": "web01", "uuid": "u1"}
    assert document["time"] == "2026-11-22T02:00:00+00:00"
    assert document["consistency"] == "unknown"
    assert document["partial"] is True
    assert document["disks"] == [
        {
            "path": "disks/sda.raw",
            "kind": "file",
            "size": 1000,
            "allocated": 0,
            "mtime_ns": 0,
            "unreadable": [{"offset": 4096, "length": 512, "reason": "I/O error"}],
        }
    ]


def test_documents_make_way_for_items_of_their_name() -> None:
    nodes = paths_of(
        stored(1, Subject(FILES, "a"), "snapshot.json"),
        stored(2, Subject(VM, "b"), "vm.json"),
        stored(3, Subject(FILES, "c"), "x"),
    )
    time = "2026-11-22_02-00-00"
    assert isinstance(nodes[f"files/a/{time}/snapshot.json"], ItemNode)
    assert isinstance(nodes[f"vms/b/{time}/vm.json"], ItemNode)
    assert about(nodes, f"vms/b/{time}/snapshot.json")["subject"] == {"kind": "vm", "name": "b"}
    assert "items" in about(nodes, f"files/c/{time}/snapshot.json")


def test_no_item_can_take_the_place_of_another_format() -> None:
    disks = [replace(item(path), kind=ItemKind.DISK) for path in ("disks/sda.raw", "disks/.raw", "sda.raw")]
    odd = [item("disks/sda.raw as qcow2"), item("disks/sda.raw as vmdk")]
    nodes = paths_of(stored(1, Subject(VM, "web01"), snapshot=make_snapshot(*disks, *odd)))
    inodes = Inodes()
    assert len({inodes.number(node) for node in nodes.values()}) == len(nodes)
    time = "vms/web01/2026-11-22_02-00-00"
    assert isinstance(nodes[f"{time}/disks/sda.qcow2"], ImageNode)
    assert all(PurePosixPath(path).name for path in nodes)
    assert f"{time}/disks/.qcow2" not in nodes, "a disk without a name has no files and no other formats"


# ---- inode numbers ------------------------------------------------------------------------------------


def numbers(tree: Tree, inodes: Inodes) -> dict[str, int]:
    return {path: inodes.number(node) for path, node in walk(tree.root).items()}


def example() -> list[StoredSnapshot]:
    return [
        stored(1, Subject(VM, "web01"), "disks/a.raw"),
        stored(2, Subject(VM, "web01"), "disks/a.raw", hours=1),
        stored(3, Subject(FILES, "etc"), "a", "b/c"),
    ]


def entered(tree: Tree) -> Inodes:
    inodes = Inodes()
    inodes.replace(None, tree)
    return inodes


def test_inode_numbers_are_distinct_and_the_same_in_every_mount() -> None:
    tree = build_tree(example())
    first = numbers(tree, entered(tree))
    assert len(set(first.values())) == len(first)
    again = build_tree(reversed(example()))
    reordered = dict(sorted(walk(again.root).items(), reverse=True))
    inodes = entered(again)
    assert {path: inodes.number(node) for path, node in reordered.items()} == first


def test_equal_hashes_get_different_inode_numbers() -> None:
    inodes = Inodes(first_choice=lambda key: 1 << 40)
    tree = build_tree(example())
    inodes.replace(None, tree)
    found = numbers(tree, inodes)
    assert len(set(found.values())) == len(found)
    assert all(inodes.node(number) is walk(tree.root)[path] for path, number in found.items())


@given(st.text())
def test_inode_numbers_leave_the_small_ones_free(key: str) -> None:
    assert ROOT < 1 << 32 <= number_of(key) < 1 << 63


def test_new_snapshot_changes_no_number_and_takes_nothing_back() -> None:
    old = build_tree(example()[:1])
    inodes = entered(old)
    before = numbers(old, inodes)
    new = build_tree(example(), old)
    assert inodes.replace(old, new) == []
    after = numbers(new, inodes)
    assert before.items() <= after.items()
    for path, node in walk(new.root).items():
        assert inodes.node(after[path]) is node


def test_removed_snapshot_is_taken_back_and_forgotten() -> None:
    old = build_tree(example())
    inodes = entered(old)
    before = numbers(old, inodes)
    new = build_tree(example()[1:], old)
    gone = inodes.replace(old, new)
    time = "2026-11-22_02-00-00"
    assert set(gone) == {(before["vms/web01"], time), (before["snapshots"], "00000001")}
    assert inodes.node(before[f"vms/web01/{time}/disks/a.raw"]) is None
    assert inodes.node(before[f"vms/web01/{time}"]) is None
    assert inodes.node(before["vms/web01/2026-11-22_03-00-00/disks/a.raw"]) is not None


def test_folders_of_snapshots_survive_a_rebuild() -> None:
    old = build_tree(example())
    new = build_tree(example(), old)
    assert all(new.snapshots[id_] is folder for id_, folder in old.snapshots.items())
