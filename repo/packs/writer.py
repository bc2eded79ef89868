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

from holdfast.base.types import Buffer, PackID
from holdfast.repo.format.crypto import FileCipher, Keys, content_hash, new_cipher
from holdfast.repo.format.format import (
    FOOT_SIZE,
    HEAD_SIZE,
    PACK_TARGET,
    RECORD_HEADER,
    TAG,
    NonceDomain,
    ObjectType,
    PackEnd,
    RecordHeader,
    directory_size,
    full_end,
    last_end,
    pack_directory,
    pack_foot,
    padding_header,
)
from holdfast.repo.index.index import Directory
from holdfast.repo.store.interface import FileKind, Store

Record = tuple[RecordHeader, bytes | memoryview]
"""A header and its encoded payload."""

_BUFFER = 512 << 10
_local = threading.local()

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
    ending: PackEnd | None = None
    """How the pack ends; None while records may be added."""


class PackWriter:
    """Seals records into packs of exactly `target` bytes, and a last one of fewer. Thread-safe.

    A pack is filled up with zeros under the seal, so that its size tells nothing of the records in it.
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
        """Seal the records side by side into the open pack. They are durable after `finish`.

        What does not fit into it goes into the next one: a pack is never left emptier than by one record.
        """
        done = 0
        while done < len(records):
            pack, offset, count = self._reserve([header for header, _ in records[done:]])
            part = records[done : done + count]
            done += count
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
                self._close_open(last_end)
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

    def _reserve(self, headers: list[RecordHeader]) -> tuple[_OpenPack, int, int]:
        """(pack, offset, number of records that fit there, at least one)."""
        with self._condition:
            while True:
                self._raise_failure()
                if self._open is not None:
                    count = self._fitting(self._open, headers)
                    if count:
                        break
                    if not self._open.entries:
                        raise ValueError(f"a record does not fit into a pack of {self._target} bytes")
                    self._close_open(full_end)
                if self._free:
                    buffer = self._free.pop()
                    cipher = new_cipher(self._keys, ObjectType.PACK)
                    self._open = _OpenPack(buffer, memoryview(buffer), cipher)
                else:
                    self._condition.wait()
            pack = self._open
            start = offset = pack.end
            for header in headers[:count]:
                pack.entries.append((offset, header))
                offset += header.size
            pack.end = offset
            pack.sealing += 1
            return pack, start, count

    def _fitting(self, pack: _OpenPack, headers: list[RecordHeader]) -> int:
        end, entries = pack.end, len(pack.entries)
        for count, header in enumerate(headers):
            end += header.size
            if end + directory_size(entries + count + 1) + FOOT_SIZE > self._target:
                return count
        return len(headers)

    def _close_open(self, fill: Callable[[int, int, int], PackEnd]) -> None:
        assert self._open is not None
        pack, self._open = self._open, None
        pack.ending = fill(pack.end, len(pack.entries), self._target)
        self._hand_over(pack)

    def _hand_over(self, pack: _OpenPack) -> None:
        if pack.ending is not None and not pack.sealing:
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
        """Add padding, directory, foot and head, name the pack by the hash of its bytes, and store it."""
        out, cipher, ending = pack.view, pack.cipher, pack.ending
        assert ending is not None
        if ending.padding:
            padding = padding_header(ending.padding)
            _seal(pack, pack.end, padding, bytes(padding.encoded))
        offset = pack.end + ending.padding
        foot_at = offset + ending.directory
        size = foot_at + FOOT_SIZE
        directory = pack_directory([header for _, header in pack.entries]).ljust(
            ending.directory - TAG, b"\0"
        )
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
    cipher.seal_into(NonceDomain.RECORD_HEADER, offset, header.pack(), out[offset:body])
    filled = _filled(header, payload)
    cipher.seal_into(NonceDomain.RECORD_PAYLOAD, offset, filled, out[body : offset + header.size])


def _filled(header: RecordHeader, payload: Buffer) -> Buffer:
    """The payload and the zeros behind it, in this thread's buffer: copying into new memory costs more."""
    if len(payload) != header.encoded:
        raise ValueError(f"a payload of {len(payload)} bytes, and its header says {header.encoded}")
    size = header.filled
    if size == len(payload):
        return payload
    buffer: bytearray | None = getattr(_local, "buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = _local.buffer = bytearray(max(size, _BUFFER))
    view = memoryview(buffer)[:size]
    view[: len(payload)] = payload
    view[len(payload) :] = bytes(size - len(payload))
    return view
