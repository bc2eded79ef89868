"""A store that counts its calls and fails at a chosen one."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from holdfast.base.errors import StoreError
from holdfast.base.types import Buffer
from holdfast.repo.store.interface import FileKind, LockMode, Store, StoredFile

T = TypeVar("T")


class Crash(BaseException):
    """The process is gone. Not an Exception: nothing may handle it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """The `number`th thing asked of a store, from 1. `kind` is None for `sync`, `lock` and `clean`."""

    number: int
    action: str
    kind: FileKind | None = None
    name: str = ""


Fault = Callable[[Operation], None]
"""Looks at an operation and may raise."""


def no_fault(operation: Operation) -> None:
    """Let everything happen."""


def fail_at(number: int, code: int = errno.EIO) -> Fault:
    """The `number`th operation is refused by the operating system; those after it work again."""

    def fault(operation: Operation) -> None:
        if operation.number == number:
            raise StoreError.wrap(operation.action, operation.name, OSError(code, os.strerror(code)))

    return fault


def crash_at(number: int) -> Fault:
    """The process dies at the `number`th operation: that one and all after it raise Crash."""

    def fault(operation: Operation) -> None:
        if operation.number >= number:
            raise Crash(operation)

    return fault


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FaultyStore:
    """Wraps a store. `before` is asked ahead of every operation, `after` when it has happened: a crash
    `before` a put leaves nothing, a crash `after` it leaves the file. `operations` is the record."""

    inner: Store
    before: Fault = no_fault
    after: Fault = no_fault
    operations: list[Operation] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def did(self, *actions: str) -> list[tuple[str, FileKind | None]]:
        """(action, kind) of the operations so far, of these actions only."""
        return [(o.action, o.kind) for o in self.operations if o.action in actions]

    def _do(self, action: str, kind: FileKind | None, name: str, work: Callable[[], T]) -> T:
        with self._guard:
            operation = Operation(len(self.operations) + 1, action, kind, name)
            self.operations.append(operation)
        self.before(operation)
        result = work()
        self.after(operation)
        return result

    def describe(self, kind: FileKind, name: str) -> str:
        return self.inner.describe(kind, name)

    def listing(self, kind: FileKind, *, trashed: bool = False) -> Iterator[StoredFile]:
        return iter(self._do("list", kind, "", lambda: list(self.inner.listing(kind, trashed=trashed))))

    def strangers(self) -> Iterator[str]:
        return self.inner.strangers()

    def read(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._do("read", kind, name, lambda: self.inner.read(kind, name, offset, length))

    def read_cached(self, kind: FileKind, name: str, offset: int, length: int) -> bytes | None:
        return self._do("read", kind, name, lambda: self.inner.read_cached(kind, name, offset, length))

    def put(self, kind: FileKind, name: str, data: Buffer) -> bool:
        return self._do("put", kind, name, lambda: self.inner.put(kind, name, data))

    def sync(self) -> None:
        self._do("sync", None, "", self.inner.sync)

    def trash(self, kind: FileKind, name: str) -> None:
        self._do("trash", kind, name, lambda: self.inner.trash(kind, name))

    def untrash(self, kind: FileKind, name: str) -> None:
        self._do("untrash", kind, name, lambda: self.inner.untrash(kind, name))

    def delete(self, kind: FileKind, name: str, *, trashed: bool = False) -> None:
        self._do("delete", kind, name, lambda: self.inner.delete(kind, name, trashed=trashed))

    @contextmanager
    def lock(self, mode: LockMode, timeout: float) -> Iterator[None]:
        self._do("lock", None, mode.value, lambda: None)
        with self.inner.lock(mode, timeout):
            yield

    def doubts(self) -> list[str]:
        return self.inner.doubts()

    def claims(self) -> list[str]:
        return self.inner.claims()

    def remove_claim(self, name: str) -> None:
        self.inner.remove_claim(name)

    def clean(self) -> int:
        return self._do("clean", None, "", self.inner.clean)
