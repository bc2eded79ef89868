"""What a backup will hold: each source with what it is taken for and where it stands. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.base.errors import Refused
from holdfast.formats.disks.open import suffix_format
from holdfast.formats.dumps.engines import refusal
from holdfast.ingest.backup.errors import CutOffDisk, UnknownForm
from holdfast.ingest.backup.recognise import OTHER_DUMP, PLAIN_FILE, RAW_DISK, SECTOR, Form, recognise
from holdfast.ingest.exports.export import VmExport
from holdfast.ingest.nbd.source import NbdSource
from holdfast.ingest.sources.compressed import PEEK, DecompressedSource, compression, unpacked_head
from holdfast.ingest.sources.image import BytesSource, ImageSource
from holdfast.ingest.sources.source import FileSource, Source
from holdfast.ingest.sources.wrapped import Peeked, ScannedSource, UnpackedSource
from holdfast.repo.snapshots.snapshot import ItemKind, SubjectKind, check_item_path

_FORMS = {SubjectKind.VM: RAW_DISK, SubjectKind.DATABASE: OTHER_DUMP, SubjectKind.FILES: PLAIN_FILE}


@dataclass(frozen=True, slots=True)
class Part:
    """A source, its form and its path in the snapshot.

    `bitmap` names the dirty bitmap of a live disk that tells what changed since the parent snapshot,
    `checkpoint` the one that began to record when this backup's data is from; "" for none.
    """

    source: Source
    form: Form
    path: str
    source_format: str = ""
    bitmap: str = ""
    checkpoint: str = ""


def plan_parts(
    sources: Sequence[Source],
    kind: SubjectKind | None,
    *,
    said: Form | None = None,
    bitmap: str = "",
    checkpoint: str = "",
) -> tuple[Part, ...]:
    """One part for each source, recognised by its name and first bytes unless `kind` says more, or `said`
    everything.

    Raises Refused when two of them would stand at one path, ImageDamaged for a raw disk that is cut off.
    """
    sources = [_unpacked(source, kind, said) for source in sources]
    forms = [said or _form(source, kind) for source in sources]
    paths = _item_paths(sources, forms, kind or forms[0].subject)
    return tuple(
        Part(
            _scanned(source, form),
            form,
            path,
            source_format=_source_format(source, form),
            bitmap=bitmap if isinstance(source, NbdSource) else "",
            checkpoint=checkpoint if form.item is ItemKind.DISK else "",
        )
        for source, form, path in zip(sources, forms, paths, strict=True)
    )


def plan_dump(source: Source, path: str) -> Part:
    """What a database's own tool prints, at a path of the snapshot, recognised by its first bytes."""
    form = recognise(source.head, path, source.size)
    return Part(_scanned(source, form), form, path)


def plan_export(export: VmExport, *, checkpoint: str = "") -> tuple[Part, ...]:
    """The disks of an export and its definition files. Raises ImageDamaged for a raw disk that is cut off."""
    for disk in export.disks:
        _check_sectors(disk.files[0], disk.image.size)
    disks = [
        Part(
            ImageSource(disk.image, disk.name, mtime=disk.mtime, changed=export.changed),
            RAW_DISK,
            f"disks/{disk.name}.raw",
            source_format=disk.image.format,
            checkpoint=checkpoint,
        )
        for disk in export.disks
    ]
    definitions = [
        Part(BytesSource(each.data, each.name, mtime=each.mtime), PLAIN_FILE, f"definition/{each.name}")
        for each in export.definitions
    ]
    return (*disks, *definitions)


def _unpacked(source: Source, kind: SubjectKind | None, said: Form | None) -> Source:
    """A compressed dump becomes what it holds; any other compressed file is kept as it is, and so is a disk:
    what that begins with is the guest's to write."""
    format_ = compression(source.head) if kind in (None, SubjectKind.DATABASE) else ""
    if not format_ or (said or _form(source, kind)).item is ItemKind.DISK:
        return source
    if not unpacked_head(source.head):
        source = Peeked(source, PEEK)
    unpacked = DecompressedSource(source, format_)
    form = said or recognise(unpacked.head, unpacked.plain_name, None)
    return unpacked if unpacked.head and form.item is ItemKind.DUMP else source


def _scanned(source: Source, form: Form) -> Source:
    if form.format is not None and form.format.unpack is not None:
        return UnpackedSource(source, form.format.unpack())
    if form.format is not None and form.format.scan is not None:
        return ScannedSource(source, form.format.scan())
    return source


def _source_format(source: Source, form: Form) -> str:
    if isinstance(source, ImageSource):
        return source.format
    if isinstance(source, NbdSource):
        return "nbd"
    if isinstance(source, DecompressedSource):
        return source.format
    if form.format is not None and form.format.unpack is not None:
        return form.format.name  # what is stored is not what came: it is put together again when it is read
    return "raw" if form.item is ItemKind.DISK else ""


def _form(source: Source, kind: SubjectKind | None) -> Form:
    if isinstance(source, ImageSource | NbdSource):
        return RAW_DISK
    if isinstance(source, FileSource) and kind is not SubjectKind.FILES:
        if source.is_device and kind is None:
            return RAW_DISK
        # By its name alone: what it begins with is the guest's to write, a dump's first line among it.
        if kind in (None, SubjectKind.VM) and suffix_format(source.name) == "raw":
            _check_sectors(source.name, source.size or 0)
            return RAW_DISK
    if kind is not SubjectKind.FILES and (reason := refusal(source.head)):
        raise UnknownForm(source.name, reason)
    found = recognise(source.head, _name(source), source.size)
    if kind is None or found.subject is kind:
        return found
    if kind is SubjectKind.VM and (source.size or 0) % SECTOR:
        return found  # no disk, whatever the user calls the whole: a definition
    return _FORMS[kind]


def _check_sectors(name: str, size: int) -> None:
    """Only raw disks can have a size that no disk has."""
    if not size or size % SECTOR:
        whole = size // SECTOR * SECTOR
        reason = f"the file has {size} bytes and ends inside a sector: a raw disk that is cut off"
        reason = reason if size else "an empty file is no disk"
        raise CutOffDisk(name, f"{reason}, or none", offset=whole)


def _item_paths(sources: Sequence[Source], forms: Sequence[Form], kind: SubjectKind) -> list[str]:
    paths = [
        _item_path(source, form, kind, alone=len(sources) == 1)
        for source, form in zip(sources, forms, strict=True)
    ]
    for path in paths:
        try:
            check_item_path(path)
        except ValueError as error:
            raise Refused(str(error)) from None
        if paths.count(path) > 1:
            raise Refused(f"two sources would both be {path} in the snapshot; back them up one by one")
    return paths


def _item_path(source: Source, form: Form, kind: SubjectKind, *, alone: bool) -> str:
    if form.item is ItemKind.DISK and kind is SubjectKind.VM:
        stem = source.name.rsplit(".", 1)[0] if "." in source.name.strip(".") else source.name
        return f"disks/{stem}.raw"
    if kind is SubjectKind.VM:
        return f"definition/{source.name}"
    if form.item is ItemKind.DUMP and alone and form.file_name:
        return form.file_name
    return _name(source)


def _name(source: Source) -> str:
    return source.plain_name if isinstance(source, DecompressedSource) else source.name
