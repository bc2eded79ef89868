"""Restores files outside of guests: items, disks in another format, virtual files of dumps, documents."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from hashlib import blake2b
from typing import Final

from holdfast.base.device_target import DeviceTarget
from holdfast.base.errors import HoldfastError, TargetError
from holdfast.base.target_folder import TargetFolder, refusals
from holdfast.base.targets import FileTarget
from holdfast.base.types import Buffer, ProgressFunction
from holdfast.formats.disks.export import ViewTarget, stored_view
from holdfast.repo.core.read_back import gaps, read_back
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item
from holdfast.tasks.restore_plan import RAW, RestoreJob, RestoreOptions, RestorePlan, check_device
from holdfast.tree.content import NodeReader
from holdfast.tree.nodes import (
    ImageNode,
    ItemNode,
    TextNode,
    VirtualNode,
)

_STEP: Final = 1 << 20


class FilesRestore:
    """One restore of files: writes them through open descriptors and remembers which they were."""

    def __init__(self, repository: Repository, files: NodeReader, options: RestoreOptions) -> None:
        self._repository = repository
        self._files = files
        self._options = options
        self._written: set[tuple[int, int]] = set()

    def begin(self, plan: RestorePlan) -> None:
        """Make the folder that files go into. Raises TargetError, ForeignLink."""
        if plan.folder is not None:
            with refusals("write", plan.folder):
                TargetFolder.top(plan.folder, overwrite=False).close()

    def run(self, job: RestoreJob, add: ProgressFunction) -> int:
        """Run a job. A file that is not complete in the end is removed. Returns by how many bytes a block
        device is larger than what went there.

        Raises as FileTarget and DeviceTarget, ForeignLink, Damaged; TargetError for a link below the folder.
        """
        name = job.name.rpartition("/")[2]
        with closing(self._opened(job)) as folder:
            if folder.has_device(os.fsencode(name)):
                check_device(job, self._options)
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
    """Read a file back and compare it with the hash of the bytes written. Raises TargetError."""
    file.settle()
    read = blake2b()
    for at in range(0, length, _STEP):
        data = file.read(at, min(_STEP, length - at))
        read.update(data)
        add(len(data))
    if read.digest() != written:
        raise TargetError(f"{file.path} reads back differently: its disk or memory is faulty")
