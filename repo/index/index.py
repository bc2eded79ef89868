"""The index maps chunk IDs to their locations in packs, in LMDB. It caches the packs' directories and may be
deleted at any time. It is in a folder of this user alone, and only opened when it was left well (`sessions`).

Key: 16 bytes made of the chunk ID (`hidden`; a reader compares the ID when it opens the record).
Value: the chunk's locations (`locations`), masked. A chunk may be in several packs: two writers may store
it at the same time, and one of the packs may be removed later.

An entry alone does not prove that a chunk is present: `sync` gets this run's listing of packs, and the index
ignores locations in packs that are not listed. Transactions are short; none is held between calls. Only this
module, `idset` and `lmdb_env` import lmdb.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from holdfast.base.errors import Damaged, RepositoryError, StoreError, Unsupported
from holdfast.base.types import ChunkID, PackID, SnapshotID
from holdfast.repo.format.format import RecordHeader
from holdfast.repo.index.hidden import HiddenTable
from holdfast.repo.index.lmdb_env import (
    FIRST_MAP,
    ResizeGate,
    translate_errors,
)
from holdfast.repo.index.locations import Location, decode_locations, encode_location, sweep
from holdfast.repo.index.opening import open_nameless, open_session
from holdfast.repo.index.results import IndexDamaged, SyncResult

_LAYOUT = b"2"
_TABLES = (b"chunks", b"packs")
_WHOLE = b"whole "
_LOSSES = b"losses"
_PACK = struct.Struct("<IQ")
_PACK_NAME = re.compile("[0-9a-f]{64}")
_BATCH = 20_000
_SMALL_BATCH = 512

T = TypeVar("T")
Directory = Sequence[tuple[int, RecordHeader]]
"""(offset, header) of every record of a pack."""


class Index:
    """An LMDB environment. Thread-safe. A process may open a directory only once. Raises StoreError.

    `key` has 32 bytes and is the repository's own: an index of another key is replaced. Without a folder it
    is for this process only, in a file without a name where `scratch` says, or in memory.
    """

    def __init__(
        self, folder: Path | None, key: bytes, *, scratch: Path | None = None, first_map: int = FIRST_MAP
    ) -> None:
        self._folder = folder or scratch or Path("memory")
        self.hidden = HiddenTable(key)
        self._good = True
        self._closed = False
        self._gate = ResizeGate()
        self._live: dict[int, PackID] = {}
        self._resting: dict[int, PackID] = {}
        self._unswept = False
        self._damaged: Mapping[bytes, Collection[PackID]] = {}
        label = _LAYOUT + self.hidden.label
        if folder is None:  # nothing locks such an environment: while one thread writes, none may read
            self._write_gate = self._gate.alone
            self._session, self._env, tables = open_nameless(scratch, first_map, _TABLES)
        else:
            self._write_gate = self._gate.shared
            self._session, self._env, tables = open_session(folder, label, _TABLES, first_map)
        self._chunks, self._packs = tables

    def close(self) -> None:
        self._closed = True
        self._env.close()
        self._session.end(good=self._good)

    def sync(
        self,
        listing: Iterable[tuple[PackID, int]],
        read_directory: Callable[[PackID, int], Directory],
        progress: Callable[[int, int], None] | None = None,
        *,
        trashed: Collection[PackID] = (),
    ) -> SyncResult:
        """Make the index agree with the packs that are there.

        `listing` gives (pack, size). Packs that are new to the index have their directories read;
        `progress` is called with (packs done, packs to do). Entries of packs that are gone are removed.
        Those of `trashed` packs stay, for readers that began before the prune, and nobody else.
        A pack whose directory cannot be read counts as empty and is reported: its chunks are missing, so
        the next backup stores them again.
        """
        there = dict(listing)
        known = self._read(self._known_packs)
        # A pack of another size was cut short or damaged since: it is read anew, like one never seen.
        same = {pack: number for pack, (number, size) in known.items() if there.get(pack) == size}
        self._resting = {known[pack][0]: pack for pack in trashed if pack in known and pack not in there}
        gone = {number for _, (number, _) in known.items()} - set(same.values()) - self._resting.keys()
        new = sorted((pack, size) for pack, size in there.items() if pack not in same)
        self._live = {number: pack for pack, number in same.items()}
        if any(pack in known for pack, _ in new):
            self._forget_packs(gone)
            gone = set()
        damaged = self._add_new(new, read_directory, progress)
        self._unswept = bool(gone)
        if gone:
            with suppress(StoreError):  # a full disk: they are not listed, so they do not exist anyway
                self._forget_packs(gone)
                self._unswept = False
        removed = len(known) - len(same) - len(self._resting)
        distrust, self._session.distrust = self._session.distrust, ""
        return SyncResult(len(new), removed, not known and bool(new), tuple(damaged), distrust)

    def _add_new(
        self,
        new: Sequence[tuple[PackID, int]],
        read_directory: Callable[[PackID, int], Directory],
        progress: Callable[[int, int], None] | None,
    ) -> list[RepositoryError]:
        """Read the directories of packs, given with their sizes, and add them. Returns the errors."""
        damaged: list[RepositoryError] = []
        batch: list[tuple[PackID, int, Directory]] = []
        for done, (pack, size) in enumerate(new, 1):
            try:
                if not _PACK_NAME.fullmatch(pack):
                    raise Damaged(f"pack {pack}", "is not a pack's name")
                batch.append((pack, size, read_directory(pack, size)))
            except FileNotFoundError:
                continue  # moved away since it was listed
            except (Damaged, Unsupported) as error:
                damaged.append(error)
            if sum(len(directory) for _, _, directory in batch) >= _BATCH:
                self.add(batch)
                batch = []
            if progress:
                progress(done, len(new))
        self.add(batch)
        return damaged

    def add(self, packs: Iterable[tuple[PackID, int, Directory]], *, trashed: bool = False) -> None:
        """Add packs of the store: (pack, size, directory), or of its trash. Skips those that it has already.

        The last transaction of a pack registers its number; entries that a crash leaves before that have an
        unregistered number and are ignored. Transactions are small because LMDB copies each page they touch
        and reuses the old page only two transactions later: with 512 entries that is at most 4 MB.
        """
        table_key = self.hidden.table_key
        for pack, size, directory in packs:
            found = self._read(partial(self._number_of, pack))
            if found is None:
                number = self._write(self._next_number)
                entries = sorted((table_key(header.id), offset, header.size) for offset, header in directory)
                for at in range(0, len(entries), _SMALL_BATCH):
                    self._write(partial(self._enter, number, entries[at : at + _SMALL_BATCH]))
                found = self._write(partial(self._register, pack, number, size))
            (self._resting if trashed else self._live)[found] = pack

    def _number_of(self, pack: PackID, txn: Any) -> int | None:
        found = txn.get(bytes.fromhex(pack), db=self._packs)
        return int(_PACK.unpack(found)[0]) if found else None

    def _enter(self, number: int, entries: Sequence[tuple[bytes, int, int]], txn: Any) -> None:
        mask = self.hidden.mask
        for key, offset, length in entries:
            location = encode_location(number, offset, length)
            if not txn.put(key, mask(key, location), db=self._chunks, overwrite=False):
                before = mask(key, txn.get(key, db=self._chunks))
                txn.put(key, mask(key, before + location), db=self._chunks)

    def _register(self, pack: PackID, number: int, size: int, txn: Any) -> int:
        """Register the pack and return its number, which another process may have assigned before."""
        txn.put(bytes.fromhex(pack), _PACK.pack(number, size), db=self._packs, overwrite=False)
        found = self._number_of(pack, txn)
        assert found is not None
        return found

    def _next_number(self, txn: Any) -> int:
        """A number that was never used: entries of removed packs must not point into a new pack."""
        number = int(txn.get(b"next", b"0")) + 1
        txn.put(b"next", str(number).encode())
        return number

    def lookup(self, ids: Sequence[ChunkID]) -> list[Location | None]:
        """A location of each chunk in a listed pack; None for chunks that are in no listed pack."""
        with self._read_txn() as txn:
            return [next(self._found(txn, id_, self._live), None) for id_ in ids]

    def locations(self, id_: ChunkID) -> list[Location]:
        """All locations of the chunk in listed packs."""
        with self._read_txn() as txn:
            return list(self._found(txn, id_, self._live))

    def trashed_locations(self, id_: ChunkID) -> list[Location]:
        """Locations in trashed packs, which a reader may use when no listed pack has the chunk."""
        with self._read_txn() as txn:
            return list(self._found(txn, id_, self._resting))

    def _found(self, txn: Any, id_: ChunkID, packs: Mapping[int, PackID]) -> Iterator[Location]:
        """The chunk's locations in these packs, given by their numbers."""
        key = self.hidden.table_key(id_)
        value = txn.get(key, db=self._chunks)
        return self._decoded(key, value, packs) if value else iter(())

    def _decoded(self, key: bytes, value: bytes, packs: Mapping[int, PackID]) -> Iterator[Location]:
        bad = self._damaged.get(key, ())
        for location in decode_locations(packs, self.hidden.mask(key, value)):
            if location.pack not in bad:
                yield location

    def avoid(self, damaged: Mapping[ChunkID, Collection[PackID]]) -> None:
        """From now on chunks count as absent from packs in which they are damaged."""
        self._damaged = {self.hidden.table_key(id_): frozenset(packs) for id_, packs in damaged.items()}

    def mark_wrong(self) -> None:
        """Something in it turned out to be wrong: who opens it next makes a new one."""
        self._good = False

    def scan(self) -> Iterator[tuple[bytes, list[Location]]]:
        """Every (key in the table, locations) in key order. Starts a new transaction every 20,000 keys."""
        after: bytes | None = None
        while True:
            page: list[tuple[bytes, list[Location]]] = []
            with self._read_txn() as txn, txn.cursor(db=self._chunks) as cursor:
                found = cursor.first() if after is None else cursor.set_range(after)
                if found and cursor.key() == after:
                    found = cursor.next()
                while found and len(page) < _BATCH:
                    key, value = cursor.item()
                    page.append((key, list(self._decoded(key, value, self._live))))
                    found = cursor.next()
            yield from page
            if not page:
                return
            after = page[-1][0]

    def record_complete(self, snapshot: SnapshotID, loss_counter: int) -> None:
        """Record that the snapshot was complete when `loss_counter()` returned this value."""
        self._write(lambda txn: txn.put(_WHOLE + bytes.fromhex(snapshot), str(loss_counter).encode()))

    def is_known_complete(self, snapshot: SnapshotID) -> bool:
        """Whether all chunks of the snapshot are in listed packs: they were, and none was removed since."""
        found = self._read(lambda txn: txn.get(_WHOLE + bytes.fromhex(snapshot)))
        return found is not None and int(found) == self.loss_counter()

    def loss_counter(self) -> int:
        """A number that changes whenever entries are removed; -1 while entries of unlisted packs remain, or
        some chunk is known to be damaged."""
        stored = self._read(_loss_counter)
        return stored if not self._resting and not self._unswept and not self._damaged else -1

    def __len__(self) -> int:
        """Number of distinct chunks."""
        with self._read_txn() as txn:
            return int(txn.stat(self._chunks)["entries"])

    def is_resting(self, pack: PackID) -> bool:
        """Whether it knows what is in that pack of the trash."""
        return pack in self._resting.values()

    def is_listed(self, pack: PackID) -> bool:
        """Whether the last `sync` listed the pack or `add` added it since."""
        return pack in self._live.values()

    def _known_packs(self, txn: Any) -> dict[PackID, tuple[int, int]]:
        """(number, size in bytes) of every registered pack."""
        with txn.cursor(db=self._packs) as cursor:
            return {PackID(key.hex()): _PACK.unpack(value) for key, value in cursor}

    def _forget_packs(self, gone: set[int]) -> None:
        """Remove packs and their entries, in transactions of at most 20,000 keys."""
        self._write(_count_loss)
        numbers = frozenset(gone)
        after: bytes | None = None
        more = True
        while more:

            def page(txn: Any, after: bytes | None = after) -> tuple[bytes | None, bool]:
                with txn.cursor(db=self._chunks) as cursor:
                    return sweep(cursor, after, numbers, _BATCH, self.hidden.mask)

            after, more = self._write(page)

        def drop(txn: Any) -> None:
            for pack, (number, _) in self._known_packs(txn).items():
                if number in gone:
                    txn.delete(bytes.fromhex(pack), db=self._packs)

        self._write(drop)

    @contextmanager
    def _read_txn(self) -> Iterator[Any]:
        try:
            while True:
                with self._gate.shared(), suppress(lmdb.MapResizedError), self._env.begin() as txn:
                    yield txn
                    return
                with self._gate.alone():  # another process made the map larger
                    self._env.set_mapsize(0)
        except (lmdb.Error, struct.error) as error:
            self._good = self._good and self._closed
            kind = StoreError if self._closed else IndexDamaged  # closed: of a thread that nobody waits for
            raise kind("read the index in", str(self._folder), OSError(errno.EIO, str(error))) from error

    def _read(self, work: Callable[[Any], T]) -> T:
        with self._read_txn() as txn:
            return work(txn)

    def _write(self, work: Callable[[Any], T]) -> T:
        """Run `work` in a write transaction. When the map is full, enlarge it and run `work` again."""
        while True:
            try:
                with (
                    translate_errors("write the index in", self._folder),
                    self._write_gate(),
                    self._env.begin(write=True) as txn,
                ):
                    return work(txn)
            except lmdb.MapFullError:
                with self._gate.alone():
                    self._env.set_mapsize(self._env.info()["map_size"] * 2)
            except lmdb.MapResizedError:
                with self._gate.alone():
                    self._env.set_mapsize(0)


def _loss_counter(txn: Any) -> int:
    return int(txn.get(_LOSSES, b"0"))


def _count_loss(txn: Any) -> None:
    txn.put(_LOSSES, str(_loss_counter(txn) + 1).encode())
