"""What an image's allocation table says of a range of the disk: whether and where it is stored."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from holdfast.formats.disks.base.image import ExtentKind


class AllocationKind(Enum):
    """How an image stores a range of the disk. `extent_kind` is what its readers are told."""

    HOLE = "hole", ExtentKind.HOLE
    """Not in this image: it is as the image below says, zeros if there is none."""
    ZERO = "zero", ExtentKind.ZERO
    """Marked as zeros; takes no space in the file."""
    DATA = "data", ExtentKind.DATA
    PACKED = "packed", ExtentKind.DATA
    """Compressed."""
    BAD = "bad", ExtentKind.DATA
    """The table entry has a value that the format does not allow. Reading the range raises ImageDamaged."""

    def __init__(self, _: str, extent_kind: ExtentKind) -> None:
        self.extent_kind = extent_kind


class AllocationRange(NamedTuple):
    """A range of the disk that is stored in one way. Start and length in bytes of the disk.

    `file_offset` is the place in the file of the range's first byte (DATA), or of the compressed block that
    holds that byte (PACKED), else 0. `packed_length` is the most bytes that this block takes in the file; 0
    for other kinds, and where the table does not say it."""

    start: int
    length: int
    kind: AllocationKind
    file_offset: int
    packed_length: int
