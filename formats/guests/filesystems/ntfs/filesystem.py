"""NTFS. Inode numbers are record numbers of the master file table."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from holdfast.formats.guests.filesystems.base.content import (
    Content,
    InlineContent,
    VolumeExtent,
    ExtentContent,
    UnreadableContent,
    add_extent,
    disk_extents,
    extents_within,
    read_extents,
)
from holdfast.formats.guests.filesystems.base.directory_tree import (
    MAX_INODE,
    PARSE_ERRORS,
    TreeFileSystem,
    check_attributes,
    clamp,
    utf8,
)
from holdfast.formats.guests.filesystems.base.interface import BlockDevice
from holdfast.formats.guests.filesystems.base.names import safe_names
from holdfast.formats.guests.filesystems.ntfs.lznt1 import decompress
from holdfast.formats.guests.filesystems.ntfs.records import (
    BITMAP,
    COMPRESSED,
    DATA,
    ENCRYPTED,
    FILE_NAME,
    INDEX_ALLOCATION,
    INDEX_ROOT,
    REPARSE_POINT,
    STANDARD,
    VOLUME_INFORMATION,
    VOLUME_NAME,
    Attribute,
    Boot,
    MasterTable,
    Record,
    fix_up,
)
from holdfast.formats.guests.filesystems.ntfs.reparse_points import Special, from_interix, from_reparse_point
from holdfast.formats.guests.values.values import (
    DAMAGED,
    Entry,
    Extent,
    GuestDamaged,
    GuestMissing,
    NodeType,
)

_ROOT = 5
_VOLUME = 3
_DIRTY = 0x1
_FIRST_USER = 16
"""Records below are the file system's own files."""
_NUMBER = 0xFFFFFFFFFFFF
_SEQUENCE_SHIFT = 48
_I30 = "$I30".encode("utf-16-le")
_DOS_ONLY = 2
_READ_ONLY = 0x1
_SYSTEM = 0x4
_OFFLINE = 0x1000 | 0x400000
_EPOCH = 116_444_736_000_000_000
"""1970 in units of 100 ns since 1601."""
_LAST = 0x2
_ENTRY = struct.Struct("<QHHHH")
_MAX_SPECIAL = 64 << 10
_MAX_BITMAP = 1 << 20
"""Of a folder: 32 GiB of its index in blocks of 4 KiB."""
_MAX_XATTR = 64 << 10
_MAX_NAME = 255


class _Info(NamedTuple):
    flags: int
    mtime: int
    ctime: int
    atime: int


