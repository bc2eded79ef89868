"""What is in guest files: from the chunks where it lies on the disk as it is, else through the parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from holdfast.base.types import Buffer
from holdfast.formats.guests.client.open_disk import OpenDisk
from holdfast.formats.guests.values.values import Entry, Extent, GuestDamaged
from holdfast.repo.chunks.chunker import is_zero
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer, zeros

_LONG: Final = 1 << 20
"""Bytes of a run from which on decoding ahead on threads pays."""
_STEP: Final = 1 << 20
"""Bytes that the parser is asked for at a time."""


class Piece(NamedTuple):
    """Bytes of a file from `start`."""

    start: int
    data: Buffer


class Contents:
    """Reads guest files of one repository. One thread; the reader should have a chunk cache, from which
    small files that are neighbours on the disk are answered."""

    def __init__(self, repository: Repository, reader: Reader) -> None:
        self._reader = reader
        self._restorer = Restorer(repository, reader)

    def pieces(self, disk: OpenDisk, volume: str, entry: Entry) -> Iterator[Piece]:
        """What is in a file, in order; what is left out is zeros.

        Raises GuestError, Damaged or StoreError; never a short or made-up piece.
        """
        if entry.extents is None:
            yield from self._parsed(disk, volume, entry)
            return
        for start, length, at in merged(entry, disk.item.size):
            if at < 0:
                continue
            if length < _LONG:
                yield Piece(start, self._reader.read(disk.stored.recipe, at, length))
                continue
            for data in self._restorer.in_order(disk.stored.recipe, at, at + length):
                yield Piece(start, data)
                start += len(data)  # noqa: PLW2901

    def stream(self, disk: OpenDisk, volume: str, entry: Entry) -> Iterator[Buffer]:
        """All of a file in order, zeros too."""
        at = 0
        for start, data in self.pieces(disk, volume, entry):
            yield from zeros(start - at)
            yield data
            at = start + len(data)
        yield from zeros(entry.size - at)

    def _parsed(self, disk: OpenDisk, volume: str, entry: Entry) -> Iterator[Piece]:
        at = 0
        while at < entry.size:
            wanted = min(_STEP, entry.size - at)
            data = disk.guest.read(volume, entry.inode, at, wanted)
            if len(data) != wanted:
                raise GuestDamaged(f"inode {entry.inode} ends at {at + len(data)}, not at {entry.size}")
            if not is_zero(data):
                yield Piece(at, data)
            at += wanted


def merged(entry: Entry, disk_size: int) -> Iterator[Extent]:
    """The extents of a file, neighbours joined, checked: they cover [0, size) and lie on the disk.

    Raises GuestDamaged: the parser's word is not taken for that.
    """
    at = 0
    joined = Extent(0, 0, -1)
    for extent in entry.extents or ():
        start, length, disk = extent
        if start != at or length <= 0 or (disk >= 0 and disk + length > disk_size):
            raise GuestDamaged(f"inode {entry.inode} has an impossible extent at {start}")
        at += length
        follows = joined.disk < 0 if disk < 0 else 0 <= joined.disk == disk - joined.length
        if follows:
            joined = Extent(joined.start, joined.length + length, joined.disk)
        else:
            if joined.length:
                yield joined
            joined = extent
    if at != entry.size:
        raise GuestDamaged(f"inode {entry.inode} has extents for {at} bytes, not for {entry.size}")
    if joined.length:
        yield joined


def lost(disk: OpenDisk, entry: Entry) -> int:
    """Bytes of a file that lie where the disk could not be read when it was backed up: zeros now."""
    if not disk.item.bad or not entry.extents:
        return 0
    return sum(
        bad.overlap(at, at + length)
        for _, length, at in merged(entry, disk.item.size)
        if at >= 0
        for bad in disk.item.bad
    )
