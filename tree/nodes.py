"""The nodes of a snapshot's tree. Values; no I/O.

    DirectoryNode   a directory of items, of virtual files, of disks or of volumes
    ItemNode        an item as it is stored
    ImageNode       a disk as an image file of another format
    VirtualNode     a file made out of a dump: a table, the schema, a cluster's file
    TextNode        a small file whose bytes are made here: vm.json, p2.txt
    LinkNode        a symbolic link: latest, a tablespace of a cluster
    DiskNode        files/DISK: the directory of what is inside a disk
    GuestNode       a file, directory or whatever else in a guest's file system

Each has a `path` (from the top directory of its snapshot, "" for that directory itself), a `key`, an `mtime`
(ns since 1970), a `size` (bytes) and `allocated` (bytes without holes). The key says what a node is, not
where it stands: it is the same in every mount of the repository, and inode numbers come from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.base.errors import RepositoryError
from holdfast.base.types import SnapshotID
from holdfast.formats.dumps.core.virtual_file import VirtualFile
from holdfast.formats.guests.values.values import Entry, NodeType, Volume
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import Item, ItemKind


@dataclass(frozen=True, slots=True)
class ItemNode:
    """An item as it is stored."""

    path: str
    key: str
    item: Item

    @property
    def mtime(self) -> int:
        return self.item.mtime

    @property
    def size(self) -> int:
        return self.item.size

    @property
    def allocated(self) -> int:
        return self.item.allocated


@dataclass(frozen=True, slots=True)
class ImageNode:
    """A disk seen as an image file of another format; `size` is the image file's."""

    path: str
    key: str
    item: Item
    format: str
    size: int

    @property
    def mtime(self) -> int:
        return self.item.mtime

    @property
    def allocated(self) -> int:
        return self.item.allocated + max(0, self.size - self.item.size)


@dataclass(frozen=True, slots=True)
class VirtualNode:
    """A virtual file: ranges of an item joined with generated text."""

    path: str
    key: str
    item: Item
    file: VirtualFile

    @property
    def mtime(self) -> int:
        return self.item.mtime if self.file.mtime is None else self.file.mtime

    @property
    def size(self) -> int:
        return self.file.size

    @property
    def allocated(self) -> int:
        return self.file.size


@dataclass(frozen=True, slots=True)
class TextNode:
    """A small file whose bytes are made here. `volume` is the volume without a readable file system that it
    stands for, None for the documents about a snapshot."""

    path: str
    key: str
    data: bytes
    mtime: int
    volume: Volume | None = None

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def allocated(self) -> int:
        return len(self.data)

    @property
    def damaged(self) -> bool:
        """Whether the text is about a volume that could not be read."""
        return self.volume is not None and self.volume.text.startswith("damaged")


@dataclass(frozen=True, slots=True)
class LinkNode:
    """A symbolic link. `item` is the dump that it was read from, None for the mount's own links."""

    path: str
    key: str
    target: str
    mtime: int
    item: Item | None = None

    @property
    def size(self) -> int:
        return len(self.target.encode(errors="surrogateescape"))

    @property
    def allocated(self) -> int:
        return 0


class DirectoryNode:
    """A directory; `growing` when snapshots that come or go may change it, `in_guest` when it leads to disks'
    insides only.

    `build` makes the children when they are first asked for: a file set may have a million of them. What must
    be read before stands in `load`; call that on a thread that may wait, and set `load` to None when it is
    done. It returns why something is missing among the children.
    """

    __slots__ = ("_build", "_children", "growing", "in_guest", "key", "load", "mtime", "path")

    def __init__(
        self,
        path: str,
        key: str,
        mtime: int,
        build: Callable[[], Mapping[str, Node]],
        *,
        growing: bool = False,
        in_guest: bool = False,
        load: Callable[[Reader], Iterable[RepositoryError]] | None = None,
    ) -> None:
        self.path = path
        self.key = key
        self.mtime = mtime
        self.growing = growing
        self.in_guest = in_guest
        self.load = load
        self._build = build
        self._children: Mapping[str, Node] | None = None

    @property
    def children(self) -> Mapping[str, Node]:
        if self._children is None:
            self._children = self._build()
        return self._children

    @property
    def shown_children(self) -> list[Node]:
        """The children if anybody asked for them yet."""
        return list(self._children.values()) if self._children is not None else []

    @property
    def size(self) -> int:
        return 0

    @property
    def allocated(self) -> int:
        return 0


