"""Reads the content of guest files: from the stored chunks where an entry has extents, else through the
parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from holdfast.base.types import Buffer
from holdfast.formats.guests.client.open_disk import OpenDisk
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import DiskExtent, Entry
from holdfast.repo.chunks.chunker import is_zero
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer, zeros

_LONG: Final = 1 << 20
"""Bytes. In longer extents chunks are decoded ahead, on threads."""
_STEP: Final = 1 << 20
"""Bytes that the parser is asked for at a time."""


class FileData(NamedTuple):
    """Bytes of a file from its offset `start`."""

    start: int
    data: Buffer


class Contents:
    """Reads guest files of one repository. For one thread; the reader should have a chunk cache, which
    answers for small files that are neighbours on the disk."""

    def __init__(self, repository: Repository, reader: Reader) -> None:
        self._reader = reader
        self._restorer = Restorer(repository, reader)

    def pieces(self, disk: OpenDisk, volume: str, entry: Entry) -> Iterator[FileData]:
        """Yield the bytes of a file in order; bytes that are not yielded are zeros.

        Raises GuestError, Damaged or StoreError; never yields wrong bytes in their place.
        """
        if entry.extents is None:
            yield from self._parsed(disk, volume, entry)
            return
        for start, length, at in merged(entry, disk.item.size):
            if at < 0:
                continue
            if length < _LONG:
                yield FileData(start, self._reader.read(disk.stored.recipe, at, length))
                continue
            for data in self._restorer.in_order(disk.stored.recipe, at, at + length):
                yield FileData(start, data)
                start += len(data)  # noqa: PLW2901

    def stream(self, disk: OpenDisk, volume: str, entry: Entry) -> Iterator[Buffer]:
        """Yield all bytes of a file in order, zeros too."""
        at = 0
        for start, data in self.pieces(disk, volume, entry):
            yield from zeros(start - at)
            yield data
            at = start + len(data)
        yield from zeros(entry.size - at)

    def _parsed(self, disk: OpenDisk, volume: str, entry: Entry) -> Iterator[FileData]:
        at = 0
        while at < entry.size:
            wanted = min(_STEP, entry.size - at)
            data = disk.guest.read(volume, entry.inode, at, wanted)
            if len(data) != wanted:
                structure = f"inode {entry.inode}"
                raise StructureDamaged(structure, "end of its content", at + len(data), f"{entry.size}")
            if not is_zero(data):
                yield FileData(at, data)
            at += wanted


def merged(entry: Entry, disk_size: int) -> Iterator[DiskExtent]:
    """Yield the extents of a file with neighbours joined, and check that they cover [0, size) and lie on the
    disk.

    Raises StructureDamaged: the parser is not trusted with that.
    """
    at = 0
    joined = DiskExtent(0, 0, -1)
    for extent in entry.extents or ():
        start, length, disk = extent
        if start != at or length <= 0 or (disk >= 0 and disk + length > disk_size):
            found = f"{length} bytes at {start}, on the disk at {disk}"
            limit = f"at least 1 byte at {at}, inside the disk's {disk_size} bytes"
            raise StructureDamaged(f"inode {entry.inode}", "extent", found, limit)
        at += length
        follows = joined.disk < 0 if disk < 0 else 0 <= joined.disk == disk - joined.length
        if follows:
            joined = DiskExtent(joined.start, joined.length + length, joined.disk)
        else:
            if joined.length:
                yield joined
            joined = extent
    if at != entry.size:
        raise StructureDamaged(f"inode {entry.inode}", "end of its extents", at, f"{entry.size}")
    if joined.length:
        yield joined


def lost(disk: OpenDisk, entry: Entry) -> int:
    """The number of bytes of a file that were unreadable when the disk was backed up, and are zeros now."""
    if not disk.item.bad or not entry.extents:
        return 0
    return sum(
        bad.overlap(at, at + length)
        for _, length, at in merged(entry, disk.item.size)
        if at >= 0
        for bad in disk.item.bad
    )
