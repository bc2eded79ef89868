"""A set of chunk IDs on disk, which keeps the memory of reachability walks bounded."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lmdb

from holdfast.repo.index.hidden import HiddenTable
from holdfast.repo.index.lmdb_env import FIRST_MAP, translate_errors


class IdSet:
    """A set of chunk IDs on disk. A context manager that deletes its files at the end. Raises StoreError.

    The files hold the keys of an index's table instead of the IDs.
    """

    def __init__(self, folder: Path, hidden: HiddenTable, *, first_map: int = FIRST_MAP) -> None:
        self._folder = folder
        self._key = hidden.table_key
        with translate_errors("write to", folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._env: Any = lmdb.open(
                str(folder), map_size=first_map, sync=False, metasync=False, lock=False, mode=0o600
            )

    def __enter__(self) -> IdSet:
        return self

    def __exit__(self, *_: object) -> None:
        self._env.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, ids: Iterable[bytes]) -> list[bytes]:
        """Add IDs. Returns those that were new, in order, once each."""
        wanted = {id_: self._key(id_) for id_ in ids}
        while True:
            try:
                with translate_errors("write to", self._folder), self._env.begin(write=True) as txn:
                    return [id_ for id_, key in wanted.items() if txn.put(key, b"", overwrite=False)]
            except lmdb.MapFullError:
                self._env.set_mapsize(self._env.info()["map_size"] * 2)

    def contains(self, ids: Sequence[bytes]) -> list[bool]:
        return self.contains_keys(list(map(self._key, ids)))

    def contains_keys(self, keys: Sequence[bytes]) -> list[bool]:
        """The same for IDs whose keys in the index's table are known."""
        with self._env.begin() as txn:
            return [txn.get(key) is not None for key in keys]
