"""Where a stream is cut into chunks: pure functions of a secret key and the content.

**The law.** The pieces of a stream, adjacent holes merged, depend on the stream's bytes and the cutter
alone, however the stream was split into calls of `Chunker.cut`.

**Natural cuts.** A chunk that is followed by another chunk, not by a hole or the end, ends where it does
because of the bytes inside it: cutting those bytes alone, with `final=False`, gives that chunk. So a
stream may be cut anew from any earlier cut point, and a chunk whose bytes did not change ends where it
did before.

*Aligned* (disks): a whole 4 KiB block of zeros is a hole; any other block gets a keyed 64-bit hash, and a
chunk ends after a block whose hash is under a threshold, after the maximum, and before a hole. Guests
move data about in whole pages, so cuts elsewhere would find nothing more and cost ten times the time. The
last block of a stream may be short: data, or a hole when it is all zeros.

*Gear* (everything else): FastCDC (Xia et al., USENIX ATC 2016; IEEE TPDS 2020): a 64-bit hash of the last
64 bytes under a threshold ends a chunk. Cuts depend on 64 bytes, not on where the chunk began.

Both are normalised: a strict threshold up to a switch, a loose one from there on. Both skip the minimum.
The rules, the derivations and the constants below are frozen by tests/repo/chunks/vectors: another cut rule
ends
deduplication against every older snapshot, and so is another `version`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from blake3 import blake3

from holdfast.base.types import Buffer
from holdfast.repo.chunks import _kernel

BLOCK: Final = 4096
"""Bytes: page of the usual guest file systems; aligned cuts and holes stand at multiples of it."""

KEY_SIZE: Final = 32
"""Bytes of the secret that a cutter is made from."""

_VERSION: Final = 1
_LARGEST_AVERAGE: Final = 1 << 20


class ChunkerKind(Enum):
    """How cut points are found."""

    ALIGNED = "aligned"
    """At 4 KiB edges only, zero blocks taken out as holes: disks."""
    GEAR = "gear"
    """At any byte, no holes: dumps, files, pipes."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What was tuned. Chances are (numerator, denominator), in units of one cut per average."""

    grain: int
    """Bytes from one possible cut to the next."""
    least_average: int
    """Bytes: such that the minimum is a block, or well above the 64 bytes that gear looks back."""
    derived: int
    """Bytes of key material the kernel wants."""
    strict: tuple[int, int]
    loose: tuple[int, int]
    switch: tuple[int, int]
    """Where strict gives way to loose, as a fraction of the average."""


# Tuned for the least stored bytes (compressed chunks, 160 bytes of overhead each, changed recipe leaves)
# over three days of a Debian guest and of a PostgreSQL dump, at zstd levels 1 and 3. Disks: everything
# tried with a mean from 47 to 93 KiB came within 0.7 %, so the plainest rule with a mean near its name was
# taken. Dumps: switching at five eighths of the average instead of at the average saves 2.9 % at level 1
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
    """A cut rule without its key, as recorded with every item.

    `average` is in bytes, a power of two up to 1 MiB, from 4 KiB (gear) or 16 KiB (aligned); anything
    else raises ValueError. It names the rule and sets its scale; the mean of real data is within a
    quarter of it.
    """

    kind: ChunkerKind
    average: int

    def __post_init__(self) -> None:
        """Refuse averages the rules are not defined for."""
        least = _RULES[self.kind].least_average
        if not least <= self.average <= _LARGEST_AVERAGE or self.average & (self.average - 1):
            raise ValueError(
                f"average of {self.average} bytes is not a power of two from {least} to {_LARGEST_AVERAGE}"
            )

    @property
    def minimum(self) -> int:
        """Bytes: a chunk that another chunk follows is no shorter."""
        return self.average // 4

    @property
    def maximum(self) -> int:
        """Bytes: no chunk is longer, and `Chunker.cut` always leaves less than this."""
        return self.average * 4

    def to_json(self) -> dict[str, str | int]:
        """The recorded form: a plain dict of `kind`, `average` and `version`."""
        return {"kind": self.kind.value, "average": self.average, "version": _VERSION}

    @classmethod
    def from_json(cls, value: object) -> ChunkerSpec:
        """Inverse of `to_json`; ValueError for anything that this version does not know in full."""
        if not isinstance(value, dict) or value.keys() != {"kind", "average", "version"}:
            raise ValueError(f"not a cutter: {value!r}")
        kind, average, version = value["kind"], value["average"], value["version"]
        if type(version) is not int or version != _VERSION:
            raise ValueError(f"cutter of unknown version: {version!r}")
        if type(average) is not int:
            raise ValueError(f"cutter's average is not an integer: {average!r}")
        return cls(ChunkerKind(kind), average)


DISK: Final = ChunkerSpec(ChunkerKind.ALIGNED, 64 << 10)
"""Block devices and disk images."""
DUMP: Final = ChunkerSpec(ChunkerKind.GEAR, 16 << 10)
"""Database dumps: small scattered changes, which small chunks follow more closely."""
STREAM: Final = ChunkerSpec(ChunkerKind.GEAR, 64 << 10)
"""Everything else."""


class Chunker:
    """Cuts streams by one rule and one key. Immutable; any thread may call `cut` at any time."""

    __slots__ = ("_loose", "_material", "_strict", "_switch", "spec")

    def __init__(self, spec: ChunkerSpec, key: bytes) -> None:
        """Derive the secret tables from `key`, 32 secret bytes (ValueError for another size).

        Secret, because lengths of chunks cut by a public rule tell which known files they came from.
        """
        if len(key) != KEY_SIZE:
            raise ValueError(f"cutter key of {len(key)} bytes, not {KEY_SIZE}")
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
        """Cut `data`, which starts at a cut point or hole edge of its stream, into pieces, in order.

        n > 0 is a chunk of n bytes, n < 0 a hole of -n bytes (aligned only; never two in a row). The pieces
        cover a prefix of `data`. With `final` they cover all of it. Without, the rest is what is not
        decided yet, less than `spec.maximum` bytes: hand it in again with more behind it.

        Releases the GIL throughout: `data` must not be written to meanwhile. Raises TypeError or BufferError
        for what is no C-contiguous buffer.
        """
        spec = self.spec
        loop = _kernel.cut_aligned if spec.kind is ChunkerKind.ALIGNED else _kernel.cut_gear
        return loop(
            data, self._material, spec.minimum, self._switch, spec.maximum, self._strict, self._loose, final
        )


def is_zero(data: Buffer) -> bool:
    """Whether every byte of `data` is zero; true when there is none. Releases the GIL when it is long."""
    return _kernel.is_zero(data)


def _threshold(chance: tuple[int, int], steps: int) -> int:
    """The number that a uniform 64-bit hash is under with the chance of `chance` in `steps`."""
    return (1 << 64) * chance[0] // (chance[1] * steps)
