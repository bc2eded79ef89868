"""The parser of a made-up file system, the shelf: recognises, lists and reads it. Little-endian."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Annotated, Final, NamedTuple

from holdfast.formats.guests.filesystems.base.content import (
    Content,
    ExtentContent,
    InlineContent,
    VolumeExtent,
    disk_extents,
)
from holdfast.formats.guests.filesystems.base.directory_tree import TreeFileSystem, label_text, node_type
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.layout import At, Layout
from holdfast.formats.guests.filesystems.base.signature import FileSystemFormat, Signature, Trust
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import Entry, GuestMissing, NodeType

MAGIC: Final = b"SHELF\x01\0\0"
RECORDS: Final = 512
"""Where the records begin."""
MAX_RECORDS: Final = 1000
_BACKWARDS: Final = 1 << 63
"""A bit of a record's place: the bytes lie there in reverse, so that only the parser can read them."""


class _Superblock(NamedTuple):
    magic: Annotated[bytes, At(0, "8s")]
    label: Annotated[bytes, At(8, "16s")]
    records: Annotated[int, At(24, "I")]


class _Record(NamedTuple):
    directory: Annotated[int, At(0, "I")]
    mode: Annotated[int, At(4, "I")]
    size: Annotated[int, At(8, "Q")]
    place: Annotated[int, At(16, "Q")]
    seconds: Annotated[int, At(24, "Q")]
    name: Annotated[bytes, At(32, "32s")]


_SUPERBLOCK: Final = Layout(_Superblock, "<", "shelf superblock")
RECORD: Final = Layout(_Record, "<", "shelf record")


class ShelfFileSystem(TreeFileSystem):
    """One shelf. Raises GuestDamaged when its superblock cannot be used."""

    kind = "shelf"
    root = 1

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        superblock = _SUPERBLOCK.read(self.tables.read(0, RECORDS))
        if not 1 <= superblock.records <= MAX_RECORDS:
            limit = f"1 to {MAX_RECORDS}"
            raise StructureDamaged("shelf superblock", "number of records", superblock.records, limit)
        self.label = label_text(superblock.label)
        self._count = superblock.records

    def entry(self, inode: int) -> Entry:
        record = self._record(inode)
        type_ = node_type(record.mode, inode)
        extents = None
        if type_ is NodeType.FILE and not record.place & _BACKWARDS:
            extents = disk_extents(self.device, _extents(record), record.size)
        time = record.seconds * 1_000_000_000
        mode = record.mode & 0o7777
        return Entry(inode, type_, mode, 0, 0, 1, record.size, record.size, time, time, time, 0, extents)

    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        for number in range(2, self._count + 1):
            record = self._record(number)
            if record.directory == inode:
                yield record.name.rstrip(b"\0"), number

    def content(self, inode: int) -> Content:
        record = self._record(inode)
        if not stat.S_ISREG(record.mode):
            raise GuestMissing(f"inode {inode} is no file")
        if record.place & _BACKWARDS:
            stored = self.device.read(record.place & ~_BACKWARDS, record.size)
            return InlineContent(stored[::-1])
        return ExtentContent(self.device, _extents(record), record.size)

    def readlink(self, inode: int) -> bytes:
        record = self._record(inode)
        return self.device.read(record.place, record.size)

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        return {b"user.shelf": b"record %d" % inode}

    def _record(self, inode: int) -> _Record:
        if not 1 <= inode <= self._count:
            raise GuestMissing(f"there is no inode {inode}")
        return RECORD.read(self.tables.read(RECORDS + (inode - 1) * RECORD.size, RECORD.size))


def _extents(record: _Record) -> list[VolumeExtent]:
    return [(0, record.size, record.place)] if record.size else []


SHELF: Final = FileSystemFormat("shelf", ShelfFileSystem, (Signature(0, MAGIC, Trust.FIRST_SECTOR),))


class Thing(NamedTuple):
    """What is put on a shelf: `directory` and the position in the list, from 1, make the tree."""

    directory: int
    name: bytes
    mode: int
    content: bytes = b""
    backwards: bool = False


def make_shelf(size: int, *things: Thing, label: bytes = b"") -> bytearray:
    """The bytes of a shelf, its first `thing` the root; contents lie from the middle on."""
    image, at = bytearray(size), size // 2
    image[: len(MAGIC)] = MAGIC
    image[8 : 8 + len(label)] = label
    image[24:28] = len(things).to_bytes(4, "little")
    for number, thing in enumerate(things):
        place = at | _BACKWARDS if thing.backwards else at
        stored = thing.content[::-1] if thing.backwards else thing.content
        image[at : at + len(stored)] = stored
        at += len(stored)
        head = (thing.directory, thing.mode, len(stored), place, 1_600_000_000 + number)
        widths = (4, 4, 8, 8, 8)
        packed = b"".join(value.to_bytes(width, "little") for value, width in zip(head, widths, strict=True))
        start = RECORDS + number * RECORD.size
        image[start : start + RECORD.size] = packed + thing.name.ljust(32, b"\0")
    return image
