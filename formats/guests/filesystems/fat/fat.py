"""FAT12, FAT16 and FAT32: directories and files.

An inode's number is the offset of its short entry on the device, in units of 32 bytes; the top directory,
which has no entry, is 1. Times are the guest's local time: they are taken as UTC.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from holdfast.formats.guests.filesystems.base.content import (
    Content,
    ExtentContent,
    VolumeExtent,
    disk_extents,
)
from holdfast.formats.guests.filesystems.base.directory_tree import PARSE_ERRORS, TreeFileSystem, utf8
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.names import safe_names
from holdfast.formats.guests.filesystems.base.signature import FileSystemFormat
from holdfast.formats.guests.filesystems.fat.boot import read_boot_sector
from holdfast.formats.guests.filesystems.fat.layout import (
    ATTRIBUTE_MASK,
    ATTRIBUTES_OFFSET,
    BOOT_JUMPS,
    BOOT_MAGIC,
    BOOT_MAGIC_OFFSET,
    BOOT_SIZE,
    DELETED,
    DIRECTORY,
    DOT,
    ESCAPED_E5,
    FAT32_ENTRY_MASK,
    LABEL,
    LONG_ENTRY,
    LONG_LAST,
    LONG_NAME,
    LONG_ORDER_MASK,
    LOWER_BASE,
    LOWER_EXTENSION,
    MAX_DIRECTORY,
    MAX_LONG_ENTRIES,
    READ_ONLY,
    ROOT,
    SHORT_ENTRY,
    SLOT,
)
from holdfast.formats.guests.filesystems.fat.table import FatTable, slots
from holdfast.formats.guests.values.values import DAMAGED, DiskExtent, Entry, GuestMissing, NodeType

CP437: Final = bytes(range(256)).decode("cp437")
"""The code page of short names, made at import: no codec can be loaded later."""
_NO_LABEL: Final = b"NO NAME"


class FatInode(NamedTuple):
    """A short entry, decoded: first cluster, size in bytes, times in ns since 1970."""

    attributes: int
    cluster: int
    size: int
    written: int
    read: int


class FatFileSystem(TreeFileSystem):
    """One FAT file system. Raises GuestDamaged when its boot sector cannot be used."""

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        self._boot = boot = read_boot_sector(self.tables)
        self._table = FatTable(
            self.tables,
            boot.table_offset,
            bits=boot.bits,
            clusters=boot.clusters,
            first=boot.data_offset,
            cluster_size=boot.cluster_size,
            mask=FAT32_ENTRY_MASK,
        )
        self.kind = f"fat{boot.bits}"
        self.root = ROOT
        self.label = ""
        raw = self._volume_label() or boot.label
        if raw.rstrip() != _NO_LABEL:
            self.label = _short_text(raw)

    def entry(self, inode: int) -> Entry:
        if inode == ROOT:
            size = sum(length for _, length, _ in self._directory(ROOT))
            return Entry(ROOT, NodeType.FOLDER, 0o777, 0, 0, 1, size, size, 0, 0, 0, plain=True)
        return self._entry(inode, self._load(inode))

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        """Yield names with their inodes, which stand beside them in the directory."""
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
        if short.attributes & DIRECTORY:
            raise GuestMissing(f"{self.kind} inode {inode} is not a file")
        return ExtentContent(self.device, self._table.chain(short.cluster, short.size), short.size)

    def readlink(self, inode: int) -> bytes:
        raise GuestMissing(f"{self.kind} has no symbolic links")

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        return {}

    def _load(self, inode: int) -> FatInode:
        offset = inode * SLOT
        if not self._boot.root_offset <= offset <= self.device.size - SLOT:
            raise GuestMissing(f"{self.kind}: there is no inode {inode}")
        raw = self.tables.read(offset, SLOT)
        if raw[0] in (0, DELETED) or raw[ATTRIBUTES_OFFSET] & LABEL:
            raise GuestMissing(f"{self.kind} inode {inode} is not in use")
        return self._parse(raw)

    def _parse(self, raw: bytes) -> FatInode:
        attributes, read_date, high, time, date, low, size = SHORT_ENTRY.unpack(raw)
        # Only FAT32 has the high half: OS/2 kept the number of extended attributes there.
        cluster = high << 16 | low if self._boot.bits == 32 else low
        return FatInode(attributes, cluster, size, dos_time(date, time), dos_time(read_date, 0))

    def _entry(self, inode: int, short: FatInode) -> Entry:
        extents: tuple[DiskExtent, ...] | None = None
        if short.attributes & DIRECTORY:
            type_ = NodeType.FOLDER
            size = allocated = self._boot.cluster_size
        else:
            type_ = NodeType.FILE
            size = short.size
            allocated = -(-size // self._boot.cluster_size) * self._boot.cluster_size
            try:
                extents = disk_extents(self.device, self._table.chain(short.cluster, size), size)
            except PARSE_ERRORS:
                extents = None  # reading the file tells what is wrong
        mode = 0o555 if short.attributes & READ_ONLY else 0o777
        return Entry(
            inode, type_, mode, 0, 0, 1, size, allocated, short.written, short.written, short.read, 0,
            extents, plain=True,
        )  # fmt: skip

    def _directory(self, inode: int) -> Sequence[VolumeExtent]:
        if inode == ROOT:
            if self._boot.bits != 32:
                return [(0, self._boot.root_size, self._boot.root_offset)]
            return self._table.chain(self._boot.root_cluster, MAX_DIRECTORY, exact=False)
        short = self._load(inode)
        if not short.attributes & DIRECTORY:
            raise GuestMissing(f"{self.kind} inode {inode} is not a directory")
        return self._table.chain(short.cluster, MAX_DIRECTORY, exact=False)

    def _entries(self, inode: int) -> Iterator[tuple[bytes, tuple[int, bytes]]]:
        """Yield the name, inode number and short entry of each file in a directory.

        A long name that is not complete, or belongs to another entry, is left out: the short one is used.
        """
        parts: list[bytes] = []
        expected = checksum = 0
        for number, raw in slots(self.tables, self._directory(inode)):
            attributes = raw[ATTRIBUTES_OFFSET]
            if raw[0] == DELETED:
                parts, expected = [], 0
            elif attributes & ATTRIBUTE_MASK == LONG_NAME:
                order, name_0, long_checksum, name_1, name_2 = LONG_ENTRY.unpack(raw)
                part = order & LONG_ORDER_MASK
                if order & LONG_LAST and 1 <= part <= MAX_LONG_ENTRIES:
                    parts, expected, checksum = [], part, long_checksum
                if part != expected or long_checksum != checksum:
                    parts, expected = [], 0
                    continue
                parts.append(name_0 + name_1 + name_2)
                expected -= 1
            else:
                name = b""
                if parts and expected == 0 and _checksum(raw[:ATTRIBUTES_OFFSET]) == checksum:
                    name = _long_name(b"".join(reversed(parts)))
                parts, expected = [], 0
                if not attributes & LABEL and raw[0] != DOT:
                    yield name or _short_name(raw), (number, raw)

    def _volume_label(self) -> bytes:
        for _, raw in slots(self.tables, self._directory(ROOT)):
            attributes = raw[ATTRIBUTES_OFFSET]
            if raw[0] != DELETED and attributes & ATTRIBUTE_MASK != LONG_NAME and attributes & LABEL:
                return raw[:ATTRIBUTES_OFFSET]
        return b""


def dos_time(date: int, time: int) -> int:
    """ns since 1970 of a date (7 bits of years since 1980, month, day) and a time (5 bits of hours, minutes,
    half seconds) in the guest's local time, taken as UTC. 0 when there is no such date."""
    year, month, day = 1980 + (date >> 9), date >> 5 & 15, date & 31
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        return 0
    seconds = calendar.timegm((year, month, 1, time >> 11, time >> 5 & 63, (time & 31) * 2))
    return (seconds + (day - 1) * 86400) * 1_000_000_000


