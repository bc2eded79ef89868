"""NBD servers for tests: qemu-nbd and nbdkit as processes, and one of ours that lies on demand."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.ingest.nbd.source import NbdSource
from support.basics import need

# ---- real servers -------------------------------------------------------------------------------------


@contextmanager
def qemu_nbd(folder: Path, *options: str, shared: int = 1) -> Iterator[str]:
    """qemu-nbd with these options: the path of its socket. It stays until the end of the block."""
    need(shutil.which("qemu-nbd"), "qemu-nbd")
    yield from _daemon(
        folder,
        ["qemu-nbd", "-t", "-e", str(shared), "--fork", "--pid-file", "{pid}", "-k", "{socket}"],
        options,
    )


@contextmanager
def nbdkit(folder: Path, *options: str) -> Iterator[str]:
    """nbdkit with these options: the path of its socket, if they name no port."""
    need(shutil.which("nbdkit"), "nbdkit")
    place = [] if "-p" in options else ["-U", "{socket}"]
    yield from _daemon(folder, ["nbdkit", "-P", "{pid}", *place], options)


def _daemon(folder: Path, command: list[str], options: tuple[str, ...]) -> Iterator[str]:
    path, pid = folder / "nbd.sock", folder / "nbd.pid"
    argv = [part.format(socket=path, pid=pid) for part in command]
    with (folder / "nbd.log").open("w+b") as log:  # no pipe: the daemon would keep it open
        done = subprocess.run(
            [*argv, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
        )
        log.seek(0)
        assert done.returncode == 0, log.read().decode()
    try:
        yield str(path)
    finally:
        kill(folder)
        path.unlink(missing_ok=True)


def kill(folder: Path) -> None:
    """End the server of this folder now."""
    path = folder / "nbd.pid"
    if not path.exists():
        return
    number = int(path.read_text())
    path.unlink()
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(number)
        try:
            os.kill(number, signal.SIGKILL)
            select.select([descriptor], [], [], 10)
        finally:
            os.close(descriptor)


def qemu_img(*arguments: str | Path) -> None:
    need(shutil.which("qemu-img"), "qemu-img")
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def qemu_io(image: Path, *commands: str) -> None:
    """Change a qcow2 image, its bitmaps following."""
    need(shutil.which("qemu-io"), "qemu-io")
    options = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *options, str(image)], check=True, stdout=subprocess.DEVNULL)


# ---- one of ours --------------------------------------------------------------------------------------

GREETING = b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
ACK, SERVER, INFO, META = 1, 2, 3, 4
UNSUPPORTED, UNKNOWN = (1 << 31) | 1, (1 << 31) | 6
OPTION_NAMES = {3: "list", 7: "go", 8: "structured", 9: "list contexts", 10: "contexts"}
ALLOCATION, DIRTY = 11, 22
"""IDs of the contexts."""


@dataclass(frozen=True)
class Request:
    kind: int
    cookie: int
    offset: int
    length: int
    flags: int = 0


def option_reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data


def chunk(request: Request, kind: int, data: bytes = b"", *, done: bool = True) -> bytes:
    head = struct.pack(">IHHQI", 0x668E33EF, done, kind, request.cookie, len(data))
    return head + data


def data_chunk(request: Request, offset: int, data: bytes, *, done: bool = True) -> bytes:
    return chunk(request, 1, struct.pack(">Q", offset) + data, done=done)


def hole_chunk(request: Request, offset: int, length: int, *, done: bool = True) -> bytes:
    return chunk(request, 2, struct.pack(">QI", offset, length), done=done)


def error_chunk(request: Request, number: int, *, done: bool = True) -> bytes:
    return chunk(request, (1 << 15) | 1, struct.pack(">IH", number, 3) + b"bad", done=done)


def status_chunk(request: Request, context: int, *runs: tuple[int, int], done: bool = True) -> bytes:
    return chunk(
        request, 5, struct.pack(">I", context) + b"".join(struct.pack(">II", *r) for r in runs), done=done
    )


def export_info(size: int, flags: int = 1) -> bytes:
    return struct.pack(">HQH", 0, size, flags)


def block_sizes(minimum: int, maximum: int) -> bytes:
    return struct.pack(">HIII", 3, minimum, 4096, maximum)


Answer = Callable[["FakeServer", Request], bytes]


@dataclass
class FakeServer:
    """Serves `content` to one client after the other. `options` replaces the whole answer to an option by its
    name, `read` and `status` the answer to a command; `hold` reads are answered together, last first."""

    path: str
    content: bytes = bytes(1 << 20)
    greeting: bytes = GREETING
    options: dict[str, bytes] = field(default_factory=dict)
    read: Answer = lambda server, r: data_chunk(r, r.offset, server.content[r.offset : r.offset + r.length])
    status: Answer = lambda server, r: server.all_data(r)
    hold: int = 1
    requests: list[Request] = field(default_factory=list)
    goodbyes: int = 0
    bitmap_wanted: bool = False

    def __enter__(self) -> FakeServer:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(120)
        assert not self.thread.is_alive()
        Path(self.path).unlink()

    def all_data(self, r: Request) -> bytes:
        dirty = status_chunk(r, DIRTY, (r.length, 0), done=False) if self.bitmap_wanted else b""
        return dirty + status_chunk(r, ALLOCATION, (r.length, 0))

    @property
    def uri(self) -> str:
        return f"nbd+unix:///disk?socket={self.path}"

    def _run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as stream, suppress(OSError, struct.error):
                client.sendall(self.greeting)
                stream.read(4)
                if self._negotiate(client, stream.read):
                    self._serve(client, stream.read)

    def _negotiate(self, client: socket.socket, receive: Callable[[int], bytes]) -> bool:
        contexts = struct.pack(">I", ALLOCATION) + b"base:allocation"
        dirty = struct.pack(">I", DIRTY) + b"qemu:dirty-bitmap:monday"
        while True:
            _, option, length = struct.unpack(">8sII", receive(16))
            asked = receive(length)
            usual = {
                "structured": [(ACK, b"")],
                "contexts": [(META, contexts), *([(META, dirty)] if b"monday" in asked else []), (ACK, b"")],
                "list contexts": [(META, dirty), (ACK, b"")],
                "list": [(SERVER, struct.pack(">I", 4) + b"disk"), (ACK, b"")],
                "go": [(INFO, export_info(len(self.content))), (ACK, b"")],
            }
            name = OPTION_NAMES[option]
            if name == "contexts":
                self.bitmap_wanted = b"monday" in asked
            answer = b"".join(option_reply(option, kind, data) for kind, data in usual[name])
            client.sendall(self.options.get(name, answer))
            if name == "go" and "list" not in self.options:  # else it was refused
                return True

    def _serve(self, client: socket.socket, receive: Callable[[int], bytes]) -> None:
        held: list[bytes] = []
        while True:
            _, flags, kind, cookie, offset, length = struct.unpack(">IHHQQI", receive(28))
            request = Request(kind, cookie, offset, length, flags)
            if kind == 2:
                self.goodbyes += 1
                return
            self.requests.append(request)
            if kind == 7:
                client.sendall(self.status(self, request))
                continue
            held.append(self.read(self, request))
            if len(held) >= self.hold:
                client.sendall(b"".join(reversed(held)))
                held.clear()


Server = Callable[..., FakeServer]


def go(*infos: bytes, ack: bool = True) -> dict[str, bytes]:
    return {"go": b"".join(option_reply(7, INFO, i) for i in infos) + (option_reply(7, ACK) if ack else b"")}


def usual(fake: FakeServer, r: Request, *, done: bool = True) -> bytes:
    return data_chunk(r, r.offset, fake.content[r.offset :][: r.length], done=done)


def read(source: NbdSource, offset: int, length: int) -> bytes:
    buffer = bytearray(b"?" * length)
    assert source.read_into(memoryview(buffer), offset) == length
    return bytes(buffer)
