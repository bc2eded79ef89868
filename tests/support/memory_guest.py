"""A guest in memory that answers as GuestDisk does, honest or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from holdfast.formats.guests.values.values import (
    DiskExtent,
    Entry,
    GuestDamaged,
    GuestError,
    GuestMissing,
    NodeType,
    Volume,
)

HOUR = 3_600_000_000_000
MTIME = 1_700_000_000_123_456_789


def make_entry(inode: int, type_: NodeType, **changes: object) -> Entry:
    """An entry with modes and times that are easily told from those of new files."""
    mode = 0o750 if type_ is NodeType.FOLDER else 0o640
    entry = Entry(inode, type_, mode, 0, 0, 1, 0, 0, MTIME, MTIME, MTIME)
    return replace(entry, **changes)  # type: ignore[arg-type]  # fields by name


@dataclass
class MemoryGuest:
    """One volume of the path `p1` whose tree `folder`, `file`, ... build; the root is inode 2.

    Methods that ask are GuestDisk's. `broken` inodes raise the error they are given when they are read.
    """

    volume: Volume = field(default_factory=lambda: Volume("p1", 1 << 20, 0, "ext4", "", ""))
    others: Sequence[Volume] = ()
    entries: dict[int, Entry] = field(default_factory=lambda: {2: make_entry(2, NodeType.FOLDER)})
    names: dict[int, list[tuple[bytes, int]]] = field(default_factory=lambda: {2: []})
    contents: dict[int, bytes] = field(default_factory=dict)
    attributes: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    broken: dict[int, GuestError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    closed: bool = False

    # ---- building ----

    def folder(self, above: int, name: bytes, **changes: object) -> int:
        inode = self._new(above, name, NodeType.FOLDER, **changes)
        self.names[inode] = []
        return inode

    def file(self, above: int, name: bytes, content: bytes = b"", **changes: object) -> int:
        inode = self._new(above, name, NodeType.FILE, **{"size": len(content), **changes})
        self.contents[inode] = content
        return inode

    def link(self, above: int, name: bytes, target: bytes, **changes: object) -> int:
        inode = self._new(above, name, NodeType.LINK, **{"size": len(target), **changes})
        self.contents[inode] = target
        return inode

    def special(self, above: int, name: bytes, type_: NodeType, **changes: object) -> int:
        return self._new(above, name, type_, **changes)

    def again(self, above: int, name: bytes, inode: int) -> None:
        """Another name for something."""
        self.names[above].append((name, inode))
        entry = self.entries[inode]
        self.entries[inode] = replace(entry, links=entry.links + 1)

    def _new(self, above: int, name: bytes, type_: NodeType, **changes: object) -> int:
        inode = max(self.entries) + 1
        self.entries[inode] = make_entry(inode, type_, **changes)
        self.names[above].append((name, inode))
        return inode

    # ---- answering ----

    def volumes(self) -> tuple[Volume, ...]:
        self.asked.append("volumes")
        return (self.volume, *self.others)

    def root(self, volume: str) -> Entry:
        return self.entry(volume, 2)

    def entry(self, volume: str, inode: int) -> Entry:
        return self._checked(inode)

    def lookup(self, volume: str, folder: int, name: bytes) -> Entry:
        for found, inode in self.names[folder]:
            if found == name:
                return self._checked(inode)
        raise GuestMissing(f"no {name!r}")

    def list(self, volume: str, folder: int) -> Iterator[tuple[bytes, Entry]]:
        self.asked.append(f"list {folder}")
        self._checked(folder)
        for name, inode in self.names[folder]:
            yield name, self.entries[inode]

    def page(self, volume: str, folder: int, position: int) -> tuple[Sequence[tuple[bytes, Entry]], bool]:
        """Three names at a time."""
        names = list(self.list(volume, folder))
        return names[position : position + 3], position + 3 >= len(names)

    def readlink(self, volume: str, inode: int) -> bytes:
        self._checked(inode)
        return self.contents[inode]

    def xattrs(self, volume: str, inode: int) -> dict[bytes, bytes]:
        return self.attributes.get(inode, {})

    def read(self, volume: str, inode: int, offset: int, length: int) -> bytes:
        self._checked(inode)
        return self.contents[inode][offset : offset + length]

    def close(self) -> None:
        self.closed = True

    def _checked(self, inode: int) -> Entry:
        if inode in self.broken:
            raise self.broken[inode]
        return self.entries[inode]


def damaged(text: str = "unreadable") -> GuestDamaged:
    return GuestDamaged(text)


def extents(*runs: tuple[int, int, int]) -> tuple[DiskExtent, ...]:
    return tuple(DiskExtent(*run) for run in runs)
