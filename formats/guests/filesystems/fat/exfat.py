"""exFAT.

Source: Microsoft "exFAT file system specification" 1.00. An inode's number is the place of its file entry on
the device, in units of 32 bytes; the top folder, which has none, is 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.content import (
    Content,
    ExtentContent,
    VolumeExtent,
    add_extent,
    disk_extents,
)
from holdfast.formats.guests.filesystems.base.directory_tree import (
    MAX_SIZE,
    PARSE_ERRORS,
    TreeFileSystem,
    clamp,
    utf8,
)
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.names import safe_names
from holdfast.formats.guests.filesystems.fat.fat import FOLDER, READ_ONLY, ROOT, dos_time
from holdfast.formats.guests.filesystems.fat.table import SLOT, FatTable, slots
from holdfast.formats.guests.values.values import (
    DAMAGED,
    Entry,
    Extent,
    GuestDamaged,
    GuestMissing,
    NodeType,
)

_FILE = 0x85
_STREAM = 0xC0
_NAME = 0xC1
_LABEL = 0x83
_MAX_FOLDER = 256 << 20
_MAX_SECONDARY = 18
_NO_CHAIN = 0x02
_FILE_ENTRY = struct.Struct("<BBHHHIIIBBBBB")
_STREAM_ENTRY = struct.Struct("<BBBBHHQIIQ")


class _Set(NamedTuple):
    """A file entry with its stream entry."""

    attributes: int
    written: int
    read: int
    chained: bool
    cluster: int
    valid: int
    size: int


class ExfatFileSystem(TreeFileSystem):
    """One exFAT file system. Raises GuestDamaged when its boot sector cannot be used."""

    kind = "exfat"

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        raw = self.tables.read(0, 512)
        if raw[3:11] != b"EXFAT   ":
            raise GuestDamaged("exfat: no magic number at offset 3")
        table, table_length, heap, clusters, root = struct.unpack_from("<IIIII", raw, 80)
        (flags,) = struct.unpack_from("<H", raw, 106)
        sector_shift, cluster_shift, tables = raw[108], raw[109], raw[110]
        if not 9 <= sector_shift <= 12 or sector_shift + cluster_shift > 25 or tables not in (1, 2):
            raise GuestDamaged(f"exfat: sectors of 2^{sector_shift} bytes, clusters of 2^{cluster_shift}")
        if not clusters or (clusters + 2) * 4 > table_length << sector_shift:
            raise GuestDamaged(f"exfat: {clusters} clusters in a table of {table_length} sectors")
        self._cluster_size = 1 << sector_shift + cluster_shift
        self._root_cluster = root
        self._heap = heap << sector_shift
        active = table + table_length if tables == 2 and flags & 1 else table
        self._table = FatTable(
            self.tables,
            active << sector_shift,
            bits=32,
            clusters=clusters,
            first=self._heap,
            cluster_size=self._cluster_size,
        )
        self.root = ROOT
        self.label = ""
        for _, entry in slots(self.tables, self._folder(ROOT)):
            if entry[0] == _LABEL:
                self.label = utf8(entry[2 : 2 + min(entry[1], 11) * 2]).decode(errors="replace")
                break

    def entry(self, inode: int) -> Entry:
        if inode == ROOT:
            size = sum(length for _, length, _ in self._folder(ROOT))
            return Entry(ROOT, NodeType.FOLDER, 0o777, 0, 0, 1, size, size, 0, 0, 0, plain=True)
        return self._entry(inode, self._load(inode))

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        """As in the other file systems, but what a name stands for is beside it."""
        for name, (child, found) in safe_names(self._sets(inode)):
            if child == inode:
                continue
            try:
                entry = self._entry(child, found)
            except PARSE_ERRORS:
                entry = DAMAGED
            yield name, entry

    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        for name, (child, _) in self._sets(inode):
            yield name, child

    def content(self, inode: int) -> Content:
        found = self._load(inode)
        if found.attributes & FOLDER:
            raise GuestMissing(f"exfat: inode {inode} is no file")
        return ExtentContent(self.device, self._pieces(found), found.size)

    def readlink(self, inode: int) -> bytes:
        raise GuestMissing("exfat: there are no symbolic links")

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        return {}

    def _load(self, inode: int) -> _Set:
        """Find an entry again by its place. What follows it may lie in another cluster, and which one is not
        known here: of the candidates that one is taken whose checksum is right."""
        place = inode * SLOT
        if not self._heap <= place <= self.device.size - SLOT:
            raise GuestMissing(f"exfat: no inode {inode}")
        first = self.tables.read(place, SLOT)
        if first[0] != _FILE or not 2 <= first[1] <= _MAX_SECONDARY:
            raise GuestMissing(f"exfat: inode {inode} is not in use")
        length = (first[1] + 1) * SLOT
        number, inside = divmod(place - self._heap, self._cluster_size)
        raw = self.tables.read(place, min(length, self._cluster_size - inside))
        for follow in (self._table.next, _following):
            whole, cluster = raw, number + 2
            try:
                while len(whole) < length:
                    cluster = follow(cluster)
                    step = min(self._cluster_size, length - len(whole))
                    whole += self.tables.read(self._table.place(cluster), step)
                return _parse([whole[at : at + SLOT] for at in range(0, length, SLOT)])
            except PARSE_ERRORS:
                continue
        raise GuestDamaged(f"exfat: inode {inode}: its entries do not belong together")

    def _entry(self, inode: int, found: _Set) -> Entry:
        extents: tuple[Extent, ...] | None = None
        type_ = NodeType.FOLDER
        if not found.attributes & FOLDER:
            type_ = NodeType.FILE
            try:
                extents = disk_extents(self.device, self._pieces(found), found.size)
            except PARSE_ERRORS:
                extents = None  # reading it will say what is wrong
        allocated = -(-found.size // self._cluster_size) * self._cluster_size
        mode = 0o555 if found.attributes & READ_ONLY else 0o777
        return Entry(
            inode, type_, mode, 0, 0, 1, found.size, allocated, found.written, found.written, found.read, 0,
            extents, plain=True,
        )  # fmt: skip

    def _pieces(self, found: _Set) -> Sequence[VolumeExtent]:
        """Clusters hold the file up to `valid`; what is behind it was never written and reads as zeros."""
        valid = min(found.valid, found.size)
        if found.chained:
            whole: Sequence[VolumeExtent] = self._table.chain(found.cluster, found.size)
        else:
            whole = self._table.run(found.cluster, found.size)
        pieces: list[VolumeExtent] = []
        for start, length, place in whole:
            if start < valid:
                add_extent(pieces, start, min(length, valid - start), place)
        return pieces

    def _folder(self, inode: int) -> Sequence[VolumeExtent]:
        if inode == ROOT:
            return self._table.chain(self._root_cluster, _MAX_FOLDER, exact=False)
        found = self._load(inode)
        if not found.attributes & FOLDER:
            raise GuestMissing(f"exfat: inode {inode} is no folder")
        if found.size > _MAX_FOLDER:
            raise GuestDamaged(f"exfat: folder {inode} of {found.size} bytes")
        return self._pieces(found)

    def _sets(self, inode: int) -> Iterator[tuple[bytes, tuple[int, _Set]]]:
        """Name, inode number and entries of what is in a folder; sets with a wrong checksum are left out."""
        waiting: list[bytes] = []
        first = needed = 0
        for number, entry in slots(self.tables, self._folder(inode)):
            if entry[0] == _FILE:
                waiting, first, needed = [entry], number, entry[1] + 1
            elif waiting and entry[0] & 0xC0 == 0xC0:
                waiting.append(entry)
            else:
                waiting = []
            if waiting and len(waiting) == needed:
                with suppress(GuestDamaged):
                    yield _name(waiting), (first, _parse(waiting))
                waiting = []


def _following(cluster: int) -> int:
    return cluster + 1


def _parse(entries: Sequence[bytes]) -> _Set:
    (
        kind, count, checksum, attributes, _, _, written, read, _, written_ms, _, written_zone, read_zone,
    ) = _FILE_ENTRY.unpack_from(entries[0])  # fmt: skip
    if kind != _FILE or len(entries) != count + 1 or count < 2 or entries[1][0] != _STREAM:
        raise GuestDamaged("exfat: the entries of a file do not belong together")
    if _checksum(entries) != checksum:
        raise GuestDamaged("exfat: the checksum of a file's entries is wrong")
    _, flags, _, _, _, _, valid, _, cluster, size = _STREAM_ENTRY.unpack_from(entries[1])
    if size > MAX_SIZE or valid > size:
        raise GuestDamaged(f"exfat: a file of {size} bytes, of which {valid} are valid")
    return _Set(
        attributes,
        _time(written, written_ms, written_zone),
        _time(read, 0, read_zone),
        not flags & _NO_CHAIN,
        cluster,
        valid,
        size,
    )


def _name(entries: Sequence[bytes]) -> bytes:
    units = entries[1][3]
    return utf8(b"".join([entry[2:] for entry in entries[2:] if entry[0] == _NAME])[: units * 2])


def _time(stamp: int, hundredths: int, zone: int) -> int:
    time = dos_time(stamp >> 16, stamp & 0xFFFF)
    if hundredths < 200:
        time += hundredths * 10_000_000
    if zone & 0x80:  # quarters of an hour east of UTC, 7 bits with a sign
        time -= ((zone & 0x7F ^ 0x40) - 0x40) * 900 * 1_000_000_000
    return clamp(time)


def _checksum(entries: Sequence[bytes]) -> int:
    total = 0
    for place, byte in enumerate(b"".join(entries)):
        if place not in (2, 3):
            total = ((total >> 1 | total << 15) + byte) & 0xFFFF
    return total
