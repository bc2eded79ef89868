"""An index of made-up packs: what each holds follows from its number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from holdfast.base.types import ChunkID, Codec, PackID, RecordType
from holdfast.repo.format.format import HEAD_SIZE, RecordHeader
from holdfast.repo.index.index import Directory, Index
from holdfast.repo.index.lmdb_env import FIRST_MAP
from holdfast.repo.index.results import SyncResult

KEY = bytes(32)


def chunk(n: int) -> ChunkID:
    return ChunkID(sha256(n.to_bytes(8, "little")).digest())


def pack_id(n: int) -> PackID:
    return PackID(sha256(b"pack %d" % n).hexdigest())


def directory(chunks: list[int]) -> Directory:
    found, offset = [], HEAD_SIZE
    for n in chunks:
        header = RecordHeader(RecordType.DATA, Codec.RAW, 10 * n, 10 * n, chunk(n))
        found.append((offset, header))
        offset += header.size
    return found


@contextmanager
def opened(folder: Path, key: bytes = KEY, *, first_map: int = FIRST_MAP) -> Iterator[Index]:
    index = Index(folder, key, first_map=first_map)
    try:
        yield index
    finally:
        index.close()


def sync(index: Index, packs: dict[int, list[int]]) -> SyncResult:
    contents = {pack_id(p): directory(chunks) for p, chunks in packs.items()}
    return index.sync([(pack_id(p), 1000 + p) for p in packs], lambda pack, size: contents[pack])
