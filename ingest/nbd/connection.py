"""A connection to an export of an NBD server, with many reads in flight.

One thread at a time. `submit` sends a request at once; `wait` receives replies in any order until its request
is answered. Received bytes go directly into the buffer of their request; a request without one (a read-ahead)
gets one.

The server is not trusted. A reply to no request or outside of its request, a repeated, missing or too long
reply, or too many replies raise StreamFailed before memory is allocated or written for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.base.errors import StreamFailed
from holdfast.ingest.nbd.handshake import negotiate
from holdfast.ingest.nbd.protocol import (
    DESCRIPTOR,
    ERROR,
    ERRORS_LIMIT,
    HOLE,
    OVERFLOW_ERROR,
    READ_WHOLE,
    REPLY_DONE,
    REPLY_ERROR_BIT,
    REQUEST,
    REQUEST_MAGIC,
    SHUTDOWN_ERROR,
    SIMPLE_MAGIC,
    SIMPLE_REPLY,
    STATUS_DATA_LIMIT,
    STATUS_STEP,
    STRING_LIMIT,
    STRUCTURED_MAGIC,
    STRUCTURED_REPLY,
    U32,
    U64,
    NbdCommand,
    ReplyType,
    error_text,
)
from holdfast.ingest.nbd.uri import NbdAddress, Wire

_SINK = 64 << 10
_ZEROS = bytes(64 << 10)
_IN_FLIGHT = 64
"""Most unanswered requests: a server must not block on sending replies while we still send requests."""
_LEAST_PIECE = 512
"""Least mean bytes of the chunks of a reply; no server sends smaller ones."""


@dataclass(slots=True, eq=False)
class PendingRead:
    """A submitted read. `error` is the protocol's number, 0 for success; `target` is complete when `done`."""

    offset: int
    length: int
    target: memoryview | None
    wanted: bool = True
    done: bool = False
    error: int = 0
    errors: int = 0
    covered: int = 0
    pieces: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _PendingStatus:
    """A submitted block status request. `found` has the payloads of its replies by context ID."""

    length: int
    done: bool = False
    error: int = 0
    errors: int = 0
    found: dict[int, bytes] = field(default_factory=dict)


class _ReplyChunk(NamedTuple):
    """The header of one chunk of a structured reply; `length` bytes follow."""

    last: bool
    kind: int
    cookie: int
    length: int


