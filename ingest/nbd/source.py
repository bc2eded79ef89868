"""An export of an NBD server as a source: a live disk that another process has open."""

from __future__ import annotations

import time
from collections.abc import Iterator

from holdfast.base.ranges import joined
from holdfast.ingest.nbd.connection import NbdConnection, PendingRead
from holdfast.ingest.nbd.protocol import STATE_DIRTY, STATE_ZERO, error_text
from holdfast.ingest.nbd.uri import NbdAddress, parse_uri
from holdfast.ingest.sources.bad_ranges import BadRanges
from holdfast.ingest.sources.source import HEAD_SIZE, SourceExtent
from holdfast.repo.chunks.chunker import BLOCK
from holdfast.repo.snapshots.snapshot import BadRange

_REQUEST = 1 << 20
"""Bytes of one read. qemu-nbd on the same busy machine gave 0.6 to 2.4 GB/s, with 4 MiB only 0.3 GB/s."""
_AHEAD = 16 << 20
"""Most bytes that are requested ahead of the reader."""
_LEAST_HOLE = 64 << 10
"""Least bytes of a hole; shorter ones are read, which costs less than a second request."""


class NbdSource:
    """A disk behind an NBD URI. A context manager; one thread at a time.

    The size is that of the export when it was opened. After a read error, finds the blocks that cannot be
    read, fills them with zeros and lists them in `bad`. Raises StreamFailed when the connection breaks.
    """

    is_device = True

    def __init__(self, uri: str, *, bitmap: str = "", timeout: float = 60.0) -> None:
        """Connect. `bitmap` names a dirty bitmap for `dirty_extents`; `timeout` is in seconds.

        Raises SourceError for a wrong URI, no server, no such export or bitmap, StreamFailed for a server
        that breaks the protocol.
        """
        self.address: NbdAddress = parse_uri(uri)
        self.name = _name(self.address.export)
        self.mtime = time.time_ns()
        self._lost = BadRanges(str(self.address))
        self._connection = NbdConnection(self.address, bitmap=bitmap, timeout=timeout)
        export = self._connection.export
        self.size: int | None = export.size
        self._size = export.size
        self._grain = max(BLOCK, export.minimum)
        self._request = max(export.minimum, min(_REQUEST, export.maximum))
        self._ahead: dict[int, PendingRead] = {}
        self._data_end = 0
        try:
            self.head = self._read_head()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> NbdSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @property
    def bad(self) -> list[BadRange]:
        return self._lost.found

    @property
    def received(self) -> int:
        """Bytes received from the server so far."""
        return self._connection.received

    def finish(self) -> str:
        return ""

    # ---- extents ------------------------------------------------------------------------------------

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        """Holes are the ranges that the server reports as zeros; all is data if it reports none."""
        at = 0
        context = self._connection.export.allocation
        if holes and context is not None:
            for start, end in self._runs(context, STATE_ZERO):
                start, end = -(-start // self._grain) * self._grain, end // self._grain * self._grain  # noqa: PLW2901  inward
                if end - start >= _LEAST_HOLE:
                    if start > at:
                        yield self._data(at, start)
                    yield SourceExtent(start, end - start, is_hole=True)
                    at = end
        if at < self._size:
            yield self._data(at, self._size)

    def _data(self, start: int, end: int) -> SourceExtent:
        self._data_end = end
        return SourceExtent(start, end - start, is_hole=False)

    def dirty_extents(self) -> Iterator[tuple[int, int]]:
        """(start, end) of the ranges that the dirty bitmap marks as written, in order; queried lazily."""
        context = self._connection.export.dirty
        assert context is not None, "opened without a bitmap"
        return self._runs(context, STATE_DIRTY)

    def _runs(self, context: int, flag: int) -> Iterator[tuple[int, int]]:
        """Merged ranges (start, end) that have the flag set."""
        status = self._connection.block_status(0, self._size, context)
        return joined((start, end) for start, end, flags in status if flags & flag)

    # ---- bytes --------------------------------------------------------------------------------------

    def will_read(self, offset: int, length: int) -> None:
        """Request a range that will be read next, as far as the limits on requests allow.

        Reads go front to back: ranges that were requested and then skipped are discarded.
        """
        if (offset | length) % self._connection.export.minimum:
            return
        end = offset + length
        while offset < end and self._connection.has_room:
            step = min(self._request, end - offset)
            if sum(read.length for read in self._ahead.values()) + step > _AHEAD:
                return
            if offset not in self._ahead:
                self._ahead[offset] = self._connection.submit(offset, step)
            offset += step

    def read_into(self, buffer: memoryview, offset: int) -> int:
        end = offset + len(buffer)
        assert end <= self._size
        minimum = self._connection.export.minimum
        if offset % minimum or end % minimum:
            first = offset // minimum * minimum
            wide = bytearray(-(-end // minimum) * minimum - first)
            self.read_into(memoryview(wide), first)
            buffer[:] = memoryview(wide)[offset - first :][: len(buffer)]
            return len(buffer)
        reads = self._submit(buffer, offset)
        if offset < self._data_end:
            self.will_read(end, min(len(buffer), self._data_end - end))
        for read in reads:
            self._connection.wait(read)
            if read.error:
                self._narrow(buffer, offset, read)
        return len(buffer)

    def _submit(self, buffer: memoryview, offset: int) -> list[PendingRead]:
        """The reads that fill the buffer, some of which may have been submitted before."""
        for at in [at for at in self._ahead if at < offset]:
            self._connection.abandon(self._ahead.pop(at))
        reads: list[PendingRead] = []
        at = 0
        while at < len(buffer):
            read = self._ahead.pop(offset + at, None)
            if read is not None and read.length <= len(buffer) - at:
                self._connection.attach(read, buffer[at : at + read.length])
            else:
                if read is not None:
                    self._connection.abandon(read)
                length = min(self._request, len(buffer) - at)
                read = self._connection.submit(offset + at, length, buffer[at : at + length])
            reads.append(read)
            at += read.length
        return reads

    def _narrow(self, buffer: memoryview, offset: int, failed: PendingRead) -> None:
        """After a read error: read halves of the range until only unreadable blocks are lost."""
        parts = [(failed.offset, failed.offset + failed.length)]
        error = failed.error
        while True:
            start, end = parts.pop()
            if error and end - start > self._grain:
                middle = (start + end) // 2 // self._grain * self._grain
                middle = middle if middle > start else middle + self._grain
                parts += [(middle, end), (start, middle)]
            elif error:
                buffer[start - offset : end - offset] = bytes(end - start)
                # A block longer than a read is reported twice.
                self._lost.mark(start, end, error_text(error))
            if not parts:
                return
            start, end = parts[-1]
            read = self._connection.submit(start, end - start, buffer[start - offset : end - offset])
            self._connection.wait(read)
            error = read.error

    def _read_head(self) -> bytes:
        """The first bytes; empty when they cannot be read, as `read_into` will report the blocks."""
        minimum = self._connection.export.minimum
        head = memoryview(bytearray(min(HEAD_SIZE, self._size)))
        assert len(head) % minimum == 0  # both are multiples: the minimum is a power of two up to 64 KiB
        reads = self._submit(head, 0)
        for read in reads:
            self._connection.wait(read)
        return b"" if any(read.error for read in reads) else bytes(head)


def _name(export: str) -> str:
    """The disk's name: the last path component of the export's name, or "disk"."""
    last = export.rstrip("/").rpartition("/")[2]
    return last if last not in ("", ".", "..") and "\0" not in last else "disk"
