"""One mount from beginning to end, in this process."""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyfuse3
import trio

from holdfast.base.errors import RepositoryError
from holdfast.base.mount_table import mounted_at
from holdfast.formats.disks.export import stored_view
from holdfast.formats.guests.client.guest import GuestDisk
from holdfast.formats.guests.client.stored import StoredDisk
from holdfast.fusefs.attributes import Ownership
from holdfast.fusefs.bridge import Bridge, Flight, Result
from holdfast.fusefs.catalog import Catalog
from holdfast.fusefs.errors import MountFailed
from holdfast.fusefs.guest_disks import WAITING, GuestDisks
from holdfast.fusefs.guest_tree import GuestTree
from holdfast.fusefs.handle import AnswerBuffer, StoredFileHandle, Streams
from holdfast.fusefs.live_tree import LiveTree
from holdfast.fusefs.loader import ChunkLoader
from holdfast.fusefs.operations import FileHandle, HoldfastOperations
from holdfast.fusefs.options import MountOptions
from holdfast.fusefs.view_file import OpenView
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import IndexProgress, Repository
from holdfast.repo.snapshots.snapshot import Item
from holdfast.tree.nodes import DirectoryNode, ImageNode, ItemNode, Node, VirtualNode

_log = logging.getLogger("holdfast.fusefs")
_READ_AHEAD_KB = 1024
_TASKS = 16 * WAITING
"""Requests that are answered at a time: enough for others while several parsers hang."""
_AHEAD_SHARE = 4
"""Of the chunk cache, what may be filled with chunks that nobody asked for yet: a quarter."""


def run_session(
    repository: Repository,
    mountpoint: Path,
    options: MountOptions,
    *,
    ready: Callable[[], None],
    progress: IndexProgress | None,
) -> None:
    """Mount, serve until unmounted or told to end by a signal, unmount. The caller closes the repository.

    `ready` is called when the mount answers. Raises MountFailed, and what opening the index raises.
    """
    catalog = Catalog(repository)
    tree = catalog.update(None, progress)
    assert tree is not None
    reader = Reader(repository, chunk_cache=options.cache)
    bridge = Bridge(threads=(os.cpu_count() or 1) + 2)
    live = LiveTree(catalog, tree, bridge, invalidate=_invalidate, clock=time.monotonic)
    loader = ChunkLoader(repository, reader, bridge)
    streams = Streams(options.cache // _AHEAD_SHARE)
    answer = AnswerBuffer()

    def open_disk(item: Item) -> StoredFileHandle:
        return StoredFileHandle(item, reader, loader=loader, bridge=bridge, streams=streams, answer=answer)

    def open_guest(disk: StoredDisk, name: str) -> GuestDisk:
        return GuestDisk(disk, name=name, passphrases=options.passphrases)

    guests = GuestDisks(reader, open_guest, bridge, clock=time.monotonic)
    operations = HoldfastOperations(
        live,
        _ownership(options),
        _NodeOpener(reader, bridge, open_disk),
        GuestTree(guests, open_disk),
        lambda: catalog.stored_bytes,
    )
    try:
        pyfuse3.init(operations, str(mountpoint), _fuse_options(options))
    except RuntimeError as error:
        raise MountFailed(f"cannot mount at {mountpoint}: {error}; see the lines above or the log") from None
    try:
        trio.run(_serve, bridge, guests, mountpoint, ready)
    finally:
        pyfuse3.close(unmount=True)


@dataclass(frozen=True, slots=True)
class _NodeOpener:
    """Opens files for `HoldfastOperations`."""

    reader: Reader
    bridge: Bridge
    open_disk: Callable[[Item], StoredFileHandle]
    loading: dict[str, Flight[Iterable[RepositoryError]]] = field(default_factory=dict)

    def open(self, node: Node) -> FileHandle:
        match node:
            case ItemNode():
                return self.open_disk(node.item)
            case ImageNode():
                view = stored_view(node.item, self.reader.recipe(node.item), node.format)
                return OpenView(view, self.open_disk(node.item), self.bridge)
            case VirtualNode():
                return OpenView(node.file, self.open_disk(node.item), self.bridge)
            case _:
                raise pyfuse3.FUSEError(errno.EINVAL)

    async def load(self, directory: DirectoryNode) -> None:
        """Once, however many ask at a time. After trouble with the store the next to ask tries again."""
        work = directory.load
        if work is None:
            return
        flight = self.loading.get(directory.key)
        if flight is None:
            flight = self.loading[directory.key] = Flight()
            self.bridge.post(
                lambda: work(self.reader), lambda result: self._loaded(directory, result), urgent=True
            )
        await flight.wait()

    def _loaded(self, directory: DirectoryNode, result: Result[Iterable[RepositoryError]]) -> None:
        if result.error is None:
            directory.load = None
            for error in result.get():
                _log.error("only what was stored as a file is shown: %s", error)
        self.loading.pop(directory.key).land(result)


def _ownership(options: MountOptions) -> Ownership:
    """Root sees the guests' owners unless options say otherwise; others see their own, to be able to read."""
    uid = os.getuid() if options.uid is None else options.uid
    gid = os.getgid() if options.gid is None else options.gid
    faithful = os.geteuid() == 0 and options.uid is None and options.gid is None
    return Ownership(uid, gid, everybody=options.allow_other, faithful=faithful)


def _fuse_options(options: MountOptions) -> set[str]:
    """No auto_unmount: a daemon that dies must leave a mount that answers ENOTCONN, not an empty directory
    that a mirroring job would take for the truth."""
    chosen = {"default_permissions", "ro", "nosuid", "nodev", "noexec", "fsname=holdfast", "subtype=holdfast"}
    return chosen | {"allow_other"} if options.allow_other else chosen


def _invalidate(folder: int, name: str) -> None:
    pyfuse3.invalidate_entry_async(
        pyfuse3.InodeT(folder), pyfuse3.FileNameT(name.encode()), ignore_enoent=True
    )


async def _serve(bridge: Bridge, guests: GuestDisks, mountpoint: Path, ready: Callable[[], None]) -> None:
    with bridge, closing(guests):
        async with trio.open_nursery() as nursery:
            await nursery.start(_end_on_signal)
            nursery.start_soon(_announce, bridge, mountpoint, ready)
            nursery.start_soon(guests.watch)
            await pyfuse3.main(max_tasks=_TASKS)
            nursery.cancel_scope.cancel()


async def _end_on_signal(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            _log.info("%s: unmounting", signal.Signals(number).name)
            pyfuse3.terminate()


async def _announce(bridge: Bridge, mountpoint: Path, ready: Callable[[], None]) -> None:
    """Once the kernel has been answered: before that it would lower the read-ahead again."""
    await bridge.run(lambda: _raise_read_ahead(mountpoint))
    ready()


def _raise_read_ahead(mountpoint: Path) -> None:
    """Let the kernel ask for 1 MiB at a time instead of 128 KiB: twice the speed. Only root may."""
    os.stat(mountpoint)  # noqa: PTH116  waits until the mount answers
    entry = mounted_at(mountpoint)
    if entry is not None:
        with suppress(OSError):
            Path(f"/sys/class/bdi/{entry.device}/read_ahead_kb").write_text(str(_READ_AHEAD_KB))
