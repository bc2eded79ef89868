"""Moves snapshots to the trash and back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from holdfast.base.errors import NotFound, NotInTrash, Refused
from holdfast.base.types import SnapshotID
from holdfast.repo.core.mirrored import restore_missing_copies, trash_mirrored, untrash_mirrored
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.forgotten import record_forgotten, retract_forgotten
from holdfast.repo.records.high_water import refuse_vanished
from holdfast.repo.store.interface import FileKind, LockMode
from holdfast.repo.upkeep.prune_plan import collect_reachable


def forget(repository: Repository, ids: Sequence[SnapshotID], *, lock_timeout: float = 60.0) -> None:
    """Move snapshots to the trash. A prune after their quarantine deletes them. Raises NotFound, Locked.

    First a record says so, durably: a snapshot that is gone without one was removed by somebody else.
    Raises SnapshotsVanished when there are such already: nothing is forgotten then.
    """
    if not ids:
        return
    refuse_vanished(repository)
    with repository.store.lock(LockMode.SHARED, lock_timeout):
        record_forgotten(repository, ids, time.time())
        for id_ in ids:
            try:
                trash_mirrored(repository.store, FileKind.SNAPSHOT, id_)
            except FileNotFoundError:
                raise NotFound(f"snapshot {id_[:8]} is not there any more") from None


def undelete(repository: Repository, ids: Sequence[SnapshotID], *, lock_timeout: float = 60.0) -> None:
    """Move snapshots back from the trash. Raises NotFound, or Refused when a prune has deleted their data.

    Moves all packs back first, so that no snapshot exists without its data; the shared lock keeps prunes
    out. The next prune removes the packs that are not needed.
    """
    store = repository.store
    with store.lock(LockMode.SHARED, lock_timeout):
        trashed = {s.id: s for s in repository.snapshots(trashed=True).good}
        for id_ in ids:
            if id_ not in trashed:
                raise NotInTrash(f"snapshot {id_[:8]} is not in the trash")
        for entry in list(store.listing(FileKind.PACK, trashed=True)):
            with suppress(FileNotFoundError):
                store.untrash(FileKind.PACK, entry.name)
        store.sync()
        repository.refresh()
        for id_ in ids:
            with repository.id_set("undelete") as seen:
                if collect_reachable(repository, [trashed[id_]], seen, lambda count: None):
                    raise Refused(
                        f"snapshot {id_[:8]} cannot come back: a prune has deleted some of its data"
                    )
            untrash_mirrored(store, FileKind.SNAPSHOT, id_)
        retract_forgotten(repository, ids)
        restore_missing_copies(store, FileKind.SNAPSHOT, repository.parse_snapshot)
