"""Where repository files live: one small interface, implemented by `store_local` and `store_memory`.

A store knows kinds and names and nothing of their contents. Files are immutable: they are put whole,
once, and never changed; `tests/support/store_conformance.py` is the contract in executable form.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from holdfast.base.types import Buffer


class FileKind(Enum):
    """What files are there. The value is the folder's name (configs stand at the top)."""

    CONFIG = "config"
    KEY = "keys"
    PACK = "packs"
    PENDING = "pending"
    SNAPSHOT = "snapshots"
    PROOF = "proofs"


class LockMode(Enum):
    """SHARED for whoever adds, EXCLUSIVE for the one that sweeps."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"


CONFIG_NAMES = ("config", "config.2")
"""The one kind that lives at the top: its two copies."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A listed file. `modified` (seconds since 1970) is the time of trashing for files in the trash."""

    name: str
    size: int
    modified: float


class Store(Protocol):
    """All methods raise StoreError (NoSpace when full) with the path. Thread-safe."""

    def describe(self, kind: FileKind, name: str) -> str:
        """Path or URL of a file, for messages."""
        ...

    def listing(self, kind: FileKind, *, trashed: bool = False) -> Iterator[StoredFile]:
        """Every whole file of that kind, in no order. What a crash left half-written is not shown."""
        ...

    def read(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file; fewer than asked only at its end. A file in the trash can still be read.

        Raises FileNotFoundError when there is no such file, in use or in the trash.
        """
        ...

    def read_cached(self, kind: FileKind, name: str, offset: int, length: int) -> bytes | None:
        """The same, only if it needs no waiting for a disk or network; else None."""
        ...

    def put(self, kind: FileKind, name: str, data: Buffer) -> bool:
        """Store a whole file unless the name is taken (then False and nothing changes).

        After return the content is durable; the name is durable after `sync`.
        """
        ...

    def sync(self) -> None:
        """Make the names of all files put, moved or deleted so far durable."""
        ...

    def trash(self, kind: FileKind, name: str) -> None:
        """Take a file out of use; it stays readable until it is deleted from the trash."""
        ...

    def untrash(self, kind: FileKind, name: str) -> None:
        """Bring a file back from the trash. Raises FileNotFoundError when it is not there."""
        ...

    def delete(self, kind: FileKind, name: str, *, trashed: bool = False) -> None:
        """Remove a file. What is gone already is no error."""
        ...

    def lock(self, mode: LockMode, timeout: float) -> AbstractContextManager[None]:
        """Hold the repository lock; raises Locked after `timeout` seconds. Dies with the process."""
        ...

    def clean(self) -> int:
        """Remove what crashes left half-written; call it under the exclusive lock. Returns bytes freed."""
        ...

    def index_folder(self) -> Path | None:
        """A local folder fit for memory-mapped files, or None when the store has none."""
        ...
