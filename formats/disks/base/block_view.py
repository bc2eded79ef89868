"""What VHDX and VDI views have in common: headers, a table with one entry per block, the disk's own bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from holdfast.formats.disks.base.blocks import TABLE_WINDOW
from holdfast.formats.disks.base.view import ViewPart


class Section(Protocol):
    """A range of a virtual file that holds headers or tables. Callers read inside [0, length) only."""

    start: int
    length: int

    def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end) of the section; at most TABLE_WINDOW of them."""
        ...


class ComputedSection:
    """A small section. Any read makes the whole section and returns a part of it."""

    def __init__(self, start: int, length: int, make: Callable[[], bytes]) -> None:
        self.start = start
        self.length = length
        self._make = make

    def read(self, start: int, end: int) -> bytes:
        return self._make()[start:end]


class SectionView:
    """A virtual file: sections in order, zeros between them, then the disk, then zeros up to the size."""

    def __init__(self, sections: Sequence[Section], *, data_start: int, disk_size: int, size: int) -> None:
        self.size = size
        self.data_start = data_start
        self._sections = sections
        self._disk_size = disk_size

    def parts(self, start: int, end: int) -> Iterator[ViewPart]:
        at = start
        for section in self._sections:
            if at >= end:
                return
            if at < section.start:
                until = min(end, section.start)
                yield ViewPart(at, until - at, None, -1)
                at = until
            last = min(end, section.start + section.length)
            while at < last:
                until = min(last, at + TABLE_WINDOW)
                yield ViewPart(at, until - at, section.read(at - section.start, until - section.start), -1)
                at = until
        for border, disk in (
            (self.data_start, False),
            (self.data_start + self._disk_size, True),
            (end, False),
        ):
            until = min(end, border)
            if at < until:
                yield ViewPart(at, until - at, None, at - self.data_start if disk else -1)
                at = until

    def tables(self) -> Iterator[tuple[int, int]]:
        for section in self._sections:
            yield section.start, section.start + section.length
