"""Descriptors kept open between reads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class OpenFiles:
    """A few descriptors of packs kept open; one in use is never closed under its reader."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _OpenFile] = OrderedDict()

    @contextmanager
    def borrow(self, key: str, opener: Callable[[], int]) -> Iterator[int]:
        with self._lock:
            file = self._files.get(key)
            if file is None:
                file = self._files[key] = _OpenFile(opener())
            self._files.move_to_end(key)
            file.users += 1
            while len(self._files) > self._limit:
                self._drop(next(iter(self._files)))
        try:
            yield file.fd
        finally:
            with self._lock:
                file.users -= 1
                file.close_if_unused()

    def forget(self, key: str) -> None:
        with self._lock:
            if key in self._files:
                self._drop(key)

    def close(self) -> None:
        with self._lock:
            for key in list(self._files):
                self._drop(key)

    def _drop(self, key: str) -> None:
        file = self._files.pop(key)
        file.dropped = True
        file.close_if_unused()


class _OpenFile:
    __slots__ = ("dropped", "fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0
        self.dropped = False

    def close_if_unused(self) -> None:
        if self.dropped and self.users == 0:
            os.close(self.fd)