class NbdConnection:
    """A connection to an open export. `export` has its size and the server's capabilities."""

    def __init__(self, address: NbdAddress, *, bitmap: str = "", timeout: float = 60.0) -> None:
        """Connect and negotiate. Raises SourceError, or StreamFailed when the server breaks the protocol."""
        self._wire = Wire(address, timeout)
        self._pending: dict[int, PendingRead | _PendingStatus] = {}
        self._cookie = 0
        try:
            self.export = negotiate(self._wire, address.export, bitmap)
            # QEMU 7.2 cannot report a read error in an answer of several parts (nbd_co_send_sparse_read).
            self._read_flags = READ_WHOLE if self.export.reads_whole else 0
        except BaseException:
            self._wire.close()
            raise

    @property
    def received(self) -> int:
        """Bytes received from the server so far."""
        return self._wire.received

    def close(self) -> None:
        """Send a disconnect request, if the server still listens, and close the socket."""
        with suppress(StreamFailed):
            self._send(NbdCommand.DISCONNECT, 0, 0)
        self._wire.close()

    @property
    def has_room(self) -> bool:
        """Whether `submit` can send a request without waiting for a reply."""
        return len(self._pending) < _IN_FLIGHT

    def submit(self, offset: int, length: int, target: memoryview | None = None) -> PendingRead:
        """Request a range of the export: multiples of its minimum, inside it, at most its maximum long."""
        while not self.has_room:
            self._take_reply()
        read = PendingRead(offset, length, target)
        self._pending[self._send(NbdCommand.READ, offset, length, self._read_flags)] = read
        return read

    def attach(self, read: PendingRead, target: memoryview) -> None:
        """Set the buffer of a read that was submitted without one; copies what it has received."""
        if read.target is not None:
            target[:] = read.target
        read.target = target

    def abandon(self, read: PendingRead) -> None:
        """Discard the read: its bytes are dropped when they arrive."""
        read.wanted = False
        read.target = None

    def wait(self, request: PendingRead | _PendingStatus) -> None:
        """Receive replies until this request is answered. Raises StreamFailed."""
        while not request.done:
            self._take_reply()
        if request.error == SHUTDOWN_ERROR:
            raise self._wire.failed("the server is shutting down")
        if request.error == OVERFLOW_ERROR:
            self._read_flags = 0  # too long for one chunk; the next requests allow several

    def block_status(self, start: int, end: int, context: int) -> Iterator[tuple[int, int, int]]:
        """(start, end, flags) of the extents of [start, end) in a metadata context, in order."""
        at = start
        while at < end:
            status = _PendingStatus(min(STATUS_STEP, end - at))
            self._pending[self._send(NbdCommand.BLOCK_STATUS, at, status.length)] = status
            self.wait(status)
            if status.error:
                raise self._wire.failed(f"no block status at offset {at}: {error_text(status.error)}")
            if context not in status.found:
                raise self._wire.failed(f"a block status reply at offset {at} says nothing")
            limit = at + status.length
            for length, flags in DESCRIPTOR.iter_unpack(status.found[context]):
                # Only the last may reach beyond what was asked for.
                if not length or at >= limit:
                    raise self._wire.failed(f"impossible block status at offset {at}")
                yield at, min(at + length, end), flags
                at += length

    def _send(self, command: NbdCommand, offset: int, length: int, flags: int = 0) -> int:
        self._cookie += 1
        self._wire.send(REQUEST.pack(REQUEST_MAGIC, flags, command, self._cookie, offset, length))
        return self._cookie

    # ---- replies ------------------------------------------------------------------------------------

    def _take_reply(self) -> None:
        head = self._wire.receive(STRUCTURED_REPLY.size)
        magic = U32.unpack_from(head)[0]
        if magic == SIMPLE_MAGIC:
            _, error, cookie = SIMPLE_REPLY.unpack(head)
            self._take_simple(error, cookie)
        elif magic == STRUCTURED_MAGIC and self.export.structured:
            _, flags, kind, cookie = STRUCTURED_REPLY.unpack(head)
            length = U32.unpack(self._wire.receive(U32.size))[0]
            self._take_chunk(_ReplyChunk(bool(flags & REPLY_DONE), kind, cookie, length))
        else:
            raise self._broken("no reply where one should begin")

    def _take_simple(self, error: int, cookie: int) -> None:
        request = self._request(cookie)
        if not error:
            if self.export.structured or isinstance(request, _PendingStatus):
                raise self._broken("a simple reply where a structured one was agreed on")
            self._receive(request, request.offset, request.length)
        request.error = error
        self._finish(cookie, request)

    def _take_chunk(self, head: _ReplyChunk) -> None:
        request = self._request(head.cookie)
        if head.kind & REPLY_ERROR_BIT:
            self._take_error(request, head)
        elif head.kind == ReplyType.NONE:
            if head.length or not head.last:
                raise self._broken("an empty chunk that is not empty")
        elif isinstance(request, _PendingStatus):
            self._take_status(request, head)
        elif head.kind == ReplyType.OFFSET_DATA and head.length > U64.size:
            offset = U64.unpack(self._wire.receive(U64.size))[0]
            self._receive(request, offset, head.length - U64.size)
        elif head.kind == ReplyType.OFFSET_HOLE and head.length == HOLE.size:
            offset, length = HOLE.unpack(self._wire.receive(HOLE.size))
            self._fill_with_zeros(request, offset, length)
        else:
            raise self._broken(f"a chunk of type {head.kind} and {head.length} bytes")
        if head.last:
            self._finish(head.cookie, request)

    def _request(self, cookie: int) -> PendingRead | _PendingStatus:
        if cookie not in self._pending:
            raise self._broken("a reply to no request")
        return self._pending[cookie]

    def _finish(self, cookie: int, request: PendingRead | _PendingStatus) -> None:
        del self._pending[cookie]
        if isinstance(request, PendingRead) and not request.error:
            at = request.offset
            for start, length in sorted(request.pieces):
                if start != at:
                    raise self._broken("pieces of a read that overlap")
                at += length
            if at != request.offset + request.length:
                raise self._broken("a read that lacks some of its bytes")
        request.done = True

    def _take_error(self, request: PendingRead | _PendingStatus, head: _ReplyChunk) -> None:
        request.errors += 1
        longest = ERROR.size + STRING_LIMIT + U64.size
        if not ERROR.size <= head.length <= longest or request.errors > ERRORS_LIMIT:
            raise self._broken("an error message of impossible length, or too many of them")
        number, _ = ERROR.unpack_from(self._wire.receive(head.length))
        if not number:
            raise self._broken("an error that is none")
        request.error = number

    def _take_status(self, status: _PendingStatus, head: _ReplyChunk) -> None:
        descriptors, rest = divmod(head.length - U32.size, DESCRIPTOR.size)
        if head.kind != ReplyType.BLOCK_STATUS or descriptors < 1 or rest or head.length > STATUS_DATA_LIMIT:
            raise self._broken("a block status reply of impossible length")
        context = U32.unpack(self._wire.receive(U32.size))[0]
        if context in status.found or context not in (self.export.allocation, self.export.dirty):
            raise self._broken("a block status reply nobody asked for")
        status.found[context] = self._wire.receive(head.length - U32.size)

    def _place(self, read: PendingRead, offset: int, length: int) -> memoryview | None:
        """The part of a read's buffer for a received range, which is recorded; None for abandoned reads."""
        at = offset - read.offset
        read.covered += length
        most_pieces = read.length // _LEAST_PIECE + 16
        if at < 0 or not 0 < length <= read.length - at or read.covered > read.length:
            raise self._broken("a piece that is not part of its read")
        if len(read.pieces) >= most_pieces:
            raise self._broken("a read in too many pieces")
        read.pieces.append((offset, length))
        if not read.wanted:
            return None
        if read.target is None:
            read.target = memoryview(bytearray(read.length))
        return read.target[at : at + length]

    def _receive(self, read: PendingRead, offset: int, length: int) -> None:
        view = self._place(read, offset, length)
        if view is not None:
            self._wire.receive_into(view)
            return
        while length:
            length -= len(self._wire.receive(min(_SINK, length)))

    def _fill_with_zeros(self, read: PendingRead, offset: int, length: int) -> None:
        view = self._place(read, offset, length)
        if view is None:
            return
        for at in range(0, length, len(_ZEROS)):
            part = view[at : at + len(_ZEROS)]
            part[:] = _ZEROS[: len(part)]

    def _broken(self, what: str) -> StreamFailed:
        return self._wire.failed(f"the server broke the protocol: {what}")
