"""Compressed dumps on the way in: the same as plain ones, never more than they are, never more memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import StreamFailed
from holdfast.ingest.sources.compressed import DecompressedSource, compression, plain_name, unpacked_head
from holdfast.ingest.sources.source import HEAD_SIZE, CommandSource, FileSource, Source
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import BadRange, Consistency, ItemKind, Snapshot, SubjectKind
from support.basics import MemorySource, backup, need, random_bytes, read_item

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
}
SUFFIXES = {"gzip": "gz", "zstd": "zst", "xz": "xz", "bzip2": "bz2"}
HEAD = b"--\n-- PostgreSQL database dump\n--\n\nCOPY public.t (n, x) FROM stdin;\n"
TAIL = b"\\.\n\n--\n-- PostgreSQL database dump complete\n--\n\n"


def rows(count: int, seed: int) -> bytes:
    noise = random_bytes(count * 30, seed)
    return b"".join(b"%d\t%s\n" % (n, noise[30 * n : 30 * n + 30].hex().encode()) for n in range(count))


DUMP = HEAD + rows(12_000, 1) + TAIL
"""800 KB, which no compressor gets into the 64 KiB of a head."""
PACKED = {name: pack(DUMP) for name, pack in PACK.items()}

formats = pytest.mark.parametrize("format_", PACK)


def unpack(source: Source, format_: str, size: int = 100_000, **options: int) -> tuple[bytes, list[BadRange]]:
    unpacked = DecompressedSource(source, format_, **options)
    found = bytearray()
    while True:
        buffer = memoryview(bytearray(size))
        count = unpacked.read_into(buffer, len(found))
        found += buffer[:count]
        if count < size:
            return bytes(found), unpacked.bad


def stored(repository: Repository, content: bytes, name: str, **changes: object) -> Snapshot:
    source = MemorySource(content, name, is_stream=bool(changes.pop("is_stream", False)))
    return backup(repository, source, **changes).stored.snapshot


# ---- whole streams ------------------------------------------------------------------------------------


@formats
def test_a_compressed_dump_is_the_plain_one(memory_repository: Repository, format_: str) -> None:
    plain = stored(memory_repository, DUMP, "shop.sql")
    for is_stream in (False, True):
        packed = stored(
            memory_repository, PACKED[format_], f"shop.sql.{SUFFIXES[format_]}", is_stream=is_stream
        )
        (item,), (other,) = packed.items, plain.items
        assert packed.stats.new_chunks == 0
        assert (item.recipe, item.size, item.catalogue) == (other.recipe, other.size, other.catalogue)
        assert (item.path, item.kind, item.source_format) == ("dump.sql", ItemKind.DUMP, format_)
        assert (packed.consistency, packed.evidence) == (plain.consistency, plain.evidence)
        assert not packed.partial
        assert packed.source == f"shop.sql.{SUFFIXES[format_]}"


@formats
def test_what_the_real_tool_writes_is_read(
    memory_repository: Repository, format_: str, tmp_path: Path
) -> None:
    need(shutil.which(format_), format_)
    path = tmp_path / "shop.sql"
    path.write_bytes(DUMP)
    for level in ("-1", "-9"):
        argv = [format_, "-k", "-f", level, str(path)]
        subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
        with FileSource(tmp_path / f"shop.sql.{SUFFIXES[format_]}") as source:
            snapshot = backup(memory_repository, source).stored.snapshot
        assert read_item(memory_repository, snapshot.items[0]) == DUMP
        assert snapshot.consistency is Consistency.APPLICATION


@formats
@given(
    st.lists(
        st.binary(max_size=3000) | st.integers(0, 99).map(lambda n: rows(n * 20, n)), min_size=1, max_size=4
    ),
    st.integers(0, 3000),
    st.integers(1, 5000),
)
def test_members_one_after_another_with_padding_behind_are_one_stream(
    format_: str, parts: list[bytes], padding: int, size: int
) -> None:
    packed = b"".join(map(PACK[format_], parts)) + bytes(padding)
    assert compression(packed) == format_
    for is_stream in (False, True):
        found = unpack(MemorySource(packed, is_stream=is_stream), format_, size)
        assert found == (b"".join(parts), [])


@formats
def test_any_edge_of_the_input_is_an_edge_in_a_member(format_: str) -> None:
    """Members of a few bytes, read in slices of any size."""
    parts = [rows(n, n) for n in range(12)]
    packed = b"".join(map(PACK[format_], parts))
    for slice_ in range(1, 40):
        assert unpack(MemorySource(packed), format_, slice_size=slice_) == (b"".join(parts), [])


def test_a_zstd_frame_that_does_not_say_how_long_it_is(memory_repository: Repository) -> None:
    out = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as writer:
        for start in range(0, len(DUMP), 10_000):
            writer.write(DUMP[start : start + 10_000])
    assert unpack(MemorySource(out.getvalue()), "zstd") == (DUMP, [])


def test_a_skippable_zstd_frame_within_is_skipped() -> None:
    skip = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    pack = PACK["zstd"]
    assert unpack(MemorySource(pack(b"one") + skip + pack(b"two") + skip), "zstd") == (b"onetwo", [])


def test_the_first_block_need_not_end_within_the_head(memory_repository: Repository) -> None:
    """bzip2 gives nothing before 900,000 bytes are there, zstd before 128 KiB are."""
    content = HEAD + random_bytes(1 << 20, 5).hex().encode() + b"\n" + TAIL
    for format_, packed in {"bzip2": bz2.compress(content), "zstd": PACK["zstd"](content)}.items():
        for is_stream in (False, True):
            snapshot = stored(memory_repository, packed, "stdin", is_stream=is_stream)
            assert snapshot.items[0].source_format == format_
            assert read_item(memory_repository, snapshot.items[0]) == content
    assert unpacked_head(bz2.compress(content)[:HEAD_SIZE]) == b"", "or this tests nothing"


# ---- what is not unpacked -----------------------------------------------------------------------------


@formats
@pytest.mark.parametrize("content", [b"", b"x", random_bytes(300_000, 1), b"name = 'web01'\n" * 1000])
def test_what_holds_no_dump_is_kept_as_it_is(
    memory_repository: Repository, format_: str, content: bytes
) -> None:
    packed = PACK[format_](content)
    for is_stream in (False, True):
        (item,) = stored(memory_repository, packed, "a.bin", is_stream=is_stream).items
        assert (item.path, item.kind, item.source_format, item.size) == (
            "a.bin",
            ItemKind.FILE,
            "",
            len(packed),
        )
        assert read_item(memory_repository, item) == packed


@formats
def test_files_stay_compressed(memory_repository: Repository, format_: str) -> None:
    packed = PACKED[format_]
    (item,) = stored(memory_repository, packed, "shop.sql.gz", kind=SubjectKind.FILES).items
    assert (item.path, item.kind, item.source_format) == ("shop.sql.gz", ItemKind.FILE, "")
    assert read_item(memory_repository, item) == packed


@pytest.mark.parametrize("name", ["web01.raw", "web01.img"])
@formats
def test_a_guest_cannot_make_its_disk_a_dump(
    memory_repository: Repository, tmp_path: Path, format_: str, name: str
) -> None:
    """It may write a compressed dump to its first sectors."""
    path = tmp_path / name
    path.write_bytes(PACK[format_](HEAD + TAIL).ljust(1 << 20, b"\0"))
    with FileSource(path) as source:
        (item,) = backup(memory_repository, source).stored.snapshot.items
    assert (item.kind, item.source_format, item.size) == (ItemKind.DISK, "raw", 1 << 20)
    assert read_item(memory_repository, item) == path.read_bytes()


@formats
@pytest.mark.parametrize("magic_only", [True, False])
def test_what_only_begins_like_it_is_kept_as_it_is(
    memory_repository: Repository, format_: str, magic_only: bool
) -> None:
    content = PACKED[format_][: 6 if magic_only else 20] + random_bytes(5000, 3)
    snapshot = stored(memory_repository, content, "shop.sql.gz")
    assert read_item(memory_repository, snapshot.items[0]) == content
    assert not snapshot.partial


def test_several_are_named_like_what_is_stored(memory_repository: Repository) -> None:
    sources = [MemorySource(PACKED[f], f"{f}.sql.{SUFFIXES[f]}") for f in PACK]
    snapshot = backup(memory_repository, *sources, MemorySource(b"\x1f\x8b\x08no", "b.gz")).stored.snapshot
    assert [i.path for i in snapshot.items] == ["gzip.sql", "zstd.sql", "xz.sql", "bzip2.sql", "b.gz"]
    assert plain_name(".gz", "gzip") == ".gz"
    assert plain_name("a.GZ", "gzip") == "a"
    assert plain_name("a.gz", "xz") == "a.gz"


def test_sql_of_nobody_is_known_by_the_name_below_the_suffix(memory_repository: Repository) -> None:
    content = b"CREATE TABLE t (x int);\n"
    (item,) = stored(memory_repository, gzip.compress(content), "shop.sql.gz").items
    assert (item.kind, item.source_format) == (ItemKind.DUMP, "gzip")
    assert read_item(memory_repository, item) == content


# ---- what is damaged or ends early --------------------------------------------------------------------


def assert_partial(repository: Repository, snapshot: Snapshot, format_: str, least: int) -> None:
    """At least so much of the dump is there, and the snapshot says that there should be more."""
    (item,) = snapshot.items
    assert snapshot.partial
    assert (snapshot.consistency, snapshot.evidence) == (Consistency.UNKNOWN, "the dump is not whole")
    assert item.bad[0].reason.startswith(f"the {format_} data behind ends early or is damaged: ")
    assert {(bad.start, bad.length) for bad in item.bad} == {(item.size, 0)}
    assert least <= item.size
    content = read_item(repository, item)
    assert content[:least] == DUMP[:least]


@formats
@pytest.mark.parametrize("part", [0.6, 0.95, -1, -5])
def test_a_truncated_stream_is_partial_and_all_that_came_is_kept(
    memory_repository: Repository, format_: str, part: float
) -> None:
    packed = PACKED[format_]
    cut = packed[: int(part) if part < 0 else int(len(packed) * part)]
    least = int(len(DUMP) * (1 if part < 0 else part)) - 140_000
    for is_stream in (False, True):
        snapshot = stored(memory_repository, cut, "shop", is_stream=is_stream)
        assert_partial(memory_repository, snapshot, format_, least)


@formats
def test_a_truncated_stream_is_no_application_backup_even_with_the_trailer_in_it(
    memory_repository: Repository, format_: str
) -> None:
    """Whether it ends in the checksum of a member or in the next member's head."""
    packed = PACKED[format_]
    for cut in (packed[:-2], packed + packed[:3]):
        content, bad = unpack(MemorySource(cut), format_)
        assert bad == [BadRange(len(content), 0, bad[0].reason)]
        snapshot = stored(memory_repository, cut, "shop")
        assert snapshot.consistency is Consistency.UNKNOWN


