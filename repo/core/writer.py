"""Adds chunks and snapshots to a repository: deduplicates, compresses, seals and commits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType

import zstandard

from holdfast.base.errors import MissingChunk, StoreError
from holdfast.base.types import Buffer, ChunkID, Codec, PackID, RecordType, SnapshotID
from holdfast.repo.core.mirrored import delete_mirrored, put_mirrored
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import content_hash, seal_object
from holdfast.repo.format.format import CHUNK_LIMIT, ObjectType, RecordHeader
from holdfast.repo.index.index import Directory
from holdfast.repo.packs.writer import PackWriter, Record
from holdfast.repo.snapshots.snapshot import Snapshot, StoredSnapshot
from holdfast.repo.snapshots.snapshot_json import encode
from holdfast.repo.store.interface import FileKind, LockMode

_INDEX_BATCH = 32_768
"""Entries collected before they are written to the index: a commit dirties nearly one page per entry."""
_WORTHWHILE = 0.97
"""Chunks that zstd does not compress below this share of their size are stored raw."""

_local = threading.local()


@dataclass(slots=True)
class WriteTotals:
    """Running totals: `chunks` looked up, `new_chunks` stored, their `new` bytes before compression."""

    chunks: int = 0
    new_chunks: int = 0
    new: int = 0


class Writer:
    """Writes one backup. A context manager that holds the shared lock; call `commit` once, at the end.

    Any thread may call `put`. Leaving the block without `commit` leaves only packs that no snapshot refers
    to: the next backup uses their chunks, the next prune removes the rest.
    """

    def __init__(
        self, repository: Repository, *, lock_timeout: float = 60.0, index_batch: int = _INDEX_BATCH
    ) -> None:
        self._repository = repository
        self._lock_timeout = lock_timeout
        self._index_batch = index_batch
        self._stack = ExitStack()
        self._claims_lock = threading.Lock()
        self._claimed: set[bytes] = set()
        self._used: set[PackID] = set()
        self._unindexed: list[tuple[PackID, int, Directory]] = []
        self.written = WriteTotals()

    def __enter__(self) -> Writer:
        repository = self._repository
        with ExitStack() as stack:
            stack.enter_context(repository.store.lock(LockMode.SHARED, self._lock_timeout))
            repository.refresh()
            self._loss_counter = repository.index.loss_counter()
            self._packs = PackWriter(
                repository.store, repository.keys, self._flushed, target=repository.pack_target
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            self._packs.abandon()

    @property
    def stored(self) -> int:
        """Bytes of the packs written so far."""
        return self._packs.stored

    def put(self, chunks: Sequence[Buffer], ids: Sequence[ChunkID]) -> None:
        """Store those data chunks that the repository lacks; `ids` are their `keys.data_chunk_id`."""
        self._put(RecordType.DATA, chunks, ids)

    def put_node(self, node: bytes) -> ChunkID:
        """Store a recipe node."""
        id_ = self._repository.keys.node_chunk_id(node)
        self._put(RecordType.NODE, [node], [id_])
        return id_

    def _put(self, kind: RecordType, chunks: Sequence[Buffer], ids: Sequence[ChunkID]) -> None:
        found = self._repository.ask_index(lambda index: index.lookup(ids))
        mine: list[int] = []
        with self._claims_lock:
            for n, (id_, location) in enumerate(zip(ids, found, strict=True)):
                if location is not None:
                    self._used.add(location.pack)
                elif id_ not in self._claimed:
                    self._claimed.add(id_)
                    mine.append(n)
            self.written.chunks += len(ids)
            self.written.new_chunks += len(mine)
            if kind is RecordType.DATA:  # nodes are overhead: they count in `stored` only
                self.written.new += sum(len(chunks[n]) for n in mine)
        if mine:
            level = self._repository.config.compression
            self._packs.add([_encode(kind, ids[n], chunks[n], level) for n in mine])

    def _flushed(self, pack: PackID, size: int, directory: Directory) -> None:
        """The flush thread calls this when a pack is durable."""
        self._used.add(pack)
        self._unindexed.append((pack, size, directory))
        if sum(len(d) for _, _, d in self._unindexed) >= self._index_batch:
            self._index_flushed()

    def _index_flushed(self) -> None:
        # A claim is released only after the index has the chunk. A worker that looked it up before and
        # claims it after stores the chunk a second time, which wastes space and harms nothing.
        batch, self._unindexed = self._unindexed, []
        try:
            self._repository.index.add(batch)
        except StoreError:
            return  # the packs are durable; the claims stay, and the next refresh reads the directories
        with self._claims_lock:
            for _, _, directory in batch:
                self._claimed.difference_update(header.id for _, header in directory)

    def commit(
        self, snapshot: Snapshot, *, finish: Callable[[Snapshot, int], Snapshot] | None = None
    ) -> StoredSnapshot:
        """Store the snapshot. It is durable on return; if this raises, there is no snapshot.

        This order makes a crash at any point harmless: first the packs and their names are durable; then
        `pending/<id>`, which protects the chunks from a prune; then the packs are listed again, and those
        that a prune has moved to the trash meanwhile are moved back; then comes `snapshots/<id>`, and another
        such look.
        `finish(snapshot, stored bytes)` may complete the record after all packs are written. Raises
        StoreError, or MissingChunk when a prune has deleted a pack that the snapshot needs.
        """
        store = self._repository.store
        self._packs.finish()
        self._index_flushed()
        if finish is not None:
            snapshot = finish(snapshot, self._packs.stored)
        data = seal_object(self._repository.keys, ObjectType.SNAPSHOT, encode(snapshot))
        name = SnapshotID(content_hash(data))
        put_mirrored(store, FileKind.PENDING, name, data)
        self._protect()
        try:
            put_mirrored(store, FileKind.SNAPSHOT, name, data)
            self._protect()
        except BaseException:
            with suppress(StoreError):  # one copy may be there already, and would count
                delete_mirrored(store, FileKind.SNAPSHOT, name)
            raise
        with suppress(StoreError):  # it is committed; the next prune removes a leftover pending file
            delete_mirrored(store, FileKind.PENDING, name)
        self._record_completeness(name)
        return StoredSnapshot(name, snapshot)

    def _record_completeness(self, snapshot: SnapshotID) -> None:
        """Record in the index that the snapshot is complete, unless the index lost or lacks entries."""
        index = self._repository.index
        with suppress(StoreError):
            if not self._claimed and self._loss_counter >= 0 and index.loss_counter() == self._loss_counter:
                index.record_complete(snapshot, self._loss_counter)

    def _protect(self) -> None:
        """After `pending`, and after the snapshot, is written: move every pack that the backup uses and a
        prune trashed back. Twice, because where the lock does not work a prune may have removed `pending`."""
        store = self._repository.store
        listed = {entry.name for entry in store.listing(FileKind.PACK)}
        lost = sorted(self._used - listed)
        for pack in lost:
            try:
                store.untrash(FileKind.PACK, pack)
            except FileNotFoundError:
                raise MissingChunk(
                    store.describe(FileKind.PACK, pack),
                    "was removed by a prune while this backup ran; nothing was committed, run it again",
                ) from None
        if lost:
            store.sync()


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """This thread's compressor: making a context takes 12 us, and threads must not share one."""
    contexts: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in contexts:
        contexts[level] = zstandard.ZstdCompressor(level=level)
    return contexts[level]


def _encode(kind: RecordType, id_: ChunkID, chunk: Buffer, level: int) -> Record:
    assert len(chunk) <= CHUNK_LIMIT
    packed = _compressor(level).compress(chunk)
    if len(packed) < len(chunk) * _WORTHWHILE:
        return RecordHeader(kind, Codec.ZSTD, len(chunk), len(packed), id_), packed
    return RecordHeader(kind, Codec.RAW, len(chunk), len(chunk), id_), memoryview(chunk)
