"""The cut rules once more, slowly and in plain Python: what the compiled loops are held against.

Written from the rules in `holdfast.repo.chunks.chunker`, not from the kernel: sums over all bytes instead of
loops with early exits, a rolling hash from the chunk's first byte instead of a warm-up, exact
fractions instead of thresholds. It sees the whole stream at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from blake3 import blake3

from holdfast.repo.chunks.chunker import ChunkerKind, ChunkerSpec

BLOCK = 4096
WORD = 1 << 64
HALF = 1 << 32


def cut(spec: ChunkerSpec, key: bytes, stream: bytes) -> list[int]:
    """All pieces of a whole `stream`: n > 0 a chunk, n < 0 a hole of -n bytes."""
    if spec.kind is ChunkerKind.ALIGNED:
        return list(_aligned(spec, key, stream))
    return list(_gear(spec, key, stream))


def _words(data: bytes, size: int) -> list[int]:
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


def block_hash(key: bytes, block: bytes) -> int:
    """The mixed 64-bit hash of a 4 KiB `block` under a chunker key of 32 bytes."""
    material = blake3(b"holdfast cutter aligned v1", key=key).digest(length=BLOCK + 24)
    sums = [(m + k) % HALF for m, k in zip(_words(block, 4), _words(material[:BLOCK], 4), strict=True)]
    nh = sum(low * high for low, high in zip(sums[::2], sums[1::2], strict=True)) % WORD
    mask, first, second = _words(material[BLOCK:], 8)
    x = (nh ^ mask) * (first | 1) % WORD
    return (x ^ (x >> 32)) * (second | 1) % WORD


def _aligned(spec: ChunkerSpec, key: bytes, stream: bytes) -> Iterator[int]:
    steps = spec.average // BLOCK
    chunk = hole = 0
    for block in (stream[i : i + BLOCK] for i in range(0, len(stream), BLOCK)):
        if not any(block):
            if chunk:
                yield chunk
            chunk = 0
            hole += len(block)
            continue
        if hole:
            yield -hole
        hole = 0
        chunk += len(block)
        chance = Fraction(1, 2 * steps) if chunk < spec.average else Fraction(2, steps)
        lucky = len(block) == BLOCK and Fraction(block_hash(key, block), WORD) < chance
        if chunk == spec.maximum or (chunk >= spec.minimum and lucky):
            yield chunk
            chunk = 0
    if chunk:
        yield chunk
    if hole:
        yield -hole


def _gear(spec: ChunkerSpec, key: bytes, stream: bytes) -> Iterator[int]:
    table = _words(blake3(b"holdfast cutter gear v1", key=key).digest(length=256 * 8), 8)
    switch = spec.average * 5 // 8
    strict = -(-WORD // (2 * spec.average))
    loose = -(-WORD * 4 // spec.average)
    chunk = value = 0
    for byte in stream:
        chunk += 1
        value = (2 * value + table[byte]) % WORD
        lucky = value < (strict if chunk < switch else loose)
        if chunk == spec.maximum or (chunk >= spec.minimum and lucky):
            yield chunk
            chunk = value = 0
    if chunk:
        yield chunk
