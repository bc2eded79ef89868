"""A repository: config, keys, snapshots and the index together, opened with a secret."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from holdfast.base.errors import (
    Damaged,
    NoRepository,
    OtherKey,
    RepositoryError,
    RepositoryExists,
    StoreError,
    Unsupported,
)
from holdfast.base.types import ChunkID, PackID, SnapshotID
from holdfast.repo.core.config import Config, open_config, parse_public, seal_config
from holdfast.repo.core.epoch_memory import check_epoch, remember_epoch
from holdfast.repo.core.index_place import IndexPlace
from holdfast.repo.core.keyring import Epoch, Keyring, keyring_names, open_keyring, read_newest, write_keyring
from holdfast.repo.core.keyslots import KeySlot, OpenSlot, open_slot, write_slot
from holdfast.repo.core.known_damage import KnownDamage
from holdfast.repo.core.mirrored import delete_mirrored, mirrored_names, put_mirrored, read_mirrored
from holdfast.repo.core.scratch import scratch_path
from holdfast.repo.core.subject_records import read_subject_changes
from holdfast.repo.format.crypto import KEY_SIZE, Argon2Cost, Suite, content_hash, open_object
from holdfast.repo.format.format import PACK_TARGET, ObjectType
from holdfast.repo.index.hidden import HiddenTable
from holdfast.repo.index.idset import IdSet
from holdfast.repo.index.index import Directory, Index
from holdfast.repo.index.results import IndexDamaged, SyncResult
from holdfast.repo.packs.reader import PackCiphers, read_directory, salvage_directory
from holdfast.repo.snapshots.listed import Snapshots
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.snapshots.snapshot_json import decode
from holdfast.repo.store.interface import FileKind, LockMode, Store

T = TypeVar("T")
IndexProgress = Callable[[int, int], None]


class Repository:
    """An open repository. A context manager. The index opens on first use and closes with the repository.

    Several processes may have the same repository open; one process may open it only once.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        opened: OpenSlot,
        keyring: Keyring,
        cache: Path,
        notify: Callable[[SyncResult], None],
        pack_target: int,
    ) -> None:
        self.store = store
        self.config = config
        self.pack_target = pack_target
        self.ciphers = PackCiphers(store, keyring.keys(config.id, config.suite))
        self._notify = notify
        self._cache = cache / config.hex_id
        self.adopt(opened, keyring)
        self._index: Index | None = None
        self._place = IndexPlace(self._cache)
        self.damage = KnownDamage()
        self._closed = False
        self._retired: list[Index] = []  # other threads may be in them
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

        Raises RepositoryExists when there is a config. Removes key slots and keyrings that an interrupted
        `create` left without a config: nothing is sealed under their keys.
        """
        with store.lock(LockMode.EXCLUSIVE, 10.0):
            if mirrored_names(store, FileKind.CONFIG):
                raise RepositoryExists("there is a repository already")
            for kind in (FileKind.KEY, FileKind.KEYRING):
                for stray in mirrored_names(store, kind):
                    delete_mirrored(store, kind, stray)
            repository = secrets.token_bytes(16)
            now = created.isoformat()
            first = Epoch(secrets.token_bytes(KEY_SIZE), now)
            ring = Keyring(secrets.token_bytes(KEY_SIZE), {1: first}, 0, {})
            opened = write_slot(
                store, secret, ring.identity, ring.anchor, label=label, created=now, cost=cost
            )
            ring = ring.with_slots(repository, [opened.slot])
            write_keyring(store, ring, opened, repository, suite)
            config = Config(repository, suite, created, compression)
            put_mirrored(store, FileKind.CONFIG, "config", seal_config(config, ring))

    @staticmethod
    def open(
        store: Store,
        secret: Callable[[], str],
        *,
        cache: Path,
        notify: Callable[[SyncResult], None] = lambda synced: None,
        pack_target: int = PACK_TARGET,
        allow_costly: bool = False,
        accept_keyring: bool = False,
    ) -> Repository:
        """Open a repository. Calls `secret` only when there is one whose format version is supported.

        `cache` is a directory of this user, made when it is missing: the index is kept in a folder of it
        that has the repository's ID. `notify` is called with the result of every refresh of the index.
        `pack_target` is the most bytes of a new pack. Raises NoRepository, Unsupported, Damaged,
        KeyringRolledBack, and what `open_slot` raises, which gets `allow_costly`. With `accept_keyring` the
        newest keyring is believed, whatever this user saw before.
        """
        try:
            read_mirrored(store, FileKind.CONFIG, "config", parse_public)
        except FileNotFoundError:
            where = store.describe(FileKind.CONFIG, "config")
            raise NoRepository(f"no repository there: {where} is missing") from None
        expected = read_newest(store).boxes
        opened = open_slot(store, secret(), expected=expected, allow_costly=allow_costly)

        def parse(data: bytes, where: str) -> tuple[Config, Keyring]:
            head = parse_public(data, where)
            keyring = open_keyring(store, opened, bytes.fromhex(head["id"]), Suite(head["suite"]))
            return open_config(data, where, keyring), keyring

        config, keyring = read_mirrored(store, FileKind.CONFIG, "config", parse)
        if not accept_keyring:
            where = store.describe(FileKind.KEYRING, keyring.name)
            check_epoch(cache / config.hex_id, keyring, where)
        return Repository(
            store,
            config,
            opened=opened,
            keyring=keyring,
            cache=cache,
            notify=notify,
            pack_target=pack_target,
        )

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self._close_index()
        for index in self._retired:
            index.close()
        self._retired.clear()

    def _close_index(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None

    @property
    def slot(self) -> KeySlot:
        """The key slot that the repository was opened with."""
        return self.opened.slot

    def adopt(self, opened: OpenSlot, keyring: Keyring) -> None:
        """Use another key slot or keyring from now on."""
        self.opened = opened
        self.keyring = keyring
        self.keys = self.ciphers.keys = keyring.keys(self.config.id, self.config.suite)
        remember_epoch(self._cache, keyring)

    def follow_keyring(self) -> None:
        """Use the newest keyring, if another process wrote one. One listing when none did.

        Raises SlotRemoved when it is no longer for our slot, KeyringRolledBack, Damaged.
        """
        if keyring_names(self.store)[:1] != [self.keyring.name]:
            new = open_keyring(self.store, self.opened, self.config.id, self.config.suite)
            where = self.store.describe(FileKind.KEYRING, new.name)
            new.check(self.keyring.anchor, "this process", where)
            self.adopt(self.opened, new)

    @property
    def index(self) -> Index:
        """The index as of the last `refresh`. The first use opens and refreshes it."""
        if self._index is None:
            self.refresh()
        assert self._index is not None
        return self._index

    def ask_index(self, question: Callable[[Index], T]) -> T:
        """The answer of the index. When that turns out to be damaged, one that is made for this command
        answers. Raises StoreError."""
        index = self.index
        try:
            return question(index)
        except IndexDamaged as error:
            with self._refreshing:
                if self._index is index:
                    self._retire_index(str(error))
            return question(self.index)

    def note_damage(self, pack: PackID, ids: Iterable[ChunkID]) -> None:
        """Chunks were found damaged in a pack: for all who use the repository they are not there any more."""
        self.damage.add(self.store, self.keys, pack, ids)
        self.index.avoid(self.damage.by_chunk())

    def keep_damage(self, wanted: Mapping[PackID, Collection[ChunkID]]) -> None:
        """Keep these notes of damage, and delete all others."""
        self.damage.keep(self.store, self.keys, wanted)
        self.index.avoid(self.damage.by_chunk())

    def replace_index(self, reason: str) -> None:
        """Use a new index from now on: the one at hand led to a place where something else is."""
        with self._refreshing:
            if self._index is not None:
                self._index.mark_wrong()
            self._retire_index(reason)

    def _retire_index(self, reason: str) -> bool:
        """Use an index somewhere else. False when there is no place left."""
        if self._index is not None:
            self._retired.append(self._index)
            self._index = None
        return self._place.leave(reason)

    def refresh(self, progress: IndexProgress | None = None) -> SyncResult:
        """Synchronise the index with the packs that the store lists now. Raises StoreError.

        When the user's cache cannot be written (full or read-only disk) or is not the user's alone, uses an
        index of this command only, which `close` removes.
        """
        with self._refreshing:
            self.follow_keyring()
            self.damage.refresh(self.store, self.keys)
            # The trash second: a pack that moves there meanwhile is seen twice, not missed.
            packs = [(PackID(entry.name), entry.size) for entry in self.store.listing(FileKind.PACK)]
            trashed = [PackID(entry.name) for entry in self.store.listing(FileKind.PACK, trashed=True)]
            while True:
                try:
                    if self._index is None:
                        self._index = self._open_index()
                    synced = self._index.sync(packs, self.directory, progress, trashed=trashed)
                except StoreError as error:
                    if not self._place.is_here(error) or not self._retire_index(str(error)):
                        raise
                else:
                    self._index.avoid(self.damage.by_chunk())
                    synced = replace(synced, no_cache=self._place.reason)
                    self._notify(synced)
                    return synced

    def _open_index(self) -> Index:
        if self._closed:
            raise StoreError("open the index in", str(self._cache), OSError(0, "the repository is closed"))
        return self._place.open(self.keys.index)

    def directory(self, pack: PackID, size: int) -> Directory:
        """A pack's directory; when that is damaged, rebuilt from the headers of its records."""
        try:
            return read_directory(self.store, self.ciphers, pack, size)
        except Damaged:
            records = salvage_directory(self.store, self.ciphers, pack)
            if not records:
                raise
            return records

    @property
    def index_folder(self) -> Path | None:
        """The directory of the index, whether it is open or not; None when it is of this command only."""
        return self._place.folder

    @property
    def cache_folder(self) -> Path:
        """This user's directory for what is remembered of the repository; it need not exist."""
        return self._cache

    def drop_index(self) -> None:
        """Delete the index; the next use rebuilds it from the packs."""
        self._close_index()
        self._place.drop()

    def id_set(self, name: str) -> IdSet:
        """An empty set of chunk IDs, whose keys are those of the index."""
        return IdSet(lambda: scratch_path(name, self._cache), HiddenTable(self.keys.index))

    def snapshots(self, *, trashed: bool = False, pending: bool = False) -> Snapshots:
        """Read all committed snapshots, or those in the trash, or (`pending`) those being committed."""
        kind = FileKind.PENDING if pending else FileKind.SNAPSHOT
        self.follow_keyring()
        good: list[StoredSnapshot] = []
        damaged: list[RepositoryError] = []
        for name in mirrored_names(self.store, kind, trashed=trashed):
            try:
                good.append(self.read_snapshot(kind, name))
            except (OtherKey, FileNotFoundError):
                continue  # whole, but another repository's; or removed since it was listed
            except (Damaged, Unsupported) as error:
                damaged.append(error)
        changes, unread = read_subject_changes(self.store, self.keys)
        good = [changes.apply(stored) for stored in good]
        good.sort(key=lambda stored: (stored.snapshot.time, stored.id))
        return Snapshots(tuple(good), tuple(damaged), changes, unread)

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
        config = open_config(data, where, self.keyring)
        if config != self.config:
            raise Damaged(where, "is another repository's config")
