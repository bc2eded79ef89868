"""Recognises the type of a source by its first bytes, its name and its size."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.formats.dumps.core.engine import DumpFormat
from holdfast.formats.dumps.engines import RecognisedDump, recognise_dump, text_format
from holdfast.repo.chunks.chunker import BLOCK, DISK, DUMP, STREAM, ChunkerSpec
from holdfast.repo.snapshots.snapshot import ItemKind, SubjectKind

SECTOR = 512
_DISK_SUFFIXES = (".raw", ".img", ".dd")


@dataclass(frozen=True, slots=True)
class SourceType:
    """What a source was recognised as. `format` is that of a dump, None if no scanner reads the source."""

    item: ItemKind
    chunker: ChunkerSpec
    engine: str = ""
    file_name: str = ""
    format: DumpFormat | None = None

    @property
    def subject(self) -> SubjectKind:
        """The kind of subject that such an item belongs to, unless the user says otherwise."""
        kinds = {ItemKind.DISK: SubjectKind.VM, ItemKind.DUMP: SubjectKind.DATABASE}
        return kinds.get(self.item, SubjectKind.FILES)


RAW_DISK = SourceType(ItemKind.DISK, DISK)
PLAIN_FILE = SourceType(ItemKind.FILE, STREAM)
OTHER_DUMP = SourceType(ItemKind.DUMP, DUMP, "other", "dump.sql")


def sql_dump(engine: str) -> SourceType:
    """The type of a source that the user says is SQL text of this engine. Raises Refused if it has none."""
    return _of_dump(text_format(engine))


def _of_dump(dump: RecognisedDump) -> SourceType:
    return SourceType(ItemKind.DUMP, DUMP, dump.engine.name, dump.format.file_name, dump.format)


def recognise(head: bytes, name: str, size: int | None) -> SourceType:
    """The type of a source with these first bytes. `size` is None for a stream.

    A stream is taken for a disk only by its partition table; a file also by its suffix.
    """
    dump = recognise_dump(head)
    if dump is not None:
        return _of_dump(dump)
    if size is not None and size % SECTOR == 0 and size >= BLOCK and name.lower().endswith(_DISK_SUFFIXES):
        return RAW_DISK
    whole_sectors = size is None or (size % SECTOR == 0 and size >= 1 << 20)
    if whole_sectors and _has_partition_table(head):
        return RAW_DISK
    if name.lower().endswith(".sql"):
        return OTHER_DUMP
    return PLAIN_FILE


def _has_partition_table(head: bytes) -> bool:
    """A GPT header in the second sector, or an MBR whose four entries make sense."""
    if head[SECTOR : SECTOR + 8] == b"EFI PART":
        return True
    if len(head) < SECTOR or head[510:512] != b"\x55\xaa":
        return False
    entries = [head[446 + 16 * n : 462 + 16 * n] for n in range(4)]
    return all(e[0] in (0, 0x80) for e in entries) and any(e[4] and any(e[12:16]) for e in entries)
