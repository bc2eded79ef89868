"""Packs in the trash, for who needs them all the same."""

from __future__ import annotations

from holdfast.base.errors import Damaged, StoreError, Unsupported
from holdfast.base.types import PackID
from holdfast.repo.core.repository import Repository
from holdfast.repo.store.interface import FileKind


def learn_trash(repository: Repository) -> bool:
    """Tell the index what packs in the trash hold that it never saw in use: another one did, or the cache is
    new. Returns whether there was anything. It is asked when a chunk is in no other pack."""
    learned = False
    for entry in repository.store.listing(FileKind.PACK, trashed=True):
        pack = PackID(entry.name)
        if repository.index.is_resting(pack) or repository.index.is_listed(pack):
            continue
        try:
            directory = repository.directory(pack, entry.size)
        except (FileNotFoundError, Damaged, Unsupported, StoreError):
            continue
        repository.index.add([(pack, entry.size, directory)], trashed=True)
        learned = True
    return learned


def size_of(repository: Repository, pack: PackID) -> int:
    """Bytes of a pack, in use or in the trash. Raises FileNotFoundError."""
    for trashed in (False, True):
        for entry in repository.store.listing(FileKind.PACK, trashed=trashed):
            if entry.name == pack:
                return entry.size
    raise FileNotFoundError(repository.store.describe(FileKind.PACK, pack))
