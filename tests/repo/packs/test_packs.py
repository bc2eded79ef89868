"""Packs: written by threads, read three ways, damaged anywhere."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, HoldfastError, StoreError
from holdfast.base.types import ChunkID, Codec, PackID, RecordType
from holdfast.repo.format.crypto import Keys, Suite, content_hash, new_cipher
from holdfast.repo.format.format import (
    ALIGN,
    HEAD_SIZE,
    PACK_LIMIT,
    PACK_TARGET,
    NonceDomain,
    ObjectType,
    RecordHeader,
    parse_record,
)
from holdfast.repo.index.index import Directory
from holdfast.repo.packs.reader import (
    PackCiphers,
    open_record,
    read_directory,
    salvage_directory,
    walk_records,
)
from holdfast.repo.packs.writer import PackWriter, Record
from holdfast.repo.store.interface import FileKind, Store
from holdfast.repo.store.memory import MemoryStore
from support.basics import random_bytes
from support.faulty_store import FaultyStore, fail_at

SMALL = 64 << 10
"""Bytes of a full pack where several are wanted."""
KEYS = Keys.of(bytes(32), {1: bytes(32)}, bytes(16), Suite.AES_256_GCM)


def record(plain: bytes, kind: RecordType = RecordType.DATA, *, compressed: bool = False) -> Record:
    id_ = KEYS.data_chunk_id(plain)
    if not compressed:
        return RecordHeader(kind, Codec.RAW, len(plain), len(plain), id_), plain
    packed = zstandard.ZstdCompressor().compress(plain)
    return RecordHeader(kind, Codec.ZSTD, len(plain), len(packed), id_), packed


@dataclass
class Written:
    """What a PackWriter reported."""

    packs: dict[PackID, tuple[int, Directory]] = field(default_factory=dict)

    def __call__(self, pack: PackID, size: int, directory: Directory) -> None:
        self.packs[pack] = (size, directory)


def write(records: list[Record], store: Store, *, target: int = PACK_TARGET) -> Written:
    written = Written()
    writer = PackWriter(store, KEYS, written, target=target)
    writer.add(records)
    writer.finish()
    return written


def one_pack(plains: list[bytes]) -> tuple[MemoryStore, PackID, bytes, Directory]:
    store = MemoryStore()
    written = write([record(plain) for plain in plains], store)
    ((pack, (_, directory)),) = written.packs.items()
    return store, pack, store.read(FileKind.PACK, pack), directory


records = st.lists(
    st.builds(
        lambda plain, kind, compressed: record(plain, kind, compressed=compressed),
        st.binary(max_size=300),
        st.sampled_from([RecordType.DATA, RecordType.NODE]),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(records, st.sampled_from(Suite))
def test_what_is_written_is_read_through_the_directory_and_without_it(
    batch: list[Record], suite: Suite
) -> None:
    keys = Keys.of(bytes(32), {1: bytes(32)}, bytes(16), suite)
    store, written = MemoryStore(), Written()
    writer = PackWriter(store, keys, written)
    writer.add(batch)
    writer.finish()
    ((pack, (size, reported)),) = written.packs.items()
    data = store.read(FileKind.PACK, pack)
    assert (len(data), writer.stored) == (size, size)
    assert content_hash(data) == pack
    ciphers = PackCiphers(store, keys)
    directory = read_directory(store, ciphers, pack, size)
    assert directory == list(reported) == list(walk_records(ciphers.get(pack), memoryview(data), "here"))
    assert [header for _, header in directory] == [header for header, _ in batch]
    for (offset, header), (_, payload) in zip(directory, batch, strict=True):
        assert offset % ALIGN == 0
        plain = payload if header.codec is Codec.RAW else zstandard.decompress(payload)
        found = open_record(ciphers.get(pack), offset, data[offset : offset + header.size], "here")
        assert found == (header, plain)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6, unique=True), st.data())
def test_a_flipped_byte_costs_no_more_than_the_record_it_is_in(
    plains: list[bytes], data: st.DataObject
) -> None:
    store, pack, content, directory = one_pack(plains)
    at = data.draw(st.integers(HEAD_SIZE, len(content) - 1))
    bad = bytearray(content)
    bad[at] ^= data.draw(st.integers(1, 255))
    assert content_hash(bad) != pack
    cipher = PackCiphers(store, KEYS).get(pack)
    walked = dict(walk_records(cipher, memoryview(bad), "here"))
    for (offset, header), plain in zip(directory, plains, strict=True):
        if offset <= at < offset + header.size:
            continue
        assert walked[offset] == header
        assert open_record(cipher, offset, bytes(bad[offset : offset + header.size]), "here")[1] == plain
    for offset in walked.keys() - dict(directory).keys():
        pytest.fail(f"a record at {offset} that was never written")


@given(st.data())
def test_a_cut_pack_gives_the_records_before_the_cut(data: st.DataObject) -> None:
    store, pack, content, directory = one_pack([bytes([n]) * 100 * n for n in range(1, 6)])
    cut = data.draw(st.integers(HEAD_SIZE, len(content) - 1))
    store.files[FileKind.PACK, pack] = content[:cut]
    ciphers = PackCiphers(store, KEYS)
    with pytest.raises(Damaged):
        read_directory(store, ciphers, pack, cut)
    with pytest.raises(Damaged):
        read_directory(store, ciphers, pack, len(content))
    walked = dict(walk_records(ciphers.get(pack), memoryview(content)[:cut], "here"))
    for offset, header in directory:
        if offset + header.size <= cut:
            assert walked[offset] == header


@given(st.integers(0, HEAD_SIZE - 1), st.integers(1, 255))
def test_a_pack_with_a_damaged_head_is_refused(at: int, flip: int) -> None:
    store, pack, content, _ = one_pack([b"content"])
    bad = bytearray(content)
    bad[at] ^= flip
    store.files[FileKind.PACK, pack] = bytes(bad)
    with pytest.raises(Damaged, match=pack):
        PackCiphers(store, KEYS).get(pack)


@pytest.mark.parametrize("size", [0, 1, HEAD_SIZE, HEAD_SIZE + 64, PACK_LIMIT + 1, 1 << 50])
def test_packs_of_impossible_sizes_are_not_read(size: int) -> None:
    store = FaultyStore(MemoryStore())
    with pytest.raises(Damaged, match="impossible size"):
        read_directory(store, PackCiphers(store, KEYS), PackID("ab" * 32), size)
    assert store.operations == []


def test_a_large_directory_takes_a_second_read() -> None:
    inner = MemoryStore()
    written = write([record(n.to_bytes(4, "little")) for n in range(4000)], inner)
    ((pack, (size, reported)),) = written.packs.items()
    store = FaultyStore(inner)
    assert read_directory(store, PackCiphers(store, KEYS), pack, size) == list(reported)
    assert len(store.operations) == 3  # head, end, directory


def test_records_that_swapped_places_do_not_open() -> None:
    store, pack, content, directory = one_pack([b"a" * 100, b"b" * 100])
    cipher = PackCiphers(store, KEYS).get(pack)
    (one, header), (two, _) = directory
    with pytest.raises(Damaged, match="not authentic"):
        open_record(cipher, one, content[two : two + header.size], "here")


@pytest.mark.parametrize("claimed", [5, 1 << 20])
def test_a_record_that_unpacks_to_another_length_than_it_says_is_refused(claimed: int) -> None:
    """Authentic, but made by somebody who wants memory: looked at before anything is allocated."""
    packed = zstandard.ZstdCompressor().compress(bytes(1000))
    cipher = new_cipher(KEYS, ObjectType.PACK)
    for codec, payload in ((Codec.ZSTD, packed), (Codec.RAW, bytes(1000)), (Codec.ZSTD, b"no zstd frame")):
        header = RecordHeader(RecordType.DATA, codec, claimed, len(payload), ChunkID(bytes(32)))
        sealed = cipher.seal(NonceDomain.RECORD_HEADER, 64, header.pack())
        sealed += cipher.seal(NonceDomain.RECORD_PAYLOAD, 64, payload.ljust(header.filled, b"\0"))
        with pytest.raises(Damaged, match="here at offset 64"):
            open_record(cipher, 64, sealed, "here")


def test_full_packs_are_closed_and_a_new_one_begun() -> None:
    store = MemoryStore()
    plains = [random_bytes(3000, n) for n in range(200)]
    written = write([record(plain) for plain in plains], store, target=SMALL)
    assert len(written.packs) > 9
    sizes = [size for size, _ in written.packs.values()]
    assert set(sizes[:-1]) == {SMALL}
    assert sizes[-1] <= SMALL
    assert all(SMALL - sum(h.size for _, h in d) < 6000 for _, d in list(written.packs.values())[:-1])
    stored = [header.id for _, directory in written.packs.values() for _, header in directory]
    assert sorted(stored) == sorted(KEYS.data_chunk_id(plain) for plain in plains)
    assert {entry.name: entry.size for entry in store.listing(FileKind.PACK)} == {
        pack: size for pack, (size, _) in written.packs.items()
    }


def test_threads_write_packs_together() -> None:
    store, written = MemoryStore(), Written()
    writer = PackWriter(store, KEYS, written, target=SMALL)
    plains = [random_bytes(500 + 13 * n, n) for n in range(300)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: writer.add([record(p) for p in plains[n : n + 3]]), range(0, 300, 3)))
    writer.finish()
    ciphers, found = PackCiphers(store, KEYS), []
    for pack, (size, directory) in written.packs.items():
        data = store.read(FileKind.PACK, pack)
        assert list(directory) == read_directory(store, ciphers, pack, size)
        found += [open_record(ciphers.get(pack), offset, data[offset:], "here")[1] for offset, _ in directory]
    assert sorted(found) == sorted(plains)


def test_two_buffers_bound_what_waits_to_be_written() -> None:
    """The writer of packs is held up: workers get two packs ahead and no further."""
    go = threading.Event()
    store = FaultyStore(
        MemoryStore(), before=lambda operation: None if go.wait(120) else pytest.fail("stuck")
    )
    writer = PackWriter(store, KEYS, Written(), target=SMALL)
    added: list[int] = []

    def work() -> None:
        for n in range(100):
            writer.add([record(random_bytes(6000, n))])
            added.append(n)
            if n == 14:
                ahead.set()

    ahead = threading.Event()
    worker = threading.Thread(target=work)
    worker.start()
    ahead.wait(120)
    assert len(added) <= 20
    go.set()
    worker.join()
    writer.finish()
    assert len(added) == 100


def test_a_failed_write_comes_back_to_who_adds_and_who_finishes() -> None:
    store, written = FaultyStore(MemoryStore(), before=fail_at(1)), Written()
    writer = PackWriter(store, KEYS, written, target=SMALL)

    def add_all() -> None:
        for n in range(1000):
            writer.add([record(random_bytes(6000, n))])

    with pytest.raises(StoreError):
        add_all()
    with pytest.raises(StoreError):
        writer.finish()
    assert written.packs == {}
    writer.abandon()


def test_abandoning_writes_nothing_more() -> None:
    store, written = MemoryStore(), Written()
    writer = PackWriter(store, KEYS, written)
    writer.add([record(b"content")])
    writer.abandon()
    assert store.files == {}
    assert written.packs == {}


def test_a_pack_with_a_stretch_that_was_never_sealed_is_not_written() -> None:
    """Its directory would promise a record that does not open, and later backups would rely on it."""
    store, written = MemoryStore(), Written()
    writer = PackWriter(store, KEYS, written)
    header, payload = record(b"content")
    with pytest.raises(Exception) as caught:  # noqa: PT011  whatever the cipher says of a wrong length
        writer.add([(header, bytes(payload) + b"longer than its header says")])
    assert not isinstance(caught.value, HoldfastError)
    with pytest.raises(type(caught.value)):
        writer.finish()
    assert store.files == {}
    assert written.packs == {}


def test_without_the_key_no_record_can_be_told_from_the_next() -> None:
    """Clear padding would show the exact length of nearly every compressed chunk."""
    words = [random_bytes(40, n).hex().encode() for n in range(50)]
    plains = [b" ".join(words[n % 50 : n % 50 + 7]) * (1 + n % 5) for n in range(400)]
    store = MemoryStore()
    write([record(plain, compressed=True) for plain in plains], store)
    ((_, content),) = store.files.items()
    ends = range(HEAD_SIZE + ALIGN, len(content) + 1, ALIGN)
    assert sum(content[end - 3 : end] == bytes(3) for end in ends) == 0


def test_the_same_content_in_two_repositories_gives_packs_of_few_sizes() -> None:
    sizes = set()
    for n in range(400):
        ((_, (size, _)),) = write([record(random_bytes(20_000 + 11 * n, n))], MemoryStore()).packs.items()
        sizes.add(size)
    assert len(sizes) <= 8


def test_padding_between_records_and_directory_is_skipped_by_a_walk_and_hides_nothing() -> None:
    store, pack, content, directory = one_pack([random_bytes(9_900, n) for n in range(3)])
    end = directory[-1][0] + directory[-1][1].size
    cipher = PackCiphers(store, KEYS).get(pack)
    header = parse_record(
        cipher.open(NonceDomain.RECORD_HEADER, end, content[end : end + 64], "here"), "here"
    )
    assert header.type is RecordType.PADDING
    zeros = content[end + 64 : end + header.size]
    assert cipher.open(NonceDomain.RECORD_PAYLOAD, end, zeros, "here") == bytes(header.encoded)
    store.files[FileKind.PACK, pack] = content[:-64] + bytes(64)
    assert salvage_directory(store, PackCiphers(store, KEYS), pack) == list(directory)


def test_a_record_larger_than_a_pack_is_a_mistake_of_the_caller() -> None:
    writer = PackWriter(MemoryStore(), KEYS, Written(), target=4096)
    with pytest.raises(ValueError, match="does not fit into a pack of 4096"):
        writer.add([record(bytes(5000))])
    writer.abandon()
