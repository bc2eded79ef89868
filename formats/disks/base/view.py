"""A stored disk seen as an image file of some format: computed tables around the disk's own bytes.

In every view the byte at offset `d` of the disk is at file offset `data_start + d`. So any part of a table
can be computed from its offset and from which ranges of the disk hold data. A view keeps no state, and a view
of any size costs nothing until it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeAlias

from holdfast.base.errors import HoldfastError

Allocation: TypeAlias = Callable[[int, int], Iterator[tuple[int, int]]]
"""Called with (start, end): yields (start, length) of the ranges of the disk that hold data and overlap
[start, end), in order, not clipped. Everything else is zeros."""


class ViewImpossible(HoldfastError):
    """A format cannot hold a disk of this size."""


class ViewPart(NamedTuple):
    """A range of a view and what it consists of: the `length` bytes of `data`; or, if that is None, the bytes
    of the disk from offset `disk`; or zeros, if `disk` is negative."""

    start: int
    length: int
    data: bytes | None
    disk: int


class View(Protocol):
    """An image file that is computed when it is read. Immutable; any thread."""

    size: int
    """Size of the image file in bytes."""
    data_start: int
    """File offset of the disk's first byte."""

    def parts(self, start: int, end: int) -> Iterator[ViewPart]:
        """What [start, end) of the file is made of: clipped, in order, without gaps; end <= size.

        Calls the allocation only for the range of the disk that the tables in [start, end) describe.
        """
        ...

    def tables(self) -> Iterator[tuple[int, int]]:
        """(start, end) of the ranges of the file that are tables and not disk, in order: what a restore
        must write besides the disk's data. Long ranges of tables that are all zeros may be left out."""
        ...
