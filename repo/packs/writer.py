"""Writes packs: workers seal records directly into a shared buffer, and one thread writes full packs.

A worker reserves a range of the open pack (which fixes the offsets, and so the nonces), then seals into it
without a lock. When all reserved ranges of a full pack are sealed, the flush thread adds directory and foot,
hashes the pack and stores it. A buffer lives until its pack is durable, so a failed write can be repeated
from memory. Two buffers bound the memory and make workers wait for a slow store.
"""

from __future__ import annotations

import mmap
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from holdfast.base.types import PackID
from holdfast.repo.format.crypto import FileCipher, Keys, content_hash, new_cipher
from holdfast.repo.format.format import (
    FOOT_SIZE,
    HEAD_SIZE,
    PACK_TARGET,
    RECORD_HEADER,
    TAG,
    NonceDomain,
    ObjectType,
    RecordHeader,
    directory_size,
    pack_directory,
    pack_foot,
)
from holdfast.repo.index.index import Directory
from holdfast.repo.store.interface import FileKind, Store

Record = tuple[RecordHeader, bytes | memoryview]
"""A header and its encoded payload."""

Flushed = Callable[[PackID, int, Directory], None]
"""Called in the flush thread when a pack is durable: (pack, size, directory)."""


@dataclass(slots=True)
class _OpenPack:
    buffer: mmap.mmap
    view: memoryview
    cipher: FileCipher
    end: int = HEAD_SIZE
    entries: list[tuple[int, RecordHeader]] = field(default_factory=list)
    sealing: int = 0
    closed: bool = False


class PackWriter:
    """Seals records into packs of at most `target` bytes. Thread-safe.

    `add` blocks while all buffers are in use. The next `add` or `finish` raises errors of the flush thread.
    """

    def __init__(
        self, store: Store, keys: Keys, flushed: Flushed, *, target: int = PACK_TARGET, buffers: int = 2
    ) -> None:
        self._store = store
        self._keys = keys
        self._flushed = flushed
        self._target = target
        self._condition = threading.Condition()
        self._free = [mmap.mmap(-1, target) for _ in range(buffers)]
        self._open: _OpenPack | None = None
        self._failure: BaseException | None = None
        self._queue: queue.SimpleQueue[_OpenPack | None] = queue.SimpleQueue()
        self.stored = 0
        self._thread = threading.Thread(target=self._flush_loop, name="holdfast-flush", daemon=True)
        self._thread.start()

    def add(self, records: Sequence[Record]) -> None:
        """Seal the records side by side into the open pack. They are durable after `finish`."""
        for part in _parts(records, self._target // 2):
            pack, offset = self._reserve([header for header, _ in part])
            try:
                for header, payload in part:
                    _seal(pack, offset, header, payload)
                    offset += header.size
            except BaseException as error:
                with self._condition:  # a pack with an unsealed range is never written
                    self._failure = self._failure or error
                raise
            finally:
                with self._condition:
                    pack.sealing -= 1
                    self._hand_over(pack)

    def finish(self) -> None:
        """Write the last pack and wait until all packs are durable. Raises what the flush thread raised."""
        with self._condition:
            if self._open is not None:
                self._close_open()
        self._queue.put(None)
        self._thread.join()
        self._raise_failure()
        self._store.sync()

    def abandon(self) -> None:
        """Stop, and discard the records that are still in memory."""
        with self._condition:
            self._failure = self._failure or RuntimeError("abandoned")
            self._condition.notify_all()
        self._queue.put(None)
        self._thread.join()

    def _reserve(self, headers: list[RecordHeader]) -> tuple[_OpenPack, int]:
        size = sum(header.size for header in headers)
        with self._condition:
            while True:
                self._raise_failure()
                if self._open is not None:
                    more = len(self._open.entries) + len(headers)
                    if self._open.end + size + directory_size(more) + FOOT_SIZE <= self._target:
                        break
                    self._close_open()
                if self._free:
                    buffer = self._free.pop()
                    cipher = new_cipher(self._keys, ObjectType.PACK)
                    self._open = _OpenPack(buffer, memoryview(buffer), cipher)
                else:
                    self._condition.wait()
            pack = self._open
            start = offset = pack.end
            for header in headers:
                pack.entries.append((offset, header))
                offset += header.size
            pack.end = offset
            pack.sealing += 1
            return pack, start

    def _close_open(self) -> None:
        assert self._open is not None
        pack, self._open = self._open, None
        pack.closed = True
        self._hand_over(pack)

    def _hand_over(self, pack: _OpenPack) -> None:
        if pack.closed and not pack.sealing:
            self._queue.put(pack)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _flush_loop(self) -> None:
        while (pack := self._queue.get()) is not None:
            try:
                if self._failure is None:
                    self._flush(pack)
            except BaseException as error:  # noqa: BLE001  handed to the thread that calls next
                with self._condition:
                    self._failure = error
            finally:
                pack.view.release()
                with self._condition:
                    self._free.append(pack.buffer)
                    self._condition.notify_all()

    def _flush(self, pack: _OpenPack) -> None:
        """Add directory, foot and head, name the pack by the hash of its bytes, and store it."""
        out, cipher, offset = pack.view, pack.cipher, pack.end
        directory = pack_directory([header for _, header in pack.entries])
        foot_at = offset + len(directory) + TAG
        size = foot_at + FOOT_SIZE
        out[:HEAD_SIZE] = cipher.head.pack()
        cipher.seal_into(NonceDomain.DIRECTORY, offset, directory, out[offset:foot_at])
        cipher.seal_into(NonceDomain.FOOT, foot_at, pack_foot(len(pack.entries), offset), out[foot_at:size])
        name = PackID(content_hash(out[:size]))
        self._store.put(FileKind.PACK, name, out[:size])
        self.stored += size
        self._flushed(name, size, pack.entries)


def _seal(pack: _OpenPack, offset: int, header: RecordHeader, payload: bytes | memoryview) -> None:
    out, cipher = pack.view, pack.cipher
    body = offset + RECORD_HEADER
    end = body + header.encoded + TAG
    cipher.seal_into(NonceDomain.RECORD_HEADER, offset, header.pack(), out[offset:body])
    cipher.seal_into(NonceDomain.RECORD_PAYLOAD, offset, payload, out[body:end])
    after = offset + header.size
    if after > end:
        out[end:after] = bytes(after - end)  # the buffer may hold an earlier pack


def _parts(records: Sequence[Record], limit: int) -> list[Sequence[Record]]:
    """Split records of `limit` bytes or more together, which might not fit into an empty pack."""
    if sum(header.size for header, _ in records) < limit:
        return [records]
    half = len(records) // 2
    return [*_parts(records[:half], limit), *_parts(records[half:], limit)]
