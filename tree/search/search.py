"""Finding names in the snapshots of one subject: items, images, virtual files, documents, files of guests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from holdfast.base.errors import HoldfastError, NotFound, RepositoryError
from holdfast.base.types import ChunkID
from holdfast.formats.guests.values.naming import FILES, disk_name, to_text
from holdfast.formats.guests.values.values import GuestDamaged, GuestError
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.tree.nodes import (
    DirectoryNode,
    DiskNode,
    GuestNode,
    Node,
    TextNode,
    VirtualNode,
    is_directory,
    node_type,
    walk_nodes,
)
from holdfast.tree.search.findings import Match, NotSearched, SearchFindings
from holdfast.tree.search.pattern import Pattern
from holdfast.tree.snapshot_tree import SnapshotTree
from holdfast.tree.virtual import table_name
from holdfast.tree.walk import Unread, walk

OpenTree = Callable[[StoredSnapshot], AbstractContextManager[SnapshotTree]]
_Known = tuple[ChunkID, list[Match]]


class Search:
    """Looks for patterns in the snapshots of one subject, given oldest first.

    `prefix` limits it to what is at or below a path of the snapshot, or, with a slash in front, of every
    volume. A disk with the same recipe as in the snapshot before is not walked again.
    """

    def __init__(self, patterns: Sequence[Pattern], open_tree: OpenTree, *, prefix: str = "") -> None:
        self._patterns = patterns
        self._open_tree = open_tree
        self._inner = prefix.startswith("/")
        self._prefix = prefix.strip("/")
        self._known: dict[str, _Known] = {}
        self.findings = SearchFindings()

    def walks(self, snapshots: Sequence[StoredSnapshot]) -> int:
        """How many disks `snapshot` will walk for these, if all of them can be read."""
        known: dict[str, ChunkID] = {}
        count = 0
        for stored in snapshots:
            for item in stored.snapshot.items:
                name = disk_name(item)
                if name and (self._inner or self._meets(f"{FILES}/{name}")):
                    count += known.get(item.path) != item.recipe
                    known[item.path] = item.recipe
        return count

    def snapshot(self, stored: StoredSnapshot, walked: Callable[[int], None]) -> None:
        """Search one snapshot; `walked` is called with 1 for each disk that was walked."""
        if self._inner and not any(map(disk_name, stored.snapshot.items)):
            return
        with self._open_tree(stored) as tree:
            if not self._inner:
                self._nodes(stored, tree)
            for disk in self._disks(tree):
                known = self._known.get(disk.path)
                if known is not None and known[0] == disk.item.recipe:
                    for match in known[1]:
                        self.findings.add(stored, match)
                    continue
                self._disk(stored, tree, disk)
                walked(1)

    def _nodes(self, stored: StoredSnapshot, tree: SnapshotTree) -> None:
        """Search the nodes outside of disks."""
        for node in walk_nodes(tree.top()):
            if self._covers(node.path) and any(self._matches(names, 0) for names in _names(node)):
                self.findings.add(stored, _match(node))
        for item, error in tree.root.virtual.faults.items():
            self._fail(stored, item, error)

    def _disks(self, tree: SnapshotTree) -> Iterator[DiskNode]:
        return (disk for disk in tree.disks.values() if self._inner or self._meets(disk.path))

    def _disk(self, stored: StoredSnapshot, tree: SnapshotTree, disk: DiskNode) -> None:
        """A disk's matches; they are remembered for the next snapshot only if all of it could be read."""
        found: list[Match] = []
        before = len(self.findings.not_searched)
        try:
            for match in self._volumes(stored, tree, disk):
                found.append(match)
                self.findings.add(stored, match)
        except HoldfastError as error:
            self._fail(stored, disk.path, error)
        finally:
            tree.close(disk)
        if len(self.findings.not_searched) == before:
            self._known[disk.path] = disk.item.recipe, found
        else:
            self._known.pop(disk.path, None)

    def _volumes(
        self, stored: StoredSnapshot, tree: SnapshotTree, directory: DiskNode | DirectoryNode
    ) -> Iterator[Match]:
        for _, node in sorted(tree.children(directory).items()):
            if not self._inner and not self._meets(node.path):
                continue
            names = node.path.split("/")
            shown = not self._inner and self._covers(node.path)
            if shown and self._matches(names, len(names) if isinstance(node, GuestNode) else 0):
                yield _match(node)
            if isinstance(node, DirectoryNode):
                yield from self._volumes(stored, tree, node)
            elif isinstance(node, TextNode):
                self._text(stored, node, is_note=_root_name(node) in tree.children(directory))
            elif isinstance(node, GuestNode):
                try:
                    yield from self._volume(stored, tree, node)
                except NotFound:  # the path that the search begins at
                    continue
                except (GuestError, RepositoryError) as error:
                    self._fail(stored, node.path, error)

    def _text(self, stored: StoredSnapshot, node: TextNode, *, is_note: bool) -> None:
        """Remember that a volume is not searched, unless it is and the text only speaks of it."""
        text = to_text(node.data).strip()
        if node.damaged:
            self._fail(stored, node.path, GuestDamaged(text))
        elif not is_note:
            self.findings.unknown.setdefault(node.path, text)

    def _volume(self, stored: StoredSnapshot, tree: SnapshotTree, root: GuestNode) -> Iterator[Match]:
        """Yield the matches in a volume. Raises NotFound when the search begins at a path
        that is not there."""
        above = root.path.count("/") + 1
        start = root
        if self._inner and self._prefix:
            start = _guest_node(tree.resolve(f"{root.path}/{self._prefix}"))
        elif not self._inner and not self._covers(root.path):
            start = _guest_node(tree.resolve(self._prefix))
        top = start.path.split("/")
        if start is not root and self._matches(top, above):
            yield _match(start)
        if not start.is_directory:
            return
        for step in walk(tree.guest(start), start.volume.path, start.entry):
            if isinstance(step, Unread):
                self._fail(stored, f"{start.path}/{to_text(step.path)}", step.error)
                continue
            names = top + to_text(step.path).split("/")
            if self._matches(names, above):
                entry = step.entry
                yield Match("/".join(names), entry.type, entry.size, entry.mtime)

    def _covers(self, path: str) -> bool:
        """Whether a path is at or below the prefix."""
        return not self._prefix or f"{path}/".startswith(f"{self._prefix}/")

    def _meets(self, path: str) -> bool:
        """Whether a path is at or below the prefix, or leads there."""
        return self._covers(path) or f"{self._prefix}/".startswith(f"{path}/")

    def _matches(self, names: Sequence[str], above: int) -> bool:
        return any(pattern.matches(names, above) for pattern in self._patterns)

    def _fail(self, stored: StoredSnapshot, path: str, error: HoldfastError) -> None:
        self.findings.not_searched.append(NotSearched(stored, path, str(error)))


def _match(node: Node) -> Match:
    has_own_time = isinstance(node, GuestNode) or not is_directory(node)
    table = table_name(node.path) if isinstance(node, VirtualNode) else ""
    return Match(node.path, node_type(node), node.size, node.mtime if has_own_time else None, table)


def _names(node: Node) -> Iterator[list[str]]:
    """The parts of a path; of a table's file also with `public.orders` and `orders` as the last."""
    *above, name = node.path.split("/")
    yield [*above, name]
    if isinstance(node, VirtualNode) and (table := table_name(node.path)):
        yield [*above, table]
        yield [*above, table.rpartition(".")[2]]


def _guest_node(node: Node) -> GuestNode:
    assert isinstance(node, GuestNode)  # below the root directory of a file system there is nothing else
    return node


def _root_name(node: TextNode) -> str:
    """Name of the directory beside a text about its file system: `p1` for `p1.txt`."""
    return node.path.rpartition("/")[2].removesuffix(".txt")
