"""Restoring items: as they are stored, or disks in another format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from holdfast.base.errors import HoldfastError, Refused
from holdfast.base.targets import (
    DeviceTarget,
    FileTarget,
    TargetError,
    check_free,
    is_device,
)
from holdfast.base.types import ProgressFunction
from holdfast.cli.base.context import Settings
from holdfast.cli.base.render import count, duration, escape, rate, size
from holdfast.formats.disks.export import ViewTarget, stored_view
from holdfast.formats.dumps.virtual_files import MadeFile, stream
from holdfast.repo.chunks.recipe import Recipe
from holdfast.repo.core.read_back import gaps, read_back
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item, ItemKind

_CACHE = 32 << 20
_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How items are restored."""

    force: bool
    overwrite: bool
    sparse: bool
    verify: bool


@dataclass(frozen=True, slots=True)
class Job:
    """An item, where it goes, and the format that it gets there; with `made` the file at `name` that is made
    out of the item."""

    item: Item
    path: Path
    format: str = "raw"
    made: MadeFile | None = None
    name: str = ""

    @property
    def shown(self) -> str:
        return self.name or self.item.path

    @property
    def size(self) -> int:
        return self.made.composed.size if self.made else self.item.size

    @property
    def allocated(self) -> int:
        return self.made.composed.size if self.made else self.item.allocated


def plan(items: Sequence[Item], path: str, target: str, format_: str) -> list[Job]:
    """What goes where; disks in the format. Raises Refused when several things would go to one place that
    is no folder."""
    place = Path(target)
    if len(items) == 1 and items[0].path == path:
        if target.endswith("/") or place.is_dir():
            place /= PurePosixPath(_renamed(items[0], format_)).name
        return [Job(items[0], place, _format(items[0], format_))]
    if place.exists() and not place.is_dir():
        one = f"`SNAPSHOT:{items[0].path}` names a single one"
        raise Refused(f"{target} is no folder, and a whole snapshot needs one; {one}; nothing was written")
    return [Job(item, place / _renamed(item, format_), _format(item, format_)) for item in items]


def plan_made(found: Mapping[str, MadeFile], path: str, target: str) -> list[Job]:
    """The same for files that are made out of dumps. Raises Refused for symbolic links too: where they led
    on the server says nothing here."""
    links = [name for name, file in found.items() if file.composed.target]
    if links:
        raise Refused(
            f"{links[0]} is a symbolic link to {found[links[0]].composed.target}; restore the cluster as a "
            "whole, or its files one by one; nothing was written"
        )
    place = Path(target)
    if list(found) == [path]:
        if target.endswith("/") or place.is_dir():
            place /= PurePosixPath(path).name
        return [Job(found[path].item, place, made=found[path], name=path)]
    if place.exists() and not place.is_dir():
        raise Refused(f"{target} is no folder, and {path} is more than one file; nothing was written")
    return [
        Job(f.item, place / name[len(path) :].lstrip("/"), made=f, name=name) for name, f in found.items()
    ]


def _format(item: Item, format_: str) -> str:
    return format_ if item.kind is ItemKind.DISK else "raw"


def _renamed(item: Item, format_: str) -> str:
    """The path of an item in a format: `disks/sda.raw` becomes `disks/sda.qcow2`."""
    return item.path if _format(item, format_) == "raw" else f"{item.path.removesuffix('.raw')}.{format_}"


def refuse_early(settings: Settings, jobs: Sequence[Job], options: ImageOptions) -> None:
    """Everything that can be told before the first byte is written."""
    root = settings.root.resolve()
    for job in jobs:
        if is_device(job.path):
            if job.made is not None:
                raise Refused(
                    f"{job.path} is a block device, and {job.shown} is no disk; nothing was written"
                )
            if job.format != "raw":
                raise Refused(f"{job.path} is a block device, which takes the disk itself: --format raw")
            if not options.force:
                raise Refused(f"{job.path} is a block device: --force writes over all that is on it")
            continue
        if job.path.resolve().is_relative_to(root):
            raise Refused(f"{job.path} is inside the repository; nothing was written")
        if job.path.is_file() and not options.overwrite:
            raise Refused(f"{job.path} exists already; --overwrite replaces it; nothing was written")
        check_free(job.path, overwrite=True)


def restore_items(
    settings: Settings,
    repository: Repository,
    jobs: Sequence[Job],
    options: ImageOptions,
    add: ProgressFunction,
) -> None:
    """Run the jobs. A file that is not complete in the end is removed."""
    for job in jobs:
        if is_device(job.path):
            _to_device(settings, repository, job, options, add)
        else:
            _to_file(repository, job, options, add)


