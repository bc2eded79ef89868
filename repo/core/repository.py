"""A repository: config, keys, snapshots and the index together, opened with a secret."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast.base.errors import (
    Damaged,
    NoRepository,
    RepositoryError,
    RepositoryExists,
    StoreError,
    Unsupported,
)
from holdfast.base.types import PackID, SnapshotID
from holdfast.repo.core.keyslots import KeySlot, add_slot, unlock
from holdfast.repo.core.mirrored import delete_mirrored, mirrored_names, put_mirrored, read_mirrored
from holdfast.repo.format.crypto import Argon2Cost, Keys, Suite, content_hash, open_object, seal_object
from holdfast.repo.format.format import PACK_TARGET, VERSION, ObjectType
from holdfast.repo.index.index import Directory, Index, SyncResult, remove_index
from holdfast.repo.packs.reader import PackCiphers, read_directory, salvage_directory
from holdfast.repo.snapshots.snapshot import StoredSnapshot, decode
from holdfast.repo.store.interface import FileKind, LockMode, Store

_FORMAT = "holdfast repository"
_FEATURES: frozenset[str] = frozenset()
"""Features beyond format version 2 that this program supports; none yet."""

_SCRATCH_ROOM = 1 << 30

IndexProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Config:
    """Properties that are fixed when a repository is created. `compression` is the zstd level of records."""

    id: bytes
    suite: Suite
    created: datetime
    compression: int

    @property
    def hex_id(self) -> str:
        return self.id.hex()


@dataclass(frozen=True, slots=True)
class Snapshots:
    """All snapshots that could be read, oldest first, and the errors of the others."""

    good: tuple[StoredSnapshot, ...]
    damaged: tuple[RepositoryError, ...]


class Repository:
    """An open repository. A context manager. The index opens on first use and closes with the repository.

    Several processes may have the same repository open; one process may open it only once.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        keys: Keys,
        root: bytes,
        slot: KeySlot,
        cache: Path,
        notify: Callable[[SyncResult], None],
        pack_target: int,
    ) -> None:
        self.store = store
        self.config = config
        self.keys = keys
        self.slot = slot
        self.pack_target = pack_target
        self.ciphers = PackCiphers(store, keys)
        self._notify = notify
        self._root = root
        self._cache = cache / config.hex_id
        self._index: Index | None = None
        self._index_place = 0
        self._refreshing = threading.Lock()

    @staticmethod
    def create(
        store: Store,
        secret: str,
        *,
        created: datetime,
        label: str = "",
        suite: Suite = Suite.AES_256_GCM,
        compression: int = 2,
        cost: Argon2Cost | None = None,
    ) -> None:
        """Create a repository in an empty store. The config is written last, so a crash leaves none.

        Raises RepositoryExists when there is a config. Removes key slots that an interrupted `create` left
        without a config: they wrap a root key that nothing uses.
        """
        with store.lock(LockMode.EXCLUSIVE, 10.0):
            if mirrored_names(store, FileKind.CONFIG):
                raise RepositoryExists("there is a repository already")
            for stray in mirrored_names(store, FileKind.KEY):
                delete_mirrored(store, FileKind.KEY, stray)
            root = secrets.token_bytes(32)
            repository = secrets.token_bytes(16)
            add_slot(store, root, secret, label=label, created=created.isoformat(), cost=cost)
            head = {"format": _FORMAT, "version": VERSION, "id": repository.hex(), "features": []}
            public = json.dumps(head | {"suite": int(suite)}, sort_keys=True).encode()
            body = {
                "public": content_hash(public),
                "created": created.isoformat(),
                "compression": compression,
            }
            keys = Keys.from_root(root, repository, suite)
            sealed = seal_object(keys, ObjectType.CONFIG, json.dumps(body, sort_keys=True).encode())
            put_mirrored(store, FileKind.CONFIG, "config", public + b"\n" + sealed)

    @staticmethod
    def open(
        store: Store,
        secret: Callable[[], str],
        *,
        cache: Path,
        notify: Callable[[SyncResult], None] = lambda synced: None,
        pack_target: int = PACK_TARGET,
    ) -> Repository:
        """Open a repository. Calls `secret` only when there is one whose format version is supported.

        `cache` is a directory of this user for the index of stores that cannot hold one. `notify` is called
        with the result of every refresh of the index. `pack_target` is the most bytes of a new pack. Raises
        NoRepository, Unsupported, WrongPassword or Damaged.
        """
        try:
            read_mirrored(store, FileKind.CONFIG, "config", _parse_public)
        except FileNotFoundError:
            where = store.describe(FileKind.CONFIG, "config")
            raise NoRepository(f"no repository there: {where} is missing") from None
        root, slot = unlock(store, secret())

        def parse(data: bytes, where: str) -> tuple[Config, Keys]:
            return _open_config(data, where, root)

        config, keys = read_mirrored(store, FileKind.CONFIG, "config", parse)
        return Repository(
            store,
            config,
            keys=keys,
            root=root,
            slot=slot,
            cache=cache,
            notify=notify,
            pack_target=pack_target,
        )

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None

    @property
    def root_key(self) -> bytes:
        """The root key, for adding key slots. Never show or store it."""
        return self._root

    @property
    def index(self) -> Index:
        """The index as of the last `refresh`. The first use opens and refreshes it."""
        if self._index is None:
            self.refresh()
        assert self._index is not None
        return self._index

    def refresh(self, progress: IndexProgress | None = None) -> SyncResult:
        """Synchronise the index with the packs that the store lists now. Raises StoreError.

        When the index cannot be written (full or read-only disk), uses one in the user's cache instead.
        """
        with self._refreshing:
            # The trash second: a pack that moves there meanwhile is seen twice, not missed.
            packs = [(PackID(entry.name), entry.size) for entry in self.store.listing(FileKind.PACK)]
            trashed = [PackID(entry.name) for entry in self.store.listing(FileKind.PACK, trashed=True)]
            while True:
                folder = self.index_folder
                try:
                    if self._index is None:
                        self._index = Index(folder, self.config.id)
                    synced = self._index.sync(packs, self._directory, progress, trashed=trashed)
                except StoreError as error:
                    if not error.path.startswith(str(folder)) or folder == self._index_folders()[-1]:
                        raise
                    self.close()
                    self._index_place += 1
                else:
                    self._notify(synced)
                    return synced

    def _directory(self, pack: PackID, size: int) -> Directory:
        """A pack's directory; when that is damaged, rebuilt from the headers of its records."""
        try:
            return read_directory(self.store, self.ciphers, pack, size)
        except Damaged:
            records = salvage_directory(self.store, self.ciphers, pack)
            if not records:
                raise
            return records

    def _index_folders(self) -> list[Path]:
        beside = self.store.index_folder()
        return [folder for folder in (beside, self._cache / "index") if folder is not None]

    @property
    def index_folder(self) -> Path:
        """The directory of the index, whether it is open or not."""
        folders = self._index_folders()
        return folders[min(self._index_place, len(folders) - 1)]

    @property
    def cache_folder(self) -> Path:
        """This user's directory for what is remembered of the repository; it need not exist."""
        return self._cache

    def drop_index(self) -> None:
        """Delete the index; the next use rebuilds it from the packs."""
        self.close()
        for folder in self._index_folders():
            remove_index(folder)

    def scratch(self, name: str) -> Path:
        """An unused path for a temporary directory, on the first file system with 1 GiB free."""
        directories = [folder.parent for folder in self._index_folders()] + [Path(tempfile.gettempdir())]
        for directory in directories:
            with suppress(OSError):
                if shutil.disk_usage(directory).free > _SCRATCH_ROOM and os.access(directory, os.W_OK):
                    return directory / f"scratch-{name}-{secrets.token_hex(4)}"
        return directories[-1] / f"holdfast-{name}-{secrets.token_hex(4)}"

    def snapshots(self, *, trashed: bool = False, pending: bool = False) -> Snapshots:
        """Read all committed snapshots, or those in the trash, or (`pending`) those being committed."""
        kind = FileKind.PENDING if pending else FileKind.SNAPSHOT
        good: list[StoredSnapshot] = []
        damaged: list[RepositoryError] = []
        for name in mirrored_names(self.store, kind, trashed=trashed):
            try:
                good.append(self.read_snapshot(kind, name))
            except (Damaged, Unsupported) as error:
                damaged.append(error)
            except FileNotFoundError:
                continue  # removed since it was listed
        good.sort(key=lambda stored: (stored.snapshot.time, stored.id))
        return Snapshots(tuple(good), tuple(damaged))

    def read_snapshot(self, kind: FileKind, name: str) -> StoredSnapshot:
        """Read a snapshot from either good copy. Raises FileNotFoundError, Damaged or Unsupported."""
        return read_mirrored(
            self.store, kind, name, lambda data, where: self.parse_snapshot(data, where, name)
        )

    def parse_snapshot(self, data: bytes, where: str, name: str) -> StoredSnapshot:
        """Decrypt and decode a snapshot file. Raises Damaged or Unsupported."""
        if content_hash(data) != name:
            raise Damaged(where, "content does not match its name")
        body = open_object(self.keys, ObjectType.SNAPSHOT, data, where)
        return StoredSnapshot(SnapshotID(name), decode(body, where))

    def verify_config(self, data: bytes, where: str) -> None:
        """Raises Damaged or Unsupported unless `data` is this repository's config."""
        config, _ = _open_config(data, where, self._root)
        if config != self.config:
            raise Damaged(where, "is another repository's config")


