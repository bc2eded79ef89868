"""Opens the inputs of `holdfast backup`: exports, disk images, live disks, files, pipes, commands."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from holdfast.base.errors import Refused, StreamFailed
from holdfast.base.types import ProgressFunction
from holdfast.formats.disks.base.files import OpenFile
from holdfast.formats.disks.open import image_format, open_image
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.ingest.backup.plan import PlannedItem, plan_export, plan_items
from holdfast.ingest.backup.recognise import SourceType
from holdfast.ingest.exports.companions import companions_for
from holdfast.ingest.exports.recognise import find_export
from holdfast.ingest.nbd.source import NbdSource
from holdfast.ingest.nbd.uri import is_nbd_uri
from holdfast.ingest.sources.compressed import compression, unpacked_head
from holdfast.ingest.sources.image import ImageSource
from holdfast.ingest.sources.source import CommandSource, FileSource, Source, StreamSource, origin_of
from holdfast.repo.snapshots.snapshot import Origin, SubjectKind
from holdfast.servers.base.folder import plan_folder
from holdfast.tasks.source_errors import UnknownDirectory

_SHORTEST: Final = 100
"""Bytes that no compressed nothing has: xz takes 32."""
_NO_BITMAP: Final = "only a live disk (nbd://...) has dirty bitmaps; nothing was stored"


@dataclass(frozen=True, slots=True)
class Stream:
    """Where a stream comes from, and its name. `command` empty: standard input."""

    name: str
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """The user's options for disk images. `backing` are further files that images may refer to."""

    disk_format: str | None = None
    backing: tuple[Path, ...] = ()
    follow_backing: bool = False
    bitmap: str = ""
    checkpoint: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is to be read. `name` and `uuid` are the VM's own, "" when nothing says them; `engine` and
    `facts` are a database's. `where` tells the subject apart, unless it is `movable` and gets a name."""

    items: tuple[PlannedItem, ...]
    name: str = ""
    uuid: str = ""
    origin: str = ""
    where: Origin = field(default_factory=Origin)
    movable: bool = True
    kind: SubjectKind | None = None
    warnings: tuple[str, ...] = ()
    engine: str = ""
    facts: DumpFacts = field(default_factory=DumpFacts)


def open_stream(
    stack: ExitStack, stream: Stream, kind: SubjectKind | None, said: SourceType | None = None
) -> Inputs:
    """A pipe, or a command that starts now; `said` is what the user says it is."""
    source = (
        CommandSource(stream.command, stream.name)
        if stream.command
        else StreamSource(sys.stdin.buffer, stream.name)
    )
    stack.callback(source.close)
    if not source.head or (compression(source.head) and not _holds_anything(source)):
        source.finish()  # a command that failed says more
        whence = stream.command[0] if stream.command else "the pipe"
        raise StreamFailed(
            f"nothing came from {whence}: what was to be backed up failed, or is empty; nothing was stored"
        )
    return Inputs(plan_items([source], kind, said=said), kind=kind)


def _holds_anything(source: StreamSource) -> bool:
    """False for a short compressed stream of nothing: what a failed command becomes behind gzip."""
    return len(source.head) > _SHORTEST or bool(unpacked_head(source.head))


def open_paths(
    stack: ExitStack,
    paths: Sequence[str],
    kind: SubjectKind | None,
    options: ImageOptions,
    progress: ProgressFunction,
    *,
    said: SourceType | None = None,
) -> Inputs:
    """One export as a whole, one folder of a database's tool, or any number of images, live disks and files.

    `progress` counts bytes of an export that must be hashed or unpacked before anything else. Raises
    SourceError, Refused and their like.
    """
    if len(paths) == 1 and kind in (None, SubjectKind.VM) and not is_nbd_uri(paths[0]):
        found = _open_export(stack, Path(paths[0]), options, progress)
        if found is not None:
            return found
    if len(paths) == 1 and kind is SubjectKind.DATABASE and Path(paths[0]).is_dir():
        return _open_pieces(stack, Path(paths[0]), options)
    sources = [_open(stack, path, kind, options) for path in paths]
    if options.bitmap and not any(isinstance(source, NbdSource) for source in sources):
        raise Refused(_NO_BITMAP)
    items = plan_items(sources, kind, said=said, bitmap=options.bitmap, checkpoint=options.checkpoint)
    return Inputs(items, kind=kind, where=origin_of(Path(paths[0])) if not is_nbd_uri(paths[0]) else Origin())


def _open_export(
    stack: ExitStack, path: Path, options: ImageOptions, progress: ProgressFunction
) -> Inputs | None:
    export = find_export(
        path,
        follow_backing=options.follow_backing,
        named=options.backing,
        disk_format=options.disk_format,
        scratch=Path(tempfile.gettempdir()),
        progress=progress,
    )
    if export is None:
        return None
    stack.enter_context(export)
    if options.bitmap:
        raise Refused(_NO_BITMAP)
    return Inputs(
        plan_export(export, checkpoint=options.checkpoint),
        name=export.name,
        uuid=export.uuid,
        origin=path.name or path.resolve().name or str(path),
        where=origin_of(path),
        kind=SubjectKind.VM,
        warnings=export.warnings,
    )


def _open_pieces(stack: ExitStack, folder: Path, options: ImageOptions) -> Inputs:
    """Open the files that a database's own tool wrote into one directory."""
    if options.bitmap:
        raise Refused(_NO_BITMAP)
    items, warnings = plan_folder(folder)
    for item in items:
        stack.callback(item.source.close)
    origin = folder.name or folder.resolve().name or str(folder)
    return Inputs(items, origin=origin, where=origin_of(folder), kind=SubjectKind.DATABASE, warnings=warnings)


def _open(stack: ExitStack, path: str, kind: SubjectKind | None, options: ImageOptions) -> Source:
    if is_nbd_uri(path):
        return stack.enter_context(NbdSource(path, bitmap=options.bitmap))
    if Path(path).is_dir():
        raise UnknownDirectory(path)
    if kind in (None, SubjectKind.VM):
        image = _open_image(stack, Path(path), options)
        if image is not None:
            return image
    return stack.enter_context(FileSource(Path(path)))


def _open_image(stack: ExitStack, path: Path, options: ImageOptions) -> ImageSource | None:
    """Open the disk in an image; None for files that are stored unchanged, such as raw disks."""
    with ExitStack() as attempt:
        file = attempt.enter_context(OpenFile(path))
        format_ = options.disk_format
        if format_ is None:
            format_ = None if file.is_device else image_format(file)
            if format_ in (None, "raw"):
                return None
        companions = attempt.enter_context(companions_for(path, options.backing, options.follow_backing))
        image = open_image(file, companions, format_)
        stack.push(attempt.pop_all())
    mtime = file.status.st_mtime_ns

    def changed() -> list[str]:
        return [path.name] * file.changed() + companions.changed()

    return ImageSource(image, path.name, mtime=mtime, changed=changed)