@formats
@pytest.mark.parametrize("part", [0.7, 0.9])
def test_a_flipped_bit_is_partial_and_what_came_before_is_kept(
    memory_repository: Repository, format_: str, part: float
) -> None:
    packed = bytearray(PACKED[format_])
    at = int(len(packed) * part)
    packed[at] ^= 0x10
    least = int(len(DUMP) * part) - 140_000
    snapshot = stored(memory_repository, bytes(packed), "shop")
    assert_partial(memory_repository, snapshot, format_, least)


@formats
@given(st.integers(0, 5000), st.integers(0, 7))
def test_no_flipped_bit_passes_for_the_dump(format_: str, at: int, bit: int) -> None:
    packed = bytearray(SMALL_PACKED[format_])
    packed[at % len(packed)] ^= 1 << bit
    content, bad = unpack(MemorySource(bytes(packed)), format_)
    assert bad or content == SMALL, "only what the checksums do not cover may change unseen: a time, a name"


SMALL = rows(60, 3)
SMALL_PACKED = {name: pack(SMALL) for name, pack in PACK.items()}


@formats
def test_other_data_behind_is_no_end(format_: str) -> None:
    content, bad = unpack(MemorySource(PACK[format_](b"whole") + b"\0\0rubbish"), format_)
    assert content == b"whole"
    assert [(b.start, b.length) for b in bad] == [(5, 0)]


