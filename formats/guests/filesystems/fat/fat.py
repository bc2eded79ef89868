"""FAT12, FAT16 and FAT32.

An inode's number is the place of its short entry on the device, in units of 32 bytes; the top folder, which
has none, is 1. Times are the guest's local time: taken as UTC.
"""

from __future__ import annotations

import calendar
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.content import (
    Content,
    ExtentContent,
    VolumeExtent,
    disk_extents,
)
from holdfast.formats.guests.filesystems.base.directory_tree import PARSE_ERRORS, TreeFileSystem, utf8
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.names import safe_names
from holdfast.formats.guests.filesystems.fat.table import SLOT, Boot, FatTable, slots
from holdfast.formats.guests.values.values import DAMAGED, Entry, Extent, GuestMissing, NodeType

ROOT = 1
READ_ONLY = 0x01
FOLDER = 0x10
_LABEL = 0x08
_LONG = 0x0F
_MAX_FOLDER = 65536 * SLOT
_LOWER_BASE = 0x08
_LOWER_EXTENSION = 0x10
_SHORT = struct.Struct("<8s3sBBBHHHHHHHI")

CP437 = bytes(range(256)).decode("cp437")
"""The code page of short names, made at import: no codec can be loaded later."""


class _Short(NamedTuple):
    attributes: int
    cluster: int
    size: int
    written: int
    read: int


