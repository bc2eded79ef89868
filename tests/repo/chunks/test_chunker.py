"""Cutting: laws on made-up streams, equality with the plain Python twin, frozen vectors, bad arguments."""

from __future__ import annotations

import json
import mmap
import random
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.repo.chunks import _kernel
from holdfast.repo.chunks.chunker import (
    BLOCK,
    DISK,
    DUMP,
    STREAM,
    Chunker,
    ChunkerKind,
    ChunkerSpec,
    is_zero,
)
from support import chunker_twin

KEY = bytes(range(32))
SMALL_DISK = ChunkerSpec(ChunkerKind.ALIGNED, 16 << 10)
SMALL_STREAM = ChunkerSpec(ChunkerKind.GEAR, 4 << 10)
SMALL = [SMALL_DISK, SMALL_STREAM]
VECTORS = Path(__file__).parent / "vectors" / "cutter.json"

specs = st.sampled_from(SMALL)
cutters = st.builds(Chunker, specs, st.sampled_from([KEY, bytes(32), b"\xff" * 32]))
lengths = st.one_of(st.integers(0, 12).map(lambda blocks: blocks * BLOCK), st.integers(0, 3 * BLOCK))


def random_bytes(length: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(length)


def repeated(length: int, seed: int) -> bytes:
    period = 1 + seed % 97
    return (random_bytes(period, seed) * (length // period + 1))[:length]


def mostly_zero(length: int, seed: int) -> bytes:
    rng = random.Random(seed)
    out = bytearray(length)
    for _ in range(min(length, 2)):
        out[rng.randrange(length)] = rng.randrange(256)
    return bytes(out)


segments = st.one_of(
    st.builds(bytes, lengths),
    *(
        st.builds(make, lengths, st.integers(0, 999))
        for make in (random_bytes, random_bytes, repeated, mostly_zero)
    ),
)
streams = st.lists(segments, max_size=12).map(b"".join)


def merged(pieces: list[int]) -> list[int]:
    """The pieces with neighbouring holes joined."""
    out: list[int] = []
    for piece in pieces:
        if piece < 0 and out and out[-1] < 0:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def cut_in_calls(chunker: Chunker, stream: bytes, sizes: list[int]) -> list[int]:
    """Cut as a caller with a buffer does: `sizes` bytes arrive per call, the rest is handed in again."""
    pieces: list[int] = []
    start = end = 0
    for size in sizes:
        end = min(end + size, len(stream))
        found = chunker.cut(memoryview(stream)[start:end], final=False)
        pieces += found
        start += sum(map(abs, found))
        assert end - start < chunker.spec.maximum
    return pieces + chunker.cut(memoryview(stream)[start:], final=True)


@given(cutters, streams)
def test_pieces_cover_the_stream_within_bounds_and_holes_are_exactly_the_zero_blocks(
    chunker: Chunker, stream: bytes
) -> None:
    spec, at = chunker.spec, 0
    pieces = chunker.cut(stream, final=True)
    assert sum(map(abs, pieces)) == len(stream)
    assert pieces == merged(pieces)
    for piece, following in pairwise([*pieces, 0]):
        part = stream[at : at + abs(piece)]
        at += abs(piece)
        assert piece != 0
        assert piece <= spec.maximum
        assert piece < 0 or following <= 0 or piece >= spec.minimum
        if spec.kind is ChunkerKind.GEAR:
            assert piece > 0
            continue
        assert at % BLOCK == 0 or at == len(stream)
        if piece < 0:
            assert not any(part)
        else:
            assert all(any(part[i : i + BLOCK]) for i in range(0, piece, BLOCK))


@given(cutters, streams, st.data())
def test_pieces_do_not_depend_on_how_the_stream_was_split_into_calls(
    chunker: Chunker, stream: bytes, data: st.DataObject
) -> None:
    sizes = data.draw(st.lists(st.one_of(st.integers(0, len(stream)), st.integers(0, 5000)), max_size=20))
    assert merged(cut_in_calls(chunker, stream, sizes)) == chunker.cut(stream, final=True)


@given(cutters, streams, streams)
def test_a_chunk_that_a_chunk_follows_ends_there_because_of_its_own_bytes(
    chunker: Chunker, stream: bytes, other: bytes
) -> None:
    pieces, at = chunker.cut(stream, final=True), 0
    for piece, following in pairwise(pieces):
        part = stream[at : at + abs(piece)]
        at += abs(piece)
        if piece > 0 and following > 0:
            assert chunker.cut(part, final=False) == [piece]
            assert chunker.cut(part + other, final=True)[0] == piece


@given(cutters, streams, st.data())
def test_cutting_again_from_any_cut_point_gives_the_same_pieces(
    chunker: Chunker, stream: bytes, data: st.DataObject
) -> None:
    pieces = chunker.cut(stream, final=True)
    first = data.draw(st.integers(0, len(pieces)))
    start = sum(map(abs, pieces[:first]))
    assert chunker.cut(memoryview(stream)[start:], final=True) == pieces[first:]


@settings(max_examples=60)
@given(specs, st.binary(min_size=32, max_size=32), streams)
def test_the_kernel_and_the_plain_python_twin_agree(spec: ChunkerSpec, key: bytes, stream: bytes) -> None:
    assert Chunker(spec, key).cut(stream, final=True) == chunker_twin.cut(spec, key, stream)


@pytest.mark.parametrize("spec", [DISK, DUMP, STREAM], ids=["disk", "dump", "stream"])
def test_the_kernel_and_the_twin_agree_on_the_rules_in_use(spec: ChunkerSpec) -> None:
    stream = random_bytes(600_000, 1) + bytes(100_000) + repeated(700_000, 2) + random_bytes(300_001, 3)
    assert Chunker(spec, KEY).cut(stream, final=True) == chunker_twin.cut(spec, KEY, stream)


@pytest.mark.parametrize(
    "block",
    [
        bytes(BLOCK),
        b"\xff" * BLOCK,
        bytes(BLOCK - 1) + b"\1",
        *(random_bytes(BLOCK, seed) for seed in range(20)),
    ],
)
def test_vector_and_portable_block_hashes_are_the_twins(block: bytes) -> None:
    material = blake3(b"holdfast cutter aligned v1", key=KEY).digest(length=BLOCK + 24)
    expected = chunker_twin.block_hash(KEY, block)
    assert _kernel.block_hash_portable(block, material) == expected
    assert _kernel.block_hash(block, material) == expected
    shifted = memoryview(b"?" + block)[1:]  # no alignment in memory is asked for
    assert _kernel.block_hash(shifted, material) == expected
    for worst in (bytes(len(material)), b"\xff" * len(material)):
        assert _kernel.block_hash(block, worst) == _kernel.block_hash_portable(block, worst)


def stream_by_formula(formula: list[list[Any]]) -> bytes:
    """The bytes a vector is about: a list of [what, argument, length]."""
    parts: dict[str, Callable[[str, int], bytes]] = {
        "zero": lambda _, length: bytes(length),
        "blake3": lambda seed, length: blake3(seed.encode()).digest(length=length),
        "repeat": lambda text, length: (text.encode() * (length // len(text) + 1))[:length],
    }
    return b"".join(parts[what](argument, length) for what, argument, length in formula)


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text()), ids=lambda vector: vector["name"])
def test_frozen_vectors(vector: dict[str, Any]) -> None:
    """A failure here means that new backups no longer deduplicate against old ones: raise the version."""
    chunker = Chunker(ChunkerSpec.from_json(vector["cutter"]), bytes.fromhex(vector["key"]))
    assert chunker.cut(stream_by_formula(vector["stream"]), final=True) == vector["pieces"]


@pytest.mark.parametrize("spec", SMALL)
def test_edges_of_input(spec: ChunkerSpec) -> None:
    chunker = Chunker(spec, KEY)
    for final in (False, True):
        assert chunker.cut(b"", final=final) == []
    assert chunker.cut(b"x", final=False) == []
    assert chunker.cut(b"x", final=True) == [1]
    same = b"x" * (spec.maximum - 1)
    assert sum(chunker.cut(same, final=True)) == len(same)


def test_aligned_cuts_take_whole_zero_blocks_out_and_keep_partial_ones() -> None:
    chunker = Chunker(SMALL_DISK, KEY)
    block = b"x" + bytes(BLOCK - 1)
    assert chunker.cut(bytes(BLOCK), final=False) == [-BLOCK]
    assert chunker.cut(bytes(BLOCK - 1), final=False) == []
    assert chunker.cut(bytes(BLOCK - 1), final=True) == [1 - BLOCK]
    assert chunker.cut(bytes(2 * BLOCK + 5), final=True) == [-2 * BLOCK - 5]
    assert chunker.cut(block + bytes(BLOCK) + block, final=False) == [BLOCK, -BLOCK]
    assert chunker.cut(block + bytes(BLOCK) + block, final=True) == [BLOCK, -BLOCK, BLOCK]
    assert chunker.cut(block + bytes(7), final=True) == [BLOCK, -7]
    assert chunker.cut(block + b"x", final=True) == [BLOCK + 1]
    half = bytes(BLOCK // 2) + b"x" * BLOCK + bytes(BLOCK // 2)
    assert chunker.cut(half, final=True) == [2 * BLOCK]


def test_gear_makes_no_holes() -> None:
    assert all(piece > 0 for piece in Chunker(SMALL_STREAM, KEY).cut(bytes(100_000), final=True))


@pytest.mark.parametrize("spec", [DISK, DUMP, STREAM], ids=["disk", "dump", "stream"])
def test_the_mean_of_random_data_is_within_a_quarter_of_the_average(spec: ChunkerSpec) -> None:
    stream = random_bytes(32 << 20, 7)
    mean = len(stream) / len(Chunker(spec, KEY).cut(stream, final=True))
    assert 0.75 * spec.average < mean < 1.25 * spec.average


@pytest.mark.parametrize("spec", SMALL)
def test_another_key_cuts_elsewhere(spec: ChunkerSpec) -> None:
    stream = random_bytes(1 << 20, 5)
    assert Chunker(spec, KEY).cut(stream, final=True) != Chunker(spec, bytes(32)).cut(stream, final=True)


@pytest.mark.parametrize("spec", SMALL)
def test_cuts_meet_again_after_an_insertion(spec: ChunkerSpec) -> None:
    shift = BLOCK if spec.kind is ChunkerKind.ALIGNED else 13
    old = random_bytes(1 << 20, 9)
    new = old[: 20 * BLOCK] + b"y" * shift + old[20 * BLOCK :]
    ends = []
    for stream in (old, new):
        at, found = 0, set()
        for piece in Chunker(spec, KEY).cut(stream, final=True):
            at += piece
            found.add(len(stream) - at)
        ends.append(found)
    assert len(ends[0] & ends[1]) > 0.8 * len(ends[0])


@pytest.mark.parametrize("spec", SMALL)
def test_any_contiguous_buffer_is_taken(spec: ChunkerSpec) -> None:
    chunker = Chunker(spec, KEY)
    stream = random_bytes(300_000, 4)
    pieces = chunker.cut(stream, final=True)
    with mmap.mmap(-1, len(stream)) as mapped:
        mapped[:] = stream
        with memoryview(mapped) as view:
            assert chunker.cut(view, final=True) == pieces
    for buffer in (bytearray(stream), memoryview(stream).cast("I"), memoryview(b"?" + stream)[1:]):
        assert chunker.cut(buffer, final=True) == pieces


@pytest.mark.parametrize("spec", SMALL)
def test_threads_share_a_cutter(spec: ChunkerSpec) -> None:
    chunker = Chunker(spec, KEY)
    buffers = [random_bytes(1 << 20, seed) for seed in range(4)]
    alone = [chunker.cut(buffer, final=True) for buffer in buffers]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: chunker.cut(buffers[i % 4], final=True), range(32))) == alone * 8


@pytest.mark.parametrize("spec", [DISK, STREAM], ids=["disk", "stream"])
def test_cutting_lets_other_threads_run(spec: ChunkerSpec) -> None:
    """With forced switching put off, a second thread runs before the end only if the GIL is given away."""
    chunker, stream = Chunker(spec, KEY), repeated(64 << 20, 96)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)
    try:
        for _ in range(50):  # the system may still run the second thread late
            started, done = threading.Event(), threading.Event()

            def work(started: threading.Event = started, done: threading.Event = done) -> None:
                started.set()
                chunker.cut(stream, final=True)
                done.set()

            thread = threading.Thread(target=work)
            thread.start()
            started.wait()
            overlapped = not done.is_set()
            thread.join()
            if overlapped:
                return
    finally:
        sys.setswitchinterval(interval)
    pytest.fail("the GIL was held")


def test_is_zero_sees_every_byte() -> None:
    assert is_zero(b"")
    for size in (1, 255, 256, 257, BLOCK, 20_000):
        data = bytearray(size)
        assert is_zero(data)
        for at in {0, size // 2, size - 1}:
            data[at] = 0x80
            assert not is_zero(data)
            data[at] = 0


@given(streams)
def test_is_zero_is_not_any(stream: bytes) -> None:
    assert is_zero(stream) is not any(stream)


@pytest.mark.parametrize("average", [4 << 10, 8 << 10, 16 << 10, 64 << 10, 1 << 20])
def test_specs_survive_json(average: int) -> None:
    kind = ChunkerKind.GEAR if average < 16 << 10 else ChunkerKind.ALIGNED
    spec = ChunkerSpec(kind, average)
    value = json.loads(json.dumps(spec.to_json()))
    assert value == {"kind": kind.value, "average": average, "version": 1}
    assert ChunkerSpec.from_json(value) == spec
    assert (spec.minimum, spec.maximum) == (average // 4, average * 4)
    assert sum(Chunker(spec, KEY).cut(b"x" * 10_000_000, final=True)) == 10_000_000


@pytest.mark.parametrize(
    ("kind", "average"),
    [
        (ChunkerKind.ALIGNED, 8 << 10),
        (ChunkerKind.GEAR, 2 << 10),
        (ChunkerKind.GEAR, 2 << 20),
        (ChunkerKind.GEAR, (16 << 10) + 1),
        (ChunkerKind.GEAR, 0),
        (ChunkerKind.GEAR, -(16 << 10)),
        (ChunkerKind.GEAR, 1 << 70),
    ],
)
def test_averages_without_a_rule_are_refused(kind: ChunkerKind, average: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        ChunkerSpec(kind, average)


GOOD = {"kind": "gear", "average": 16384, "version": 1}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "gear",
        {},
        {**GOOD, "more": 1},
        {"kind": "gear", "average": 16384},
        *({**GOOD, "kind": kind} for kind in ("fixed", "GEAR", None, ["gear"], 1)),
        *({**GOOD, "average": average} for average in (None, "16384", 16384.0, True, 16385, -1)),
        *({**GOOD, "version": version} for version in (0, 2, True, "1", None, 1.0)),
    ],
)
def test_unknown_recorded_cutters_are_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the type is the contract, the wording is not
        ChunkerSpec.from_json(value)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_keys_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="not 32"):
        Chunker(DISK, bytes(size))


@pytest.mark.parametrize("spec", SMALL)
def test_what_is_no_contiguous_buffer_is_refused(spec: ChunkerSpec) -> None:
    chunker = Chunker(spec, KEY)
    bad: list[Any] = [None, "text", 5, [1, 2], memoryview(bytes(8))[::2]]
    for value in bad:
        with pytest.raises((TypeError, BufferError)):
            chunker.cut(value, final=True)
        with pytest.raises((TypeError, BufferError)):
            is_zero(value)


SIZES = (BLOCK, 4 * BLOCK, 16 * BLOCK)


@pytest.mark.parametrize(
    ("loop", "material"),
    [(_kernel.cut_aligned, BLOCK + 24), (_kernel.cut_gear, 2048)],
    ids=["aligned", "gear"],
)
def test_the_kernel_checks_what_could_make_it_read_outside_its_buffers(loop: Any, material: int) -> None:
    key = bytes(material)
    assert loop(b"x", key, *SIZES, 0, 0, True) == [1]
    for wrong in (key[:-1], key + b"x", b""):
        with pytest.raises(ValueError, match="key of"):
            loop(b"x", wrong, *SIZES, 0, 0, True)
    for sizes in ((0, 1, 2), (63, 64, 65), (-BLOCK, 1, 2), (BLOCK, 1, 2 * BLOCK), (BLOCK, 2 * BLOCK, BLOCK)):
        with pytest.raises(ValueError, match="minimum"):
            loop(b"x", key, *sizes, 0, 0, True)
    for threshold in (-1, 1 << 64):
        with pytest.raises(OverflowError):
            loop(b"x", key, *SIZES, threshold, 0, True)
        with pytest.raises(OverflowError):
            loop(b"x", key, *SIZES, 0, threshold, True)
    with pytest.raises(OverflowError):
        loop(b"x", key, BLOCK, BLOCK, 1 << 64, 0, 0, True)
    with pytest.raises(TypeError):
        loop(b"x", key, *SIZES, 0.5, 0, True)
    assert loop(b"x" * 9000, key, 64 * 64, sys.maxsize, sys.maxsize, 0, 0, False) == []


@pytest.mark.parametrize(
    ("loop", "material"),
    [(_kernel.cut_aligned, BLOCK + 24), (_kernel.cut_gear, 2048)],
    ids=["aligned", "gear"],
)
def test_minimum_switch_and_maximum_are_met_to_the_byte(loop: Any, material: int) -> None:
    key, always, never = random_bytes(material, 8), (1 << 64) - 1, 0
    minimum, switch, maximum = SIZES
    data = b"x" * (2 * maximum)
    for strict, loose, expected in (
        (always, never, minimum),
        (never, always, switch),
        (never, never, maximum),
    ):
        rule = (*SIZES, strict, loose)
        assert set(loop(data, key, *rule, True)) == {expected}
        assert loop(data[:expected], key, *rule, False) == [expected]
        assert loop(data[: expected - 1], key, *rule, False) == []


def test_block_hash_refuses_other_sizes() -> None:
    for block, key in ((BLOCK - 1, BLOCK + 24), (BLOCK, BLOCK)):
        for function in (_kernel.block_hash, _kernel.block_hash_portable):
            with pytest.raises(ValueError, match="block of"):
                function(bytes(block), bytes(key))
