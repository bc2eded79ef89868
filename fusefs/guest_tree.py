"""The insides of guests, for the event loop: volumes, directories, files, by inode number.

Entries that were shown are kept for a while, so that a file that a listing showed is opened without asking
the parser again; how many is fixed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import TypeVar

import pyfuse3

from holdfast.base.lru import Lru
from holdfast.formats.guests.client.open_disk import Guest
from holdfast.formats.guests.values.values import Entry, GuestDamaged, GuestMissing, NodeType
from holdfast.fusefs.guest_disks import GuestDisks
from holdfast.fusefs.guest_file import DiskHandle, MappedFile, ParsedFile
from holdfast.fusefs.guest_folder import GuestFolder, Page
from holdfast.fusefs.guest_inodes import Slots, VolumeKey, guest_number, split_number
from holdfast.repo.snapshots.snapshot import Item
from holdfast.tree.nodes import DiskNode, GuestNode, Node
from holdfast.tree.volumes import look_into, volume_nodes

T = TypeVar("T")

_ENTRIES = 32 << 20
"""Bytes of entries that are kept: what a listing showed can be copied without asking again."""
_ENTRY, _EXTENT = 1400, 200
"""Bytes that an entry takes, and each of its extents."""
_ATTRIBUTES = 8 << 20
"""Bytes of extended attributes that are kept: programs ask for the list, then for each."""
_ATTRIBUTE = 300
"""Bytes that one takes besides its value."""

Opened = MappedFile | ParsedFile


class GuestTree:
    """Event loop only. `open_disk` opens a disk's raw bytes."""

    def __init__(self, disks: GuestDisks, open_disk: Callable[[Item], DiskHandle]) -> None:
        self._disks = disks
        self._open_disk = open_disk
        self._slots = Slots()
        self._items: dict[int, Item] = {}
        self._entries: Lru[int, Entry] = Lru(_ENTRIES)
        self._xattrs: Lru[int, dict[bytes, bytes]] = Lru(_ATTRIBUTES)

    async def volumes(self, disk: DiskNode) -> Mapping[str, Node]:
        """The children of `files/DISK`. Raises GuestError when the disk cannot be looked into."""
        if disk.volumes is not None:
            return disk.volumes
        found = await self._disks.run((disk.snapshot, disk.item.path), disk.item, look_into)
        if disk.volumes is None:  # somebody else may have asked too
            nodes = volume_nodes(disk, found)
            if not found.settled:
                return nodes
            disk.volumes = nodes
        return disk.volumes

    def number(self, node: GuestNode) -> int:
        """The inode number of the root directory of a volume. Raises FUSEError when there is none left."""
        slot = self._slots.slot(VolumeKey(node.disk.snapshot, node.disk.item.path, node.volume.path))
        self._items[slot] = node.disk.item
        return guest_number(slot, node.entry.inode)

    async def entry(self, number: int) -> Entry:
        """The entry of an inode. Raises FUSEError or GuestError, as all methods here."""
        entry = self._entries.get(number)
        if entry is None:
            entry = await self._ask(number, lambda guest, volume, inode: guest.entry(volume, inode))
            self._keep(number, entry)
        return entry

    async def lookup(self, number: int, name: bytes) -> tuple[int, Entry]:
        """A name in a directory: its inode number and entry."""
        entry = await self._ask(number, lambda guest, volume, inode: guest.lookup(volume, inode, name))
        child = guest_number(split_number(number)[0], entry.inode)
        self._keep(child, entry)
        return child, entry

    def folder(self, number: int) -> GuestFolder:
        """A directory, open to have its names read.

        The first names of a large one stay among the entries: whoever copies it begins with those, when they
        would be the first to have been dropped.
        """
        slot, _ = split_number(number)
        room = self._entries.limit

        async def load(position: int) -> Page:
            nonlocal room
            found, is_last = await self._ask(
                number, lambda guest, volume, inode: guest.page(volume, inode, position)
            )
            names = [(name, guest_number(slot, entry.inode), entry) for name, entry in found]
            for _, child, entry in names:
                room -= _cost(entry)
                if room > 0:
                    self._keep(child, entry)
            return names, is_last

        return GuestFolder(load)

    async def readlink(self, number: int) -> bytes:
        return await self._ask(number, lambda guest, volume, inode: guest.readlink(volume, inode))

    async def xattrs(self, number: int) -> dict[bytes, bytes]:
        """Extended attributes in `user.` only: the others have a meaning for the host's kernel."""
        entry = self._entries.get(number)
        if entry is not None and entry.plain:
            return {}
        found = self._xattrs.get(number)
        if found is None:
            every = await self._ask(number, lambda guest, volume, inode: guest.xattrs(volume, inode))
            found = {name: value for name, value in every.items() if name.startswith(b"user.")}
            self._xattrs.put(number, found, sum(map(len, found.values())) + _ATTRIBUTE * (1 + len(found)))
        return found

    async def open(self, number: int) -> Opened:
        """A regular file, open for reading; nothing else can be opened."""
        entry = await self.entry(number)
        slot, inode = split_number(number)
        if entry.type is NodeType.DAMAGED:
            raise GuestDamaged("an inode is damaged that a name stands for")
        if entry.type is not NodeType.FILE:
            raise pyfuse3.FUSEError(errno.EISDIR if entry.type is NodeType.FOLDER else errno.ENXIO)
        if entry.extents is not None:
            item = self._items[slot]
            return MappedFile(entry.extents, entry.size, self._open_disk(item), item.bad)

        async def read(offset: int, length: int) -> bytes:
            return await self._ask(number, lambda guest, volume, _: guest.read(volume, inode, offset, length))

        return ParsedFile(read, entry.size)

    async def _ask(self, number: int, work: Callable[[Guest, str, int], T]) -> T:
        slot, inode = split_number(number)
        key = self._slots.key(slot)
        disk = key.snapshot, key.disk
        try:
            return await self._disks.run(
                disk, self._items[slot], lambda guest: work(guest, key.volume, inode)
            )
        except GuestMissing:
            raise pyfuse3.FUSEError(errno.ENOENT) from None

    def _keep(self, number: int, entry: Entry) -> None:
        self._entries.put(number, entry, _cost(entry))


def _cost(entry: Entry) -> int:
    return _ENTRY + _EXTENT * len(entry.extents or ())