class DiskNode:
    """`files/DISK`, the directory of what is inside a disk. `volumes` are its children, None until somebody
    has looked into the disk; they go with it when the snapshot goes."""

    __slots__ = ("item", "key", "path", "snapshot", "volumes")

    def __init__(self, path: str, key: str, snapshot: SnapshotID, item: Item) -> None:
        self.path = path
        self.key = key
        self.snapshot = snapshot
        self.item = item
        self.volumes: Mapping[str, Node] | None = None

    @property
    def name(self) -> str:
        """The disk's name below `files/`."""
        return self.path.rpartition("/")[2]

    @property
    def mtime(self) -> int:
        return self.item.mtime

    @property
    def size(self) -> int:
        return 0

    @property
    def allocated(self) -> int:
        return 0

    @property
    def shown_children(self) -> list[Node]:
        """The volumes if anybody asked for them yet."""
        return list(self.volumes.values()) if self.volumes is not None else []


@dataclass(frozen=True, slots=True)
class GuestNode:
    """Something in the file system of a volume. `inner` is its path in there, without a leading slash, b""
    for the root directory; `entry` is what the file system says of it."""

    path: str
    disk: DiskNode
    volume: Volume
    inner: bytes
    entry: Entry

    @property
    def key(self) -> str:
        return f"snapshot {self.disk.snapshot}/{self.path}"

    @property
    def is_directory(self) -> bool:
        return self.entry.type is NodeType.FOLDER

    @property
    def mtime(self) -> int:
        return self.entry.mtime

    @property
    def size(self) -> int:
        return self.entry.size

    @property
    def allocated(self) -> int:
        return self.entry.allocated


Node: TypeAlias = (
    ItemNode | ImageNode | VirtualNode | TextNode | LinkNode | DirectoryNode | DiskNode | GuestNode
)


def node_type(node: Node) -> NodeType:
    """The node's file type, as `stat` reports it."""
    match node:
        case GuestNode():
            return node.entry.type
        case DirectoryNode() | DiskNode():
            return NodeType.FOLDER
        case LinkNode():
            return NodeType.LINK
        case _:
            return NodeType.FILE


def is_directory(node: Node) -> bool:
    return node_type(node) is NodeType.FOLDER


def is_disk(node: Node) -> bool:
    """Whether a node is a file that holds a whole disk, in whatever format."""
    return isinstance(node, ImageNode) or (isinstance(node, ItemNode) and node.item.kind is ItemKind.DISK)


def leads_into_guest(node: Node) -> bool:
    """Whether a node is a disk's inside, in one, or a directory of such."""
    match node:
        case GuestNode() | DiskNode():
            return True
        case DirectoryNode():
            return node.in_guest
        case TextNode():
            return node.volume is not None
        case _:
            return False


def walk_nodes(top: DirectoryNode) -> Iterator[Node]:
    """Everything below a directory of a snapshot whose `load` is done, depth first, names in order; disks but
    not what is inside of them."""
    for _, node in sorted(top.children.items()):
        yield node
        if isinstance(node, DirectoryNode):
            yield from walk_nodes(node)


def items_behind(node: Node) -> list[Item]:
    """The items that a node of a snapshot comes of, each once; all those below a directory."""
    match node:
        case DirectoryNode():
            found = {item.path: item for child in node.children.values() for item in items_behind(child)}
            return list(found.values())
        case GuestNode():
            return [node.disk.item]
        case TextNode():
            return []
        case LinkNode():
            return [node.item] if node.item else []
        case _:
            return [node.item]


def growing_nodes(directory: DirectoryNode) -> Iterator[tuple[DirectoryNode, str, Node]]:
    """(parent, name, node) of everything below a growing directory, down to and with what never changes."""
    for name, node in directory.children.items():
        yield directory, name, node
        if isinstance(node, DirectoryNode) and node.growing:
            yield from growing_nodes(node)
