"""The process that parses a guest's disk: `python -m holdfast.formats.guests.worker.worker FD MODULE MEMORY`.

Each disk has its own. It imports the parsers, locks itself in (`worker.sandbox`) and greets its parent. Only
then the parent sends it the size of the disk and answers its requests for bytes. It ends when the parent
closes the socket.
"""

from __future__ import annotations

import codecs
import gc
import importlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final

from holdfast.base.lru import Lru
from holdfast.formats.guests.filesystems.base.interface import BlockDevice, FileSystem, OpenVolume
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import Entry, GuestError, GuestMissing, Volume
from holdfast.formats.guests.worker.codec import (
    LINK_LIMIT,
    pack_attributes,
    pack_entry,
    pack_named,
    pack_page,
    pack_volumes,
)
from holdfast.formats.guests.worker.disk_cache import CachedDisk
from holdfast.formats.guests.worker.protocol import (
    MESSAGE_LIMIT,
    READ_LIMIT,
    Channel,
    Kind,
    Nonsense,
    Opening,
    Request,
    Want,
    pack_layers,
)
from holdfast.formats.guests.worker.sandbox import lock_in

Opener = Callable[[BlockDevice, Sequence[str]], list[OpenVolume]]
Names = Iterator[tuple[bytes, Entry]]

_CODECS: Final = (
    "ascii", "cp437", "cp850", "cp1252", "idna", "latin-1", "utf-8", "utf-16", "utf-16-be", "utf-16-le",
    "utf-32-be", "utf-32-le",
)  # fmt: skip
"""Codecs that the parsers use: Python loads them from files on first use, which the sandbox forbids."""
_PAGE_NAMES: Final = 2000
"""Most names in one answer."""
_PAGE_BYTES: Final = 1 << 20
"""Most bytes of an answer with names."""
_OPEN_LISTINGS: Final = 16
"""Directories that are listed at the same time. With one more, the oldest listing starts again and skips the
names that were sent."""
_GRACE: Final = 1
"""Seconds of processor time beyond those that the parent allows. They run out only when the parent is gone
and cannot kill the worker."""


