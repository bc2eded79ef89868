"""Parsers that a worker can be told to use instead of the real ones: file systems that behave, and misbehave.

A worker imports this module by its name, as it does `holdfast.formats.guests.volumes.open`. What happens is
chosen by the name that is looked up, so that one worker can be asked for all of it.
"""

from __future__ import annotations

import codecs
import ctypes
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from holdfast.formats.guests.filesystems.base.interface import BlockDevice, OpenVolume
from holdfast.formats.guests.values.values import (
    DiskExtent,
    Entry,
    GuestDamaged,
    GuestMissing,
    NodeType,
    Volume,
)

MANY: Final = 20_000
"""Names in the folder MANY_FOLDER."""
ROOT, FILE, MANY_FOLDER, ENDLESS, ODD_NAME, DAMAGED_LATER, PACKED = 2, 11, 12, 13, 14, 15, 16
CONTENT_AT: Final = 1 << 20
"""Where FILE's bytes lie on the disk, in two pieces the wrong way round with zeros between them."""
EXTENTS: Final = (
    DiskExtent(0, 5000, CONTENT_AT + 10_000),
    DiskExtent(5000, 3000, -1),
    DiskExtent(8000, 2000, CONTENT_AT),
)


def make_entry(
    inode: int, type_: NodeType, size: int = 0, extents: tuple[DiskExtent, ...] | None = None
) -> Entry:
    return Entry(inode, type_, 0o644, 1000, 100, 1, size, size, 3, 2, 1, 0, extents)


class FakeFileSystem:
    """Keeps to holdfast.formats.guests.filesystems.base.interface.FileSystem."""

    kind = "fake"
    label = "label"
    root = ROOT

    def __init__(self, disk: BlockDevice) -> None:
        self._disk = disk
        self.remembered: dict[str, str] = {}

    def entry(self, inode: int) -> Entry:
        match inode:
            case 2 | 12 | 13 | 14 | 15:
                return make_entry(inode, NodeType.FOLDER)
            case 11:
                return make_entry(inode, NodeType.FILE, 10_000, EXTENTS)
            case 16:
                return make_entry(inode, NodeType.FILE, 3 << 20)
        raise GuestMissing(f"no inode {inode}")

    def list(self, inode: int) -> Iterator[tuple[bytes, Entry]]:
        match inode:
            case 2:
                yield b"file", self.entry(FILE)
                yield b"many", self.entry(MANY_FOLDER)
            case 12:
                for i in range(MANY):
                    extents = (DiskExtent(0, 512, 512 * i),)
                    yield b"name %d" % i, make_entry(100 + i, NodeType.FILE, 512, extents)
            case 13:
                while True:
                    yield b"again", self.entry(FILE)
            case 14:
                yield b"good", self.entry(FILE)
                yield b"../../etc/passwd", self.entry(FILE)
            case 15:
                yield from ((b"name %d" % i, self.entry(FILE)) for i in range(3000))
                raise GuestDamaged("block 7 of the folder is damaged")

    def lookup(self, inode: int, name: bytes) -> Entry:
        trick, _, argument = name.decode().partition(" ")
        if trick not in TRICKS:
            return dict(self.list(inode))[name] if inode == ROOT and name == b"file" else self.entry(0)
        said = TRICKS[trick](self, argument)
        raise GuestDamaged(f"{trick} {said}")

    def readlink(self, inode: int) -> bytes:
        return b"/etc/passwd"

    def xattrs(self, inode: int) -> dict[bytes, bytes]:
        if inode == PACKED:
            return {b"user.%d" % i: bytes(60_000) for i in range(200)}  # more than an answer may hold
        return {b"user.comment": b"\0value", b"security.capability": b"all", b"trusted.x": b""}

    def read(self, inode: int, offset: int, length: int) -> bytes:
        if inode != PACKED:
            raise GuestMissing(f"no inode {inode}")
        return self._disk.read(offset, max(0, min(length, (3 << 20) - offset)))


# ---- what a lookup can set off ------------------------------------------------------------------------


def _loop(file_system: FakeFileSystem, argument: str) -> str:
    while True:
        pass


def _eat(file_system: FakeFileSystem, argument: str) -> str:
    eaten = []
    while True:
        eaten.append(bytearray(64 << 20))


def _eat_small_bites(file_system: FakeFileSystem, argument: str) -> str:
    eaten: list[object] = []
    while True:
        eaten.append([eaten])


def _recurse(file_system: FakeFileSystem, argument: str) -> str:
    return _recurse(file_system, argument)


def _read(file_system: FakeFileSystem, argument: str) -> str:
    offset, length = map(int, argument.split())
    return file_system._disk.read(offset, length).hex()


def _read_on_and_on(file_system: FakeFileSystem, argument: str) -> str:
    while True:
        file_system._disk.read(0, 1)
        file_system._disk._blocks.clear()  # type: ignore[attr-defined]  # a parser may do anything