def _to_device(
    settings: Settings,
    repository: Repository,
    job: Job,
    options: ImageOptions,
    add: ProgressFunction,
) -> None:
    reader = Reader(repository)
    recipe = reader.recipe(job.item)
    with DeviceTarget(job.path, job.item.size) as device:
        settings.if_interrupted = f"{job.path} is written in part; run it again"
        try:
            for offset, length in gaps(recipe, repository.keys):
                device.clear(offset, length)
            Restorer(repository, reader).to_target(recipe, device, add)
        except HoldfastError:
            settings.output.warn(f"{job.path} is written in part")
            raise
        if options.verify:
            read_back(recipe, repository.keys, device, add)
    if device.capacity > job.item.size:
        left = size(device.capacity - job.item.size)
        settings.output.note(
            f"{job.path} is {left} larger than the image; what was there is as it was. "
            "A GPT disk wants its second table moved to the end: `sgdisk -e`"
        )


def _to_file(repository: Repository, job: Job, options: ImageOptions, add: ProgressFunction) -> None:
    if job.made is not None:
        _make_file(repository, job, options, add)
        return
    reader = Reader(repository)
    recipe = reader.recipe(job.item)
    with _target(job, recipe, options) as file:
        Restorer(repository, reader).to_target(recipe, file, add)
        if options.verify:
            read_back(recipe, repository.keys, file, add)
            if isinstance(file, ViewTarget):
                file.compare_tables()


def _make_file(repository: Repository, job: Job, options: ImageOptions, add: ProgressFunction) -> None:
    assert job.made is not None
    reader = Reader(repository, chunk_cache=_CACHE)
    data = stream(job.made.composed, reader.recipe(job.item), reader, Restorer(repository, reader))
    mtime = job.item.mtime if job.made.composed.mtime is None else job.made.composed.mtime
    written, at = blake2b(), 0
    with FileTarget(job.path, job.size, sparse=False, overwrite=options.overwrite, mtime=mtime) as file:
        for part in data:
            file.write(at, part)
            at += len(part)
            add(len(part))
            if options.verify:
                written.update(part)
        if options.verify:
            _read_back_made(file, job.size, written.digest(), add)


def _read_back_made(file: FileTarget, length: int, written: bytes, add: ProgressFunction) -> None:
    """Such a file has no recipe of its own to compare it with. Raises TargetError."""
    file.settle()
    read = blake2b()
    for at in range(0, length, _STEP):
        data = file.read(at, min(_STEP, length - at))
        read.update(data)
        add(len(data))
    if read.digest() != written:
        raise TargetError(f"{file.path} reads back differently: its disk or memory is faulty")


def _target(job: Job, recipe: Recipe, options: ImageOptions) -> FileTarget:
    """The file as it is stored, or the disk in it in another format."""
    sparse, overwrite, mtime = options.sparse, options.overwrite, job.item.mtime
    if job.format == "raw":
        return FileTarget(job.path, job.item.size, sparse=sparse, overwrite=overwrite, mtime=mtime)
    view = stored_view(job.item, recipe, job.format)
    return ViewTarget(job.path, view, sparse=sparse, overwrite=overwrite, mtime=mtime)


def tell(settings: Settings, jobs: Sequence[Job], seconds: float, options: ImageOptions) -> None:
    """The summary, and a warning for what could not be read when it was backed up."""
    total = sum(job.size for job in jobs)
    allocated = sum(job.allocated for job in jobs)
    settings.output.message(
        "summary",
        action="restore",
        files=[_document(job) for job in jobs],
        size=total,
        allocated=allocated,
        seconds=round(seconds, 3),
        verified=options.verify,
    )
    for job in jobs:
        settings.output.summary(f"{escape(job.shown)} -> {escape(str(job.path))}")
    settings.output.summary(
        f"restored {size(total)} ({size(allocated)} of it data) in {count(len(jobs), 'file')}, "
        f"{duration(seconds)} ({rate(allocated, seconds)})"
        f"{'; read back and compared' if options.verify else ''}"
    )
    for job in jobs:
        if any(not bad.length for bad in job.item.bad):
            settings.output.warn(f"{job.path}: its dump is not whole; `holdfast info` says why")
        elif job.item.bad:
            lost = sum(bad.length for bad in job.item.bad)
            settings.output.warn(
                f"{job.path}: {lost} bytes could not be read when this was backed up and are zeros now; "
                "`holdfast info` of the snapshot lists them"
            )


def _document(job: Job) -> dict[str, object]:
    document: dict[str, object] = {
        "path": job.shown,
        "target": str(job.path),
        "size": job.size,
        "partial": bool(job.item.bad),
    }
    return document if job.format == "raw" else document | {"format": job.format}
