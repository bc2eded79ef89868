"""Damaged and hostile qcow2 images are told, with the offset; never shortened, never silently zeros."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import BytesFile, OpenFile
from holdfast.formats.disks.base.image import ExtentKind, Image
from holdfast.formats.disks.open import FORMATS, no_companions
from holdfast.formats.disks.qcow2.format import encode_head
from holdfast.formats.disks.qcow2.reader import open_qcow2
from support.disk import (
    check_image,
    companions,
    convert,
    damaged,
    disk_bytes,
    raw_disk,
    read_disk,
    read_or_damaged,
    run,
)

MIB = 1 << 20
SIZE = MIB + 512
COPIED, COMPRESSED = 1 << 63, 1 << 62

KINDS = {
    "plain": ("", ()),
    "small": ("cluster_size=512", ()),
    "extended": ("extended_l2=on,cluster_size=16k", ()),
    "zlib": ("compression_type=zlib,cluster_size=4k", ("-c",)),
    "zstd": ("compression_type=zstd,cluster_size=64k", ("-c",)),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_disk(tmp_path_factory.mktemp("raw") / "disk.raw", SIZE, 7, unit=4096)


@pytest.fixture(scope="module")
def images(raw: Path) -> dict[str, Path]:
    return {
        kind: convert(raw, raw.with_name(f"{kind}.qcow2"), "qcow2", options, extra=extra)
        for kind, (options, extra) in KINDS.items()
    }


@contextmanager
def opened(path: Path) -> Iterator[Image]:
    with OpenFile(path) as file:
        yield open_qcow2(file, no_companions, FORMATS)


def in_memory(content: bytes) -> Image:
    return open_qcow2(BytesFile(content, "a.qcow2"), no_companions, FORMATS)


def number(content: bytes, at: int, length: int = 8) -> int:
    return int.from_bytes(content[at : at + length], "big")


def with_number(content: bytes, at: int, value: int, length: int = 8) -> bytes:
    return content[:at] + value.to_bytes(length, "big") + content[at + length :]


# ---- truncation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_image_is_damaged_or_lost_nothing(
    tmp_path: Path, raw: Path, images: dict[str, Path], kind: str
) -> None:
    wanted, size = raw.read_bytes(), images[kind].stat().st_size
    told = 0
    for cut in sorted({*range(0, size, size // 50), 1, 71, 72, 103, 104, 105, size - 1, size - 512}):
        path = damaged(images[kind], tmp_path / "cut.qcow2", {}, size=cut)
        try:
            with opened(path) as image:
                told += read_or_damaged(image, wanted, step=16 << 10) is not None
        except ImageDamaged:
            told += 1
    # Only what comes last may be missing: padding behind a compressed cluster, the tail of the last cluster.
    assert told >= 50


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_shrinks_while_it_is_read_is_told(
    tmp_path: Path, images: dict[str, Path], kind: str
) -> None:
    path = damaged(images[kind], tmp_path / "a.qcow2", {})
    with opened(path) as image:
        first = next(e for e in image.extents() if e.kind is ExtentKind.DATA)
        path.write_bytes(b"")
        with pytest.raises(ImageDamaged, match="shrank"):
            read_disk(image, 4096, first.start, first.start + 4096)


# ---- headers ------------------------------------------------------------------------------------------

HEADS = [
    (0, b"QFI\xfa", ImageDamaged, "no qcow2 header"),
    (4, b"\0\0\0\4", ImageRefused, "version 4"),
    (8, struct.pack(">QI", 65530, 7), ImageDamaged, "name is not in the first cluster"),
    (8, struct.pack(">QI", 8, 7), ImageDamaged, "name is not in the first cluster"),
    (8, struct.pack(">QI", 1 << 60, 7), ImageDamaged, "name is not in the first cluster"),
    (8, struct.pack(">QI", 4096, 1024), ImageDamaged, "name is not in the first cluster"),
    (20, b"\0\0\0\x08", ImageDamaged, "clusters of"),
    (20, b"\0\0\0\x16", ImageDamaged, "clusters of"),
    (20, b"\xff\xff\xff\xff", ImageDamaged, "clusters of"),
    (24, b"\xff" * 8, ImageDamaged, "a disk of"),
    (24, b"\x0f" * 8, ImageDamaged, "L1 table of 1 entries"),
    (36, b"\0\0\0\0", ImageDamaged, "L1 table of 0 entries"),
    (36, b"\xff" * 4, ImageDamaged, "L1 table of"),
    (36, b"\0\x3f\xff\xff", ImageDamaged, "cut off"),
    (40, struct.pack(">Q", 0x10200), ImageDamaged, "misplaced"),
    (40, b"\xff" * 8, ImageDamaged, "misplaced"),
    (72, struct.pack(">Q", 1 << 5), ImageRefused, "features"),
    (72, struct.pack(">Q", 1 << 63), ImageRefused, "features"),
    (72, struct.pack(">Q", 1 << 1), ImageDamaged, "marked corrupt"),
    (72, struct.pack(">Q", 1 << 3), ImageDamaged, "compression type 0"),
    (72, struct.pack(">Q", 1 << 2), ImageRefused, "in another file"),
    (100, b"\0\0\0\x60", ImageDamaged, "a header of"),
    (100, b"\0\0\0\x69", ImageDamaged, "a header of"),
    (100, b"\xff\xff\xff\xf8", ImageDamaged, "a header of"),
    (104, b"\2", ImageDamaged, "compression type 2"),
    (112, b"\xe2\x79\x2a\xca\xff\xff\xff\xff", ImageDamaged, "extension"),
    (112, b"\xe2\x79\x2a\xca\0\0\0\0" * 2, ImageDamaged, "extension"),
]


@pytest.mark.parametrize("case", HEADS, ids=lambda case: f"{case[0]}-{case[3]}")
def test_a_header_that_cannot_be_is_told(
    tmp_path: Path, images: dict[str, Path], case: tuple[int, bytes, type[Exception], str]
) -> None:
    at, content, error, reason = case
    path = damaged(images["plain"], tmp_path / "a.qcow2", {at: content})
    with pytest.raises(error, match=reason), opened(path):
        pass


def test_unknown_compression_is_refused(images: dict[str, Path]) -> None:
    content = bytearray(images["zstd"].read_bytes())
    content[104] = 7
    with pytest.raises(ImageRefused, match="type 7"):
        in_memory(bytes(content))


def test_extended_entries_want_clusters_that_have_room_for_them(images: dict[str, Path]) -> None:
    content = with_number(images["small"].read_bytes(), 72, 1 << 4)
    with pytest.raises(ImageDamaged, match="too small"):
        in_memory(content)


# ---- tables -------------------------------------------------------------------------------------------


def past_end(size: int) -> list[int]:
    return [
        COPIED | (-(-size // 65536) * 65536),
        COPIED | (1 << 55),
        COPIED | (size - 65536) // 65536 * 65536 + 512,
    ]


@pytest.mark.parametrize("kind", ["plain", "extended"])
def test_wrong_l1_entries_are_told_with_their_place(images: dict[str, Path], kind: str) -> None:
    content = images[kind].read_bytes()
    l1 = number(content, 40)
    for entry in [
        *past_end(len(content)),
        number(content, l1) | 1,
        number(content, l1) | 1 << 60,
        COPIED,
        512,
    ]:
        image = in_memory(with_number(content, l1, entry))
        with pytest.raises(ImageDamaged) as caught:
            list(image.extents())
        assert caught.value.offset == l1
        with pytest.raises(ImageDamaged):
            read_disk(image, 4096, 0, 4096)


def l2_table(content: bytes) -> int:
    return number(content, number(content, 40)) & ((1 << 56) - 1)


def test_wrong_l2_entries_are_told_with_their_place(images: dict[str, Path]) -> None:
    content = images["plain"].read_bytes()
    table = l2_table(content)
    good = number(content, table)
    assert good > COPIED
    wrong = [*past_end(len(content)), good | 2, good | 1 << 56, good + 512, COPIED, COMPRESSED | 1 << 40,
             COMPRESSED | COPIED | 65536, COMPRESSED]  # fmt: skip
    for n, entry in itertools.product((0, 3), wrong):
        image = in_memory(with_number(content, table + 8 * n, entry))
        with pytest.raises(ImageDamaged) as caught:
            list(image.extents())
        assert caught.value.offset == table + 8 * n
        with pytest.raises(ImageDamaged) as caught:
            read_disk(image, 3 << 20)
        assert caught.value.offset == table + 8 * n


def test_wrong_extended_entries_are_told_with_their_place(images: dict[str, Path]) -> None:
    content = images["extended"].read_bytes()
    table = l2_table(content)
    good = number(content, table)
    everything = (1 << 32) - 1
    for entry, bitmap in [
        (good | 1, everything),
        (good, everything | 1 << 32),
        (good, 1 | 1 << 32),
        (0, 1),
        (0, everything),
        (COPIED, 2),
        (1 << 55, everything),
        (1 << 55, 1 << 31),
        (good + 512, 1),
    ]:
        image = in_memory(with_number(with_number(content, table, entry), table + 8, bitmap))
        with pytest.raises(ImageDamaged) as caught:
            list(image.extents())
        assert caught.value.offset == table


def test_zero_clusters_are_no_part_of_version_2(raw: Path, tmp_path: Path) -> None:
    content = convert(raw, tmp_path / "a.qcow2", "qcow2", "compat=0.10").read_bytes()
    image = in_memory(with_number(content, l2_table(content), 1))
    with pytest.raises(ImageDamaged):
        read_disk(image, 4096)


def test_clusters_of_an_external_data_file_stand_at_their_own_place(raw: Path, tmp_path: Path) -> None:
    path, data = tmp_path / "a.qcow2", tmp_path / "data"
    convert(raw, path, "qcow2", f"data_file={data},data_file_raw=on")
    content = path.read_bytes()
    table = l2_table(content)
    for entry in (COPIED | 131072, COMPRESSED | 65536):
        path.write_bytes(with_number(content, table + 8, entry))
        with OpenFile(path) as file, companions(**{str(data): data}) as give:
            image = open_qcow2(file, give, FORMATS)
            with pytest.raises(ImageDamaged) as caught:
                list(image.extents())
            assert caught.value.offset == table + 8


def test_tables_that_are_pointed_to_over_and_over_are_told() -> None:
    """A disk of petabytes out of one table, which would be walked for years."""
    cluster, entries = 65536, 8192
    head = encode_head(size=entries << 29, cluster_bits=16, l1_offset=cluster, l1_entries=entries,
                       refcount_table_offset=0, refcount_table_clusters=0)  # fmt: skip
    l1 = (COPIED | 2 * cluster).to_bytes(8, "big") * entries
    for entry, reason in ((1, "more L2 tables"), (COPIED | 3 * cluster, "more clusters")):
        content = head.ljust(cluster, b"\0") + l1 + entry.to_bytes(8, "big") * entries + bytes(cluster)
        with pytest.raises(ImageDamaged, match=reason):
            list(in_memory(content).extents())


def test_an_l1_table_that_is_its_own_l2_table_is_read_as_one() -> None:
    cluster = 65536
    head = encode_head(size=3 * cluster, cluster_bits=16, l1_offset=cluster, l1_entries=1,
                       refcount_table_offset=0, refcount_table_clusters=0)  # fmt: skip
    content = head.ljust(cluster, b"\0") + (COPIED | cluster).to_bytes(8, "big").ljust(cluster, b"\0")
    image = in_memory(content)
    assert [(e.start, e.kind.value) for e in image.extents()] == [(0, "data"), (cluster, "hole")]
    assert read_disk(image, cluster) == content[cluster:] + bytes(2 * cluster)


# ---- compressed clusters ------------------------------------------------------------------------------

CLUSTER = 65536


def padded(stream: bytes) -> bytes:
    return stream.ljust(-(-len(stream) // 512) * 512, b"\0")


def compressed_image(kind: str, *streams: bytes) -> Image:
    """An image whose clusters are compressed as given, each at the begin of a sector."""
    head = bytearray(
        encode_head(
            size=len(streams) * CLUSTER,
            cluster_bits=16,
            l1_offset=CLUSTER,
            l1_entries=1,
            refcount_table_offset=0,
            refcount_table_clusters=0,
        )
    )
    if kind == "zstd":
        head[79], head[104] = 1 << 3, 1
    table, data = b"", b""
    for stream in streams:
        host = 3 * CLUSTER + len(data)
        table += (COMPRESSED | (len(stream) - 1) // 512 << 54 | host).to_bytes(8, "big")
        data += padded(stream)
    l1 = (COPIED | 2 * CLUSTER).to_bytes(8, "big")
    return in_memory(b"".join(part.ljust(CLUSTER, b"\0") for part in (bytes(head), l1, table)) + data)


def deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    return compressor.compress(content) + compressor.flush()


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


COMPRESSORS = {"zlib": deflate, "zstd": zstd}


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_clusters_are_decompressed_whole_and_in_part(kind: str) -> None:
    wanted = disk_bytes(9 * CLUSTER, 1)
    pieces = [COMPRESSORS[kind](wanted[at : at + CLUSTER]) for at in range(0, len(wanted), CLUSTER)]
    check_image(compressed_image(kind, *pieces), wanted)


def test_a_cluster_may_be_several_zstd_frames() -> None:
    wanted = disk_bytes(CLUSTER, 1)
    check_image(compressed_image("zstd", zstd(wanted[:1000]) + zstd(wanted[1000:])), wanted)


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("where", [0, 3, 4, 8])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda pack: pack(bytes(CLUSTER - 1)),
        lambda pack: pack(b""),
        lambda pack: b"\xff" * 700,
        lambda pack: pack(disk_bytes(CLUSTER, 3))[:-700],
        lambda pack: bytes(512),
    ],
    ids=["short", "empty", "garbage", "cut", "zeros"],
)
def test_what_is_not_a_whole_cluster_is_damage(
    kind: str, where: int, spoil: Callable[[Callable[[bytes], bytes]], bytes]
) -> None:
    pack = COMPRESSORS[kind]
    good = [pack(disk_bytes(CLUSTER, n)) for n in range(8)]
    image = compressed_image(kind, *good[:where], spoil(pack), *([b"\xff" * 512] if where < 8 else []))
    start = where * CLUSTER
    assert read_disk(image, CLUSTER, 0, start) == b"".join(disk_bytes(CLUSTER, n) for n in range(where))
    offset = 3 * CLUSTER + sum(len(padded(stream)) for stream in good[:where])
    for first, last in ((0, start + CLUSTER), (start, start + CLUSTER), (start + 5, start + 900)):
        with pytest.raises(ImageDamaged) as caught:
            read_disk(image, 4 << 20, first, last)
        assert caught.value.offset == offset


def test_decompression_never_makes_more_than_a_cluster() -> None:
    """QEMU takes what deflate makes until the cluster is full; a zstd frame says what it would make."""
    content = bytes(80 * MIB)
    for kind, pack in COMPRESSORS.items():
        image = compressed_image(kind, pack(content)[:CLUSTER])
        tracemalloc.start()
        if kind == "zlib":
            assert read_disk(image, CLUSTER) == bytes(CLUSTER)
        else:
            with pytest.raises(ImageDamaged, match="83886080 bytes, not 65536"):
                read_disk(image, CLUSTER)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MIB


def test_a_zstd_window_that_is_too_large_is_damage() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=0)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stream = compressor.compress(bytes(CLUSTER)) + compressor.flush()
    with pytest.raises(ImageDamaged, match="compressed cluster"):
        read_disk(compressed_image("zstd", stream), CLUSTER)


# ---- anything -----------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(
        st.tuples(
            st.sampled_from(("head", "l1", "l2", "any")), st.integers(0), st.binary(min_size=1, max_size=8)
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_no_bytes_do_anything_but_read_or_be_refused(
    images: dict[str, Path], kind: str, changes: list[tuple[str, int, bytes]]
) -> None:
    original = images[kind].read_bytes()
    content = bytearray(original)
    for area, at, value in changes:
        base, length = {
            "head": (0, 160),
            "l1": (number(original, 40), 16),
            "l2": (l2_table(original), 1024),
            "any": (0, len(original)),
        }[area]
        content[base + at % length : base + at % length + len(value)] = value
    content = content[: len(original)]
    with suppress(ImageDamaged, ImageRefused):
        image = in_memory(bytes(content))
        assert 0 <= image.size < 1 << 63
        at = 0
        for extent in itertools.islice(image.extents(), 3000):
            assert extent.start == at
            at += extent.length
            step = min(extent.length, 70_000)
            read_disk(image, step, extent.start, extent.start + step)
        read_disk(image, 64 << 10, 0, min(image.size, 2 * MIB))


@pytest.mark.parametrize("cluster", ["2M", "64k"])
def test_memory_is_bounded_by_tables_and_not_by_the_disk(tmp_path: Path, cluster: str) -> None:
    path = tmp_path / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", path, "500T")
    writes = [f"write -P 1 {n * 125}T 64k" for n in range(4)]
    run("qemu-io", "-f", "qcow2", *itertools.chain.from_iterable(("-c", write) for write in writes), path)
    tracemalloc.start()
    with opened(path) as image:
        for extent in image.extents():
            if extent.kind is ExtentKind.DATA:
                read_disk(image, 4096, extent.start, extent.start + 4096)
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * MIB