def _parse_public(data: bytes, where: str) -> dict[str, Any]:
    """The config's public head, which is not authenticated yet. Raises Damaged or Unsupported."""
    try:
        head = json.loads(data.partition(b"\n")[0])
        if head["format"] != _FORMAT:
            raise Damaged(where, "not a Holdfast repository's config")
        if head["version"] != VERSION:
            raise Unsupported(
                f"{where}: repository format version {head['version']}; this program reads version {VERSION}"
            )
        unknown = sorted(set(head["features"]) - _FEATURES)
        if unknown:
            raise Unsupported(f"{where}: needs features this program does not know: {', '.join(unknown)}")
        Suite(head["suite"])
        if len(bytes.fromhex(head["id"])) != 16:
            raise ValueError("bad id")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(where, f"not a config: {error}") from None
    return dict(head)


def _open_config(data: bytes, where: str, root: bytes) -> tuple[Config, Keys]:
    head = _parse_public(data, where)
    public, _, sealed = data.partition(b"\n")
    repository = bytes.fromhex(head["id"])
    suite = Suite(head["suite"])
    keys = Keys.from_root(root, repository, suite)
    body = json.loads(open_object(keys, ObjectType.CONFIG, sealed, where))
    if body["public"] != content_hash(public):
        raise Damaged(where, "its public head was changed")
    created = datetime.fromisoformat(body["created"]).astimezone(UTC)
    return Config(repository, suite, created, int(body["compression"])), keys
