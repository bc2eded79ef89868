"""Reads the content of files of a snapshot's tree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.base.types import Buffer
from holdfast.formats.disks.export import stored_view
from holdfast.formats.disks.export import stream as stream_image
from holdfast.formats.guests.client.content import Contents, lost
from holdfast.formats.guests.values.naming import to_text
from holdfast.formats.guests.values.values import NodeType
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item
from holdfast.tree import virtual
from holdfast.tree.errors import HasNoContent, IsDirectory, IsLink
from holdfast.tree.nodes import GuestNode, ImageNode, ItemNode, LinkNode, Node, TextNode, VirtualNode
from holdfast.tree.snapshot_tree import SnapshotTree


@dataclass(frozen=True, slots=True)
class NodeContent:
    """All bytes of a file, in order; `data` can be iterated once. `lost` counts bytes that could not be read
    when the source was backed up and are zeros. `is_short`: the file comes from a dump that is not whole."""

    path: str
    data: Iterable[Buffer]
    lost: int = 0
    is_short: bool = False


class NodeReader:
    """Reads files of snapshots of one repository. One thread; `reader` should have a chunk cache, from which
    small files that are neighbours are answered."""

    def __init__(self, repository: Repository, reader: Reader) -> None:
        self._reader = reader
        self._restorer = Restorer(repository, reader)
        self.contents = Contents(repository, reader)

    def open(self, tree: SnapshotTree, node: Node) -> NodeContent:
        """Raises IsDirectory, IsLink, HasNoContent; what reading raises comes when the bytes are taken."""
        match node:
            case ItemNode():
                data: Iterable[Buffer] = self._restorer.in_order(self._reader.recipe(node.item))
                return _of_item(node.path, node.item, data)
            case ImageNode():
                recipe = self._reader.recipe(node.item)
                view = stored_view(node.item, recipe, node.format)
                return _of_item(node.path, node.item, stream_image(view, recipe, self._restorer))
            case VirtualNode():
                return NodeContent(node.path, self.virtual(node), is_short=bool(node.item.bad))
            case TextNode():
                return NodeContent(node.path, [node.data])
            case LinkNode():
                raise IsLink(node.path, node.target)
            case GuestNode():
                return self._in_guest(tree, node)
            case _:
                raise IsDirectory(node.path)

    def virtual(self, node: VirtualNode) -> Iterable[Buffer]:
        """All bytes of a virtual file, in order."""
        recipe = self._reader.recipe(node.item)
        return virtual.stream(node.file, recipe, self._reader, self._restorer)

    def read_range(self, item: Item, start: int, length: int) -> Iterable[Buffer]:
        """`length` bytes of an item from `start`, in order."""
        return self._restorer.in_order(self._reader.recipe(item), start, start + length)

    def _in_guest(self, tree: SnapshotTree, node: GuestNode) -> NodeContent:
        disk, entry = tree.opened(node.disk), node.entry
        match entry.type:
            case NodeType.FILE:
                data = self.contents.stream(disk, node.volume.path, entry)
                return NodeContent(node.path, data, lost(disk, entry))
            case NodeType.FOLDER:
                raise IsDirectory(node.path)
            case NodeType.LINK:
                target = to_text(disk.guest.readlink(node.volume.path, entry.inode))
                raise IsLink(node.path, repr(target))
            case _:
                raise HasNoContent(node.path, entry.type.value)


def _of_item(path: str, item: Item, data: Iterable[Buffer]) -> NodeContent:
    unread = sum(bad.length for bad in item.bad)
    return NodeContent(path, data, unread, is_short=any(not bad.length for bad in item.bad))
