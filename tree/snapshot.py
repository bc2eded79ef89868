"""The directory of one snapshot: items, disks as other formats, virtual files of dumps, the insides of disks,
and a document about the snapshot. Only `load` does I/O."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from holdfast.base.errors import RepositoryError
from holdfast.formats.disks.export_formats import VIEWS, view_size
from holdfast.formats.guests.values.naming import FILES, disk_name
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import StoredSnapshot, SubjectKind
from holdfast.tree.documents import about_snapshot
from holdfast.tree.names import unique_name
from holdfast.tree.nodes import (
    DirectoryNode,
    DiskNode,
    ImageNode,
    ItemNode,
    LinkNode,
    Node,
    TextNode,
    VirtualNode,
)
from holdfast.tree.virtual import VirtualFiles, find_virtual_files, has_virtual_files


class SnapshotNode(DirectoryNode):
    """The top directory of a snapshot. Keys of nodes below it consist of the snapshot's ID and the path, so
    they are the same wherever the directory is shown.

    `virtual` is empty until `load` was called.
    """

    __slots__ = ("stored", "virtual")

    def __init__(self, stored: StoredSnapshot) -> None:
        self.stored = stored
        self.virtual = VirtualFiles()
        super().__init__(
            "",
            f"snapshot {stored.id}",
            nanoseconds(stored.snapshot.time),
            lambda: _Builder(stored, self.virtual).children(),
            load=self._read if has_virtual_files(stored.snapshot) else None,
        )

    def _read(self, reader: Reader) -> Iterable[RepositoryError]:
        self.virtual = find_virtual_files(reader, self.stored.snapshot)
        return self.virtual.faults.values()


def nanoseconds(time: datetime) -> int:
    """Since 1970; exact, which a float is not."""
    delta = time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000


class _Builder:
    """Makes the nodes of one snapshot."""

    def __init__(self, stored: StoredSnapshot, virtual: VirtualFiles) -> None:
        self._stored = stored
        self._virtual = virtual
        self._key = f"snapshot {stored.id}"
        self._mtime = nanoseconds(stored.snapshot.time)
        self._directories: dict[str, dict[str, Node]] = {"": {}}
        """Children by the path that items name."""
        self._shown: dict[str, str] = {"": ""}
        """Where those directories stand: elsewhere when a file has the name."""

    def children(self) -> dict[str, Node]:
        self._add_items()
        self._add_virtual_files()
        self._add_images()
        self._add_insides()
        self._add_document()
        return self._directories[""]

    def _add_items(self) -> None:
        hidden = self._virtual.files.keys() | self._virtual.withheld
        for item in sorted(self._stored.snapshot.items, key=lambda item: item.path):
            siblings, path, name = self._free_name(item.path)
            if item.path not in hidden:
                siblings[name] = ItemNode(path, f"{self._key}/{path}", item)

    def _add_virtual_files(self) -> None:
        for wanted, virtual in sorted(self._virtual.files.items()):
            if wanted.endswith("/"):  # a directory that may be empty
                self._directory(wanted.rstrip("/"))
                continue
            siblings, path, name = self._free_name(wanted)
            key = f"{self._key}/{path}"
            target = virtual.file.target
            siblings[name] = (
                LinkNode(path, key, target, self._mtime, virtual.item)
                if target
                else VirtualNode(path, key, virtual.item, virtual.file)
            )

    def _add_images(self) -> None:
        """Beside each disk the same as images of all other formats, where the names are free.

        Their keys have an empty name in them, which no item's path has.
        """
        for children in self._directories.values():
            for node in [node for node in children.values() if isinstance(node, ItemNode)]:
                if not disk_name(node.item):
                    continue
                above = node.path[: node.path.rfind("/") + 1]
                for format_ in VIEWS:
                    name = f"{disk_name(node.item)}.{format_}"
                    size = view_size(node.item.size, format_)
                    if size is not None and name not in children:
                        children[name] = ImageNode(
                            above + name, f"{node.key}//{format_}", node.item, format_, size
                        )

    def _add_insides(self) -> None:
        """`files/DISK` for each disk, unless the snapshot has something else of that name."""
        top = self._directories[""]
        disks = [item for item in self._stored.snapshot.items if disk_name(item)]
        if not disks or FILES in top:
            return
        children: dict[str, Node] = {}
        for item in disks:
            name = unique_name(disk_name(item), item.path, children)
            path = f"{FILES}/{name}"
            children[name] = DiskNode(path, f"{self._key}/{path}", self._stored.id, item)
        key = f"{self._key}/{FILES}/"
        top[FILES] = DirectoryNode(FILES, key, self._mtime, lambda: children, in_guest=True)

    def _add_document(self) -> None:
        top = self._directories[""]
        kind = self._stored.snapshot.subject.kind
        if kind is SubjectKind.LOGS:  # a few files of an archive, which is shown as a whole
            return
        names = ["vm.json", "snapshot.json"] if kind is SubjectKind.VM else ["snapshot.json"]
        free = next((name for name in names if name not in top), None)
        if free is not None:
            top[free] = TextNode(free, f"{self._key} document", about_snapshot(self._stored), self._mtime)

    def _directory(self, path: str) -> dict[str, Node]:
        """The children of the directory at `path`, which is made if it is not there."""
        found = self._directories.get(path)
        if found is None:
            # An honest snapshot has no file and directory of one name; a hostile one must not hide any.
            siblings, shown, name = self._free_name(path)
            children: dict[str, Node] = {}
            siblings[name] = DirectoryNode(shown, f"{self._key}/{shown}/", self._mtime, lambda: children)
            found = self._directories[path] = children
            self._shown[path] = shown
        return found

    def _free_name(self, path: str) -> tuple[dict[str, Node], str, str]:
        """(the other names of the directory that a path leads to, path as it is shown, its last name)."""
        above, _, wanted = path.rpartition("/")
        siblings = self._directories.get(above)
        if siblings is None:
            siblings = self._directory(above)
        shown = self._shown[above]
        if wanted not in siblings and shown == above:
            return siblings, path, wanted
        name = unique_name(wanted, path, siblings)
        return siblings, f"{shown}/{name}" if above else name, name
