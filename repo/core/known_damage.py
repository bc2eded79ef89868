"""Notes of damage: sealed files that tell all clients which chunks are damaged in which packs.

A note names chunks and the packs in which a check or a reader found them damaged. Such a copy of a chunk
counts as absent for every client, whenever its index was made: the next backup that has the chunk stores it
anew. Reading tries such a copy last, so that not even a wrong note makes good data unreadable. Nobody without
a key can make a note. A prune drops notes of packs that are gone, a check those of copies that open.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final

from holdfast.base.errors import Damaged, StoreError, Unsupported
from holdfast.base.stored_json import VersionedJson, read_versioned
from holdfast.base.types import ChunkID, PackID
from holdfast.repo.format.crypto import Keys, content_hash, open_object, seal_object
from holdfast.repo.format.format import OBJECT_LIMIT, ObjectType
from holdfast.repo.store.interface import FileKind, Store

DAMAGE_VERSION: Final = 1
_MOST: Final = 10_000
"""Chunks in one note."""


class KnownDamage:
    """The notes of a repository, as last read, and what this process found. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: set[str] = set()
        self._chunks: dict[PackID, set[ChunkID]] = {}

    def packs(self) -> dict[PackID, set[ChunkID]]:
        """The damaged chunks of each pack that has some."""
        with self._lock:
            return {pack: set(ids) for pack, ids in self._chunks.items()}

    def by_chunk(self) -> dict[ChunkID, set[PackID]]:
        """The packs in which each chunk is damaged."""
        found: dict[ChunkID, set[PackID]] = {}
        for pack, ids in self.packs().items():
            for id_ in ids:
                found.setdefault(id_, set()).add(pack)
        return found

    def refresh(self, store: Store, keys: Keys) -> bool:
        """Read what others noted since. One listing when nothing changed. Returns whether anything did."""
        files = _files(store)
        if files == self._files:
            return False
        known: dict[PackID, set[ChunkID]] = {}
        for name in sorted(files):
            with suppress(FileNotFoundError, Damaged, Unsupported):  # replaced since, or of no use
                for pack, ids in _read(store, keys, name).items():
                    known.setdefault(PackID(pack), set()).update(ChunkID(bytes.fromhex(id_)) for id_ in ids)
        with self._lock:
            self._files, self._chunks = files, known
        return True

    def add(self, store: Store, keys: Keys, pack: PackID, ids: Iterable[ChunkID]) -> None:
        """Note that chunks are damaged in a pack. Where nothing can be written this process knows only."""
        with self._lock:
            known = self._chunks.setdefault(pack, set())
            new = sorted(set(ids) - known)
            known.update(new)
        if new:
            with suppress(StoreError):
                self._write(store, keys, [(pack, id_) for id_ in new])

    def keep(self, store: Store, keys: Keys, wanted: Mapping[PackID, Collection[ChunkID]]) -> None:
        """Replace all notes that were read by notes of `wanted`. Notes that others write meanwhile stay.

        The new notes are durable before the old ones are deleted.
        """
        with self._lock:
            before, self._files = self._files, set()
            self._chunks = {pack: set(ids) for pack, ids in wanted.items() if ids}
            pairs = sorted((pack, id_) for pack, ids in self._chunks.items() for id_ in ids)
        with suppress(StoreError):
            self._write(store, keys, pairs)
            for name in before - self._files:
                store.delete(FileKind.DAMAGE, name)
            store.sync()

    def is_folded(self) -> bool:
        """Whether the notes are as few as they can be."""
        return len(self._files) <= 1

    def _write(self, store: Store, keys: Keys, pairs: list[tuple[PackID, ChunkID]]) -> None:
        for at in range(0, len(pairs), _MOST):
            packs: dict[PackID, list[str]] = {}
            for pack, id_ in pairs[at : at + _MOST]:
                packs.setdefault(pack, []).append(id_.hex())
            body = json.dumps({"version": DAMAGE_VERSION, "packs": packs}, sort_keys=True).encode()
            sealed = seal_object(keys, ObjectType.DAMAGE, body)
            name = content_hash(sealed)
            store.put(FileKind.DAMAGE, name, sealed)
            with self._lock:
                self._files = self._files | {name}
        store.sync()


class _DamageJson(VersionedJson):
    packs: dict[str, list[str]]


def _files(store: Store) -> set[str]:
    return {entry.name for entry in store.listing(FileKind.DAMAGE)}


def _read(store: Store, keys: Keys, name: str) -> Mapping[str, Collection[str]]:
    """Raises FileNotFoundError, Damaged, Unsupported."""
    where = store.describe(FileKind.DAMAGE, name)
    data = store.read(FileKind.DAMAGE, name, 0, OBJECT_LIMIT)
    body = open_object(keys, ObjectType.DAMAGE, data, where)
    found = read_versioned(body, _DamageJson, kind="note of damage", version=DAMAGE_VERSION, where=where)
    if not all(_is_id(id_) for ids in found.packs.values() for id_ in ids):
        raise Damaged(where, "not a note of damage: it names what is no chunk")
    return found.packs


def _is_id(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) == 32
    except ValueError:
        return False
