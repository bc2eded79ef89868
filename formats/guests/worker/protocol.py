"""The protocol between a guest's parser and its parent: frames on a socket, kinds of messages, their limits.

    length  4   bytes of the body, at most MESSAGE_LIMIT
    kind    1   Kind
    body

The parent asks one thing at a time. Before it answers, the worker may ask for bytes of the disk (WANT), which
the parent answers with DISK_BYTES or DISK_ERROR. All numbers are little-endian. Nothing is unpickled.
Anything else is Nonsense, for which the parent kills the worker.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from holdfast.base.types import Buffer

MESSAGE_LIMIT: Final = 8 << 20
"""Bytes of a body, in either direction."""
READ_LIMIT: Final = 1 << 20
"""Bytes of a guest file in one answer."""
WANT_LIMIT: Final = 4 << 20
"""Bytes of the disk that a worker asks for at a time."""
_FRAME: Final = Struct("<IB")
_WANT: Final = Struct("<QIB")
_OPEN: Final = Struct("<QIH")  # bytes of the disk, seconds, passphrases
_LENGTH: Final = Struct("<I")
_REQUEST: Final = Struct("<QQQIHH")  # inode, position, length, seconds, bytes of volume, bytes of name


class Nonsense(Exception):
    """The other side does not keep to the protocol."""


class Layer(StrEnum):
    """What confines a worker. Its first message names the layers that hold."""

    SECCOMP = "seccomp"
    LANDLOCK = "landlock"
    NAMESPACES = "namespaces"
    NO_ROOT = "no root"
    LIMITS = "limits"


class Kind(IntEnum):
    """What a message is."""

    # The parent asks.
    OPEN = 1
    ROOT = 2
    ENTRY = 3
    LOOKUP = 4
    LIST = 5
    READLINK = 6
    XATTRS = 7
    READ = 8
    # The parent delivers what WANT asked for.
    DISK_BYTES = 16
    DISK_ERROR = 17
    # The worker answers, or asks.
    HELLO = 32
    WANT = 33
    VOLUMES = 34
    ONE_ENTRY = 35
    PAGE = 36
    RAW = 37
    ATTRIBUTES = 38
    DAMAGED = 40
    MISSING = 41
    BROKEN = 42
    """The worker cannot go on and ends; the body is the reason."""


@dataclass(frozen=True, slots=True)
class Request:
    """A question of the parent, of any kind but OPEN. Fields that a kind does not use stay empty.

    `position` is an offset in bytes (READ) or the number of names that were sent before (LIST). `seconds` is
    the processor time after which the worker ends itself; the parent keeps its own time.
    """

    kind: Kind
    volume: str
    inode: int = 0
    position: int = 0
    length: int = 0
    name: bytes = b""
    seconds: int = 0

    def pack(self) -> bytes:
        """Raises ValueError for values that no guest can have: an inode beyond 64 bits, a name of 64 KiB."""
        volume = self.volume.encode(errors="surrogateescape")
        try:
            head = _REQUEST.pack(
                self.inode, self.position, self.length, self.seconds, len(volume), len(self.name)
            )
        except StructError as error:
            raise ValueError(f"no request can carry that: {error}") from error
        return head + volume + self.name

    @staticmethod
    def unpack(kind: Kind, body: Buffer) -> Request:
        """Raises Nonsense."""
        if len(body) < _REQUEST.size:
            raise Nonsense("a request is too short")
        inode, position, length, seconds, volume, name = _REQUEST.unpack_from(body)
        rest = bytes(body[_REQUEST.size :])
        if len(rest) != volume + name:
            raise Nonsense("a request is not as long as it says")
        path = rest[:volume].decode(errors="surrogateescape")
        return Request(kind, path, inode, position, length, rest[volume:], seconds)


class Opening(NamedTuple):
    """The body of OPEN: the size of the disk in bytes, passphrases to try, and seconds of processor time."""

    size: int
    passphrases: Sequence[str]
    seconds: int

    def pack(self) -> bytes:
        body = bytearray(_OPEN.pack(self.size, self.seconds, len(self.passphrases)))
        for passphrase in self.passphrases:
            encoded = passphrase.encode(errors="surrogateescape")
            body += _LENGTH.pack(len(encoded)) + encoded
        return bytes(body)

    @staticmethod
    def unpack(body: Buffer) -> Opening:
        """Unchecked: it comes from the parent, which is trusted."""
        size, seconds, count = _OPEN.unpack_from(body)
        at, passphrases = _OPEN.size, []
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(body, at)
            at += _LENGTH.size
            passphrases.append(bytes(body[at : at + length]).decode(errors="surrogateescape"))
            at += length
        return Opening(size, passphrases, seconds)


class Want(NamedTuple):
    """A request for bytes of the disk. `is_exact` is true when the parser needs all of them. Otherwise the
    worker reads ahead, and bytes that cannot be delivered are not an error yet."""

    offset: int
    length: int
    is_exact: bool

    def pack(self) -> bytes:
        return _WANT.pack(*self)

    @staticmethod
    def unpack(body: Buffer, disk_size: int) -> Want:
        """Raises Nonsense for a range that is not inside the disk, or longer than WANT_LIMIT."""
        if len(body) != _WANT.size:
            raise Nonsense("a request for bytes of the disk has a wrong length")
        offset, length, exact = _WANT.unpack(body)
        if not 0 < length <= WANT_LIMIT or offset + length > disk_size:
            raise Nonsense(f"{length} bytes at {offset} were asked of a disk of {disk_size}")
        return Want(offset, length, bool(exact))


def pack_layers(layers: frozenset[Layer]) -> bytes:
    return "\n".join(sorted(layers)).encode()


def unpack_layers(body: Buffer) -> frozenset[Layer]:
    """Raises Nonsense."""
    try:
        return frozenset(Layer(line) for line in bytes(body).decode().split("\n") if line)
    except ValueError as error:
        raise Nonsense("an unknown layer") from error


class Channel:
    """One end of the socket. For one thread at a time."""

    def __init__(self, socket_: socket.socket) -> None:
        self.socket = socket_

    def send(self, kind: Kind, body: Buffer = b"", *, deadline: float | None = None) -> None:
        """Send a message before the `deadline` of the monotonic clock. Raises TimeoutError, OSError."""
        head = _FRAME.pack(len(body), kind)
        if len(body) <= 1 << 16:
            self._send(memoryview(head + bytes(body)), deadline)
        else:
            self._send(memoryview(head), deadline)
            self._send(memoryview(body), deadline)

    def _send(self, data: memoryview, deadline: float | None) -> None:
        while data:
            self._limit(deadline)
            data = data[self.socket.send(data) :]

    def receive(self, *, deadline: float | None = None) -> tuple[Kind, bytearray]:
        """Return the next message. Raises Nonsense, EOFError when the other side is gone, TimeoutError,
        OSError."""
        length, number = _FRAME.unpack(self._receive(_FRAME.size, deadline))
        if length > MESSAGE_LIMIT:
            raise Nonsense(f"a message of {length} bytes")
        try:
            kind = Kind(number)
        except ValueError:
            raise Nonsense(f"a message of kind {number}") from None
        return kind, self._receive(length, deadline)

    def _receive(self, length: int, deadline: float | None) -> bytearray:
        data = bytearray(length)
        left = memoryview(data)
        while left:
            self._limit(deadline)
            count = self.socket.recv_into(left)
            if not count:
                raise EOFError
            left = left[count:]
        return data

    def _limit(self, deadline: float | None) -> None:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