def test_a_file_that_could_not_be_read_everywhere_is_not_whole() -> None:
    source = MemorySource(gzip.compress(b"whole"), bad=[BadRange(0, 4096, "Input/output error")])
    content, bad = unpack(source, "gzip")
    assert content == b"whole"
    assert [b.reason for b in bad] == [
        "the gzip data behind ends early or is damaged: not all of it could be read"
    ]


@formats
@pytest.mark.parametrize("code", [0, 3])
def test_a_command_can_finish_though_what_it_prints_is_damaged(
    memory_repository: Repository, tmp_path: Path, format_: str, code: int
) -> None:
    """Nobody would wait for the rest: then it would never exit."""
    packed = bytearray(PACKED[format_])
    packed[len(packed) * 3 // 4] ^= 0x10
    path = tmp_path / "dump"
    path.write_bytes(packed + random_bytes(3 << 20, 1))
    script = "import sys, shutil; shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer)"
    argv = [sys.executable, "-c", f"{script}; sys.exit({code})", str(path)]
    with closing(CommandSource(argv, "shop")) as source:
        if code:
            with pytest.raises(StreamFailed, match="exited with 3"):
                backup(memory_repository, source)
        else:
            assert backup(memory_repository, source).stored.snapshot.partial


# ---- bombs --------------------------------------------------------------------------------------------


def zeros(format_: str) -> Iterator[bytes]:
    """64 MB of zeros and more behind the head of a dump, packed as tightly as the format can."""
    start = HEAD + b"1\t"
    block = bytes(1 << 20)
    if format_ == "gzip":
        z = zlib.compressobj(9, wbits=31)
        yield z.compress(start)
        yield from (z.compress(block) for _ in range(64))
        yield z.flush()
    elif format_ == "zstd":
        yield zstandard.compress(start)
        # Raw frame header with a window of 128 KiB, then RLE blocks of 128 KiB, four bytes each.
        header = (0xFD2FB528).to_bytes(4, "little") + bytes([0, 7 << 3])
        rle = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
        last = (1 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
        yield header + rle * 8000 + last
    elif format_ == "xz":
        x = lzma.LZMACompressor(preset=1)
        yield x.compress(start)
        yield from (x.compress(block) for _ in range(64))
        yield x.flush()
    else:
        b = bz2.BZ2Compressor(9)
        yield b.compress(start)
        yield from (b.compress(block) for _ in range(64))
        yield b.flush()


@formats
def test_a_bomb_takes_no_more_memory_than_anything_else(format_: str) -> None:
    packed = b"".join(zeros(format_))
    assert len(packed) < 400_000
    buffer = memoryview(bytearray(1 << 20))
    tracemalloc.start()
    try:
        source = DecompressedSource(MemorySource(packed, is_stream=True), format_)
        assert source.head.startswith(HEAD)
        made, count = 0, 1
        while count:
            count = source.read_into(buffer, made)
            made += count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made >= 64 << 20
    assert source.bad == []
    assert peak < (70 << 20 if format_ == "zstd" else 8 << 20), peak


def test_a_frame_that_asks_for_much_memory_is_kept_as_it_is(memory_repository: Repository) -> None:
    """As `zstd --ultra --long=31` and a hostile xz header do."""
    huge = zstandard.ZstdCompressionParameters(window_log=30)
    out = zstandard.ZstdCompressor(compression_params=huge).compressobj()
    packed = out.compress(HEAD + rows(100, 1)) + out.flush()
    (item,) = stored(memory_repository, packed, "shop.sql.zst").items
    assert (item.kind, item.source_format) == (ItemKind.FILE, "")
    header = bytearray(lzma.compress(HEAD, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}]))
    at = header.index(b"\x21\x01", 12) + 2
    header[at] = 36  # 1 GiB, as the specification of xz counts
    size = (header[12] + 1) * 4
    header[12 + size - 4 : 12 + size] = zlib.crc32(header[12 : 12 + size - 4]).to_bytes(4, "little")
    assert unpacked_head(bytes(header)) == b""
    assert lzma.decompress(bytes(header), memlimit=2 << 30) == HEAD, "or this tests nothing"


def test_nothing_else_is_taken_for_compressed() -> None:
    for head in (b"", b"\x1f\x8b", b"BZ", b"PGDMP", b"PK\3\4", b"\xfd7zXZ", DUMP):
        assert compression(head) == ""
