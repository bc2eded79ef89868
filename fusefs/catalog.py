"""The snapshots that are there now. Does I/O: on the bridge's threads, one call at a time."""

from __future__ import annotations

import logging

from holdfast.base.errors import Damaged, RepositoryError, Unsupported
from holdfast.base.types import SnapshotID
from holdfast.repo.core.mirrored import mirrored_names
from holdfast.repo.core.repository import IndexProgress, Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.interface import FileKind
from holdfast.tree.build import Tree, build_tree
from holdfast.tree.snapshot import nanoseconds

_log = logging.getLogger("holdfast.fusefs")


class Catalog:
    """Reads each snapshot once. What cannot be read is logged and left out: the others are served."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._listed: dict[str, int] = {}
        self._good: dict[SnapshotID, StoredSnapshot] = {}
        self._said: dict[str, str] = {}
        self.stored_bytes = 0
        """Bytes of all packs, as of the last change."""

    def update(self, before: Tree | None, progress: IndexProgress | None = None) -> Tree | None:
        """The new tree, None when no snapshot came or went. Raises StoreError when the store or the
        index cannot be used."""
        listed = mirrored_names(self._repository.store, FileKind.SNAPSHOT)
        if before is not None and listed == self._listed:
            return None
        # First the index: a snapshot that is shown can be read.
        try:
            self._repository.refresh(progress)
        except (Damaged, Unsupported) as error:  # of one pack; all others are in the index
            _log.error("the index is not complete: %s", error)
        for name in listed:
            if name not in self._good:
                self._read(name)
        self._good = {id_: stored for id_, stored in self._good.items() if id_ in listed}
        self.stored_bytes = sum(entry.size for entry in self._repository.store.listing(FileKind.PACK))
        self._listed = listed
        born = nanoseconds(self._repository.config.created)
        return build_tree(self._good.values(), before, born=born)

    def _read(self, name: str) -> None:
        try:
            stored = self._repository.read_snapshot(FileKind.SNAPSHOT, name)
        except FileNotFoundError:
            return  # removed since it was listed
        except RepositoryError as error:
            if self._said.get(name) != str(error):
                self._said[name] = str(error)
                _log.error("a snapshot cannot be read and is not shown: %s", error)
            return
        self._good[stored.id] = stored
