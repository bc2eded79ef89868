"""Descriptors kept open between reads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holdfast.base.lru import Lru


class OpenFiles:
    """A few descriptors of packs kept open; one in use is never closed under its reader."""

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._files: Lru[str, _OpenFile] = Lru(limit, lambda file: file.drop())

    @contextmanager
    def borrow(self, key: str, opener: Callable[[], int]) -> Iterator[int]:
        """The descriptor for `key`, from `opener` when it is not open."""
        with self._lock:
            file = self._files.get(key)
            if file is None:
                file = _OpenFile(opener())
                self._files.put(key, file)
            file.users += 1
        try:
            yield file.fd
        finally:
            with self._lock:
                file.users -= 1
                file.close_if_unused()

    def forget(self, key: str) -> None:
        """Close it once nobody uses it any more; the next one to borrow it opens it anew."""
        with self._lock:
            file = self._files.pop(key)
            if file is not None:
                file.drop()

    def close(self) -> None:
        """Close all descriptors, each once nobody uses it any more."""
        with self._lock:
            self._files.clear()


class _OpenFile:
    __slots__ = ("dropped", "fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True
        self.close_if_unused()

    def close_if_unused(self) -> None:
        if self.dropped and self.users == 0:
            os.close(self.fd)
