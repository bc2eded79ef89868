"""A stored disk seen as an image file of some format: made-up tables around the disk's own bytes.

All formats here keep the disk's byte at offset `d` at file offset `data_start + d`: tables follow from
arithmetic and from which parts of the disk hold data, nothing is counted or remembered, and a view of any
size costs nothing until it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeAlias

from holdfast.base.errors import HoldfastError

Allocation: TypeAlias = Callable[[int, int], Iterator[tuple[int, int]]]
"""Called with (start, end): (start, length) of the runs of the disk that hold data and overlap [start, end),
in order, not clipped. Everything else is zeros."""


class ViewImpossible(HoldfastError):
    """A format cannot hold a disk of this size."""


class ViewPart(NamedTuple):
    """A run of a view. `data`: these bytes, `length` of them. None: the disk's bytes from `disk`, or zeros
    where `disk` is negative."""

    start: int
    length: int
    data: bytes | None
    disk: int


class View(Protocol):
    """An image file that is made up. Immutable; any thread."""

    size: int
    """Bytes of the made-up file."""
    data_start: int
    """File offset of the disk's first byte."""

    def parts(self, start: int, end: int) -> Iterator[ViewPart]:
        """What [start, end) of the file is made of: clipped, in order, without gaps; end <= size.

        May call the allocation, for the range of the disk that a table in the range describes and no more.
        """
        ...

    def tables(self) -> Iterator[tuple[int, int]]:
        """(start, end) of the ranges of the file that are tables and not disk, in order: what a restore
        must write besides the disk's data. Long ranges of tables that are all zeros may be left out."""
        ...
