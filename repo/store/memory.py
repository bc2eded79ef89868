"""An in-memory store, for tests. It passes the same conformance tests as the local store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holdfast.base.errors import Locked
from holdfast.base.types import Buffer
from holdfast.repo.store.interface import FileKind, LockMode, StoredFile
from holdfast.repo.store.layout import is_named_like


class MemoryStore:
    """Files in a dictionary. `clock` gives the times of trashing in seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._guard = threading.Condition()
        self._holders = 0  # -1: one exclusive holder
        self.files: dict[tuple[FileKind, str], bytes] = {}
        self.trashed: dict[tuple[FileKind, str], tuple[bytes, float]] = {}

    def describe(self, kind: FileKind, name: str) -> str:
        return f"memory:{kind.value}/{name}"

    def listing(self, kind: FileKind, *, trashed: bool = False) -> Iterator[StoredFile]:
        with self._guard:
            if trashed:
                found = [StoredFile(n, len(d), t) for (k, n), (d, t) in self.trashed.items() if k is kind]
            else:
                found = [StoredFile(n, len(d), 0.0) for (k, n), d in self.files.items() if k is kind]
        yield from (entry for entry in found if is_named_like(kind, entry.name))

    def strangers(self) -> Iterator[str]:
        with self._guard:
            names = [*self.files, *self.trashed]
        yield from (self.describe(kind, name) for kind, name in names if not is_named_like(kind, name))

    def read(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._guard:
            data = self.files.get((kind, name))
            if data is None and (kind, name) in self.trashed:
                data = self.trashed[kind, name][0]
        if data is None:
            raise FileNotFoundError(self.describe(kind, name))
        return data[offset:] if length is None else data[offset : offset + length]

    def read_cached(self, kind: FileKind, name: str, offset: int, length: int) -> bytes | None:
        return self.read(kind, name, offset, length)

    def put(self, kind: FileKind, name: str, data: Buffer) -> bool:
        with self._guard:
            if (kind, name) in self.files:
                return False
            self.files[kind, name] = bytes(data)
            return True

    def sync(self) -> None:
        pass

    def trash(self, kind: FileKind, name: str) -> None:
        with self._guard:
            if (kind, name) in self.files:
                self.trashed[kind, name] = (self.files.pop((kind, name)), self._clock())
            elif (kind, name) not in self.trashed:
                raise FileNotFoundError(self.describe(kind, name))

    def untrash(self, kind: FileKind, name: str) -> None:
        with self._guard:
            if (kind, name) in self.trashed:
                self.files[kind, name] = self.trashed.pop((kind, name))[0]
            elif (kind, name) not in self.files:
                raise FileNotFoundError(self.describe(kind, name))

    def delete(self, kind: FileKind, name: str, *, trashed: bool = False) -> None:
        with self._guard:
            (self.trashed if trashed else self.files).pop((kind, name), None)

    @contextmanager
    def lock(self, mode: LockMode, timeout: float) -> Iterator[None]:
        shared = mode is LockMode.SHARED
        with self._guard:
            free = self._guard.wait_for(lambda: self._holders >= 0 if shared else self._holders == 0, timeout)
            if not free:
                raise Locked("memory: is locked")
            self._holders = self._holders + 1 if shared else -1
        try:
            yield
        finally:
            with self._guard:
                self._holders = self._holders - 1 if shared else 0
                self._guard.notify_all()

    def doubts(self) -> list[str]:
        return []

    def claims(self) -> list[str]:
        return []

    def remove_claim(self, name: str) -> None:
        """There is none."""

    def clean(self) -> int:
        return 0
