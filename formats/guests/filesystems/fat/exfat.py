"""exFAT: directories and files.

An inode's number is the offset of its file entry on the device, in units of 32 bytes; the top directory,
which has no entry, is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

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
from holdfast.formats.guests.filesystems.base.signature import FileSystemFormat, Signature, Trust
from holdfast.formats.guests.filesystems.fat import layout
from holdfast.formats.guests.filesystems.fat.fat import dos_time
from holdfast.formats.guests.filesystems.fat.layout import (
    DIRECTORY,
    EXFAT_BOOT_SECTOR,
    EXFAT_FILE,
    EXFAT_STREAM,
    FILE_TYPE,
    FIRST_CLUSTER,
    MAX_SECONDARY,
    MIN_SECONDARY,
    NAME_TYPE,
    NAME_UNITS_OFFSET,
    NO_CHAIN,
    READ_ONLY,
    ROOT,
    SECONDARY_TYPE,
    SLOT,
    STREAM_TYPE,
    ExfatBootSector,
)
from holdfast.formats.guests.filesystems.fat.table import FatTable, slots
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import (
    DAMAGED,
    DiskExtent,
    Entry,
    GuestDamaged,
    GuestMissing,
    NodeType,
)


class ExfatInode(NamedTuple):
    """A file entry with its stream entry, decoded: first cluster, sizes in bytes, times in ns since 1970."""

    attributes: int
    written: int
    read: int
    is_chained: bool
    cluster: int
    valid: int
    size: int


class ExfatFileSystem(TreeFileSystem):
    """One exFAT file system. Raises GuestDamaged when its boot sector cannot be used."""

    kind = "exfat"

    def __init__(self, device: BlockDevice) -> None:
        super().__init__(device)
        boot = EXFAT_BOOT_SECTOR.read(self.tables.read(0, layout.BOOT_SIZE))
        _check(boot)
        self._cluster_size = 1 << boot.sector_shift + boot.cluster_shift
        self._root_cluster = boot.root_cluster
        self._heap = boot.heap_offset << boot.sector_shift
        active = boot.table_offset
        if boot.tables == 2 and boot.flags & layout.EXFAT_SECOND_TABLE:
            active += boot.table_length
        self._table = FatTable(
            self.tables,
            active << boot.sector_shift,
            bits=32,
            clusters=boot.clusters,
            first=self._heap,
            cluster_size=self._cluster_size,
        )
        self.root = ROOT
        self.label = ""
        for _, entry in slots(self.tables, self._directory(ROOT)):
            if entry[0] == layout.LABEL_TYPE:
                end = NAME_UNITS_OFFSET + min(entry[1], layout.LABEL_LENGTH) * 2
                self.label = utf8(entry[NAME_UNITS_OFFSET:end]).decode(errors="replace")
                break

    def entry(self, inode: int) -> Entry:
        if inode == ROOT:
            size = sum(length for _, length, _ in self._directory(ROOT))
            return Entry(ROOT, NodeType.FOLDER, 0o777, 0, 0, 1, size, size, 0, 0, 0, plain=True)
        return self._entry(inode, self._load(inode))

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        """Yield names with their inodes, which stand beside them in the directory."""
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
        if found.attributes & DIRECTORY:
            raise GuestMissing(f"exfat inode {inode} is not a file")
        return ExtentContent(self.device, self._volume_extents(found), found.size)

    def readlink(self, inode: int) -> bytes:
        raise GuestMissing("exfat has no symbolic links")

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        return {}

    def _load(self, inode: int) -> ExfatInode:
        """Read a file's entries. Only the first one's offset is known; the others may lie in another cluster.
        The next of the chain and the next on the device are tried, and the one with the right checksum is
        taken."""
        offset = inode * SLOT
        if not self._heap <= offset <= self.device.size - SLOT:
            raise GuestMissing(f"exfat: there is no inode {inode}")
        first = self.tables.read(offset, SLOT)
        if first[0] != FILE_TYPE or not MIN_SECONDARY <= first[1] <= MAX_SECONDARY:
            raise GuestMissing(f"exfat inode {inode} is not in use")
        length = (first[1] + 1) * SLOT
        number, inside = divmod(offset - self._heap, self._cluster_size)
        raw = self.tables.read(offset, min(length, self._cluster_size - inside))
        reason: Exception | None = None
        for follow in (self._table.next, _following):
            whole, cluster = raw, number + FIRST_CLUSTER
            try:
                while len(whole) < length:
                    cluster = follow(cluster)
                    step = min(self._cluster_size, length - len(whole))
                    whole += self.tables.read(self._table.place(cluster), step)
                return _parse([whole[start : start + SLOT] for start in range(0, length, SLOT)])
            except PARSE_ERRORS as error:
                reason = error
        assert reason is not None
        raise reason

    def _entry(self, inode: int, found: ExfatInode) -> Entry:
        extents: tuple[DiskExtent, ...] | None = None
        type_ = NodeType.FOLDER
        if not found.attributes & DIRECTORY:
            type_ = NodeType.FILE
            try:
                extents = disk_extents(self.device, self._volume_extents(found), found.size)
            except PARSE_ERRORS:
                extents = None  # reading the file tells what is wrong
        allocated = -(-found.size // self._cluster_size) * self._cluster_size
        mode = 0o555 if found.attributes & READ_ONLY else 0o777
        return Entry(
            inode, type_, mode, 0, 0, 1, found.size, allocated, found.written, found.written, found.read, 0,
            extents, plain=True,
        )  # fmt: skip

    def _volume_extents(self, found: ExfatInode) -> Sequence[VolumeExtent]:
        """The extents of a file up to its valid length; what follows was never written and is zeros."""
        valid = min(found.valid, found.size)
        if found.is_chained:
            whole: Sequence[VolumeExtent] = self._table.chain(found.cluster, found.size)
        else:
            whole = self._table.contiguous(found.cluster, found.size)
        extents: list[VolumeExtent] = []
        for start, length, place in whole:
            if start < valid:
                add_extent(extents, start, min(length, valid - start), place)
        return extents

    def _directory(self, inode: int) -> Sequence[VolumeExtent]:
        if inode == ROOT:
            return self._table.chain(self._root_cluster, layout.EXFAT_MAX_DIRECTORY, exact=False)
        found = self._load(inode)
        if not found.attributes & DIRECTORY:
            raise GuestMissing(f"exfat inode {inode} is not a directory")
        if found.size > layout.EXFAT_MAX_DIRECTORY:
            limit = f"at most {layout.EXFAT_MAX_DIRECTORY} bytes"
            raise StructureDamaged(f"exfat directory {inode}", "size", found.size, limit)
        return self._volume_extents(found)

    def _sets(self, inode: int) -> Iterator[tuple[bytes, tuple[int, ExfatInode]]]:
        """Yield the name, inode number and inode of each file in a directory, without those whose checksum is
        wrong."""
        waiting: list[bytes] = []
        first = needed = 0
        for number, entry in slots(self.tables, self._directory(inode)):
            if entry[0] == FILE_TYPE:
                waiting, first, needed = [entry], number, entry[1] + 1
            elif waiting and entry[0] & SECONDARY_TYPE == SECONDARY_TYPE:
                waiting.append(entry)
            else:
                waiting = []
            if waiting and len(waiting) == needed:
                with suppress(GuestDamaged):
                    yield _name(waiting), (first, _parse(waiting))
                waiting = []


def _following(cluster: int) -> int:
    return cluster + 1


def _check(boot: ExfatBootSector) -> None:
    if boot.magic != layout.EXFAT_MAGIC:
        raise _boot_damaged("magic number", boot.magic, str(layout.EXFAT_MAGIC))
    low, high = layout.EXFAT_SECTOR_SHIFTS
    if not low <= boot.sector_shift <= high:
        raise _boot_damaged("log2 of the sector size", boot.sector_shift, f"{low} to {high}")
    most = layout.EXFAT_MAX_CLUSTER_SHIFT - boot.sector_shift
    if boot.cluster_shift > most:
        raise _boot_damaged("log2 of the sectors per cluster", boot.cluster_shift, f"at most {most}")
    if boot.tables not in (1, 2):
        raise _boot_damaged("number of tables", boot.tables, "1 or 2")
    most = (boot.table_length << boot.sector_shift) // 4 - FIRST_CLUSTER
    if not 1 <= boot.clusters <= most:
        raise _boot_damaged("number of clusters", boot.clusters, f"1 to {most}, the entries of its table")


def _boot_damaged(field: str, value: int | bytes, limit: str) -> StructureDamaged:
    return StructureDamaged("exfat boot sector", field, value, limit)


def _parse(entries: Sequence[bytes]) -> ExfatInode:
    """Decode the entries of a file. Raises StructureDamaged."""
    kind, count, checksum, attributes, written, read, written_hundredths, written_zone, read_zone = (
        EXFAT_FILE.unpack(entries[0])
    )
    if kind != FILE_TYPE:
        raise _damaged("type", f"{kind:#x}", f"{FILE_TYPE:#x}")
    if len(entries) != count + 1 or count < MIN_SECONDARY:
        raise _damaged("number of entries after it", len(entries) - 1, f"{max(count, MIN_SECONDARY)}")
    if entries[1][0] != STREAM_TYPE:
        raise _damaged("type of the entry after it", f"{entries[1][0]:#x}", f"{STREAM_TYPE:#x}")
    computed = _checksum(entries)
    if computed != checksum:
        raise _damaged("checksum", f"{checksum:#06x}", f"{computed:#06x}")
    _, flags, _, valid, cluster, size = EXFAT_STREAM.unpack(entries[1])
    if size > MAX_SIZE:
        raise _damaged("size", size, f"at most {MAX_SIZE} bytes")
    if valid > size:
        raise _damaged("valid length", valid, f"at most {size}, the file's size")
    return ExfatInode(
        attributes,
        _time(written, written_hundredths, written_zone),
        _time(read, 0, read_zone),
        not flags & NO_CHAIN,
        cluster,
        valid,
        size,
    )


def _damaged(field: str, value: int | str, limit: str) -> StructureDamaged:
    return StructureDamaged("exfat file entry", field, value, limit)


def _name(entries: Sequence[bytes]) -> bytes:
    units = EXFAT_STREAM.read(entries[1]).name_length
    parts = [entry[NAME_UNITS_OFFSET:] for entry in entries[2:] if entry[0] == NAME_TYPE]
    return utf8(b"".join(parts)[: units * 2])


def _time(stamp: int, hundredths: int, zone: int) -> int:
    """ns since 1970 of a time stamp (date and time as in FAT), hundredths of a second and a time zone."""
    time = dos_time(stamp >> 16, stamp & 0xFFFF)
    if hundredths < 200:
        time += hundredths * 10_000_000
    if zone & 0x80:  # quarters of an hour east of UTC, 7 bits with a sign
        time -= ((zone & 0x7F ^ 0x40) - 0x40) * 900 * 1_000_000_000
    return clamp(time)


def _checksum(entries: Sequence[bytes]) -> int:
    """The checksum of a file's entries, section 6.3.3."""
    total = 0
    for offset, byte in enumerate(b"".join(entries)):
        if offset not in layout.CHECKSUM_BYTES:
            total = ((total >> 1 | total << 15) + byte) & 0xFFFF
    return total


EXFAT: Final = FileSystemFormat(
    "exfat",
    ExfatFileSystem,
    (Signature(layout.EXFAT_MAGIC_OFFSET, layout.EXFAT_MAGIC, Trust.FIRST_SECTOR),),
)
