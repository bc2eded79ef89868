"""Inode numbers: distinct, the same in every mount, taken back with what they stood for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.fusefs.inodes import ROOT, Inodes, number_of
from holdfast.tree.build import Tree, build_tree
from support.trees import example, walk


def numbers(tree: Tree, inodes: Inodes) -> dict[str, int]:
    return {path: inodes.number(node) for path, node in walk(tree.root).items()}


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
