"""Lists the content of a snapshot outside of disks: items, images, virtual files, documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from holdfast.base.moments import moment
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID, item_document
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.exits import code_for
from holdfast.cli.base.render import count, size
from holdfast.cli.base.table import Column, table
from holdfast.repo.snapshots.select import time_name
from holdfast.tree.nodes import DirectoryNode, ImageNode, ItemNode, LinkNode, Node, VirtualNode
from holdfast.tree.snapshot_tree import SnapshotTree

_COLUMNS = (
    Column("type", leaves=2),
    Column("size", "right", leaves=1),
    Column("data", "right", leaves=4),
    Column("changed (UTC)", leaves=3),
    Column("path"),
    Column("", optional=True),
)


def show_listing(settings: RunSettings, tree: SnapshotTree, node: Node, *, recursive: bool) -> ExitCode:
    """Print a node and all nodes below it with full paths.

    The content of disks is one directory. Unless `recursive`, the text (not the JSON) has one line for each
    deeper directory of virtual files.
    """
    nodes = sorted(_below(node), key=lambda one: one.path)
    stored = tree.stored
    settings.output.document(
        {"snapshot": stored.id, "short_id": stored.id[:SHORT_ID], "items": [_document(one) for one in nodes]}
    )
    above = f"{node.path}/" if node.path else ""
    folded: dict[str, _DirectoryRow] = {}
    rows: list[list[str]] = []
    for one in nodes:
        inner, deeper, _ = one.path[len(above) :].partition("/")
        is_deep = deeper and one is not node and not isinstance(one, ItemNode | ImageNode)
        if is_deep and not recursive:
            folded.setdefault(f"{above}{inner}/", _DirectoryRow()).add(one)
        else:
            rows.append(_row(one))
    rows += [directory.row(path) for path, directory in folded.items()]
    settings.output.result(table(_COLUMNS, rows))
    for error in tree.faults:
        settings.output.warn(f"only what was stored as a file is listed: {error}")
    return max(map(code_for, tree.faults), default=ExitCode.DONE)


def _below(node: Node) -> Iterator[Node]:
    """All files, links and empty directories below a node, and the directory of the disks' content."""
    if isinstance(node, DirectoryNode) and not node.in_guest:
        for child in node.children.values():
            is_empty = isinstance(child, DirectoryNode) and not child.children
            yield from [child] if is_empty else _below(child)
    else:
        yield node


@dataclass(slots=True)
class _DirectoryRow:
    """A directory of virtual files that is shown as one line."""

    files: list[Node] = field(default_factory=list)

    def add(self, node: Node) -> None:
        if not isinstance(node, DirectoryNode):
            self.files.append(node)

    def row(self, path: str) -> list[str]:
        total = size(sum(file.size for file in self.files))
        return ["folder", total, total, "", path, count(len(self.files), "file")]


def _row(node: Node) -> list[str]:
    if isinstance(node, DirectoryNode):
        return ["folder", "", "", "", f"{node.path}/", ""]
    note = ""
    if isinstance(node, LinkNode):
        note = f"-> {node.target}"
    elif isinstance(node, ItemNode | ImageNode | VirtualNode) and node.item.bad:
        note = "partial"
    changed = time_name(moment(node.item.mtime if isinstance(node, VirtualNode) else node.mtime))
    return [_type(node), size(node.size), size(node.allocated), changed, node.path, note]


def _type(node: Node) -> str:
    match node:
        case ItemNode():
            return node.item.kind.value
        case ImageNode():
            return "image"
        case VirtualNode():
            return "virtual"
        case LinkNode():
            return "link"
        case DirectoryNode():
            return "folder"
        case _:
            return "document"


def _document(node: Node) -> dict[str, object]:
    document: dict[str, object] = {"path": node.path, "type": _type(node), "size": node.size}
    match node:
        case ItemNode():
            return item_document(node.item) | {"path": node.path}
        case ImageNode():
            return document | {"of": node.item.path, "format": node.format}
        case VirtualNode():
            return document | {"of": node.item.path}
        case LinkNode():
            return document | {"target": node.target} | ({"of": node.item.path} if node.item else {})
        case DirectoryNode():
            return {"path": node.path, "type": "folder"}
        case _:
            return document
