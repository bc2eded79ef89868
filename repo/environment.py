"""What all LMDB environments need: errors in our terms, a lock file with blocks, a map that may grow."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from holdfast.repo.errors import StoreError


def reserve(file: Path, size: int) -> None:
    """Have the blocks of a file that will be written through a map: where a full disk has none left, that
    would end the process by SIGBUS."""
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


@contextmanager
def translated(action: str, folder: Path) -> Iterator[None]:
    """LMDB's errors and the system's as StoreError; a full map passes: its owner makes it larger."""
    try:
        yield
    except lmdb.MapFullError:
        raise
    except (OSError, lmdb.Error) as error:
        code = errno.ENOSPC if "No space" in str(error) else errno.EIO
        raise StoreError.wrap(action, str(folder), OSError(code, str(error))) from error


class Gate:
    """Transactions pass side by side; whoever resizes the map passes alone.

    `set_mapsize` ends every transaction of the process, other threads' lookups among them.
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
