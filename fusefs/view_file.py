"""An open view of a disk: made-up tables around the disk's own bytes."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.base.errors import Damaged
from holdfast.base.types import Buffer
from holdfast.formats.disks.base.view import View, ViewPart
from holdfast.fusefs.bridge import Bridge
from holdfast.fusefs.guest_file import DiskHandle


class OpenView:
    """An image file that is generated as it is read. Owns `disk`.

    Its tables are made on the bridge's threads, because they need the disk's recipe; the data behind them is
    answered like the disk itself.
    """

    def __init__(self, view: View, disk: DiskHandle, bridge: Bridge) -> None:
        self._view = view
        self._disk = disk
        self._bridge = bridge

    def close(self) -> None:
        self._disk.close()

    async def read(self, offset: int, length: int) -> Buffer:
        """Bytes [offset, offset + length) of the file, fewer only at its end."""
        end = min(offset + length, self._view.size)
        if offset >= end:
            return b""
        parts = await self._parts(offset, end)
        if len(parts) == 1:
            return await self._piece(parts[0])
        answer = bytearray(end - offset)
        for part in parts:
            # Copied before anything else is awaited: the disk answers out of one buffer.
            answer[part.start - offset : part.start - offset + part.length] = await self._piece(part)
        return answer

    async def _parts(self, start: int, end: int) -> list[ViewPart]:
        work: Callable[[], list[ViewPart]] = lambda: list(self._view.parts(start, end))  # noqa: E731
        return work() if start >= self._view.data_start else await self._bridge.run(work)

    async def _piece(self, part: ViewPart) -> Buffer:
        if part.data is not None:
            return part.data
        if part.disk < 0:
            return bytes(part.length)
        data = await self._disk.read(part.disk, part.length)
        if len(data) != part.length:
            raise Damaged("a disk's recipe", "ends before the disk does")
        return data
