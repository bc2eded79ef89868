"""What all LMDB environments need: errors in our terms, a lock file with blocks, a map that may grow."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

from holdfast.base.errors import StoreError

FIRST_MAP: Final = 64 << 20
"""Bytes of a new environment's map; it grows when it is full."""
_LABEL: Final = b"holdfast"
_READERS: Final = 512
_LOCK_SIZE: Final = 36 << 10
"""Bytes of LMDB's lock file with that many readers, 64 each, rounded up."""


def reserve(file: Path, size: int) -> None:
    """Allocate the blocks of a file that will be written through a memory map. Raises OSError.

    Without blocks, a write to the map on a full disk would kill the process with SIGBUS.
    """
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


def open_labelled(
    folder: Path, label: bytes, databases: Sequence[bytes], map_size: int
) -> tuple[Any, list[Any]]:
    """Open an environment with this label, which processes may share, and these databases in it.

    Replaces a damaged environment, or one of another label, by a new one. Raises OSError, or lmdb.Error when
    the system refuses or this process has it open already.
    """
    try:
        return _open(folder, label, databases, map_size)
    except lmdb.Error as error:
        # A plain Error: the system refused, or this process has it open; the content is not damaged.
        innocent = (lmdb.DiskError, lmdb.ReadonlyError, lmdb.LockError)
        if isinstance(error, innocent) or type(error) is lmdb.Error:
            raise
    for name in ("data.mdb", "lock.mdb"):
        (folder / name).unlink(missing_ok=True)
    return _open(folder, label, databases, map_size)


@contextmanager
def openable(folder: Path) -> Iterator[str]:
    """A path of a folder for LMDB's binding, which takes nothing that is not UTF-8."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
    else:
        yield str(folder)


def _open(folder: Path, label: bytes, databases: Sequence[bytes], map_size: int) -> tuple[Any, list[Any]]:
    reserve(folder / "lock.mdb", _LOCK_SIZE)
    with openable(folder) as path:
        env: Any = lmdb.open(
            path,
            map_size=map_size,
            max_dbs=len(databases) + 1,
            mode=0o600,
            readahead=False,
            metasync=False,  # a power cut may lose the last commit; `Index.sync` adds it again
            max_readers=_READERS,
        )
    try:
        used = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        if (folder / "data.mdb").stat().st_size < used:  # reading on would end in SIGBUS
            raise lmdb.CorruptedError("data.mdb is truncated")
        env.reader_check()  # frees the pages that killed readers hold
        opened = [env.open_db(name) for name in databases]
        with env.begin() as txn:
            found = txn.get(_LABEL)
        if found is None:
            with env.begin(write=True) as txn:
                txn.put(_LABEL, label)
        elif found != label:
            raise lmdb.InvalidError("of another owner or layout")
    except BaseException:
        env.close()
        raise
    return env, opened


@contextmanager
def translate_errors(action: str, folder: Path) -> Iterator[None]:
    """Raise LMDB's errors and the system's as StoreError.

    MapFullError and MapResizedError pass unchanged: the caller resizes the map and tries again.
    """
    try:
        yield
    except (lmdb.MapFullError, lmdb.MapResizedError):
        raise
    except (OSError, lmdb.Error) as error:
        code = errno.ENOSPC if "No space" in str(error) else errno.EIO
        raise StoreError.wrap(action, str(folder), OSError(code, str(error))) from error


class ResizeGate:
    """A readers-writer lock: transactions hold it `shared`, a thread that resizes the map holds it `alone`.

    `set_mapsize` ends every transaction of the process, including those of other threads.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._condition:
            while self._waiting:
                self._condition.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._condition:
            self._waiting += 1
            while self._inside:
                self._condition.wait()
            try:
                yield
            finally:
                self._waiting -= 1
                self._condition.notify_all()
