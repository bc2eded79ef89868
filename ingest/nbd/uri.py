"""The address of an NBD server, and the socket to it."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from holdfast.base.errors import SourceError, StreamFailed
from holdfast.base.types import Buffer
from holdfast.ingest.nbd.protocol import DEFAULT_PORT, STRING_LIMIT

SCHEMES = ("nbd", "nbd+unix", "nbds", "nbds+unix", "nbd+vsock", "nbds+vsock")
"""All schemes of NBD URIs, including those that are not supported."""


@dataclass(frozen=True, slots=True)
class NbdAddress:
    """An export of a server at the UNIX socket path `socket`, or if that is "" at `host` and `port`."""

    export: str
    host: str = ""
    port: int = DEFAULT_PORT
    socket: str = ""

    def __str__(self) -> str:
        server = self.socket or (f"[{self.host}]" if ":" in self.host else self.host) + f":{self.port}"
        return f"NBD export {self.export!r} at {server}"


def is_nbd_uri(text: str) -> bool:
    """Whether `text` has a scheme of NBD URIs; it may still be invalid."""
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


def parse_uri(uri: str) -> NbdAddress:
    """`nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`.

    EXPORT may be empty and is percent-encoded. Raises SourceError with the reason for another text.
    https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md
    """
    given, uri = uri, re.sub(r"//[^/]*@", "//...@", uri)  # a password has no place in a message
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError as error:
        raise SourceError(f"{uri}: not an NBD URI: {error}") from None
    if parts.scheme.startswith("nbds"):
        raise SourceError(f"{uri}: NBD over TLS is not supported; use a tunnel (ssh -L) and nbd://")
    if parts.scheme not in ("nbd", "nbd+unix"):
        raise SourceError(
            f"{uri}: cannot connect by {parts.scheme or 'no scheme'}; use nbd:// or nbd+unix://"
        )
    if parts.username is not None or parts.fragment:
        raise SourceError(f"{uri}: an NBD URI has no user name and no fragment")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = options.pop("socket", "")
    if options:
        raise SourceError(f"{uri}: unknown option {', '.join(sorted(options))}")
    try:
        export = unquote_to_bytes(parts.path.removeprefix("/")).decode()
    except UnicodeDecodeError:
        raise SourceError(f"{uri}: the export's name is not UTF-8") from None
    if len(export.encode()) > STRING_LIMIT:
        raise SourceError(f"{uri}: the export's name is longer than {STRING_LIMIT} bytes")
    if parts.scheme == "nbd+unix":
        if parts.netloc or not path:
            raise SourceError(f"{uri}: write nbd+unix:///EXPORT?socket=PATH")
        return NbdAddress(export, socket=path)
    if path or not parts.hostname:
        raise SourceError(f"{uri}: write nbd://HOST[:PORT]/EXPORT")
    return NbdAddress(export, host=parts.hostname, port=DEFAULT_PORT if port is None else port)


class Wire:
    """A connected socket. Its methods raise StreamFailed. One thread at a time.

    `timeout` is in seconds and bounds each `send` and each `receive`, not each system call, so a server that
    sends single bytes slowly cannot block us for ever.
    """

    def __init__(self, address: NbdAddress, timeout: float) -> None:
        """Connect. Raises SourceError when no server answers."""
        self.where = str(address)
        self._timeout = timeout
        self.received = 0
        try:
            if address.socket:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    self._socket.settimeout(timeout)
                    self._socket.connect(address.socket)
                except OSError:
                    self._socket.close()
                    raise
            else:
                self._socket = socket.create_connection((address.host, address.port), timeout)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            raise SourceError(f"{self.where}: cannot connect: {_reason(error)}") from error
        except UnicodeError as error:
            raise SourceError(f"{self.where}: cannot connect: that is no name of a host") from error
        # With the kernel's timeouts the socket stays blocking, so one system call fills a whole buffer.
        self._socket.settimeout(None)
        limit = struct.pack("@ll", int(timeout), int(timeout % 1 * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def close(self) -> None:
        self._socket.close()

    def send(self, data: Buffer) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self.failed(f"cannot send: {_reason(error)}") from error

    def receive(self, length: int) -> bytes:
        """Receive exactly `length` bytes. Callers check lengths that come from the server."""
        buffer = bytearray(length)
        self.receive_into(memoryview(buffer))
        return bytes(buffer)

    def receive_into(self, view: memoryview) -> None:
        """Receive bytes until the buffer is full."""
        done = 0
        deadline = 0.0
        while done < len(view):
            try:
                count = self._socket.recv_into(view[done:], 0, socket.MSG_WAITALL)
            except OSError as error:
                raise self.failed(_reason(error)) from error
            if not count:
                raise self.failed("the server closed the connection")
            done += count
            self.received += count
            now = time.monotonic()
            deadline = deadline or now + self._timeout
            if done < len(view) and now > deadline:
                raise self.failed(_reason(BlockingIOError()))

    def failed(self, reason: str) -> StreamFailed:
        """The error to raise when this connection cannot be used any more."""
        return StreamFailed(f"{self.where}: {reason}; nothing was committed")


def _reason(error: OSError) -> str:
    if isinstance(error, (BlockingIOError, TimeoutError)):
        return "the server does not answer in time"
    return error.strerror or str(error) or os.strerror(error.errno or 0)
