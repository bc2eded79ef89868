"""What the index answers besides locations: the result of a synchronisation, and that it is damaged."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.base.errors import RepositoryError, StoreError


class IndexDamaged(StoreError):
    """What stands in the index makes no sense. The next one to open it makes a new one."""


@dataclass(frozen=True, slots=True)
class SyncResult:
    """Result of `Index.sync`: how many packs were added and removed, and which could not be read."""

    added: int
    removed: int
    rebuilt: bool
    damaged: tuple[RepositoryError, ...] = ()
    distrust: str = ""
    """Why the index that was there has been deleted."""
    no_cache: str = ""
    """Why the index cannot be kept in the user's cache, when it is one for this command only."""