class FatFileSystem(TreeFileSystem):
    """One FAT file system. Raises GuestDamaged when its boot sector cannot be used."""

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        self._boot = boot = Boot(self.tables)
        self._table = FatTable(
            self.tables,
            boot.table_offset,
            bits=boot.bits,
            clusters=boot.clusters,
            first=boot.data_offset,
            cluster_size=boot.cluster_size,
            mask=0x0FFFFFFF,
        )
        self.kind = f"fat{boot.bits}"
        self.root = ROOT
        self.label = ""
        raw = self._volume_label() or boot.label
        if raw.rstrip() != b"NO NAME":
            self.label = _short_text(raw)

    def entry(self, inode: int) -> Entry:
        if inode == ROOT:
            pieces = self._folder(ROOT)
            size = sum(length for _, length, _ in pieces)
            return Entry(ROOT, NodeType.FOLDER, 0o777, 0, 0, 1, size, size, 0, 0, 0, plain=True)
        return self._entry(inode, self._load(inode))

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        """As in the other file systems, but what a name stands for is beside it."""
        for name, (child, raw) in safe_names(self._entries(inode)):
            if child == inode:
                continue
            try:
                entry = self._entry(child, self._parse(raw))
            except PARSE_ERRORS:
                entry = DAMAGED
            yield name, entry

    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        for name, (child, _) in self._entries(inode):
            yield name, child

    def content(self, inode: int) -> Content:
        short = self._load(inode)
        if short.attributes & FOLDER:
            raise GuestMissing(f"fat: inode {inode} is no file")
        return ExtentContent(self.device, self._table.chain(short.cluster, short.size), short.size)

    def readlink(self, inode: int) -> bytes:
        raise GuestMissing("fat: there are no symbolic links")

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        return {}

    def _load(self, inode: int) -> _Short:
        place = inode * SLOT
        if not self._boot.root_offset <= place <= self.device.size - SLOT:
            raise GuestMissing(f"fat: no inode {inode}")
        raw = self.tables.read(place, SLOT)
        if raw[0] in (0, 0xE5) or raw[11] & _LABEL:
            raise GuestMissing(f"fat: inode {inode} is not in use")
        return self._parse(raw)

    def _parse(self, raw: bytes) -> _Short:
        (_, _, attributes, _, _, _, _, read_date, high, time, date, low, size) = _SHORT.unpack(raw)
        # OS/2 kept the number of extended attributes where FAT32 has half of the cluster.
        cluster = high << 16 | low if self._boot.bits == 32 else low
        return _Short(attributes, cluster, size, dos_time(date, time), dos_time(read_date, 0))

    def _entry(self, inode: int, short: _Short) -> Entry:
        extents: tuple[Extent, ...] | None = None
        if short.attributes & FOLDER:
            type_ = NodeType.FOLDER
            size = allocated = self._boot.cluster_size
        else:
            type_ = NodeType.FILE
            size = short.size
            allocated = -(-size // self._boot.cluster_size) * self._boot.cluster_size
            try:
                extents = disk_extents(self.device, self._table.chain(short.cluster, size), size)
            except PARSE_ERRORS:
                extents = None  # reading it will say what is wrong
        mode = 0o555 if short.attributes & READ_ONLY else 0o777
        return Entry(
            inode, type_, mode, 0, 0, 1, size, allocated, short.written, short.written, short.read, 0,
            extents, plain=True,
        )  # fmt: skip

    def _folder(self, inode: int) -> Sequence[VolumeExtent]:
        if inode == ROOT:
            if self._boot.bits != 32:
                return [(0, self._boot.root_size, self._boot.root_offset)]
            return self._table.chain(self._boot.root_cluster, _MAX_FOLDER, exact=False)
        short = self._load(inode)
        if not short.attributes & FOLDER:
            raise GuestMissing(f"fat: inode {inode} is no folder")
        return self._table.chain(short.cluster, _MAX_FOLDER, exact=False)

    def _entries(self, inode: int) -> Iterator[tuple[bytes, tuple[int, bytes]]]:
        """Name, inode number and short entry of what is in a folder."""
        parts: list[bytes] = []
        expected = checksum = 0
        for number, raw in slots(self.tables, self._folder(inode)):
            attributes = raw[11]
            if raw[0] == 0xE5:
                parts, expected = [], 0
            elif attributes & 0x3F == _LONG:
                order = raw[0] & 0x3F
                if raw[0] & 0x40 and 1 <= order <= 20:
                    parts, expected, checksum = [], order, raw[13]
                if order != expected or raw[13] != checksum:
                    parts, expected = [], 0
                    continue
                parts.append(raw[1:11] + raw[14:26] + raw[28:32])
                expected -= 1
            else:
                name = b""
                if parts and expected == 0 and _checksum(raw[:11]) == checksum:
                    name = _long_name(b"".join(reversed(parts)))
                parts, expected = [], 0
                if not attributes & _LABEL and raw[0] != 0x2E:  # a dot: `.` and `..`
                    yield name or _short_name(raw), (number, raw)

    def _volume_label(self) -> bytes:
        for _, raw in slots(self.tables, self._folder(ROOT)):
            if raw[0] != 0xE5 and raw[11] & 0x3F != _LONG and raw[11] & _LABEL:
                return raw[:11]
        return b""


def dos_time(date: int, time: int) -> int:
    """ns since 1970 of a date and time in the guest's local time, taken as UTC. 0 when there is none."""
    year, month, day = 1980 + (date >> 9), date >> 5 & 15, date & 31
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        return 0
    seconds = calendar.timegm((year, month, 1, time >> 11, time >> 5 & 63, (time & 31) * 2))
    return (seconds + (day - 1) * 86400) * 1_000_000_000


def _short_text(raw: bytes) -> str:
    return "".join([CP437[byte] for byte in raw]).split("\0", 1)[0].strip()


def _short_name(raw: bytes) -> bytes:
    base = b"\xe5" + raw[1:8] if raw[0] == 0x05 else raw[:8]
    name = "".join([CP437[byte] for byte in base.rstrip(b" ")])
    extension = "".join([CP437[byte] for byte in raw[8:11].rstrip(b" ")])
    if raw[12] & _LOWER_BASE:
        name = name.lower()
    if raw[12] & _LOWER_EXTENSION:
        extension = extension.lower()
    return (f"{name}.{extension}" if extension else name).encode()


def _long_name(raw: bytes) -> bytes:
    for place in range(0, len(raw), 2):
        if raw[place : place + 2] == b"\0\0":
            raw = raw[:place]
            break
    return utf8(raw)


def _checksum(name: bytes) -> int:
    total = 0
    for byte in name:
        total = ((total >> 1 | total << 7) + byte) & 0xFF
    return total
