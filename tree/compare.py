"""What changed between two snapshots: items, volumes, and files inside guests."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.base.errors import HoldfastError, NotFound, Refused, RepositoryError
from holdfast.formats.guests.client.content import Contents
from holdfast.formats.guests.values.naming import FILES
from holdfast.formats.guests.values.values import GuestError, NodeType
from holdfast.repo.chunks.recipe_diff import Ranges, differing
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import Item, ItemKind
from holdfast.tree.compare_trees import TreeComparison, below
from holdfast.tree.difference import Change, Difference, State, entry_state, sided
from holdfast.tree.paths import FolderNode, GuestNode, Inside, ItemNode, Node, TextNode
from holdfast.tree.same_content import SameContent


class Comparison:
    """Compares the trees of two snapshots. One thread; both must be of one repository."""

    def __init__(self, reader: Reader, contents: Contents, before: Inside, after: Inside) -> None:
        self._reader = reader
        self._contents = contents
        self._before = before
        self._after = after

    def run(self, before: str, after: str) -> Iterator[Difference]:
        """Differences between what stands at two paths, in order of paths, which are those of `after`.

        Raises NotFound when neither is there, Refused when they are not comparable.
        """
        one, other = _find(self._before, before), _find(self._after, after)
        if one is None and other is None:
            raise NotFound(f"nothing at {after!r} in either of the two")
        if one is None or other is None:
            yield from self._onesided(one, other, after)
        elif isinstance(one, FolderNode) and isinstance(other, FolderNode):
            yield from self._items(one, other)
            yield from self._disks(one, other)
        elif isinstance(one, GuestNode) and isinstance(other, GuestNode):
            content = SameContent(self._reader, self._contents, one.disk, other.disk)
            yield from TreeComparison(one, other, content).run()
        elif isinstance(one, ItemNode) and isinstance(other, ItemNode):
            yield from self._item(after, one.item, other.item)
        elif isinstance(one, TextNode) and isinstance(other, TextNode):
            yield from _texts(one, other)
        else:
            raise Refused(f"{before!r} and {after!r} are things of different kinds")

    def _onesided(self, one: Node | None, other: Node | None, path: str) -> Iterator[Difference]:
        node = other or one
        change = Change.ADDED if other else Change.REMOVED
        if isinstance(node, GuestNode):
            yield sided(change, path, entry_state(node.entry))
            if node.entry.type is NodeType.FOLDER:
                yield from below(node, node.entry, path, change)
        elif isinstance(node, ItemNode):
            yield sided(change, path, State(node.item.kind.value, node.item.size))
        elif isinstance(node, TextNode):
            yield sided(change, path, State("file", len(node.content)))
        else:
            raise NotFound(f"{path!r} is a folder in one of the two only")

    def _items(self, one: FolderNode, other: FolderNode) -> Iterator[Difference]:
        before, after = self._before.items_below(one), self._after.items_below(other)
        for name in sorted(before.keys() | after.keys()):
            a, b = before.get(name), after.get(name)
            path = f"{other.path}/{name}" if other.path else name
            if a and b:
                yield from self._item(path, a, b)
            elif item := a or b:
                change = Change.ADDED if b else Change.REMOVED
                yield sided(change, path, State(item.kind.value, item.size))

    def _item(self, path: str, before: Item, after: Item) -> Iterator[Difference]:
        if (before.recipe, before.size) == (after.recipe, after.size):
            return
        try:
            differs = differing((before.recipe, before.size), (after.recipe, after.size), self._reader.node)
            total = Ranges(differs).total
        except RepositoryError as error:
            yield Difference(Change.UNREAD, path, reason=str(error))
            return
        states = State(before.kind.value, before.size), State(after.kind.value, after.size)
        # Bytes that are put into a stream move all that follow: counting by offset would say nothing.
        is_disk = before.kind is after.kind is ItemKind.DISK
        total = total if is_disk else 0
        yield Difference(Change.MODIFIED, path, *states, what=("content",), differing=total)

    def _disks(self, one: FolderNode, other: FolderNode) -> Iterator[Difference]:
        """The insides of disks that both have; of those below `files/DISK` if the paths lead there."""
        if (one.path or FILES).split("/")[0] != FILES or (other.path or FILES).split("/")[0] != FILES:
            return
        pairs = [(one.path, other.path)]
        if one.path in ("", FILES) and other.path in ("", FILES):
            names = [name for name in self._before.disks if name in self._after.disks]
            pairs = [(f"{FILES}/{name}",) * 2 for name in names]
        for before, after in pairs:
            a, b = before.split("/")[1:], after.split("/")[1:]
            if not a or not b:
                raise Refused(f"{before!r} and {after!r} are things of different kinds")
            if self._before.disks[a[0]].recipe == self._after.disks[b[0]].recipe and a == b:
                continue
            try:
                yield from self._volumes(before, after)
            except (GuestError, RepositoryError) as error:
                yield Difference(Change.UNREAD, after, reason=str(error))

    def _volumes(self, before: str, after: str) -> Iterator[Difference]:
        one, other = self._before.open(before.split("/")[1]), self._after.open(after.split("/")[1])
        compare = SameContent(self._reader, self._contents, one, other)
        above = tuple(before.split("/")[2:])
        for place in sorted(one.places.keys() | other.places.keys()):
            a, b = one.places.get(place), other.places.get(place)
            if place[: len(above)] != above:
                continue
            path = "/".join((FILES, other.name, *place))
            if a is None or b is None:
                volume = a or b
                assert volume is not None
                state = State(volume.file_system or "volume", volume.size)
                yield sided(Change.REMOVED if a else Change.ADDED, path, state)
            elif not (a == b and a.offset >= 0 and compare.untouched(a.offset, a.size)):
                yield from self._volume("/".join((FILES, one.name, *place)), path, compare)

    def _volume(self, before: str, after: str, compare: SameContent) -> Iterator[Difference]:
        try:
            one, other = self._before.resolve(before), self._after.resolve(after)
            if isinstance(one, GuestNode) and isinstance(other, GuestNode):
                yield from TreeComparison(one, other, compare).run()
            elif isinstance(one, TextNode) and isinstance(other, TextNode):
                yield from _texts(one, other)
        except HoldfastError as error:
            yield Difference(Change.UNREAD, after, reason=str(error))


def _find(inside: Inside, path: str) -> Node | None:
    try:
        return inside.resolve(path)
    except NotFound:
        return None


def _texts(one: TextNode, other: TextNode) -> Iterator[Difference]:
    if one.content != other.content:
        states = State("file", len(one.content)), State("file", len(other.content))
        yield Difference(Change.MODIFIED, other.path, *states, what=("content",))
