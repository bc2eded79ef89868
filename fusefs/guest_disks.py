"""The guests' disks that are being looked into: a parser's process and a thread of ours for each.

A parser that hangs keeps its own thread waiting and no other: the rest of the mount goes on.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

import pyfuse3
import trio

from holdfast.base.types import SnapshotID
from holdfast.formats.guests.client.open_disk import Guest, OpenGuest
from holdfast.formats.guests.client.stored import StoredDisk
from holdfast.formats.guests.values.naming import disk_name
from holdfast.fusefs.bridge import Bridge, Result
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import Item

T = TypeVar("T")

_log = logging.getLogger("holdfast.fusefs")
_MOST = 4
"""Processes that stay, 50 to 120 MB each; with more disks than this in use at once there are more."""
_IDLE = 300.0
"""Seconds after which a process that nobody asks anything ends."""
WAITING = 64
"""Requests that may wait for one disk: behind a parser that hangs, more would take the tasks of others."""
_LOOK = 30.0
"""Seconds between two looks for such."""

DiskKey = tuple[SnapshotID, str]
"""Snapshot and path of the disk's item."""


@dataclass(eq=False, slots=True)
class _Open:
    guest: Guest
    bridge: Bridge
    stack: ExitStack
    used: float
    busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        """From any thread, and more than once."""
        with self.lock:
            self.stack.close()


class GuestDisks:
    """Event loop only. `open_guest` makes this side of a parser; its process starts with the first question.

    `reader` should keep decoded chunks. Disks are closed on a thread of `bridge`: a process is waited for,
    and chunks that are being decoded ahead. `watch` looks every `look` seconds.
    """

    def __init__(
        self,
        reader: Reader,
        open_guest: OpenGuest,
        bridge: Bridge,
        *,
        clock: Callable[[], float],
        look: float = _LOOK,
    ) -> None:
        self._reader = reader
        self._open_guest = open_guest
        self._bridge = bridge
        self._clock = clock
        self._look = look
        self._open: OrderedDict[DiskKey, _Open] = OrderedDict()
        self._closing: set[_Open] = set()

    async def run(self, key: DiskKey, item: Item, work: Callable[[Guest], T]) -> T:
        """The result of `work`, run on the disk's own thread. Raises what it raises, and FUSEError (EAGAIN)
        when too many wait for this disk."""
        disk = self._open.get(key)
        if disk is None:
            disk = self._open[key] = self._start(item)
        self._open.move_to_end(key)
        if disk.busy >= WAITING:
            raise pyfuse3.FUSEError(errno.EAGAIN)
        disk.busy += 1
        try:
            return await disk.bridge.run(lambda: work(disk.guest))
        finally:
            disk.busy -= 1
            disk.used = self._clock()
            self._tidy()

    async def watch(self) -> None:
        """Close idle disks periodically until the mount ends."""
        while True:
            await trio.sleep(self._look)
            self._tidy()

    def _start(self, item: Item) -> _Open:
        stack = ExitStack()
        bridge = stack.enter_context(Bridge(1))
        stored = stack.enter_context(StoredDisk(self._reader, item))
        guest = self._open_guest(stored, disk_name(item))
        stack.callback(guest.close)  # before the bridge: it ends what the thread waits for
        return _Open(guest, bridge, stack, self._clock())

    def _tidy(self) -> None:
        """End what has been idle for long, and the oldest idle ones when there are many."""
        now = self._clock()
        for key, disk in list(self._open.items()):
            if disk.busy == 0 and (len(self._open) > _MOST or now - disk.used > _IDLE):
                self._close(self._open.pop(key))

    def _close(self, disk: _Open) -> None:
        def closed(result: Result[None]) -> None:
            self._closing.discard(disk)
            if result.error is not None:
                _log.error("a guest's disk could not be closed: %s", result.error)

        self._closing.add(disk)
        self._bridge.post(disk.close, closed, urgent=True)

    def close(self) -> None:
        """End all parser processes, also those that hang."""
        for disk in (*self._open.values(), *self._closing):
            disk.close()
        self._open.clear()
