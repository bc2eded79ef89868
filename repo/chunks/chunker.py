"""Content-defined chunkers: pure functions that find cut points from a secret key and the content.

**The law.** The chunks and holes of a stream, adjacent holes merged, depend on the stream's bytes and the
chunker alone, however the stream was split into calls of `Chunker.cut`.

**Natural cuts.** A chunk that is followed by another chunk, not by a hole or the end, ends where it does
because of the bytes inside it: cutting those bytes alone, with `final=False`, gives that chunk. So
chunking may restart at any earlier cut point, and a chunk whose bytes did not change ends where it did
before.

*Aligned* (disks): a whole 4 KiB block of zeros is a hole; any other block gets a keyed 64-bit hash, and a
chunk ends after a block whose hash is under a threshold, after the maximum, and before a hole. Guests
move data in whole pages, so cuts at other offsets would find no more duplicates and cost ten times the
time. The last block of a stream may be short; it is data, or a hole when all its bytes are zero.

*Gear* (everything else): FastCDC (Xia et al., USENIX ATC 2016; IEEE TPDS 2020): a 64-bit hash of the last
64 bytes under a threshold ends a chunk. Cuts depend on 64 bytes, not on where the chunk began.

Both are normalised: a strict threshold applies up to a switch point, a loose one after it. Both skip the
minimum. Test vectors (tests/repo/chunks/vectors) freeze the rules, the derivations and the constants below:
another rule would end deduplication against every older snapshot, so it needs another `version`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from blake3 import blake3

from holdfast.base.types import Buffer
from holdfast.repo.chunks import _kernel

BLOCK: Final = 4096
"""Bytes of a page of the usual guest file systems; aligned cuts and holes are at multiples of it."""

KEY_SIZE: Final = 32
"""Bytes of the secret key of a chunker."""

_VERSION: Final = 1
_LARGEST_AVERAGE: Final = 1 << 20


class ChunkerKind(Enum):
    """The algorithm that finds cut points."""

    ALIGNED = "aligned"
    """Cuts at multiples of 4 KiB only and turns zero blocks into holes; for disks."""
    GEAR = "gear"
    """Cuts at any byte and makes no holes; for dumps, files and pipes."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """Tuned parameters. Chances are (numerator, denominator), relative to one cut per average length."""

    grain: int
    """Bytes from one possible cut to the next."""
    least_average: int
    """Bytes. Smaller averages would make the minimum less than a block (aligned), or too close to the 64
    bytes that are hashed (gear)."""
    derived: int
    """Bytes of key material that the C kernel takes."""
    strict: tuple[int, int]
    loose: tuple[int, int]
    switch: tuple[int, int]
    """Length at which the loose threshold replaces the strict one, as a fraction of the average."""


# Tuned for the least stored bytes (compressed chunks, 160 bytes of overhead each, changed recipe leaves)
# over three days of a Debian guest and of a PostgreSQL dump, at zstd levels 1 and 3. Disks: all rules with a
# mean from 47 to 93 KiB came within 0.7 %, so the simplest rule whose mean is near its nominal average was
# chosen. Dumps: switching at five eighths of the average instead of at the average saves 2.9 % at level 1
# (465 MB against 479) and 1.9 % at level 3, for 31 % more chunks. Other keys change either by 0.3 %.
_RULES: Final = {
    ChunkerKind.ALIGNED: _Rule(
        grain=BLOCK,
        least_average=4 * BLOCK,
        derived=BLOCK + 3 * 8,
        strict=(1, 2),
        loose=(2, 1),
        switch=(1, 1),
    ),
    ChunkerKind.GEAR: _Rule(
        grain=1, least_average=BLOCK, derived=256 * 8, strict=(1, 2), loose=(4, 1), switch=(5, 8)
    ),
}


@dataclass(frozen=True, slots=True)
class ChunkerSpec:
    """A chunker's algorithm and scale without its key, as recorded with every item.

    `average` is in bytes: a power of two from 4 KiB (gear) or 16 KiB (aligned) to 1 MiB; another value
    raises ValueError. The mean chunk length of real data is within a quarter of it.
    """

    kind: ChunkerKind
    average: int

    def __post_init__(self) -> None:
        """Refuse averages for which the rules are not defined."""
        least = _RULES[self.kind].least_average
        if not least <= self.average <= _LARGEST_AVERAGE or self.average & (self.average - 1):
            raise ValueError(
                f"average of {self.average} bytes is not a power of two from {least} to {_LARGEST_AVERAGE}"
            )

    @property
    def minimum(self) -> int:
        """Least bytes of a chunk that is followed by another chunk."""
        return self.average // 4

    @property
    def maximum(self) -> int:
        """Most bytes of any chunk; `Chunker.cut` always leaves fewer bytes undecided."""
        return self.average * 4

    def to_json(self) -> dict[str, str | int]:
        """The recorded form: a dict of `kind`, `average` and `version`."""
        return {"kind": self.kind.value, "average": self.average, "version": _VERSION}

    @classmethod
    def from_json(cls, value: object) -> ChunkerSpec:
        """Inverse of `to_json`. Raises ValueError for fields, kinds or versions that are not known."""
        if not isinstance(value, dict) or value.keys() != {"kind", "average", "version"}:
            raise ValueError(f"not a chunker: {value!r}")
        kind, average, version = value["kind"], value["average"], value["version"]
        if type(version) is not int or version != _VERSION:
            raise ValueError(f"chunker version {version!r} is unknown; this program knows {_VERSION}")
        if type(average) is not int:
            raise ValueError(f"chunker's average is not an integer: {average!r}")
        return cls(ChunkerKind(kind), average)


DISK: Final = ChunkerSpec(ChunkerKind.ALIGNED, 64 << 10)
"""Block devices and disk images."""
DUMP: Final = ChunkerSpec(ChunkerKind.GEAR, 16 << 10)
"""Database dumps. They change in small scattered places, which small chunks isolate better."""
STREAM: Final = ChunkerSpec(ChunkerKind.GEAR, 64 << 10)
"""Everything else."""


class Chunker:
    """Cuts streams by one rule and one key. Immutable; any thread may call `cut` at any time."""

    __slots__ = ("_loose", "_material", "_strict", "_switch", "spec")

    def __init__(self, spec: ChunkerSpec, key: bytes) -> None:
        """Derive the secret tables from `key`, 32 secret bytes. Raises ValueError for another size.

        The key is secret because the chunk lengths of a public rule reveal which known files were stored.
        """
        if len(key) != KEY_SIZE:
            raise ValueError(f"chunker key of {len(key)} bytes, not {KEY_SIZE}")
        rule = _RULES[spec.kind]
        steps = spec.average // rule.grain
        self.spec: Final = spec
        self._material: Final = blake3(
            f"holdfast cutter {spec.kind.value} v{_VERSION}".encode(), key=key
        ).digest(length=rule.derived)
        self._strict: Final = _threshold(rule.strict, steps)
        self._loose: Final = _threshold(rule.loose, steps)
        self._switch: Final = spec.average * rule.switch[0] // rule.switch[1]

    def cut(self, data: Buffer, *, final: bool) -> list[int]:
        """Split `data`, which starts at a cut point or a hole's edge of its stream; returns lengths in order.

        n > 0 is a chunk of n bytes, n < 0 a hole of -n bytes (aligned only; never two in a row). With `final`
        the lengths cover all of `data`. Without it they cover a prefix; the remaining bytes, fewer than
        `spec.maximum`, are undecided: pass them again with the bytes that follow.

        Releases the GIL throughout: do not write to `data` meanwhile. Raises TypeError or BufferError when
        `data` is not a C-contiguous buffer.
        """
        spec = self.spec
        loop = _kernel.cut_aligned if spec.kind is ChunkerKind.ALIGNED else _kernel.cut_gear
        return loop(
            data, self._material, spec.minimum, self._switch, spec.maximum, self._strict, self._loose, final
        )


def is_zero(data: Buffer) -> bool:
    """Whether every byte of `data` is zero; true for empty data. Releases the GIL for long data."""
    return _kernel.is_zero(data)


def _threshold(chance: tuple[int, int], steps: int) -> int:
    """The threshold that a uniform 64-bit hash is below with probability `chance` / `steps`."""
    return (1 << 64) * chance[0] // (chance[1] * steps)