def _short_text(raw: bytes) -> str:
    return "".join([CP437[byte] for byte in raw]).split("\0", 1)[0].strip()


def _short_name(raw: bytes) -> bytes:
    """The name in a short entry: 8 characters and 3 of extension, filled up with spaces."""
    base = bytes([DELETED]) + raw[1:8] if raw[0] == ESCAPED_E5 else raw[:8]
    name = "".join([CP437[byte] for byte in base.rstrip(b" ")])
    extension = "".join([CP437[byte] for byte in raw[8:11].rstrip(b" ")])
    case = raw[ATTRIBUTES_OFFSET + 1]
    if case & LOWER_BASE:
        name = name.lower()
    if case & LOWER_EXTENSION:
        extension = extension.lower()
    return (f"{name}.{extension}" if extension else name).encode()


def _long_name(raw: bytes) -> bytes:
    """The name in UTF-16LE up to its end mark, as UTF-8."""
    for position in range(0, len(raw), 2):
        if raw[position : position + 2] == b"\0\0":
            raw = raw[:position]
            break
    return utf8(raw)


def _checksum(name: bytes) -> int:
    """The checksum of a short name that ties long entries to it."""
    total = 0
    for byte in name:
        total = ((total >> 1 | total << 7) + byte) & 0xFF
    return total


def is_fat(device: BlockDevice) -> bool:
    """Whether the first sector is a boot sector of FAT, which has no magic number of its own."""
    try:
        raw = device.read(0, BOOT_SIZE)
        if raw[BOOT_MAGIC_OFFSET:] != BOOT_MAGIC or raw[:1] not in BOOT_JUMPS:
            return False
        read_boot_sector(device)
    except PARSE_ERRORS:
        return False
    return True


FAT: Final = FileSystemFormat("fat", FatFileSystem, matches=is_fat)
