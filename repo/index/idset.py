"""A set of chunk IDs of any size: small ones in memory, larger ones in LMDB on disk, where there is room.

Reachability walks keep what they saw in such sets. A prune has to work on a disk that is full, so a set that
finds no room goes on in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import lmdb

from holdfast.base.errors import StoreError
from holdfast.repo.index.hidden import HiddenTable
from holdfast.repo.index.lmdb_env import FIRST_MAP, translate_errors
from holdfast.repo.index.opening import open_nameless

_IN_MEMORY: Final = 200_000
"""Keys kept in a set of Python's, about 90 bytes each; with LMDB a key takes half of that."""


class IdSet:
    """A set of chunk IDs. A context manager: nothing of it is left at the end, nor after a kill. Raises
    StoreError.

    `scratch` is asked for an unused path when the set outgrows `in_memory` keys; None means in memory. The
    files hold the keys of an index's table instead of the IDs.
    """

    def __init__(
        self,
        scratch: Callable[[], Path | None],
        hidden: HiddenTable,
        *,
        in_memory: int = _IN_MEMORY,
        first_map: int = FIRST_MAP,
    ) -> None:
        self._scratch = scratch
        self._key = hidden.table_key
        self._limit = in_memory
        self._first_map = first_map
        self._recent: set[bytes] = set()
        self._environments: list[Any] = []

    def __enter__(self) -> IdSet:
        return self

    def __exit__(self, *_: object) -> None:
        for environment in self._environments:
            environment.close()

    def add(self, ids: Iterable[bytes]) -> list[bytes]:
        """Add IDs. Returns those that were new, in order, once each."""
        wanted = {id_: self._key(id_) for id_ in ids}
        there = self.contains_keys(list(wanted.values()))
        new = [id_ for id_, known in zip(wanted, there, strict=True) if not known]
        self._recent.update(wanted[id_] for id_ in new)
        if len(self._recent) > self._limit:
            self._move_recent()
        return new

    def contains(self, ids: Sequence[bytes]) -> list[bool]:
        return self.contains_keys(list(map(self._key, ids)))

    def contains_keys(self, keys: Sequence[bytes]) -> list[bool]:
        """The same for IDs whose keys in the index's table are known."""
        found = [key in self._recent for key in keys]
        for environment in self._environments:
            with environment.begin() as txn:
                found = [known or txn.get(key) is not None for known, key in zip(found, keys, strict=True)]
        return found

    def _move_recent(self) -> None:
        """Write what is in memory into LMDB; when the disk is full, into another one that is in memory."""
        try:
            if not self._environments:
                self._environments.append(self._opened())
            self._write(self._environments[-1])
        except StoreError:
            self._environments.append(open_nameless(None, self._first_map)[1])
            self._write(self._environments[-1])
        self._recent.clear()

    def _opened(self) -> Any:
        return open_nameless(self._scratch(), self._first_map)[1]

    def _write(self, environment: Any) -> None:
        keys = sorted(self._recent)
        while True:
            try:
                with (
                    translate_errors("write to", Path(environment.path())),
                    environment.begin(write=True) as txn,
                ):
                    for key in keys:
                        txn.put(key, b"")
                    return
            except lmdb.MapFullError:
                environment.set_mapsize(environment.info()["map_size"] * 2)
