"""The inside of a stored disk, for the mount and the command line: volumes, directories, files.

A worker process without privileges does all parsing (worker/). Its answers are not trusted: a malicious disk
may have taken over the parser.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from holdfast.base.errors import Damaged, HoldfastError
from holdfast.base.escaping import foreign_words
from holdfast.formats.guests.values.damage import StructureDamaged
from holdfast.formats.guests.values.values import (
    Entry,
    GuestDamaged,
    GuestError,
    GuestMissing,
    Volume,
    WorkerFailed,
)
from holdfast.formats.guests.worker.codec import (
    LINK_LIMIT,
    unpack_attributes,
    unpack_entry,
    unpack_page,
    unpack_volumes,
)
from holdfast.formats.guests.worker.process import WORDS_LIMIT, Limits, WorkerProcess
from holdfast.formats.guests.worker.protocol import READ_LIMIT, Kind, Nonsense, Opening, Request, Want

Answer = TypeVar("Answer")

_PARSERS: Final = "holdfast.formats.guests.volumes.open"
_ANSWERS: Final = {
    Kind.OPEN: Kind.VOLUMES,
    Kind.ROOT: Kind.ONE_ENTRY,
    Kind.ENTRY: Kind.ONE_ENTRY,
    Kind.LOOKUP: Kind.ONE_ENTRY,
    Kind.LIST: Kind.PAGE,
    Kind.READLINK: Kind.RAW,
    Kind.XATTRS: Kind.ATTRIBUTES,
    Kind.READ: Kind.RAW,
}


class DiskSource(Protocol):
    """The stored disk."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return all the bytes. Raises RepositoryError, or GuestDamaged where the source could not be read
        when it was backed up."""
        ...


class GuestDisk:
    """The inside of a disk. A context manager; synchronous, for one thread at a time, except `close`.

    The first call starts a worker, and so does the first call after a worker failed. Every method raises
    GuestMissing for names and numbers that do not exist, GuestDamaged for what the parser could not read,
    WorkerFailed, and the error of the disk when it could not deliver bytes that the parser needed.

    `opener` is the module with the parsers, for tests; `clock` returns seconds, to count failures in a time.
    """

    def __init__(
        self,
        disk: DiskSource,
        *,
        name: str,
        passphrases: Sequence[str] = (),
        limits: Limits = Limits(),  # noqa: B008  frozen
        opener: str = _PARSERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._disk = disk
        self._name = name
        self._passphrases = passphrases
        self._limits = limits
        self._opener = opener
        self._clock = clock
        self._worker: WorkerProcess | None = None
        self._volumes: dict[str, Volume] | None = None
        self._disk_error: HoldfastError | None = None
        self._failures: deque[float] = deque(maxlen=limits.failures)
        self._closed = False
        self._asking = threading.Lock()

    def __enter__(self) -> GuestDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker for good; from any thread. A call in progress fails, and so does every later one, so
        that a long listing does not start a new worker."""
        self._closed = True
        worker = self._worker
        if worker is not None:
            worker.interrupt()
        with self._asking:
            self._drop_worker()

    def _drop_worker(self) -> None:
        worker, self._worker, self._volumes = self._worker, None, None
        if worker is not None:
            worker.kill()

    # ---- questions ------------------------------------------------------------------------------------

    def volumes(self) -> tuple[Volume, ...]:
        """All volumes of the disk, with and without a file system."""
        with self._asking:
            return tuple(self._opened()[1].values())

    def root(self, volume: str) -> Entry:
        """The top directory of a volume's file system."""
        return self._ask(Kind.ROOT, volume, self._entry)

    def entry(self, volume: str, inode: int) -> Entry:
        return self._ask(Kind.ENTRY, volume, self._entry, inode=inode)

    def lookup(self, volume: str, folder: int, name: bytes) -> Entry:
        """Find one name in a directory."""
        return self._ask(Kind.LOOKUP, volume, self._entry, inode=folder, name=name)

    def list(self, volume: str, folder: int) -> Iterator[tuple[bytes, Entry]]:
        """The names in a folder, some thousand of them in memory at a time; other questions may be asked in
        between. Raises as `page`."""
        position, is_last = 0, False
        while not is_last:
            lines, is_last = self.page(volume, folder, position)
            position += len(lines)
            yield from lines

    def page(self, volume: str, folder: int, position: int) -> tuple[Sequence[tuple[bytes, Entry]], bool]:
        """The names in a folder behind the first `position`, as many as come at once, and whether they are
        the last. Raises GuestDamaged after `Limits.names`: a damaged folder can be endless."""
        lines, is_last = self._ask(Kind.LIST, volume, self._page, inode=folder, position=position)
        if position + len(lines) > self._limits.names:
            raise StructureDamaged(
                f"{self._name}: {volume}: directory {folder}",
                "number of names",
                f"at least {position + len(lines)}",
                f"at most {self._limits.names}",
            )
        return lines, is_last

    def readlink(self, volume: str, inode: int) -> bytes:
        """The target of a link as the guest wrote it; it means nothing outside of the guest."""
        return self._ask(Kind.READLINK, volume, _target, inode=inode)

    def xattrs(self, volume: str, inode: int) -> dict[bytes, bytes]:
        """The extended attributes of `user.`, and the ACLs."""
        return self._ask(Kind.XATTRS, volume, unpack_attributes, inode=inode)

    def read(self, volume: str, inode: int, offset: int, length: int) -> bytes:
        """Read bytes of a file through its parser; fewer only where the file ends. Reading the disk is faster
        where the entry has extents: see client.content."""
        parts: list[bytes] = []
        while length > 0:
            wanted = min(length, READ_LIMIT)
            unpack = partial(_content, wanted)
            part = self._ask(Kind.READ, volume, unpack, inode=inode, position=offset, length=wanted)
            parts.append(part)
            offset += len(part)
            length -= len(part)
            if len(part) < wanted:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _entry(self, body: bytearray) -> Entry:
        return unpack_entry(body, self._disk.size)

    def _page(self, body: bytearray) -> tuple[Sequence[tuple[bytes, Entry]], bool]:
        return unpack_page(body, self._disk.size)

    # ---- the worker -----------------------------------------------------------------------------------

    def _ask(
        self,
        kind: Kind,
        volume: str,
        unpack: Callable[[bytearray], Answer],
        *,
        inode: int = 0,
        position: int = 0,
        length: int = 0,
        name: bytes = b"",
    ) -> Answer:
        seconds = self._limits.answer_seconds
        try:
            request = Request(kind, volume, inode, position, length, name, math.ceil(seconds)).pack()
        except ValueError as error:
            raise GuestMissing(f"{self._name}: nothing in a guest has such a name or number") from error
        with self._asking:
            worker, volumes = self._opened()
            if volume not in volumes:
                raise GuestMissing(f"{self._name}: there is no volume {volume}")
            answer = self._exchange(worker, kind, request, unpack, seconds=seconds)
            if self._disk_error is not None:
                # The parser may have kept wrong values because of the failed read.
                self._volumes = None
                raise self._disk_error
        if isinstance(answer, GuestError):
            raise answer
        return answer

    def _opened(self) -> tuple[WorkerProcess, dict[str, Volume]]:
        """The worker and the volumes that it has open."""
        if self._worker is None and not self._closed:
            self._worker = self._start()
        worker = self._worker
        if worker is None or self._closed:  # meanwhile
            raise WorkerFailed(f"{self._name}: is closed")
        if self._volumes is None:
            limits = self._limits
            seconds = limits.answer_seconds + limits.unlock_seconds * len(self._passphrases)
            request = Opening(self._disk.size, self._passphrases, math.ceil(seconds)).pack()
            volumes = self._exchange(worker, Kind.OPEN, request, self._all_volumes, seconds=seconds)
            # Damage is permanent: that volume says so, the others can be read. Other errors may pass.
            if self._disk_error is not None and (
                isinstance(volumes, GuestError) or not isinstance(self._disk_error, Damaged | GuestDamaged)
            ):
                raise self._disk_error
            if isinstance(volumes, GuestError):
                raise volumes
            self._volumes = {volume.path: volume for volume in volumes}
        return worker, self._volumes

    def _all_volumes(self, body: bytearray) -> tuple[Volume, ...]:
        return unpack_volumes(body, self._disk.size)

    def _start(self) -> WorkerProcess:
        limits, failures, now = self._limits, self._failures, self._clock()
        many = len(failures) == limits.failures and now - failures[0] < limits.failure_seconds
        if many and now - failures[-1] < limits.pause_seconds:
            left = math.ceil(failures[-1] + limits.pause_seconds - now)
            raise WorkerFailed(
                f"{self._name}: the parser failed {len(failures)} times; it is tried again in {left} s"
            )
        memory = limits.memory + (limits.unlock_memory if self._passphrases else 0)
        try:
            return WorkerProcess.start(self._opener, memory, limits)
        except WorkerFailed as error:
            failures.append(self._clock())
            raise WorkerFailed(f"{self._name}: {error}") from error

    def _exchange(
        self,
        worker: WorkerProcess,
        kind: Kind,
        request: bytes,
        unpack: Callable[[bytearray], Answer],
        *,
        seconds: float,
    ) -> Answer | GuestError:
        """Send a request and return the answer, or the error of the parser. `_disk_error` is then the error
        of the disk, if it had one."""
        self._disk_error = None
        limits = self._limits
        try:
            reply, body = worker.exchange(
                kind,
                request,
                serve=self._serve,
                disk_size=self._disk.size,
                seconds=seconds,
                disk_bytes=limits.disk_bytes,
            )
            if reply is _ANSWERS[kind]:
                return unpack(body)
            if reply is Kind.MISSING:
                return GuestMissing(f"{self._name}: {foreign_words(body, WORDS_LIMIT)}")
            if reply is Kind.DAMAGED:
                return GuestDamaged(f"{self._name}: {foreign_words(body, WORDS_LIMIT)}")
            raise Nonsense(f"{reply.name} is no answer to {kind.name}")
        except (WorkerFailed, Nonsense) as error:
            self._drop_worker()
            self._failures.append(self._clock())
            reason = f"the parser answered nonsense: {error}" if isinstance(error, Nonsense) else error
            raise WorkerFailed(f"{self._name}: {reason}") from error
        except BaseException:  # Ctrl-C in the middle of a message
            self._drop_worker()
            raise

    def _serve(self, want: Want) -> bytes | None:
        try:
            data = self._disk.read(want.offset, want.length)
        except HoldfastError as error:
            if want.is_exact and self._disk_error is None:
                self._disk_error = error
            return None
        assert len(data) == want.length, "a disk delivers all bytes or raises"
        return data


def _content(wanted: int, body: bytearray) -> bytes:
    if len(body) > wanted:
        raise Nonsense(f"{len(body)} bytes where {wanted} were asked for")
    return bytes(body)


def _target(body: bytearray) -> bytes:
    if not 0 < len(body) <= LINK_LIMIT or b"\0" in body:
        raise Nonsense("a link that points to nothing")
    return bytes(body)
