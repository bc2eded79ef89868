"""Value types that several modules share."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NewType, TypeAlias

ChunkID = NewType("ChunkID", bytes)
"""BLAKE3 of a chunk's plaintext under a key of the repository, 32 bytes."""

PackID = NewType("PackID", str)
"""BLAKE3 of a pack's bytes, 64 hex digits: also its file name."""

SnapshotID = NewType("SnapshotID", str)
"""BLAKE3 of a sealed snapshot's bytes, 64 hex digits: also its file name."""

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Anything C-contiguous that holds bytes."""

ProgressFunction: TypeAlias = Callable[[int], None]
"""Called with the number of bytes just done, from any thread."""


class RecordType(IntEnum):
    """What a record holds. Data and nodes have separate ID keys, so an ID belongs to one type only."""

    DATA = 1
    NODE = 2
    PADDING = 3
    """Zeros that fill a pack up to its size. It has no ID, and no directory lists it."""


class Codec(IntEnum):
    """How a record's payload is encoded before it is sealed."""

    RAW = 0
    ZSTD = 1
