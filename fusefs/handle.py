"""An open stored file: answers reads, and notices when somebody reads on and on.

A read is answered in the event loop when all its chunks are decoded, or when there is but one to decode
and its bytes are in the page cache (some 70 us, less than a hop to a thread and back). Everything else
is fetched by the threads.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Sequence

from holdfast.base.errors import Damaged
from holdfast.base.sequential import SequentialReads
from holdfast.base.types import Buffer, ChunkID
from holdfast.fusefs.bridge import Bridge, Result
from holdfast.fusefs.loader import ChunkLoader
from holdfast.repo.chunks.recipe import Extent, Recipe, RecipeNode
from holdfast.repo.core.reader import Reader, slice_extent
from holdfast.repo.snapshots.snapshot import Item

_LARGEST = 1 << 20
"""Bytes that the kernel asks for at most."""
_SMALL = 4096
"""Answers up to this length are not worth aligning."""
_ZEROS = memoryview(mmap.mmap(-1, _LARGEST))
"""All holes are answered from here."""
_SLACK = 1 << 20
"""How far from the end of the last read one may begin that still counts as reading on: the kernel has
two requests of its read-ahead under way."""
_FIRST_WINDOW = 2 << 20
_LAST_WINDOW = 16 << 20
_STEP = 1 << 20
"""Decoded bytes that are asked for at a time, so that they come from the packs in long runs."""


class _NotReady(Exception):
    """A signal inside this module: a recipe node is not in memory."""


class AnswerBuffer:
    """One page-aligned buffer for all answers.

    Aligned because of the kernel's copy into the page cache: 2.9 GB/s where the answer begins at a page,
    1.25 GB/s where it begins 48 bytes behind one, as the content of `bytes` does (EPYC, 1 MiB answers).
    Good until the next `take`: pyfuse3 hands an answer to the kernel before any other task runs.
    """

    def __init__(self) -> None:
        self._view = memoryview(mmap.mmap(-1, _LARGEST))

    def take(self, length: int) -> memoryview:
        return self._view[:length] if length <= _LARGEST else memoryview(bytearray(length))


class Streams:
    """Counts the handles that read sequentially: they share the memory for chunks decoded ahead."""

    def __init__(self, room: int) -> None:
        self._room = room
        self.count = 0

    @property
    def window(self) -> int:
        """Bytes that one of them may be ahead."""
        return max(_STEP, min(_LAST_WINDOW, self._room // max(1, self.count)))


class StoredFileHandle:
    """Event loop only. `close` it once."""

    def __init__(
        self,
        item: Item,
        reader: Reader,
        *,
        loader: ChunkLoader,
        bridge: Bridge,
        streams: Streams,
        answer: AnswerBuffer,
    ) -> None:
        def load(id_: ChunkID) -> RecipeNode:
            node = reader.node_if_ready(id_)
            if node is None:
                raise _NotReady
            return node

        self._loader = loader
        self._bridge = bridge
        self._streams = streams
        self._answer = answer
        self._size = item.size
        self._quick = Recipe(item.recipe, item.size, load)
        self._slow = reader.recipe(item)
        self._reads = SequentialReads(before=_SLACK, behind=_SLACK)
        self._streaming = False
        self._window = 0
        self._planned_to = 0
        self._planned: deque[tuple[int, int]] = deque()  # (end, length) of chunks ahead of the reader
        self._ahead = 0
        self._planning = False

    def close(self) -> None:
        self._stop_streaming()

    async def read(self, offset: int, length: int) -> Buffer:
        """Bytes [offset, offset + length) of the file, fewer only at its end.

        Raises Damaged, MissingChunk or StoreError.
        """
        end = min(offset + length, self._size)
        if offset >= end:
            return b""
        try:
            extents = list(self._quick.extents(offset, end))
        except _NotReady:
            extents = await self._bridge.run(lambda: list(self._slow.extents(offset, end)))
        self._notice(offset, end)
        if len(extents) == 1:
            return await self._one(extents[0], offset, end)
        return await self._several(extents, offset, end)

    async def _one(self, extent: Extent, first: int, last: int) -> Buffer:
        if extent.id is None:
            return _zeros(last - first)
        part = slice_extent(extent, await self._chunk(extent.id), first, last)
        if last - first <= _SMALL:
            return part
        answer = self._answer.take(last - first)
        answer[:] = part
        return answer

    async def _chunk(self, id_: ChunkID) -> bytes:
        try:
            plain = self._loader.ready(id_)
        except (Damaged, FileNotFoundError):
            plain = None  # the threads look for another copy
        if plain is None:
            (flight,) = self._loader.fetch([id_], urgent=True)
            plain = await flight.wait()
        return plain

    async def _several(self, extents: Sequence[Extent], offset: int, end: int) -> Buffer:
        chunks = {e.id: self._loader.decoded(e.id) for e in extents if e.id is not None}
        missing = [id_ for id_, plain in chunks.items() if plain is None]
        if len(missing) == 1:
            id_ = missing.pop()
            chunks[id_] = await self._chunk(id_)
        for id_, flight in zip(missing, self._loader.fetch(missing, urgent=True), strict=True):
            chunks[id_] = await flight.wait()
        answer = self._answer.take(end - offset)
        for extent in extents:
            first, last = max(offset, extent.start), min(end, extent.start + extent.length)
            if extent.id is None:
                answer[first - offset : last - offset] = _zeros(last - first)
            else:
                plain = chunks[extent.id]
                assert plain is not None
                answer[first - offset : last - offset] = slice_extent(extent, plain, first, last)
        return answer

    def _notice(self, offset: int, end: int) -> None:
        """Decode ahead of a reader that reads sequentially, and not of one that jumps."""
        if not self._reads.notice(offset, end):
            self._stop_streaming()
            return
        if not self._streaming:
            self._streaming = True
            self._streams.count += 1
            self._window = _FIRST_WINDOW
            self._planned_to = end
        while self._planned and self._planned[0][0] <= end:
            self._ahead -= self._planned.popleft()[1]
        self._planned_to = max(self._planned_to, end)
        if self._ahead <= min(self._window, self._streams.window) - _STEP:
            self._plan()

    def _stop_streaming(self) -> None:
        if self._streaming:
            self._streaming = False
            self._streams.count -= 1
        self._planned.clear()
        self._ahead = 0

    def _plan(self) -> None:
        """Ask for the next chunks behind those asked for already, holes passed over."""
        if self._planning:
            return
        window = min(self._window, self._streams.window)
        wanted: list[ChunkID] = []
        try:
            for extent in self._quick.extents(self._planned_to):
                if self._ahead >= window:
                    break
                self._planned_to = extent.start + extent.length
                if extent.id is not None:
                    self._planned.append((self._planned_to, extent.length))
                    self._ahead += extent.length
                    wanted.append(extent.id)
        except _NotReady:
            self._planning = True
            start = self._planned_to
            self._bridge.post(lambda: next(self._slow.extents(start), None), self._go_on, urgent=False)
        self._window = min(self._window * 2, _LAST_WINDOW)
        if wanted:
            self._loader.ahead(wanted)

    def _go_on(self, loaded: Result[Extent | None]) -> None:
        """The recipe node that planning lacked is there. If it cannot be had, the read itself will say so."""
        self._planning = False
        if self._streaming and loaded.error is None:
            self._plan()


def _zeros(length: int) -> Buffer:
    return _ZEROS[:length] if length <= _LARGEST else bytes(length)