class NtfsFileSystem(TreeFileSystem):
    """One NTFS file system. Raises GuestDamaged when its boot sector or master file table cannot be used."""

    kind = "ntfs"

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        boot = Boot(self.tables)
        self._table = MasterTable(self.tables, boot)
        self.root = _ROOT
        self._load(_ROOT)
        volume = self._table.record(_VOLUME)
        information = volume.find(VOLUME_INFORMATION)
        if information is not None and information.data is not None:
            self.has_log = bool(struct.unpack_from("<H", information.data, 10)[0] & _DIRTY)
        name = volume.find(VOLUME_NAME)
        self.label = utf8(name.data).decode("utf-8", "replace") if name and name.data else ""

    def entry(self, inode: int) -> Entry:
        return self._entry(self._load(inode))

    def _entry(self, record: Record) -> Entry:
        inode = record.number
        info = _info(record)
        names = [a.data for a in record.attributes if a.type == FILE_NAME and a.data is not None]
        links = max(sum(name[65] != _DOS_ONLY for name in names), 1)
        parts = self._parts(record)
        size = allocated = 0
        if parts:
            size, allocated = parts[0].size, parts[0].allocated
        type_ = NodeType.FOLDER if record.is_folder else NodeType.FILE
        device = 0
        extents: tuple[Extent, ...] | None = None
        special = self._special(record, info)
        if special is not None:
            type_, device = special.type, special.device
            if type_ is NodeType.LINK:
                size = len(special.target)
        elif type_ is NodeType.FOLDER:
            index = record.find(INDEX_ALLOCATION, _I30)
            size = allocated = index.size if index else 0
        elif parts and parts[0].data is None and not parts[0].flags & (ENCRYPTED | COMPRESSED):
            try:
                extents = disk_extents(self.device, self._pieces(parts, inode), size)
            except PARSE_ERRORS:
                extents = None  # reading it will say what is wrong
        elif not parts:
            extents = ()
        mode = 0o555 if info.flags & _READ_ONLY and not record.is_folder else 0o777
        return Entry(
            inode, type_, mode, 0, 0, links, size, allocated, info.mtime, info.ctime, info.atime, device,
            extents, plain=not any(a.type == DATA and a.name for a in record.attributes),
        )  # fmt: skip

    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        record = self._load(inode)
        root = record.find(INDEX_ROOT, _I30)
        if not record.is_folder or root is None or root.data is None:
            raise GuestMissing(f"ntfs: record {inode} is no folder")
        yield from _index_entries(root.data, 16, inode)
        parts = [a for a in record.attributes if a.type == INDEX_ALLOCATION and a.name == _I30]
        if not parts:
            return
        (block_size,) = struct.unpack_from("<I", root.data, 8)
        if not 512 <= block_size <= 65536 or block_size & (block_size - 1):
            raise GuestDamaged(f"ntfs: folder {inode}: index blocks of {block_size} bytes")
        parts.sort(key=lambda part: part.lowest)
        size = parts[0].size
        pieces = self._table.pieces(parts, inode)
        used = record.find(BITMAP, _I30)
        bitmap = self._table.value(used, inode, _MAX_BITMAP) if used is not None else b""
        # In the order of the blocks, not of the tree: no loops, and every block is read once.
        for number in range(min(size // block_size, len(bitmap) * 8)):
            if bitmap[number >> 3] >> (number & 7) & 1:
                raw = read_extents(self.tables, pieces, size, number * block_size, block_size)
                yield from _index_entries(bytes(fix_up(raw, b"INDX")), 24, inode)

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        """As in the other file systems, without the file system's own files, and without names whose record
        belongs to another file by now: those are gone, and the log knew."""
        for name, reference in safe_names(self.names(inode)):
            if reference & _NUMBER == inode:
                continue
            try:
                entry = self._referred(reference)
            except GuestMissing:
                continue
            except PARSE_ERRORS:
                entry = DAMAGED
            yield name, entry

    def lookup(self, inode: int, name: bytes) -> Entry:
        return self._referred(self.child(inode, name))

    def _referred(self, reference: int) -> Entry:
        """What a folder refers to. When the record was given to another file since, the folder was written
        without what is still in the log: GuestMissing, never that other file."""
        number, sequence = reference & _NUMBER, reference >> _SEQUENCE_SHIFT
        if number < _FIRST_USER:
            raise GuestMissing(f"ntfs: record {number} is a file of the file system itself")
        record = self._load(number)
        if sequence not in (0, record.sequence):
            raise GuestMissing(f"ntfs: record {number} is another file by now")
        return self._entry(record)

    def content(self, inode: int) -> Content:
        record = self._load(inode)
        info = _info(record)
        special = self._special(record, info)
        if special is not None and special.reason:
            return UnreadableContent(f"ntfs: record {inode} {special.reason}")
        if record.is_folder or special is not None:
            raise GuestMissing(f"ntfs: record {inode} is no file")
        return self._stream(self._parts(record), inode)

    def readlink(self, inode: int) -> bytes:
        record = self._load(inode)
        special = self._special(record, _info(record))
        if special is None or special.type is not NodeType.LINK:
            raise GuestMissing(f"ntfs: record {inode} is no symbolic link")
        return special.target

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        """Named streams, as ntfs-3g shows them; those that fit an attribute on Linux."""
        record = self._load(inode)
        found = {}
        for attribute in record.attributes:
            if attribute.type != DATA or not attribute.name or attribute.lowest:
                continue
            name = b"user." + utf8(attribute.name)
            if attribute.size <= _MAX_XATTR and len(name) <= _MAX_NAME and not attribute.flags & ENCRYPTED:
                stream = self._stream(self._parts(record, attribute.name), inode)
                found[name] = stream.read(0, attribute.size)
                check_attributes(len(found), inode)
        return found

    def _load(self, inode: int) -> Record:
        if not 0 <= inode < MAX_INODE:
            raise GuestMissing(f"ntfs: no record {inode}")
        return self._table.record(inode)

    def _parts(self, record: Record, name: bytes = b"") -> Sequence[Attribute]:
        """The parts of a stream, the first one first; only that one tells its size."""
        parts = [a for a in record.attributes if a.type == DATA and a.name == name]
        parts.sort(key=lambda part: part.lowest)
        return parts

    def _pieces(self, parts: Sequence[Attribute], inode: int) -> Sequence[VolumeExtent]:
        """What lies behind the valid length was never written: zeros."""
        valid = min(parts[0].valid, parts[0].size)
        pieces: list[VolumeExtent] = []
        for start, length, place in self._table.pieces(parts, inode):
            if start < valid:
                add_extent(pieces, start, min(length, valid - start), place)
        return pieces

    def _stream(self, parts: Sequence[Attribute], inode: int) -> Content:
        if not parts:
            return InlineContent(b"")
        first = parts[0]
        if first.data is not None:
            return InlineContent(first.data)
        if first.flags & ENCRYPTED:
            return UnreadableContent(f"ntfs: record {inode} is encrypted")
        if first.flags & COMPRESSED:
            unit = self._table.cluster_size << first.unit
            if not first.unit or unit > 1 << 20:
                return UnreadableContent(f"ntfs: record {inode} is compressed in units of {unit} bytes")
            return _Compressed(self.tables, self._table.pieces(parts, inode), first, unit)
        return ExtentContent(self.device, self._pieces(parts, inode), first.size)

    def _special(self, record: Record, info: _Info) -> Special | None:
        point = record.find(REPARSE_POINT)
        if point is not None:
            data = self._table.value(point, record.number, _MAX_SPECIAL)
            return from_reparse_point(data, offline=bool(info.flags & _OFFLINE))
        if info.flags & _SYSTEM and not record.is_folder:
            parts = self._parts(record)
            if len(parts) == 1 and 8 <= parts[0].size <= _MAX_SPECIAL:
                return from_interix(self._stream(parts, record.number).read(0, parts[0].size))
        return None


class _Compressed:
    """A stream in units that are compressed each by itself: full ones are stored as they are, those without
    clusters are zeros."""

    def __init__(self, device: BlockDevice, pieces: Sequence[VolumeExtent], first: Attribute, unit: int) -> None:
        self.cost = len(pieces) + unit // 64
        self._device = device
        self._pieces = pieces
        self._size = first.size
        self._valid = min(first.valid, first.size)
        self._unit = unit
        self._number = -1
        self._data = b""

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self._size)
        parts = []
        while 0 <= offset < end:
            number, inside = divmod(offset, self._unit)
            if offset >= self._valid:
                parts.append(bytes(end - offset))
                break
            if number != self._number:
                self._data = self._read_unit(number)
                self._number = number
            stop = min(self._unit, end - number * self._unit, self._valid - number * self._unit)
            parts.append(self._data[inside:stop])
            offset += stop - inside
        return b"".join(parts)

    def _read_unit(self, number: int) -> bytes:
        start = number * self._unit
        stored = [
            self._device.read(place, length)
            for _, length, place in extents_within(self._pieces, start, start + self._unit)
            if place >= 0
        ]
        data = b"".join(stored)
        if len(data) == self._unit:
            return data
        return decompress(data, self._unit) if data else bytes(self._unit)


def _info(record: Record) -> _Info:
    standard = record.find(STANDARD)
    if standard is None or standard.data is None:
        raise GuestDamaged(f"ntfs: record {record.number} has no standard information")
    _, written, changed, read, flags = struct.unpack_from("<QQQQI", standard.data)
    return _Info(flags, _time(written), _time(changed), _time(read))


def _time(value: int) -> int:
    return clamp((value - _EPOCH) * 100)


def _index_entries(data: bytes, head: int, inode: int) -> Iterator[tuple[bytes, int]]:
    """The names behind an index header; those for DOS alone are left out."""
    start, total = struct.unpack_from("<II", data, head)
    place, end = head + start, head + total
    if end > len(data):
        raise GuestDamaged(f"ntfs: folder {inode}: an index reaches to {end} of {len(data)}")
    while place + 16 <= end:
        reference, length, key_length, flags, _ = _ENTRY.unpack_from(data, place)
        if flags & _LAST:
            return
        if length < 16 + key_length or key_length < 66 or place + length > end:
            raise GuestDamaged(f"ntfs: folder {inode}: an index entry of {length} bytes")
        units, space = data[place + 80], data[place + 81]
        if 66 + units * 2 > key_length:
            raise GuestDamaged(f"ntfs: folder {inode}: a name of {units} units")
        if space != _DOS_ONLY:
            yield utf8(data[place + 82 : place + 82 + units * 2]), reference
        place += length
