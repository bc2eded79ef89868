"""Restoring what is outside of guests: items, disks in another format, virtual files of dumps, documents."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeAlias

from holdfast.base.device_target import DeviceTarget
from holdfast.base.errors import HoldfastError, Refused, TargetError
from holdfast.base.named_paths import without_links
from holdfast.base.target_folder import TargetFolder, refusals
from holdfast.base.targets import FileTarget, check_replaceable
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
    """A file of a snapshot, where on the host it goes to, and the format that a disk gets there.

    `folder` is a path that the user named, links and all; below it lies `name`, in which none is followed.
    """

    node: Restorable
    folder: Path
    name: str
    format: str = RAW

    @property
    def target(self) -> Path:
        return self.folder / self.name

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


# ---- planning -------------------------------------------------------------------------------------------


def plan_restore(tree: SnapshotTree, node: Node, target: str, format_: str | None) -> Sequence[RestoreJob]:
    """Plan which file goes where when a node is restored to `target`; disks get the given format.

    A directory stands for the items below it, which keep their whole paths; one that holds none for the
    virtual files below it, by their paths from there. Images of other formats and documents are restored when
    they are named. Raises IsLink, NeedsDirectory, NoDisk, NoDiskFormat, OtherFormat, ForeignLink, Refused;
    Damaged or Unsupported when an item cannot be put together.
    """
    place = Path(target)
    if isinstance(node, LinkNode):
        raise IsLink(node.path, node.target)
    assert not isinstance(node, DiskNode | GuestNode)  # restore_guest's
    if not isinstance(node, DirectoryNode):
        format_ = _format_of(node, format_)
        if target.endswith("/") or place.is_dir():
            place /= _renamed(node, format_).rpartition("/")[2]
        with refusals("write", place):
            place = without_links(place)  # so that --overwrite replaces the file and not the link
        if not place.parent.is_dir():
            raise Refused(f"{place.parent} is no folder; nothing was written")
        return [RestoreJob(node, place.parent, place.name, format_)]
    if place.exists() and not place.is_dir():
        raise NeedsDirectory(target, node.path)
    prefix = f"{node.path}/" if node.path else ""
    for path in tree.root.virtual.withheld:
        if path.startswith(prefix):
            raise tree.root.virtual.faults[path]
    below = list(walk_nodes(node))
    items = [one for one in below if isinstance(one, ItemNode) or _is_whole(one)]
    if items:
        return list(_jobs_of_items(items, place, format_, node.path))
    if format_:
        raise NoDiskFormat(node.path, format_)
    return list(_jobs_of_virtual_files(below, place, len(prefix)))


def _jobs_of_items(
    nodes: Iterable[Node], place: Path, format_: str | None, path: str
) -> Iterator[RestoreJob]:
    has_disk = False
    for node in nodes:
        assert isinstance(node, ItemNode | VirtualNode)
        is_disk = node.item.kind is ItemKind.DISK
        has_disk |= is_disk
        chosen = format_ or RAW if is_disk else RAW
        yield RestoreJob(node, place, _renamed(node, chosen), chosen)
    if format_ not in (None, RAW) and not has_disk:
        raise NoDisk(path, format_ or RAW)


def _jobs_of_virtual_files(nodes: Iterable[Node], place: Path, prefix: int) -> Iterator[RestoreJob]:
    """Raises IsLink: where a link led on the server says nothing here."""
    for node in nodes:
        if isinstance(node, LinkNode):
            raise IsLink(node.path, node.target)
        if isinstance(node, VirtualNode):
            yield RestoreJob(node, place, node.path[prefix:])


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
        there = _there(job)
        if there is not None and stat.S_ISBLK(there.st_mode):
            _check_device(job, options)
            continue
        if job.target.resolve().is_relative_to(root.resolve()):
            raise InsideRepository(job.target)
        if there is not None:
            check_replaceable(job.target, there, overwrite=True)
            if not options.overwrite:
                raise TargetExists(job.target)


def is_on_device(job: RestoreJob) -> bool:
    """Whether a job goes to a block device."""
    there = _there(job)
    return there is not None and stat.S_ISBLK(there.st_mode)


def _there(job: RestoreJob) -> os.stat_result | None:
    *above, name = map(os.fsencode, job.name.split("/"))
    with refusals("write", job.target), suppress(FileNotFoundError), ExitStack() as stack:
        top = stack.enter_context(closing(TargetFolder.top(job.folder, overwrite=False, make=False)))
        return stack.enter_context(closing(top.below(above))).status(name)
    return None


def _check_device(job: RestoreJob, options: RestoreOptions) -> None:
    if not isinstance(job.node, ItemNode | ImageNode):
        raise NoDiskForDevice(job.target, job.source)
    if job.format != RAW:
        raise NoImageOnDevice(job.target, job.format)
    if not options.force:
        raise DeviceNotConfirmed(job.target)


# ---- writing --------------------------------------------------------------------------------------------


class FilesRestore:
    """One restore of files: the descriptors by which they are written, and which they were."""

    def __init__(self, repository: Repository, files: NodeReader, options: RestoreOptions) -> None:
        self._repository = repository
        self._files = files
        self._options = options
        self._written: set[tuple[int, int]] = set()

    def run(self, job: RestoreJob, add: ProgressFunction) -> int:
        """Run a job. A file that is not complete in the end is removed. Returns by how many bytes a block
        device is larger than what went there.

        Raises as FileTarget and DeviceTarget, ForeignLink, Damaged; TargetError for a link below the folder.
        """
        name = job.name.rpartition("/")[2]
        with closing(self._opened(job)) as folder:
            if folder.has_device(os.fsencode(name)):
                _check_device(job, self._options)
                return self._write_device(job, folder, name, add)
            self._write_file(job, folder, name, add)
        return 0

    def _opened(self, job: RestoreJob) -> TargetFolder:
        """The folder that a job's file goes to, made if need be."""
        overwrite, above = self._options.overwrite, map(os.fsencode, job.name.split("/")[:-1])
        with (
            refusals("write", job.target),
            closing(TargetFolder.top(job.folder, overwrite=overwrite)) as top,
        ):
            return top.within(list(above))

    def _write_device(self, job: RestoreJob, folder: TargetFolder, name: str, add: ProgressFunction) -> int:
        assert isinstance(job.node, ItemNode | ImageNode)
        repository, item = self._repository, job.node.item
        reader = Reader(repository)
        recipe = reader.recipe(item)
        with DeviceTarget(folder, name, item.size) as device:
            try:
                for offset, length in gaps(recipe, repository.keys):
                    device.clear(offset, length)
                Restorer(repository, reader).to_target(recipe, device, add)
            except HoldfastError as error:
                error.add_note(f"{job.target} is written in part")
                raise
            if self._options.verify:
                read_back(recipe, repository.keys, device, add)
            return device.capacity - item.size

    def _write_file(self, job: RestoreJob, folder: TargetFolder, name: str, add: ProgressFunction) -> None:
        if isinstance(job.node, VirtualNode):
            self._write_stream(job, self._files.virtual(job.node), folder, name, add)
        elif isinstance(job.node, TextNode):
            self._write_stream(job, [job.node.data], folder, name, add)
        else:
            self._write_item(job.node.item, job.format, folder, name, add)

    def _write_item(
        self, item: Item, format_: str, folder: TargetFolder, name: str, add: ProgressFunction
    ) -> None:
        repository, sparse, written = self._repository, self._options.sparse, self._written
        reader = Reader(repository)
        recipe = reader.recipe(item)
        if format_ == RAW:
            target = FileTarget(folder, name, item.size, sparse=sparse, mtime=item.mtime, written=written)
        else:
            view = stored_view(item, recipe, format_)
            target = ViewTarget(folder, name, view, sparse=sparse, mtime=item.mtime, written=written)
        with target as file:
            Restorer(repository, reader).to_target(recipe, file, add)
            if self._options.verify:
                read_back(recipe, repository.keys, file, add)
                if isinstance(file, ViewTarget):
                    file.compare_tables()

    def _write_stream(
        self, job: RestoreJob, data: Iterable[Buffer], folder: TargetFolder, name: str, add: ProgressFunction
    ) -> None:
        hashed, at = blake2b(), 0
        size, mtime = job.node.size, job.node.mtime
        with FileTarget(folder, name, size, sparse=False, mtime=mtime, written=self._written) as file:
            for part in data:
                file.write(at, part)
                at += len(part)
                add(len(part))
                if self._options.verify:
                    hashed.update(part)
            if self._options.verify:
                _compare(file, size, hashed.digest(), add)


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
