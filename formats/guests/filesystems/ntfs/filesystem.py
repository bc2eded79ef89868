"""NTFS: files, links and named streams. Inode numbers are record numbers of the master file table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from holdfast.formats.guests.filesystems.base.content import (
    Content,
    ExtentContent,
    InlineContent,
    UnreadableContent,
    VolumeExtent,
    add_extent,
    disk_extents,
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
from holdfast.formats.guests.filesystems.base.signature import FileSystemFormat, Signature, Trust
from holdfast.formats.guests.filesystems.ntfs import directories, layout
from holdfast.formats.guests.filesystems.ntfs.compressed import CompressedContent
from holdfast.formats.guests.filesystems.ntfs.layout import (
    COMPRESSED,
    DATA,
    DIRECTORY_INDEX,
    ENCRYPTED,
    FILE_NAME,
    INDEX_ALLOCATION,
    RECORD_NUMBER,
    REPARSE_POINT,
    STANDARD,
    STANDARD_INFORMATION,
    VOLUME_INFO,
    VOLUME_INFORMATION,
    VOLUME_NAME,
)
from holdfast.formats.guests.filesystems.ntfs.records import Attribute, MasterTable, Record, read_boot_sector
from holdfast.formats.guests.filesystems.ntfs.reparse_points import (
    SpecialFile,
    from_interix,
    from_reparse_point,
)
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import DAMAGED, DiskExtent, Entry, GuestMissing, NodeType


class _Information(NamedTuple):
    """The standard information of a record; times in ns since 1970."""

    flags: int
    mtime: int
    ctime: int
    atime: int


class NtfsFileSystem(TreeFileSystem):
    """One NTFS file system. Raises GuestDamaged when its boot sector or master file table cannot be used."""

    kind = "ntfs"

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        self._table = MasterTable(self.tables, read_boot_sector(self.tables))
        self.root = layout.ROOT_RECORD
        self._load(self.root)
        volume = self._table.record(layout.VOLUME_RECORD)
        information = volume.find(VOLUME_INFORMATION)
        if information is not None and information.data is not None:
            self.has_log = bool(VOLUME_INFO.read(information.data).flags & layout.VOLUME_DIRTY)
        name = volume.find(VOLUME_NAME)
        self.label = utf8(name.data).decode("utf-8", "replace") if name and name.data else ""

    def entry(self, inode: int) -> Entry:
        return self._entry(self._load(inode))

    def _entry(self, record: Record) -> Entry:
        inode = record.number
        info = _information(record)
        names = [a.data for a in record.attributes if a.type == FILE_NAME and a.data is not None]
        links = max(sum(name[layout.NAME_SPACE_OFFSET] != layout.DOS_NAME for name in names), 1)
        parts = self._parts(record)
        size = allocated = 0
        if parts:
            size, allocated = parts[0].size, parts[0].allocated
        type_ = NodeType.FOLDER if record.is_directory else NodeType.FILE
        device = 0
        extents: tuple[DiskExtent, ...] | None = None
        special = self._special(record, info)
        if special is not None:
            type_, device = special.type, special.device
            if type_ is NodeType.LINK:
                size = len(special.target)
        elif type_ is NodeType.FOLDER:
            index = record.find(INDEX_ALLOCATION, DIRECTORY_INDEX)
            size = allocated = index.size if index else 0
        elif parts and parts[0].data is None and not parts[0].flags & (ENCRYPTED | COMPRESSED):
            try:
                extents = disk_extents(self.device, self._volume_extents(parts, inode), size)
            except PARSE_ERRORS:
                extents = None  # reading the file tells what is wrong
        elif not parts:
            extents = ()
        mode = 0o555 if info.flags & layout.READ_ONLY and not record.is_directory else 0o777
        return Entry(
            inode, type_, mode, 0, 0, links, size, allocated, info.mtime, info.ctime, info.atime, device,
            extents, plain=not any(a.type == DATA and a.name for a in record.attributes),
        )  # fmt: skip

    def names(self, inode: int) -> Iterator[tuple[bytes, int]]:
        return directories.names(self.tables, self._table, self._load(inode))

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        """Yield names with their inodes, without the file system's own files. Names whose record belongs to
        another file now are left out too: they were removed, and so far only the log has the change."""
        for name, reference in safe_names(self.names(inode)):
            if reference & RECORD_NUMBER == inode:
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
        """The file that a directory's entry refers to. Raises GuestMissing when its record belongs to another
        file now: the log holds a change of the directory."""
        number, sequence = reference & RECORD_NUMBER, reference >> layout.SEQUENCE_SHIFT
        if number < layout.FIRST_USER_RECORD:
            raise GuestMissing(f"ntfs record {number} is one of the file system's own files")
        record = self._load(number)
        if sequence not in (0, record.sequence):
            raise GuestMissing(f"ntfs record {number} is another file now")
        return self._entry(record)

    def content(self, inode: int) -> Content:
        record = self._load(inode)
        info = _information(record)
        special = self._special(record, info)
        if special is not None and special.reason:
            return UnreadableContent(f"ntfs record {inode}", special.reason)
        if record.is_directory or special is not None:
            raise GuestMissing(f"ntfs record {inode} is not a file")
        return self._stream(self._parts(record), inode)

    def readlink(self, inode: int) -> bytes:
        record = self._load(inode)
        special = self._special(record, _information(record))
        if special is None or special.type is not NodeType.LINK:
            raise GuestMissing(f"ntfs record {inode} is not a symbolic link")
        return special.target

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        """The named streams, as ntfs-3g shows them, that fit into an attribute on Linux."""
        record = self._load(inode)
        found = {}
        for attribute in record.attributes:
            if attribute.type != DATA or not attribute.name or attribute.lowest:
                continue
            name = b"user." + utf8(attribute.name)
            if attribute.flags & ENCRYPTED or len(name) > layout.MAX_STREAM_NAME:
                continue
            if attribute.size <= layout.MAX_STREAM:
                stream = self._stream(self._parts(record, attribute.name), inode)
                found[name] = stream.read(0, attribute.size)
                check_attributes(len(found), inode)
        return found

    def _load(self, inode: int) -> Record:
        if not 0 <= inode < MAX_INODE:
            raise GuestMissing(f"ntfs: there is no record {inode}")
        return self._table.record(inode)

    def _parts(self, record: Record, name: bytes = b"") -> Sequence[Attribute]:
        """The parts of a stream, the first one, which has its size, first."""
        parts = [a for a in record.attributes if a.type == DATA and a.name == name]
        parts.sort(key=lambda part: part.lowest)
        return parts

    def _volume_extents(self, parts: Sequence[Attribute], inode: int) -> Sequence[VolumeExtent]:
        """The extents of a stream up to its valid length; what follows was never written and is zeros."""
        valid = min(parts[0].valid, parts[0].size)
        extents: list[VolumeExtent] = []
        for start, length, place in self._table.extents(parts, inode):
            if start < valid:
                add_extent(extents, start, min(length, valid - start), place)
        return extents

    def _stream(self, parts: Sequence[Attribute], inode: int) -> Content:
        if not parts:
            return InlineContent(b"")
        first = parts[0]
        if first.data is not None:
            return InlineContent(first.data)
        if first.flags & ENCRYPTED:
            return UnreadableContent(f"ntfs record {inode}", "its content is encrypted")
        if first.flags & COMPRESSED:
            unit = self._table.cluster_size << first.unit
            if not first.unit or unit > layout.MAX_COMPRESSION_UNIT:
                reason = f"its content is compressed in units of {unit} bytes, which is not known here"
                return UnreadableContent(f"ntfs record {inode}", reason)
            return CompressedContent(self.tables, self._table.extents(parts, inode), first, unit)
        return ExtentContent(self.device, self._volume_extents(parts, inode), first.size)

    def _special(self, record: Record, info: _Information) -> SpecialFile | None:
        point = record.find(REPARSE_POINT)
        if point is not None:
            data = self._table.value(point, record.number, layout.MAX_REPARSE_POINT)
            return from_reparse_point(data, offline=bool(info.flags & layout.OFFLINE))
        if info.flags & layout.SYSTEM and not record.is_directory:
            parts = self._parts(record)
            if len(parts) == 1 and 8 <= parts[0].size <= layout.MAX_REPARSE_POINT:
                return from_interix(self._stream(parts, record.number).read(0, parts[0].size))
        return None


def _information(record: Record) -> _Information:
    standard = record.find(STANDARD)
    if standard is None or standard.data is None:
        structure = f"ntfs record {record.number}"
        raise StructureDamaged(structure, "number of attributes of standard information", 0, "at least 1")
    written, changed, read, flags = STANDARD_INFORMATION.unpack(standard.data)
    return _Information(flags, _time(written), _time(changed), _time(read))


def _time(value: int) -> int:
    """ns since 1970 of a time in units of 100 ns since 1601."""
    return clamp((value - layout.TICKS_TO_1970) * 100)


NTFS: Final = FileSystemFormat(
    "ntfs", NtfsFileSystem, (Signature(layout.MAGIC_OFFSET, layout.MAGIC, Trust.FIRST_SECTOR),)
)
