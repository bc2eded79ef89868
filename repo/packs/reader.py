"""Reads packs: the head, the directory and single records."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import zstandard

from holdfast.base.errors import Damaged, Unsupported
from holdfast.base.lru import Lru
from holdfast.base.types import Buffer, Codec, PackID, RecordType
from holdfast.repo.format.crypto import FileCipher, Keys, open_cipher
from holdfast.repo.format.format import (
    ALIGN,
    FOOT_SIZE,
    HEAD_SIZE,
    PACK_LIMIT,
    RECORD_HEADER,
    NonceDomain,
    ObjectType,
    RecordHeader,
    parse_directory,
    parse_foot,
    parse_record,
)
from holdfast.repo.store.interface import FileKind, Store

_CIPHERS = 4096
_BUFFER = 512 << 10

_local = threading.local()


class PackCiphers:
    """The ciphers of packs by ID, each made from the pack's head when first needed. Thread-safe."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self.keys = keys
        self._lock = threading.Lock()
        self._ciphers: Lru[PackID, FileCipher] = Lru(_CIPHERS)

    def get(self, pack: PackID) -> FileCipher:
        """Raises FileNotFoundError when there is no such pack, Damaged when its head is damaged."""
        with self._lock:
            cipher = self._ciphers.get(pack)
            if cipher is not None:
                return cipher
        head = self._store.read(FileKind.PACK, pack, 0, HEAD_SIZE)
        try:
            cipher = open_cipher(self.keys, ObjectType.PACK, head, f"pack {pack}")
        except Unsupported as error:  # the config would say so first: it is one flipped byte
            raise Damaged(f"pack {pack}", f"its head is damaged ({error})", offset=0) from error
        with self._lock:
            self._ciphers.put(pack, cipher)
        return cipher


def read_directory(
    store: Store, ciphers: PackCiphers, pack: PackID, size: int
) -> list[tuple[int, RecordHeader]]:
    """(offset, header) of each record. One read of the pack's last 128 KiB usually has the whole directory.

    Raises Damaged, FileNotFoundError or StoreError.
    """
    where = f"pack {pack}"
    if not HEAD_SIZE + FOOT_SIZE < size <= PACK_LIMIT:
        raise Damaged(where, f"has an impossible size of {size} bytes")
    cipher = ciphers.get(pack)
    guess = min(size - HEAD_SIZE, 128 << 10)
    tail = store.read(FileKind.PACK, pack, size - guess, guess)
    count, offset = open_foot(cipher, tail[-FOOT_SIZE:], size, where)
    need = size - offset
    if need > len(tail):
        tail = store.read(FileKind.PACK, pack, size - need, need)
    sealed = tail[len(tail) - need : len(tail) - FOOT_SIZE]
    return list(parse_directory(cipher.open(NonceDomain.DIRECTORY, offset, sealed, where), count, where))


def open_foot(cipher: FileCipher, sealed: bytes, size: int, where: str) -> tuple[int, int]:
    """(number of records, directory offset) of a pack of `size` bytes."""
    plain = cipher.open(NonceDomain.FOOT, size - FOOT_SIZE, sealed, where)
    return parse_foot(plain, where, size)


def open_record(
    cipher: FileCipher, offset: int, record: bytes | memoryview, where: str
) -> tuple[RecordHeader, bytes]:
    """Header and plaintext of the record whose bytes start at `offset` of the pack.

    `record` may be longer than the record is. Raises Damaged.
    """
    header, payload = _open(cipher, offset, record, where)
    return header, _decode(header, payload, where, offset)


def open_payload(
    cipher: FileCipher, offset: int, record: bytes | memoryview, where: str
) -> tuple[RecordHeader, bytes]:
    """As `open_record`, but returns the payload still encoded (compressed)."""
    header, payload = _open(cipher, offset, record, where)
    return header, bytes(payload)


def _open(
    cipher: FileCipher, offset: int, record: bytes | memoryview, where: str
) -> tuple[RecordHeader, memoryview]:
    """Header and encoded payload. The payload is in this thread's buffer, valid until the next call."""
    sealed = record[:RECORD_HEADER]
    header = parse_record(cipher.open(NonceDomain.RECORD_HEADER, offset, sealed, where), where)
    if len(record) < header.size:
        raise Damaged(
            where, f"only {len(record)} of the record's {header.size} bytes are there", offset=offset
        )
    sealed = record[RECORD_HEADER : header.size]
    filled = cipher.open_into(NonceDomain.RECORD_PAYLOAD, offset, sealed, _buffer(header.size), where)
    return header, filled[: header.encoded]


def _buffer(size: int) -> memoryview:
    """This thread's buffer, of at least `size` bytes."""
    buffer: bytearray | None = getattr(_local, "buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = _local.buffer = bytearray(max(size, _BUFFER))
    return memoryview(buffer)


def _decode(header: RecordHeader, payload: Buffer, where: str, offset: int) -> bytes:
    if header.codec is Codec.RAW:
        if len(payload) != header.raw:
            raise Damaged(
                where, f"raw record of {len(payload)} bytes, its header says {header.raw}", offset=offset
            )
        return bytes(payload)
    try:
        # zstd allocates as much as the frame claims and ignores max_output_size: check the claim first.
        claimed = zstandard.frame_content_size(payload)
        if claimed != header.raw:
            raise Damaged(
                where, f"compressed record of {claimed} bytes, its header says {header.raw}", offset=offset
            )
        return _decompressor().decompress(payload, max_output_size=header.raw)
    except zstandard.ZstdError as error:
        raise Damaged(where, f"compressed record: {error}", offset=offset) from None


def _decompressor() -> zstandard.ZstdDecompressor:
    try:
        context: zstandard.ZstdDecompressor = _local.decompressor
    except AttributeError:
        context = _local.decompressor = zstandard.ZstdDecompressor()
    return context


def walk_records(cipher: FileCipher, data: memoryview, where: str) -> Iterator[tuple[int, RecordHeader]]:
    """(offset, header) of every record in a pack whose header can be decrypted. Ignores the directory.

    After a damaged header, tries every 64-byte step, so that the records behind it are found too.
    """
    offset = HEAD_SIZE
    while offset + RECORD_HEADER < len(data):
        try:
            sealed = data[offset : offset + RECORD_HEADER]
            header = parse_record(cipher.open(NonceDomain.RECORD_HEADER, offset, sealed, where), where)
        except Damaged:
            offset += ALIGN
            continue
        if header.type is not RecordType.PADDING:
            yield offset, header
        offset += header.size


def salvage_directory(store: Store, ciphers: PackCiphers, pack: PackID) -> list[tuple[int, RecordHeader]]:
    """(offset, header) of every complete record of a pack whose directory is damaged or missing."""
    where = f"pack {pack}"
    cipher = ciphers.get(pack)
    data = memoryview(store.read(FileKind.PACK, pack, 0, PACK_LIMIT))
    found = walk_records(cipher, data, where)
    return [(offset, header) for offset, header in found if offset + header.size <= len(data)]
