"""One snapshot's tree, open for reading: finds nodes by path, lists directories, reads files.

    disks/sda.raw           an item, as it is stored
    disks/sda.qcow2         the same disk as an image of another format
    files/sda/p1/etc/fstab  a file of the guest: files/DISK/VOLUME/PATH
    files/sda/p2.txt        description of a volume without a file system
    tables/public.a.sql     a table of a dump
    vm.json                 about the snapshot

Links of a guest are never followed: they mean something only inside of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from holdfast.base.errors import NotFound, RepositoryError
from holdfast.base.escaping import unescape
from holdfast.formats.guests.client.open_disk import Guest, OpenDisk, OpenGuest
from holdfast.formats.guests.client.stored import StoredDisk
from holdfast.formats.guests.values.naming import to_bytes, to_text
from holdfast.formats.guests.values.values import Entry, GuestMissing, NodeType
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.tree.nodes import (
    DirectoryNode,
    DiskNode,
    GuestNode,
    LinkNode,
    Node,
    TextNode,
    is_directory,
    leads_into_guest,
)
from holdfast.tree.snapshot import SnapshotNode
from holdfast.tree.volumes import look_into, volume_nodes

_TOLD = 5
"""Names that an error lists of a directory."""


class SnapshotTree:
    """The tree of one snapshot. A context manager; one thread. Disks are opened when a path leads there."""

    def __init__(self, reader: Reader, stored: StoredSnapshot, open_guest: OpenGuest) -> None:
        self.reader = reader
        self.root = SnapshotNode(stored)
        self.faults: Sequence[RepositoryError] = ()
        """Why virtual files are missing that could be made out of dumps; known when `top` was called."""
        self._open_guest = open_guest
        self._opened: dict[str, OpenDisk] = {}
        self._stack = ExitStack()

    def __enter__(self) -> SnapshotTree:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def stored(self) -> StoredSnapshot:
        return self.root.stored

    def top(self) -> SnapshotNode:
        """The top directory, its virtual files found. Raises StoreError."""
        if self.root.load is not None:
            self.faults = list(self.root.load(self.reader))
            self.root.load = None
        return self.root

    @property
    def disks(self) -> Mapping[str, DiskNode]:
        """The disks whose inside can be looked at, by the name that they have below `files/`."""
        return {
            name: disk
            for directory in self.top().children.values()
            if isinstance(directory, DirectoryNode) and directory.in_guest
            for name, disk in directory.children.items()
            if isinstance(disk, DiskNode)
        }

    def opened(self, disk: DiskNode) -> OpenDisk:
        """A disk with its volumes. Raises GuestError or RepositoryError."""
        found = self._opened.get(disk.path)
        if found is None:
            stored = self._stack.enter_context(StoredDisk(self.reader, disk.item))
            guest = self._open_guest(stored, disk.name)
            self._stack.callback(guest.close)
            volumes = look_into(guest)
            disk.volumes = volume_nodes(disk, volumes)
            places = {place: volume for place, (volume, _) in volumes.places.items()}
            found = self._opened[disk.path] = OpenDisk(disk.name, disk.item, stored, guest, places)
        return found

    def close(self, disk: DiskNode) -> None:
        """Let go of a disk before the end, and of the process that reads it."""
        found = self._opened.pop(disk.path, None)
        if found:
            found.guest.close()
            found.stored.close()

    def guest(self, node: GuestNode) -> Guest:
        """The open guest that reads the node's file system."""
        return self.opened(node.disk).guest

    def children(self, node: Node) -> Mapping[str, Node]:
        """The children of a directory outside of guests' file systems, by name; none for any other node.
        Raises GuestError or RepositoryError when a disk cannot be opened."""
        if isinstance(node, DirectoryNode):
            return self.top().children if node is self.root else node.children
        if isinstance(node, DiskNode):
            self.opened(node)
            return node.volumes or {}
        return {}

    def resolve(self, path: str) -> Node:
        """The node at a path. Names may be given escaped, as they were shown.

        Raises NotFound; GuestError when the way there cannot be read; Damaged or Unsupported when it may lead
        to a virtual file of a dump whose catalogue cannot be read.
        """
        parts = [part for part in path.split("/") if part]
        node: Node = self.top()
        for at, part in enumerate(parts):
            if isinstance(node, GuestNode):
                return self._in_volume(node, parts[at:])
            children = self.children(node)
            child = children.get(part) or children.get(unescape(part))
            if child is None:
                raise self._missing(node, parts)
            node = child
        return node

    def leads_into_guest(self, path: str) -> bool:
        """Whether a path, which need not be there, is `files` or below, where disks are looked into. Opens
        none."""
        first = path.strip("/").partition("/")[0]
        node = self.top().children.get(first)
        return node is not None and leads_into_guest(node)

    def _missing(self, node: Node, parts: Sequence[str]) -> Exception:
        """The error for a path of which the way ends at `node`."""
        path = "/".join(parts)
        if isinstance(node, TextNode) and node.volume is not None:
            return NotFound(f"{node.path} is a file: {node.volume.text}")
        if not is_directory(node):
            is_what = f"a symbolic link to {node.target}" if isinstance(node, LinkNode) else "a file"
            return NotFound(f"nothing at {path!r} in this snapshot: {node.path} is {is_what}")
        if leads_into_guest(node):
            return self._missing_in_guest(node, parts)
        faults = self.root.virtual.faults
        if faults:  # it may be what they hide
            return faults.get(path) or next(iter(faults.values()))
        items = self.stored.snapshot.items[:_TOLD]
        return NotFound(f"nothing at {path!r} in this snapshot; it holds {', '.join(i.path for i in items)}")

    def _missing_in_guest(self, node: Node, parts: Sequence[str]) -> NotFound:
        _, _, inner = node.path.partition("/")
        if not inner:
            there = ", ".join(self.children(node))
            return NotFound(f"no disk {parts[1]!r} in this snapshot; it holds {there}")
        disk = self.disks[inner.partition("/")[0]]
        there = ", ".join("/".join(place) for place in self.opened(disk).places) or "none"
        return NotFound(f"no volume {'/'.join(parts[2:])!r} on {disk.name}; it holds {there}")

    def _in_volume(self, root: GuestNode, names: Sequence[str]) -> GuestNode:
        """The node at a path in a volume, given the root directory of its file system."""
        guest, node = self.guest(root), root
        for name in names:
            if not node.is_directory:
                raise NotFound(_no_directory(guest, node))
            node = _lookup(guest, node, name)
        return node


def _lookup(guest: Guest, directory: GuestNode, name: str) -> GuestNode:
    """A name as it was given, or as `escape` had shown it."""
    for text in dict.fromkeys((name, unescape(name))):
        try:
            entry = guest.lookup(directory.volume.path, directory.entry.inode, to_bytes(text))
        except GuestMissing:
            continue
        return child_of(directory, to_bytes(text), entry)
    raise NotFound(f"no {name!r} in {directory.path}")


def child_of(directory: GuestNode, inner: bytes, entry: Entry) -> GuestNode:
    """The node at a path below a directory of a guest."""
    whole = directory.inner + b"/" + inner if directory.inner else inner
    path = f"{directory.path}/{to_text(inner)}"
    return GuestNode(path, directory.disk, directory.volume, whole, entry)


def _no_directory(guest: Guest, node: GuestNode) -> str:
    if node.entry.type is NodeType.LINK:
        target = to_text(guest.readlink(node.volume.path, node.entry.inode))
        link = f"{node.path} is a symbolic link to {target!r}"
        return f"{link}; links of a guest are not followed: give the path itself"
    return f"{node.path} is a {node.entry.type.value}, no folder"
