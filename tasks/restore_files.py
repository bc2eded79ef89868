"""Restoring what is outside of guests: items, disks in another format, virtual files of dumps, documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeAlias

from holdfast.base.errors import HoldfastError
from holdfast.base.targets import DeviceTarget, FileTarget, TargetError, check_free, is_device
from holdfast.base.types import Buffer, ProgressFunction
from holdfast.formats.disks.export import ViewTarget, stored_view
from holdfast.repo.core.read_back import gaps, read_back
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item, ItemKind
from holdfast.tasks.restore_errors import (
    DeviceNotConfirmed,
    InsideRepository,
    NeedsDirectory,
    NoDisk,
    NoDiskForDevice,
    NoDiskFormat,
    NoImageOnDevice,
    OtherFormat,
    TargetExists,
)
from holdfast.tree.content import NodeReader
from holdfast.tree.errors import IsLink
from holdfast.tree.nodes import (
    DirectoryNode,
    DiskNode,
    GuestNode,
    ImageNode,
    ItemNode,
    LinkNode,
    Node,
    TextNode,
    VirtualNode,
    walk_nodes,
)
from holdfast.tree.snapshot_tree import SnapshotTree

_STEP: Final = 1 << 20
RAW: Final = "raw"

Restorable: TypeAlias = ItemNode | ImageNode | VirtualNode | TextNode


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How files are restored. `force`: write to block devices. `overwrite`: replace files. `sparse`: leave
    holes as holes. `verify`: read everything back."""

    force: bool
    overwrite: bool
    sparse: bool
    verify: bool


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """A file of a snapshot, the path on the host that it goes to, and the format that a disk gets there."""

    node: Restorable
    target: Path
    format: str = RAW

    @property
    def item(self) -> Item | None:
        """What it comes of; None for a document."""
        return None if isinstance(self.node, TextNode) else self.node.item

    @property
    def source(self) -> str:
        """The path for messages; a disk has its own in every format."""
        return self.node.item.path if isinstance(self.node, ItemNode | ImageNode) else self.node.path

    @property
    def size(self) -> int:
        """Bytes that are restored; of a disk without the tables of its format."""
        return self.node.item.size if isinstance(self.node, ImageNode) else self.node.size

    @property
    def allocated(self) -> int:
        return self.node.item.allocated if isinstance(self.node, ImageNode) else self.node.allocated


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What goes where. `directories` are made before anything is written."""

    jobs: Sequence[RestoreJob]
    directories: Sequence[Path] = ()


# ---- planning -------------------------------------------------------------------------------------------


def plan_restore(tree: SnapshotTree, node: Node, target: str, format_: str | None) -> RestorePlan:
    """Plan which file goes where when a node is restored to `target`; disks get the given format.

    A directory stands for the items below it, which keep their whole paths; one that holds none for the
    virtual files below it, by their paths from there. Images of other formats and documents are restored when
    they are named. Raises IsLink, NeedsDirectory, NoDisk, NoDiskFormat, OtherFormat; Damaged or Unsupported
    when an item cannot be put together.
    """
    place = Path(target)
    if isinstance(node, LinkNode):
        raise IsLink(node.path, node.target)
    assert not isinstance(node, DiskNode | GuestNode)  # restore_guest's
    if not isinstance(node, DirectoryNode):
        format_ = _format_of(node, format_)
        if target.endswith("/") or place.is_dir():
            place /= _renamed(node, format_).rpartition("/")[2]
        return RestorePlan([RestoreJob(node, place, format_)])
    if place.exists() and not place.is_dir():
        raise NeedsDirectory(target, node.path)
    prefix = f"{node.path}/" if node.path else ""
    for path in tree.root.virtual.withheld:
        if path.startswith(prefix):
            raise tree.root.virtual.faults[path]
    below = list(walk_nodes(node))
    items = [one for one in below if isinstance(one, ItemNode) or _is_whole(one)]
    if items:
        jobs = list(_jobs_of_items(items, place, format_, node.path))
    else:
        if format_:
            raise NoDiskFormat(node.path, format_)
        jobs = list(_jobs_of_virtual_files(below, place, len(prefix)))
    return RestorePlan(jobs, sorted({place, *(job.target.parent for job in jobs)}))


def _jobs_of_items(
    nodes: Iterable[Node], place: Path, format_: str | None, path: str
) -> Iterator[RestoreJob]:
    has_disk = False
    for node in nodes:
        assert isinstance(node, ItemNode | VirtualNode)
        is_disk = node.item.kind is ItemKind.DISK
        has_disk |= is_disk
        chosen = format_ or RAW if is_disk else RAW
        yield RestoreJob(node, place / _renamed(node, chosen), chosen)
    if format_ not in (None, RAW) and not has_disk:
        raise NoDisk(path, format_ or RAW)


def _jobs_of_virtual_files(nodes: Iterable[Node], place: Path, prefix: int) -> Iterator[RestoreJob]:
    """Raises IsLink: where a link led on the server says nothing here."""
    for node in nodes:
        if isinstance(node, LinkNode):
            raise IsLink(node.path, node.target)
        if isinstance(node, VirtualNode):
            yield RestoreJob(node, place / node.path[prefix:])


def _is_whole(node: Node) -> bool:
    """Whether a virtual file is the whole of its item, which is stored taken apart."""
    return isinstance(node, VirtualNode) and node.path == node.item.path


def _format_of(node: Restorable, format_: str | None) -> str:
    if isinstance(node, ImageNode):
        if format_ not in (None, node.format):
            raise OtherFormat(node.path, format_ or "")
        return node.format
    if isinstance(node, ItemNode) and node.item.kind is ItemKind.DISK:
        return format_ or RAW
    if isinstance(node, VirtualNode) and format_:
        raise NoDiskFormat(node.path, format_)
    if format_ not in (None, RAW):
        raise NoDisk(node.path, format_ or "")
    return RAW


def _renamed(node: Restorable, format_: str) -> str:
    """The path of a disk in a format: `disks/sda.raw` becomes `disks/sda.qcow2`."""
    if isinstance(node, ItemNode) and format_ != RAW:
        return f"{node.path.removesuffix('.raw')}.{format_}"
    return node.path


def check_targets(root: Path, jobs: Sequence[RestoreJob], options: RestoreOptions) -> None:
    """Check all targets before the first byte is written; `root` is the repository's directory.

    Raises InsideRepository, TargetExists, DeviceNotConfirmed, NoImageOnDevice, NoDiskForDevice, Refused.
    """
    for job in jobs:
        if is_device(job.target):
            if not isinstance(job.node, ItemNode | ImageNode):
                raise NoDiskForDevice(job.target, job.source)
            if job.format != RAW:
                raise NoImageOnDevice(job.target, job.format)
            if not options.force:
                raise DeviceNotConfirmed(job.target)
            continue
        if job.target.resolve().is_relative_to(root.resolve()):
            raise InsideRepository(job.target)
        if job.target.is_file() and not options.overwrite:
            raise TargetExists(job.target)
        check_free(job.target, overwrite=True)


# ---- writing --------------------------------------------------------------------------------------------


def restore_file(
    repository: Repository, files: NodeReader, job: RestoreJob, options: RestoreOptions, add: ProgressFunction
) -> int:
    """Run a job. A file that is not complete in the end is removed. Returns by how many bytes a block device
    is larger than what went there."""
    if isinstance(job.node, VirtualNode):
        _write_stream(job, files.virtual(job.node), options, add)
    elif isinstance(job.node, TextNode):
        _write_stream(job, [job.node.data], options, add)
    elif is_device(job.target):
        return _write_device(repository, job, job.node.item, options, add)
    else:
        _write_item(repository, job, job.node.item, options, add)
    return 0


def _write_device(
    repository: Repository, job: RestoreJob, item: Item, options: RestoreOptions, add: ProgressFunction
) -> int:
    reader = Reader(repository)
    recipe = reader.recipe(item)
    with DeviceTarget(job.target, item.size) as device:
        try:
            for offset, length in gaps(recipe, repository.keys):
                device.clear(offset, length)
            Restorer(repository, reader).to_target(recipe, device, add)
        except HoldfastError as error:
            error.add_note(f"{job.target} is written in part")
            raise
        if options.verify:
            read_back(recipe, repository.keys, device, add)
        return device.capacity - item.size


def _write_item(
    repository: Repository, job: RestoreJob, item: Item, options: RestoreOptions, add: ProgressFunction
) -> None:
    reader = Reader(repository)
    recipe = reader.recipe(item)
    sparse, overwrite = options.sparse, options.overwrite
    if job.format == RAW:
        target = FileTarget(job.target, item.size, sparse=sparse, overwrite=overwrite, mtime=item.mtime)
    else:
        view = stored_view(item, recipe, job.format)
        target = ViewTarget(job.target, view, sparse=sparse, overwrite=overwrite, mtime=item.mtime)
    with target as file:
        Restorer(repository, reader).to_target(recipe, file, add)
        if options.verify:
            read_back(recipe, repository.keys, file, add)
            if isinstance(file, ViewTarget):
                file.compare_tables()


def _write_stream(
    job: RestoreJob, data: Iterable[Buffer], options: RestoreOptions, add: ProgressFunction
) -> None:
    written, at = blake2b(), 0
    size, mtime = job.node.size, job.node.mtime
    with FileTarget(job.target, size, sparse=False, overwrite=options.overwrite, mtime=mtime) as file:
        for part in data:
            file.write(at, part)
            at += len(part)
            add(len(part))
            if options.verify:
                written.update(part)
        if options.verify:
            _compare(file, size, written.digest(), add)


def _compare(file: FileTarget, length: int, written: bytes, add: ProgressFunction) -> None:
    """Such a file has no recipe of its own to compare it with. Raises TargetError."""
    file.settle()
    read = blake2b()
    for at in range(0, length, _STEP):
        data = file.read(at, min(_STEP, length - at))
        read.update(data)
        add(len(data))
    if read.digest() != written:
        raise TargetError(f"{file.path} reads back differently: its disk or memory is faulty")
