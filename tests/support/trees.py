"""Trees of made-up snapshots: no repository, no contents."""

from __future__ import annotations

from dataclasses import replace

from holdfast.base.types import ChunkID, SnapshotID
from holdfast.repo.snapshots.snapshot import Item, Snapshot, StoredSnapshot, Subject, SubjectKind
from holdfast.tree.build import build_tree
from holdfast.tree.nodes import DirectoryNode, LinkNode, Node
from support.basics import make_item, make_snapshot

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


def example() -> list[StoredSnapshot]:
    return [
        stored(1, Subject(VM, "web01"), "disks/a.raw"),
        stored(2, Subject(VM, "web01"), "disks/a.raw", hours=1),
        stored(3, Subject(FILES, "etc"), "a", "b/c"),
    ]
