"""Taking snapshots out of use, and back."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.repo.errors import NotFound
from holdfast.repo.pairs import trash_pair, untrash_pair
from holdfast.repo.repository import Repository
from holdfast.repo.store import Kind, LockMode
from holdfast.repo.types import SnapshotID


def forget(repository: Repository, ids: Sequence[SnapshotID], *, lock_timeout: float = 60.0) -> None:
    """Move snapshots to the trash; their data stays until a prune finds them there long enough."""
    with repository.store.lock(LockMode.SHARED, lock_timeout):
        for id_ in ids:
            try:
                trash_pair(repository.store, Kind.SNAPSHOT, id_)
            except FileNotFoundError:
                raise NotFound(f"snapshot {id_[:8]} is not there any more") from None


def undelete(repository: Repository, ids: Sequence[SnapshotID], *, lock_timeout: float = 60.0) -> None:
    """Bring forgotten snapshots back. Under the lock, so that no prune removes their data meanwhile."""
    with repository.store.lock(LockMode.SHARED, lock_timeout):
        for id_ in ids:
            try:
                untrash_pair(repository.store, Kind.SNAPSHOT, id_)
            except FileNotFoundError:
                raise NotFound(f"snapshot {id_[:8]} is not in the trash") from None
