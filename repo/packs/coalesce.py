"""Groups records that are near one another in a pack, so that one read fetches them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from holdfast.base.types import PackID
from holdfast.repo.index.locations import Location

T = TypeVar("T")


@dataclass(slots=True)
class CoalescedRead(Generic[T]):
    """Bytes [start, end) of a pack, and the records in them, each with a value of the caller."""

    pack: PackID
    start: int
    end: int
    records: list[tuple[Location, T]]

    def cut(self, data: memoryview, location: Location) -> memoryview:
        """A record's bytes, from `data`, the bytes [start, end) of the pack."""
        return data[location.offset - self.start :][: location.length]


def coalesce(placed: Iterable[tuple[Location, T]], *, longest: int, gap: int) -> Iterator[CoalescedRead[T]]:
    """Group records into reads in pack order, each of one record or of at most `longest` bytes.

    Records with at most `gap` bytes between them share a read.
    """
    run: CoalescedRead[T] | None = None
    for location, what in sorted(placed, key=lambda pair: pair[0]):
        end = location.offset + location.length
        near = run is not None and run.pack == location.pack and location.offset - run.end <= gap
        if run is None or not near or end - run.start > longest:
            if run is not None:
                yield run
            run = CoalescedRead(location.pack, location.offset, end, [])
        run.end = max(run.end, end)
        run.records.append((location, what))
    if run is not None:
        yield run
