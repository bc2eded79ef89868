"""Compares two snapshots: items, tables of dumps, volumes, and files inside guests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from holdfast.base.errors import HoldfastError, NotFound, Refused, RepositoryError
from holdfast.base.ranges import RangeSet
from holdfast.formats.guests.client.content import Contents
from holdfast.formats.guests.values.naming import FILES
from holdfast.formats.guests.values.values import GuestError
from holdfast.repo.chunks.recipe_diff import differing
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import Item, ItemKind
from holdfast.tree.compare.difference import Change, Difference, State, entry_state, sided
from holdfast.tree.compare.guest_directories import GuestComparison, Side, below
from holdfast.tree.compare.same_content import SameContent
from holdfast.tree.compare.virtual_files import VirtualComparison
from holdfast.tree.nodes import (
    DirectoryNode,
    DiskNode,
    GuestNode,
    ImageNode,
    ItemNode,
    LinkNode,
    Node,
    TextNode,
    VirtualNode,
    leads_into_guest,
    walk_nodes,
)
from holdfast.tree.snapshot_tree import SnapshotTree

_Stored: TypeAlias = ItemNode | ImageNode | VirtualNode | LinkNode
"""What comes of an item."""


class Comparison:
    """Compares the trees of two snapshots. One thread; both must be of one repository."""

    def __init__(self, reader: Reader, contents: Contents, before: SnapshotTree, after: SnapshotTree) -> None:
        self._reader = reader
        self._contents = contents
        self._before = before
        self._after = after
        self._virtual = VirtualComparison(reader, before, after)

    def run(self, before: str, after: str) -> Iterator[Difference]:
        """Differences between the nodes at two paths, in order of paths, which are those of `after`.

        Raises NotFound when neither is there, Refused when they are not comparable.
        """
        match _find(self._before, before), _find(self._after, after):
            case None, None:
                raise NotFound(f"nothing at {after!r} in either of the two")
            case None, other:
                assert other is not None
                yield from self._onesided(self._after, other, after, Change.ADDED)
            case one, None:
                yield from self._onesided(self._before, one, after, Change.REMOVED)
            case (DirectoryNode() | DiskNode()) as one, (DirectoryNode() | DiskNode()) as other:
                yield from self._directories(one, other)
            case GuestNode() as one, GuestNode() as other:
                disks = self._before.opened(one.disk), self._after.opened(other.disk)
                yield from self._guests(one, other, SameContent(self._reader, self._contents, *disks))
            case TextNode() as one, TextNode() as other:
                yield from _texts(one, other)
            case (
                (ItemNode() | ImageNode() | VirtualNode() | LinkNode()) as one,
                (ItemNode() | ImageNode() | VirtualNode() | LinkNode()) as other,
            ):
                yield from self._files(after, one, other)
            case _:
                raise Refused(f"{before!r} and {after!r} are things of different kinds")

    def _onesided(self, tree: SnapshotTree, node: Node, path: str, change: Change) -> Iterator[Difference]:
        if isinstance(node, GuestNode):
            yield sided(change, path, entry_state(node.entry))
            if node.is_directory:
                yield from below(Side(node, tree.guest(node)), node.entry, path, change)
        elif isinstance(node, DirectoryNode | DiskNode):
            raise NotFound(f"{path!r} is a folder in one of the two only")
        else:
            yield sided(change, path, _state(node))

    # ---- outside of disks -------------------------------------------------------------------------------

    def _directories(
        self, one: DirectoryNode | DiskNode, other: DirectoryNode | DiskNode
    ) -> Iterator[Difference]:
        if leads_into_guest(one) != leads_into_guest(other):
            raise Refused(f"{one.path!r} and {other.path!r} are things of different kinds")
        before, after = _files_below(one), _files_below(other)
        for name in sorted(before.keys() | after.keys()):
            a, b = before.get(name), after.get(name)
            if a and b:
                yield from self._files(b.path, a, b)
            elif node := a or b:
                path = f"{other.path}/{name}" if other.path else name
                yield sided(Change.ADDED if b else Change.REMOVED, path, _state(node))
        faults = self._before.root.virtual.faults | self._after.root.virtual.faults
        for path, error in faults.items():
            if not leads_into_guest(other):
                yield Difference(Change.UNREAD, path, reason=str(error))
        yield from self._disks(one, other)

    def _files(self, path: str, one: _Stored, other: _Stored) -> Iterator[Difference]:
        try:
            if isinstance(one, VirtualNode) and isinstance(other, VirtualNode):
                if one.path == one.item.path and other.path == other.item.path:  # the dump itself
                    yield from self._item(path, one.item, other.item)
                elif what := self._virtual.what(one, other):
                    yield Difference(Change.MODIFIED, path, _state(one), _state(other), what)
            elif isinstance(one, LinkNode) and isinstance(other, LinkNode):
                if one.target != other.target:
                    yield Difference(Change.MODIFIED, path, _state(one), _state(other), ("target",))
            elif isinstance(one, ItemNode | ImageNode) and isinstance(other, ItemNode | ImageNode):
                yield from self._item(path, one.item, other.item)
            else:
                yield Difference(Change.MODIFIED, path, _state(one), _state(other), ("type",))
        except RepositoryError as error:
            yield Difference(Change.UNREAD, path, reason=str(error))

    def _item(self, path: str, before: Item, after: Item) -> Iterator[Difference]:
        if (before.recipe, before.size) == (after.recipe, after.size):
            return
        states = State(before.kind.value, before.size), State(after.kind.value, after.size)
        # Bytes that are put into a stream move all that follow: counting by offset would say nothing.
        total = 0
        if before.kind is after.kind is ItemKind.DISK:
            recipes = (before.recipe, before.size), (after.recipe, after.size)
            total = RangeSet(differing(*recipes, self._reader.node)).total
        yield Difference(Change.MODIFIED, path, *states, what=("content",), differing=total)

    # ---- inside of disks --------------------------------------------------------------------------------

    def _disks(self, one: DirectoryNode | DiskNode, other: DirectoryNode | DiskNode) -> Iterator[Difference]:
        """Compare the insides of disks that both have; below `files/DISK` if the paths lead there."""
        if one.path in ("", FILES) and other.path in ("", FILES):
            disks = self._before.disks, self._after.disks
            pairs = [(disk, disks[1][name]) for name, disk in disks[0].items() if name in disks[1]]
            for a, b in pairs:
                if a.item.recipe != b.item.recipe:
                    yield from self._volumes_or_reason(a, b)
        elif leads_into_guest(one) and leads_into_guest(other):
            if FILES in (one.path, other.path):
                raise Refused(f"{one.path!r} and {other.path!r} are things of different kinds")
            yield from self._volumes_or_reason(one, other)

    def _volumes_or_reason(
        self, one: DirectoryNode | DiskNode, other: DirectoryNode | DiskNode
    ) -> Iterator[Difference]:
        try:
            yield from self._volumes(one, other)
        except (GuestError, RepositoryError) as error:
            yield Difference(Change.UNREAD, other.path, reason=str(error))

    def _volumes(
        self, one: DirectoryNode | DiskNode, other: DirectoryNode | DiskNode
    ) -> Iterator[Difference]:
        _, name, *above = one.path.split("/")
        first = self._before.disks[name]
        second = self._after.disks[other.path.split("/")[1]]
        if first.item.recipe == second.item.recipe and one.path == other.path:
            return
        before, after = self._before.opened(first), self._after.opened(second)
        compare = SameContent(self._reader, self._contents, before, after)
        for place in sorted(before.places.keys() | after.places.keys()):
            a, b = before.places.get(place), after.places.get(place)
            if list(place[: len(above)]) != above:
                continue
            path = "/".join((second.path, *place))
            if a is None or b is None:
                volume = a or b
                assert volume is not None
                state = State(volume.file_system or "volume", volume.size)
                yield sided(Change.REMOVED if a else Change.ADDED, path, state)
            elif not (a == b and a.offset >= 0 and compare.untouched(a.offset, a.size)):
                yield from self._volume("/".join((first.path, *place)), path, compare)

    def _volume(self, before: str, after: str, compare: SameContent) -> Iterator[Difference]:
        try:
            one, other = self._before.resolve(before), self._after.resolve(after)
            if isinstance(one, GuestNode) and isinstance(other, GuestNode):
                yield from self._guests(one, other, compare)
            elif isinstance(one, TextNode) and isinstance(other, TextNode):
                yield from _texts(one, other)
        except HoldfastError as error:
            yield Difference(Change.UNREAD, after, reason=str(error))

    def _guests(self, one: GuestNode, other: GuestNode, compare: SameContent) -> Iterator[Difference]:
        sides = Side(one, self._before.guest(one)), Side(other, self._after.guest(other))
        yield from GuestComparison(*sides, compare).run()


def _find(tree: SnapshotTree, path: str) -> Node | None:
    try:
        return tree.resolve(path)
    except NotFound:
        return None


def _files_below(top: DirectoryNode | DiskNode) -> dict[str, ItemNode | VirtualNode | LinkNode]:
    """Items, virtual files and links of dumps by their path from a directory; neither images, which change
    with their disk, nor documents, which change with each snapshot."""
    if isinstance(top, DiskNode) or top.in_guest:
        return {}
    prefix = len(top.path) + 1 if top.path else 0
    return {
        node.path[prefix:]: node
        for node in walk_nodes(top)
        if isinstance(node, ItemNode | VirtualNode | LinkNode)
    }


def _state(node: ItemNode | ImageNode | VirtualNode | LinkNode | TextNode) -> State:
    match node:
        case ItemNode():
            return State(node.item.kind.value, node.size)
        case ImageNode():
            return State("image", node.size)
        case VirtualNode():
            return State("virtual", node.size)
        case LinkNode():
            return State("link", node.size)
        case _:
            return State("file", node.size)


def _texts(one: TextNode, other: TextNode) -> Iterator[Difference]:
    if one.data != other.data:
        yield Difference(Change.MODIFIED, other.path, _state(one), _state(other), ("content",))