def _swallow(file_system: FakeFileSystem, argument: str) -> str:
    """What many parsers do: take a failed read for a part that is not there, and remember it."""
    if argument not in file_system.remembered:
        try:
            file_system.remembered[argument] = _read(file_system, argument)
        except GuestDamaged:
            file_system.remembered[argument] = "nothing there"
    return file_system.remembered[argument]


def _refused(act: Callable[[], object]) -> str:
    """What the system said, or that it let it happen."""
    try:
        result = act()
    except (OSError, ImportError, LookupError, ValueError) as error:
        return f"refused: {error}"
    return f"allowed: {result!r}"


def _connect() -> None:
    with socket.socket(socket.AF_INET) as connection:
        connection.connect(("127.0.0.1", 9))


def _system_call(*arguments: object) -> int:
    result: int = _libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _map_code() -> object:
    """Memory to write code to: mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, private and anonymous)."""
    _libc.mmap.restype = ctypes.c_long
    result = _libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


_libc = ctypes.CDLL(None, use_errno=True)

ESCAPES: Final[dict[str, Callable[[], object]]] = {
    "open": lambda: Path("/etc/passwd").read_text(),
    "open-for-writing": lambda: Path("/tmp/escaped").write_text("x"),  # noqa: S108  must not appear
    "stat": lambda: os.stat("/etc/passwd"),  # noqa: PTH116
    "list": lambda: os.listdir("/"),  # noqa: PTH208
    "proc-self": lambda: Path("/proc/self/maps").read_text(),
    "proc-parent": lambda: Path(f"/proc/{os.getpid()}/environ").read_text(),
    "unlink": lambda: os.unlink("/etc/nothing"),  # noqa: PTH108
    "socket": lambda: socket.socket(socket.AF_UNIX),
    "connect": _connect,
    "socketpair": socket.socketpair,
    "pipe": os.pipe,
    "fork": os.fork,
    "exec": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "kill": lambda: os.kill(1, 0),
    "kill-parent": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "stdout": lambda: os.write(1, b"x"),
    "stderr": lambda: os.write(2, b"x"),
    "read-stdin": lambda: os.read(0, 1),
    "ptrace": lambda: _system_call(ctypes.c_long(101), 16, os.getpid(), None, None),
    "io_uring": lambda: _system_call(ctypes.c_long(425), 8, None),
    "bpf": lambda: _system_call(ctypes.c_long(321), 0, None, 0),
    "memfd": lambda: os.memfd_create("code"),
    "clone": lambda: _system_call(ctypes.c_long(56), 17, None, None, None, None),
    "clone3": lambda: _system_call(ctypes.c_long(435), None, 0),
    "code": _map_code,
    "setuid": lambda: os.setuid(0),
    "unshare": lambda: _system_call(ctypes.c_long(272), 0x10000000),
    "import": lambda: importlib.import_module("wave"),
    "raise-limits": lambda: __import__("resource").setrlimit(7, (100, 100)),
    "signal-handler": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
}
"""What must be refused inside. Numbers of system calls are those of x86-64."""

TRICKS: Final[dict[str, Callable[[FakeFileSystem, str], str]]] = {
    "loop": _loop,
    "read-then-loop": lambda file_system, argument: _read(file_system, "1000 1") and _loop(file_system, ""),
    "exit": lambda file_system, argument: os._exit(3),
    "segfault": lambda file_system, argument: str(ctypes.string_at(8)),
    "eat": _eat,
    "eat-small": _eat_small_bites,
    "recurse": _recurse,
    "key-error": lambda file_system, argument: dict[str, str]()[argument],
    "read": _read,
    "read-on": _read_on_and_on,
    "swallow": _swallow,
    "escape": lambda file_system, argument: _refused(ESCAPES[argument]),
    "environment": lambda file_system, argument: repr(sorted(os.environ)),
    "arguments": lambda file_system, argument: repr(sys.argv),
    "identity": lambda file_system, argument: repr((os.getpid(), sys.stdout)),
    "codec": lambda file_system, argument: codecs.decode(b"a\0b\0", argument),
    "control": lambda file_system, argument: "\x1b[31m\nred",
}


def open_volumes(disk: BlockDevice, passphrases: Sequence[str]) -> list[OpenVolume]:
    """`p1` has a file system, the others none; a text tells the passphrases. With the passphrase `read at N`
    the disk is read there first, as a parser of partition tables would."""
    text = ", ".join(passphrases)
    for passphrase in passphrases:
        if passphrase.startswith("read at "):
            try:
                disk.read(int(passphrase.removeprefix("read at ")), 512)
            except GuestDamaged as error:
                text = str(error)
    return [
        OpenVolume(Volume("p1", disk.size, 0, "fake", "label", ""), FakeFileSystem(disk)),
        OpenVolume(Volume("lvm/vg/swap", 4096, -1, "", "", text), None),
        OpenVolume(Volume("lvm/vg/swap", 4096, -1, "", "", "a second of the same name"), None),
    ]