class Worker:
    """Answers one request after the other."""

    def __init__(self, channel: Channel, opener: Opener) -> None:
        self._channel = channel
        self._opener = opener
        self._disk = CachedDisk(0, self._fetch)
        self._volumes: dict[str, OpenVolume] = {}
        self._listings: Lru[tuple[str, int, int], Names] = Lru(_OPEN_LISTINGS)
        self._answers: dict[Kind, Callable[[Request], tuple[Kind, bytes]]] = {
            Kind.ROOT: self._root,
            Kind.ENTRY: self._entry,
            Kind.LOOKUP: self._lookup,
            Kind.LIST: self._list,
            Kind.READLINK: self._readlink,
            Kind.XATTRS: self._xattrs,
            Kind.READ: self._read,
        }

    def run(self) -> None:
        """Answer requests until the parent closes the socket (EOFError), or until memory runs out."""
        while True:
            kind, body = self._channel.receive()
            try:
                answer, data = self._answer(kind, body)
            except (EOFError, OSError, Nonsense):
                raise
            except MemoryError:
                self._volumes.clear()
                self._listings.clear()
                self._channel.send(Kind.BROKEN, b"ran out of memory")
                return
            except GuestMissing as error:
                answer, data = Kind.MISSING, _text(error)
            except GuestError as error:
                answer, data = Kind.DAMAGED, _text(error)
            except (struct.error, IndexError) as error:
                answer, data = Kind.DAMAGED, _text(f"a structure ends before its last field: {error}")
            except Exception as error:  # noqa: BLE001  parsers of hostile bytes raise anything
                answer, data = Kind.DAMAGED, _text(f"the parser gave up: {type(error).__name__}: {error}")
            if len(data) > MESSAGE_LIMIT:
                answer, data = Kind.DAMAGED, _text(f"an answer of {len(data):,} bytes is too long")
            self._channel.send(answer, data)

    def _answer(self, kind: Kind, body: bytearray) -> tuple[Kind, bytes]:
        if kind is Kind.OPEN:
            opening = Opening.unpack(body)
            _set_timer(opening.seconds)
            return self._open(opening)
        request = Request.unpack(kind, body)
        _set_timer(request.seconds)
        return self._answers[kind](request)

    def _fetch(self, want: Want) -> bytes | None:
        self._channel.send(Kind.WANT, want.pack())
        kind, body = self._channel.receive()
        if kind is Kind.DISK_ERROR:
            return None
        if kind is not Kind.DISK_BYTES or len(body) != want.length:
            raise Nonsense("the parent sent something else than the disk's bytes")
        return bytes(body)

    # ---- answers --------------------------------------------------------------------------------------

    def _open(self, opening: Opening) -> tuple[Kind, bytes]:
        """Open the disk's volumes. When they are opened again, the parsers forget all that they have cached,
        failed reads too."""
        self._listings.clear()
        self._volumes.clear()
        if self._disk.size != opening.size:
            self._disk = CachedDisk(opening.size, self._fetch)
        opened = self._opener(self._disk, opening.passphrases)
        named: dict[str, OpenVolume] = {}
        for volume in opened:
            named[_free_path(volume.volume.path, named)] = volume
        volumes = [
            Volume(path, v.size, v.offset, v.file_system, v.label, v.text)
            for path, v in ((path, open_.volume) for path, open_ in named.items())
        ]
        answer = pack_volumes(volumes, opening.size)
        self._volumes = named
        return Kind.VOLUMES, answer

    def _file_system(self, request: Request) -> FileSystem:
        opened = self._volumes.get(request.volume)
        if opened is None or opened.file_system is None:
            raise GuestMissing(f"no file system in {request.volume}")
        return opened.file_system

    def _one(self, entry: Entry) -> tuple[Kind, bytes]:
        return Kind.ONE_ENTRY, pack_entry(entry, self._disk.size)

    def _root(self, request: Request) -> tuple[Kind, bytes]:
        file_system = self._file_system(request)
        return self._one(file_system.entry(file_system.root))

    def _entry(self, request: Request) -> tuple[Kind, bytes]:
        return self._one(self._file_system(request).entry(request.inode))

    def _lookup(self, request: Request) -> tuple[Kind, bytes]:
        return self._one(self._file_system(request).lookup(request.inode, request.name))

    def _list(self, request: Request) -> tuple[Kind, bytes]:
        """Send the names from a position on. The listing that stopped there goes on. When it was dropped, or
        in a new worker, a new listing skips the names before: a disk does not change, so they are the
        same."""
        where = (request.volume, request.inode, request.position)
        names = self._listings.pop(where)
        if names is None:
            every = self._file_system(request).list(request.inode)
            names = islice(every, request.position, None)
        lines: list[bytes] = []
        size = 0
        for name, entry in names:
            line = pack_named(name, entry, self._disk.size)
            lines.append(line)
            size += len(line)
            if len(lines) == _PAGE_NAMES or size >= _PAGE_BYTES:
                self._listings.put((request.volume, request.inode, request.position + len(lines)), names)
                return Kind.PAGE, pack_page(lines, is_last=False)
        return Kind.PAGE, pack_page(lines, is_last=True)

    def _readlink(self, request: Request) -> tuple[Kind, bytes]:
        target = self._file_system(request).readlink(request.inode)
        if not 0 < len(target) <= LINK_LIMIT or b"\0" in target:
            limit = f"1 to {LINK_LIMIT} bytes without NUL"
            raise StructureDamaged(f"inode {request.inode}", "target of the link", target, limit)
        return Kind.RAW, target

    def _xattrs(self, request: Request) -> tuple[Kind, bytes]:
        return Kind.ATTRIBUTES, pack_attributes(self._file_system(request).xattrs(request.inode))

    def _read(self, request: Request) -> tuple[Kind, bytes]:
        length = min(request.length, READ_LIMIT)
        data = self._file_system(request).read(request.inode, request.position, length)
        if len(data) > length:
            structure = f"inode {request.inode}"
            raise StructureDamaged(structure, "number of bytes read", len(data), f"at most {length}")
        return Kind.RAW, data


def _free_path(path: str, taken: dict[str, OpenVolume]) -> str:
    """A path that no other volume has. It may be taken: the volume groups of a disk and of its copy share a
    name."""
    number, free = 1, path
    while free in taken:
        number += 1
        free = f"{path}~{number}"
    return free


def _text(error: object) -> bytes:
    return str(error)[:500].encode(errors="replace")


def _set_timer(seconds: int) -> None:
    """Let the kernel end this process after some seconds of processor time. Otherwise an endless loop would
    outlive the parent."""
    signal.setitimer(signal.ITIMER_PROF, seconds + _GRACE)


@contextmanager
def one_processor() -> Iterator[None]:
    """Import `cryptography` inside this context. OpenSSL's Argon2id starts a thread for each lane when it
    found several processors as it was loaded, and fails where threads are refused. The keys are the same."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


def main() -> None:
    """Run the worker; never returns."""
    descriptor, module, memory = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    channel = Channel(socket.socket(fileno=descriptor))
    with one_processor():
        opener: Opener = importlib.import_module(module).open_volumes
    for name in _CODECS:
        codecs.lookup(name)
    gc.freeze()
    layers = lock_in(descriptor, memory)
    try:
        channel.send(Kind.HELLO, pack_layers(layers))
        Worker(channel, opener).run()
    except (EOFError, OSError, Nonsense):
        os._exit(0)  # the parent is gone, or does not want this worker any more
    os._exit(1)


if __name__ == "__main__":
    main()
