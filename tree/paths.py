"""One snapshot as a tree of paths: its items, disks in other formats, and the files inside its disks.

    disks/sda.raw           an item, as it is stored
    disks/sda.qcow2         the same disk in another format
    files/sda/p1/etc/fstab  a file of the guest: files/DISK/VOLUME/PATH
    files/sda/p2.txt        what a volume without a file system is

Links of a guest are never followed: they mean something only inside of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeAlias

from holdfast.base.errors import NotFound
from holdfast.formats.guests.client.open_disk import Guest, OpenDisk, OpenGuest
from holdfast.formats.guests.client.stored import StoredDisk
from holdfast.formats.guests.values.naming import (
    FILES,
    Place,
    disk_name,
    layout,
    noted,
    text_document,
    to_bytes,
    to_text,
    unescape,
)
from holdfast.formats.guests.values.values import Entry, GuestMissing, NodeType, Volume
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import Item, Snapshot


@dataclass(frozen=True, slots=True)
class ItemNode:
    """A stored item; `format` is "raw" for what it is, else the disk format it is wanted in."""

    path: str
    item: Item
    format: str = "raw"


@dataclass(frozen=True, slots=True)
class FolderNode:
    """A folder that no guest has: of items, `files`, `files/DISK`, `files/DISK/lvm`."""

    path: str


@dataclass(frozen=True, slots=True)
class TextNode:
    """The document that stands for a volume without a file system; `damaged`: it had one once."""

    path: str
    content: bytes
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class GuestNode:
    """Something in a guest's file system. `path` is that in the snapshot, as text; `inner` that in the
    volume, without a leading slash, b"" for its root."""

    path: str
    disk: OpenDisk
    volume: str
    inner: bytes
    entry: Entry


Node: TypeAlias = ItemNode | FolderNode | TextNode | GuestNode


class Inside:
    """The tree of one snapshot. A context manager; one thread. Disks are opened when a path leads there."""

    def __init__(
        self, reader: Reader, snapshot: Snapshot, open_guest: OpenGuest, *, formats: Collection[str] = ()
    ) -> None:
        self._reader = reader
        self._open_guest = open_guest
        self._formats = formats
        self._items = {item.path: item for item in snapshot.items}
        self._disks: dict[str, Item] = {}
        for item in snapshot.items:
            if name := disk_name(item):
                self._disks.setdefault(name, item)
        self._opened: dict[str, OpenDisk] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def disks(self) -> Mapping[str, Item]:
        """The disks whose inside can be looked at, by their name in `files/`."""
        return self._disks

    def open(self, name: str) -> OpenDisk:
        """A disk with its volumes. Raises GuestError."""
        found = self._opened.get(name)
        if found is None:
            item = self._disks[name]
            stored = self._stack.enter_context(StoredDisk(self._reader, item))
            guest = self._open_guest(stored, name)
            self._stack.callback(guest.close)
            found = OpenDisk(name, item, stored, guest, layout(noted(guest.volumes())))
            self._opened[name] = found
        return found

    def close(self, name: str) -> None:
        """Let go of a disk before the end, and of the process that reads it."""
        found = self._opened.pop(name, None)
        if found:
            found.guest.close()
            found.stored.close()

    def resolve(self, path: str) -> Node:
        """What stands at a path. Names may be given as they were shown, escaped.

        Raises NotFound; GuestError when the way there cannot be read.
        """
        path = path.strip("/")
        if path in self._items:
            return ItemNode(path, self._items[path])
        stem, _, suffix = path.rpartition(".")
        if suffix in self._formats and self._is_disk(f"{stem}.raw"):
            return ItemNode(path, self._items[f"{stem}.raw"], suffix)
        if not path or any(item.startswith(path + "/") for item in self._items):
            return FolderNode(path)
        top, _, rest = path.partition("/")
        if top == FILES and self._disks:
            return self._resolve_files(path, [part for part in rest.split("/") if part])
        there = ", ".join(list(self._items)[:5])
        raise NotFound(f"nothing at {path!r} in this snapshot; it holds {there}")

    def names(self, folder: FolderNode) -> list[str]:
        """What is in a folder that no guest has. Raises GuestError when a disk cannot be opened."""
        prefix = folder.path + "/" if folder.path else ""
        names = {path[len(prefix) :].partition("/")[0] for path in self._items if path.startswith(prefix)}
        if not folder.path and self._disks:
            names.add(FILES)
        if folder.path == FILES:
            names |= set(self._disks)
        elif prefix.startswith(f"{FILES}/"):
            _, name, *above = folder.path.split("/")
            if name in self._disks:
                places = self.open(name).places
                names |= {
                    p[len(above)] for p in places if len(p) > len(above) and list(p[: len(above)]) == above
                }
        return sorted(names)

    def items_below(self, folder: FolderNode) -> dict[str, Item]:
        """The items in a folder and below, by their path from there."""
        prefix = folder.path + "/" if folder.path else ""
        return {path[len(prefix) :]: i for path, i in self._items.items() if path.startswith(prefix)}

    def volume_at(self, path: str) -> Volume | None:
        """The volume that stands at a path of `files/`; nothing is read of it."""
        top, _, rest = path.partition("/")
        name, _, place = rest.partition("/")
        if top != FILES or name not in self._disks or not place:
            return None
        return self.open(name).places.get(tuple(place.split("/")))

    def _is_disk(self, path: str) -> bool:
        item = self._items.get(path)
        return item is not None and disk_name(item) != ""

    def _resolve_files(self, path: str, parts: list[str]) -> Node:
        if not parts:
            return FolderNode(FILES)
        name = parts[0]
        if name not in self._disks:
            raise NotFound(f"no disk {name!r} in this snapshot; it holds {', '.join(self._disks)}")
        if len(parts) == 1:
            return FolderNode(f"{FILES}/{name}")
        disk = self.open(name)
        rest = tuple(parts[1:])
        for length in range(1, len(rest) + 1):
            volume = disk.places.get(rest[:length])
            if volume is not None:
                return self._in_volume(disk, volume, rest[:length], rest[length:])
        if any(place[: len(rest)] == rest for place in disk.places):
            return FolderNode("/".join((FILES, *parts)))
        there = ", ".join("/".join(place) for place in disk.places)
        raise NotFound(f"no volume {'/'.join(rest)!r} on {name}; it holds {there or 'none'}")

    def _in_volume(self, disk: OpenDisk, volume: Volume, place: Place, rest: Place) -> Node:
        path = "/".join((FILES, disk.name, *place))
        if not volume.file_system:
            if rest:
                raise NotFound(f"{path} is a file: {volume.text}")
            return TextNode(path, text_document(volume), volume.text.startswith("damaged"))
        names: list[bytes] = []
        entry = disk.guest.root(volume.path)
        for part in rest:
            if entry.type is not NodeType.FOLDER:
                raise NotFound(_no_folder(disk.guest, volume, entry, "/".join((path, *map(to_text, names)))))
            name, entry = _lookup(disk.guest, volume, entry, part, "/".join((path, *map(to_text, names))))
            names.append(name)
        return GuestNode("/".join((path, *map(to_text, names))), disk, volume.path, b"/".join(names), entry)


def _lookup(guest: Guest, volume: Volume, folder: Entry, part: str, where: str) -> tuple[bytes, Entry]:
    """A name as it was given, or as `escape` had shown it."""
    for text in dict.fromkeys((part, unescape(part))):
        name = to_bytes(text)
        try:
            return name, guest.lookup(volume.path, folder.inode, name)
        except GuestMissing:
            continue
    raise NotFound(f"no {part!r} in {where}")


def _no_folder(guest: Guest, volume: Volume, entry: Entry, where: str) -> str:
    if entry.type is NodeType.LINK:
        target = to_text(guest.readlink(volume.path, entry.inode))
        link = f"{where} is a symbolic link to {target!r}"
        return f"{link}; links of a guest are not followed: give the path itself"
    return f"{where} is a {entry.type.value}, no folder"
