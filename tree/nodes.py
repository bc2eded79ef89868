"""What the mount tree is made of. Values; no I/O.

A node's `key` says what it is, not where it stands: the same in every mount of the repository. Inode
numbers come from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.base.errors import RepositoryError
from holdfast.base.types import SnapshotID
from holdfast.formats.dumps.core.virtual_file import Composed
from holdfast.formats.guests.values.values import Entry
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import Item


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An item as it is stored."""

    key: str
    item: Item

    @property
    def mtime(self) -> int:
        return self.item.mtime


@dataclass(frozen=True, slots=True)
class ViewFile:
    """A disk seen as an image of another format; `size` is the made-up file's, in bytes."""

    key: str
    item: Item
    format: str
    size: int

    @property
    def mtime(self) -> int:
        return self.item.mtime


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file that is made of stretches of an item and of text."""

    key: str
    item: Item
    composed: Composed

    @property
    def mtime(self) -> int:
        return self.item.mtime if self.composed.mtime is None else self.composed.mtime


class DiskFiles:
    """The folder of what is inside a disk. `volumes` are its children, None until it was looked into; they
    go with it when the snapshot goes."""

    __slots__ = ("item", "key", "snapshot", "volumes")

    def __init__(self, key: str, snapshot: SnapshotID, item: Item) -> None:
        self.key = key
        self.snapshot = snapshot
        self.item = item
        self.volumes: dict[str, Node] | None = None

    @property
    def mtime(self) -> int:
        return self.item.mtime

    @property
    def shown_children(self) -> list[Node]:
        """The volumes if anybody asked for them yet."""
        return list(self.volumes.values()) if self.volumes is not None else []


@dataclass(frozen=True, slots=True)
class GuestRoot:
    """The top folder of a guest's file system; `number` is its inode number in the mount."""

    key: str
    number: int
    entry: Entry

    @property
    def mtime(self) -> int:
        return self.entry.mtime


@dataclass(frozen=True, slots=True)
class Document:
    """A small file whose bytes are made here. `mtime` is in ns."""

    key: str
    data: bytes
    mtime: int


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    key: str
    target: str
    mtime: int


class Folder:
    """A folder; `growing` when snapshots that come or go may change it.

    `build` makes the children when they are first asked for: a file set may have a million of them. What
    must be read before stands in `load`; call that on a thread, and set `load` to None when it is done. It
    returns why something is missing among the children.
    """

    __slots__ = ("_build", "_children", "growing", "key", "load", "mtime")

    def __init__(
        self,
        key: str,
        mtime: int,
        build: Callable[[], dict[str, Node]],
        *,
        growing: bool,
        load: Callable[[Reader], Iterable[RepositoryError]] | None = None,
    ) -> None:
        self.load = load
        self.key = key
        self.mtime = mtime
        self.growing = growing
        self._build = build
        self._children: dict[str, Node] | None = None

    @property
    def children(self) -> dict[str, Node]:
        if self._children is None:
            self._children = self._build()
        return self._children

    @property
    def shown_children(self) -> list[Node]:
        """The children if anybody asked for them yet."""
        return list(self._children.values()) if self._children is not None else []


Node: TypeAlias = StoredFile | ViewFile | MadeFile | DiskFiles | GuestRoot | Document | Link | Folder


def growing_nodes(folder: Folder) -> Iterator[tuple[Folder, str, Node]]:
    """(parent, name, node) of everything below a growing folder, down to and with what never changes."""
    for name, node in folder.children.items():
        yield folder, name, node
        if isinstance(node, Folder) and node.growing:
            yield from growing_nodes(node)
