"""Reads one file of a snapshot by its path, or a table of a dump by its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from holdfast.base.errors import Damaged, MissingChunk, NotFound
from holdfast.base.types import Buffer
from holdfast.repo.snapshots.snapshot import ItemKind, Snapshot
from holdfast.tasks.snapshot_trees import SnapshotTrees
from holdfast.tree import virtual
from holdfast.tree.content import NodeContent
from holdfast.tree.errors import SeveralFiles
from holdfast.tree.nodes import VirtualNode
from holdfast.tree.snapshot_tree import SnapshotTree


def file_content(trees: SnapshotTrees, tree: SnapshotTree, path: str) -> NodeContent:
    """The content of the file at a path; "" is the snapshot's main item, when there is one.

    Raises NotFound, IsDirectory, IsLink, HasNoContent, SeveralFiles, GuestError, RepositoryError.
    """
    snapshot = tree.stored.snapshot
    path = path or _main_path(snapshot)
    if not path:
        raise SeveralFiles([item.path for item in snapshot.items])
    return trees.files.open(tree, tree.resolve(path))


def table_content(trees: SnapshotTrees, tree: SnapshotTree, table: str, *, csv: bool) -> NodeContent:
    """The content of a table of a dump, as SQL or as CSV. `table` is its name as in the path of its file.

    Raises NotFound, Ambiguous, Refused when the dump's form allows no CSV, RepositoryError.
    """
    tree.top()
    for fault in tree.faults:  # what is not found may be what they hide
        raise fault
    found = tree.root.virtual.files
    if not found:
        raise NotFound("no dump in this snapshot whose tables could be had one by one")
    node = tree.resolve(virtual.find_table(found, table))
    assert isinstance(node, VirtualNode)
    data = _csv(trees, tree.stored.snapshot, node) if csv else trees.files.virtual(node)
    return NodeContent(node.path, data, is_short=bool(node.item.bad))


def _csv(trees: SnapshotTrees, snapshot: Snapshot, node: VirtualNode) -> Iterator[bytes]:
    item = node.item

    def read(start: int, length: int) -> Iterable[Buffer]:
        return trees.files.read_range(item, start, length)

    rows = virtual.table_csv(trees.reader, snapshot, item, node.path, read)
    return _to_the_end(rows) if any(not bad.length for bad in item.bad) else rows


def _to_the_end(rows: Iterator[bytes]) -> Iterator[bytes]:
    """The rows of an incomplete dump, as far as they go, followed by a warning to the caller."""
    try:
        yield from rows
    except Damaged as error:
        if isinstance(error, MissingChunk):
            raise


def _main_path(snapshot: Snapshot) -> str:
    """Path of the snapshot's main item, ignoring its companions (globals.sql, a machine's definition); ""
    when there are several."""
    if len(snapshot.items) == 1:
        return snapshot.items[0].path
    dumps = [item.path for item in snapshot.items if item.kind is ItemKind.DUMP]
    return dumps[0] if len(dumps) == 1 else ""
