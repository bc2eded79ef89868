"""Plans the items of a backup: the type and the path in the snapshot of each source. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.base.errors import Refused
from holdfast.formats.disks.open import suffix_format
from holdfast.formats.dumps.engines import refusal
from holdfast.ingest.backup.errors import CutOffDisk, UnknownSourceType
from holdfast.ingest.backup.recognise import OTHER_DUMP, PLAIN_FILE, RAW_DISK, SECTOR, SourceType, recognise
from holdfast.ingest.exports.export import VmExport
from holdfast.ingest.nbd.source import NbdSource
from holdfast.ingest.sources.compressed import PEEK, DecompressedSource, compression, unpacked_head
from holdfast.ingest.sources.image import BytesSource, ImageSource
from holdfast.ingest.sources.source import FileSource, Source
from holdfast.ingest.sources.wrapped import Peeked, ScannedSource, UnpackedSource
from holdfast.repo.snapshots.snapshot import ItemKind, SubjectKind, check_item_path

_FORMS = {SubjectKind.VM: RAW_DISK, SubjectKind.DATABASE: OTHER_DUMP, SubjectKind.FILES: PLAIN_FILE}


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """A source to back up, what it was recognised as, and its path in the snapshot.

    `bitmap` names the dirty bitmap of a live disk that tells what changed since the parent snapshot,
    `checkpoint` the one that began to record when this backup's data is from; "" for none.
    """

    source: Source
    source_type: SourceType
    path: str
    source_format: str = ""
    bitmap: str = ""
    checkpoint: str = ""


def plan_items(
    sources: Sequence[Source],
    kind: SubjectKind | None,
    *,
    said: SourceType | None = None,
    bitmap: str = "",
    checkpoint: str = "",
) -> tuple[PlannedItem, ...]:
    """Plan one item for each source, recognised by its name and first bytes unless `kind` says more, or
    `said` everything.

    Raises Refused when two of them would stand at one path, ImageDamaged for a raw disk that is cut off.
    """
    sources = [_unpacked(source, kind, said) for source in sources]
    types = [said or _source_type(source, kind) for source in sources]
    paths = _item_paths(sources, types, kind or types[0].subject)
    return tuple(
        PlannedItem(
            _scanned(source, source_type),
            source_type,
            path,
            source_format=_source_format(source, source_type),
            bitmap=bitmap if isinstance(source, NbdSource) else "",
            checkpoint=checkpoint if source_type.item is ItemKind.DISK else "",
        )
        for source, source_type, path in zip(sources, types, paths, strict=True)
    )


def plan_dump(source: Source, path: str) -> PlannedItem:
    """Plan the output of a database's own tool, recognised by its first bytes, at a path in the snapshot."""
    source_type = recognise(source.head, path, source.size)
    return PlannedItem(_scanned(source, source_type), source_type, path)


def plan_export(export: VmExport, *, checkpoint: str = "") -> tuple[PlannedItem, ...]:
    """Plan the disks of an export and its definition files.

    Raises ImageDamaged for a raw disk that is cut off.
    """
    for disk in export.disks:
        _check_sectors(disk.files[0], disk.image.size)
    disks = [
        PlannedItem(
            ImageSource(disk.image, disk.name, mtime=disk.mtime, changed=export.changed),
            RAW_DISK,
            f"disks/{disk.name}.raw",
            source_format=disk.image.format,
            checkpoint=checkpoint,
        )
        for disk in export.disks
    ]
    definitions = [
        PlannedItem(
            BytesSource(each.data, each.name, mtime=each.mtime), PLAIN_FILE, f"definition/{each.name}"
        )
        for each in export.definitions
    ]
    return (*disks, *definitions)


def _unpacked(source: Source, kind: SubjectKind | None, said: SourceType | None) -> Source:
    """Wrap a compressed dump in its decompressor; leave every other source as it is.

    A disk is never decompressed, because the guest decides about its first bytes."""
    format_ = compression(source.head) if kind in (None, SubjectKind.DATABASE) else ""
    if not format_ or (said or _source_type(source, kind)).item is ItemKind.DISK:
        return source
    if not unpacked_head(source.head):
        source = Peeked(source, PEEK)
    unpacked = DecompressedSource(source, format_)
    source_type = said or recognise(unpacked.head, unpacked.plain_name, None)
    return unpacked if unpacked.head and source_type.item is ItemKind.DUMP else source


def _scanned(source: Source, source_type: SourceType) -> Source:
    if source_type.format is not None and source_type.format.unpack is not None:
        return UnpackedSource(source, source_type.format.unpack())
    if source_type.format is not None and source_type.format.scan is not None:
        return ScannedSource(source, source_type.format.scan())
    return source


def _source_format(source: Source, source_type: SourceType) -> str:
    if isinstance(source, ImageSource):
        return source.format
    if isinstance(source, NbdSource):
        return "nbd"
    if isinstance(source, DecompressedSource):
        return source.format
    if source_type.format is not None and source_type.format.unpack is not None:
        return source_type.format.name  # stored unpacked, packed again when read
    return "raw" if source_type.item is ItemKind.DISK else ""


def _source_type(source: Source, kind: SubjectKind | None) -> SourceType:
    if isinstance(source, ImageSource | NbdSource):
        return RAW_DISK
    if isinstance(source, FileSource) and kind is not SubjectKind.FILES:
        if source.is_device and kind is None:
            return RAW_DISK
        # Only by its name: the guest could write a dump's first line to the start of its disk.
        if kind in (None, SubjectKind.VM) and suffix_format(source.name) == "raw":
            _check_sectors(source.name, source.size or 0)
            return RAW_DISK
    if kind is not SubjectKind.FILES and (reason := refusal(source.head)):
        raise UnknownSourceType(source.name, reason)
    recognised = recognise(source.head, _name(source), source.size)
    if kind is None or recognised.subject is kind:
        return recognised
    if kind is SubjectKind.VM and (source.size or 0) % SECTOR:
        return recognised  # a disk has whole sectors, so this is a file of the VM's definition
    return _FORMS[kind]


def _check_sectors(name: str, size: int) -> None:
    """Raise CutOffDisk for a raw disk that is empty or not a multiple of the sector size."""
    if not size or size % SECTOR:
        whole = size // SECTOR * SECTOR
        reason = f"the file has {size} bytes and ends inside a sector: a raw disk that is cut off"
        reason = reason if size else "an empty file is no disk"
        raise CutOffDisk(name, f"{reason}, or none", offset=whole)


def _item_paths(sources: Sequence[Source], types: Sequence[SourceType], kind: SubjectKind) -> list[str]:
    paths = [
        _item_path(source, source_type, kind, alone=len(sources) == 1)
        for source, source_type in zip(sources, types, strict=True)
    ]
    for path in paths:
        try:
            check_item_path(path)
        except ValueError as error:
            raise Refused(str(error)) from None
        if paths.count(path) > 1:
            raise Refused(f"two sources would both be {path} in the snapshot; back them up one by one")
    return paths


def _item_path(source: Source, source_type: SourceType, kind: SubjectKind, *, alone: bool) -> str:
    if source_type.item is ItemKind.DISK and kind is SubjectKind.VM:
        stem = source.name.rsplit(".", 1)[0] if "." in source.name.strip(".") else source.name
        return f"disks/{stem}.raw"
    if kind is SubjectKind.VM:
        return f"definition/{source.name}"
    if source_type.item is ItemKind.DUMP and alone and source_type.file_name:
        return source_type.file_name
    return _name(source)


def _name(source: Source) -> str:
    return source.plain_name if isinstance(source, DecompressedSource) else source.name
