"""Plans a restore of files outside of guests: which file goes where, and whether it may."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from holdfast.base.errors import Refused
from holdfast.base.named_paths import without_links
from holdfast.base.target_folder import TargetFolder, refusals
from holdfast.base.targets import check_replaceable
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
        """The item that the file is made from; None for a document."""
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
    """What goes where. `folder` is made even if nothing goes into it; None when one file is restored."""

    jobs: Sequence[RestoreJob]
    folder: Path | None = None


def plan_restore(tree: SnapshotTree, node: Node, target: str, format_: str | None) -> RestorePlan:
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
        return RestorePlan([RestoreJob(node, place.parent, place.name, format_)])
    if place.exists() and not place.is_dir():
        raise NeedsDirectory(target, node.path)
    prefix = f"{node.path}/" if node.path else ""
    for path in tree.root.virtual.withheld:
        if path.startswith(prefix):
            raise tree.root.virtual.faults[path]
    below = list(walk_nodes(node))
    items = [one for one in below if isinstance(one, ItemNode) or _is_whole(one)]
    if items:
        return RestorePlan(list(_jobs_of_items(items, place, format_, node.path)), place)
    if format_:
        raise NoDiskFormat(node.path, format_)
    return RestorePlan(list(_jobs_of_virtual_files(below, place, len(prefix))), place)


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
            check_device(job, options)
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


def check_device(job: RestoreJob, options: RestoreOptions) -> None:
    if not isinstance(job.node, ItemNode | ImageNode):
        raise NoDiskForDevice(job.target, job.source)
    if job.format != RAW:
        raise NoImageOnDevice(job.target, job.format)
    if not options.force:
        raise DeviceNotConfirmed(job.target)
