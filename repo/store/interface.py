"""The interface of stores of repository files, implemented by `local` and `memory`.

A store knows kinds and names of files and not their contents. Files are immutable: a file is written whole,
once, and never changed. `tests/support/store_conformance.py` tests the contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from holdfast.base.types import Buffer


class FileKind(Enum):
    """Kinds of files. The value is the name of their directory; configs are in the top directory."""

    CONFIG = "config"
    KEY = "keys"
    PACK = "packs"
    PENDING = "pending"
    SNAPSHOT = "snapshots"
    PROOF = "proofs"
    FORGOTTEN = "forgotten"
    KEYRING = "keyring"
    QUARANTINE = "quarantine"
    DAMAGE = "damage"
    SUBJECTS = "subjects"


class LockMode(Enum):
    """SHARED for processes that add files, EXCLUSIVE for a prune."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"


CONFIG_NAMES = ("config", "config.2")
"""File names of the config's two copies."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A listed file. `size` in bytes; `modified` in seconds since 1970, the time of trashing in the trash."""

    name: str
    size: int
    modified: float


class Store(Protocol):
    """Stores files by kind and name. Thread-safe. All methods raise StoreError, or NoSpace when full."""

    def describe(self, kind: FileKind, name: str) -> str:
        """Path or URL of a file, for messages."""
        ...

    def listing(self, kind: FileKind, *, trashed: bool = False) -> Iterator[StoredFile]:
        """Every complete file of that kind, in any order; no file that a crash left half-written, and none
        that is not named like one of that kind."""
        ...

    def strangers(self) -> Iterator[str]:
        """Paths of files and directories in the repository's directories that other programs left there."""
        ...

    def read(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read `length` bytes (None: all) from `offset`; fewer only at the file's end.

        Reads files in the trash too. Raises FileNotFoundError when there is no such file in either place.
        """
        ...

    def read_cached(self, kind: FileKind, name: str, offset: int, length: int) -> bytes | None:
        """As `read` if no disk or network access is needed, else None."""
        ...

    def put(self, kind: FileKind, name: str, data: Buffer) -> bool:
        """Store a whole file. Returns False and changes nothing when the name is taken.

        The content is durable on return, the name after `sync`.
        """
        ...

    def sync(self) -> None:
        """Make the names of all files that were stored, moved or deleted so far durable."""
        ...

    def trash(self, kind: FileKind, name: str) -> None:
        """Move a file to the trash, where it stays readable until it is deleted."""
        ...

    def untrash(self, kind: FileKind, name: str) -> None:
        """Move a file back from the trash. Raises FileNotFoundError when it is not there."""
        ...

    def delete(self, kind: FileKind, name: str, *, trashed: bool = False) -> None:
        """Delete a file. A missing file is no error."""
        ...

    def lock(self, mode: LockMode, timeout: float) -> AbstractContextManager[None]:
        """Hold the repository lock, which ends with the process. Raises Locked after `timeout` seconds."""
        ...

    def doubts(self) -> list[str]:
        """Why the exclusive lock that is held may not keep out everybody, in words; empty when it does."""
        ...

    def claims(self) -> list[str]:
        """Names of the claims of other processes that may hold the lock: see `repo.store.claims`."""
        ...

    def remove_claim(self, name: str) -> None:
        """Remove the claim of a process that cannot run any more."""
        ...

    def clean(self) -> int:
        """Delete files that crashes left half-written, under the exclusive lock. Returns bytes freed."""
        ...
