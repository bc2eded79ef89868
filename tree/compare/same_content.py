"""Whether two files of guests have the same content, reading as little as can prove it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from holdfast.base.ranges import RangeSet
from holdfast.base.types import Buffer
from holdfast.formats.guests.client.content import Contents, merged
from holdfast.formats.guests.client.open_disk import OpenDisk
from holdfast.formats.guests.values.values import Entry
from holdfast.repo.chunks.chunker import is_zero
from holdfast.repo.chunks.recipe_diff import differing
from holdfast.repo.core.reader import Reader

_STEP: Final = 1 << 20


class _CommonRange(NamedTuple):
    """A range of two files of equal size: `one` and `other` are its offsets on their disks, -1 for zeros."""

    length: int
    one: int
    other: int


class SameContent:
    """Compares files of two disks, which may be two states of one disk. One thread.

    Where both files have the same place on their disks, the recipes tell in which chunks the disks differ,
    and only those are read; where they have different places the bytes are read. So a change is found
    whatever the file's times say. Files that the parser alone can read (compressed, encrypted, inside the
    inode) are taken to be the same when inode number, size and both times of change are.
    """

    def __init__(self, reader: Reader, contents: Contents, one: OpenDisk, other: OpenDisk) -> None:
        self._contents = contents
        self._one = one
        self._other = other
        before, after = one.item, other.item
        self.changed = RangeSet(
            differing((before.recipe, before.size), (after.recipe, after.size), reader.node)
        )

    def same(self, volume: str, entry: Entry, other_volume: str, other: Entry) -> bool:
        """Raises GuestError, Damaged or StoreError when what must be read cannot be, or could not be when it
        was backed up."""
        if entry.size != other.size:
            return False
        if entry.extents is not None and other.extents is not None:
            return all(map(self._segment_same, self._segments(entry, other)))
        if _unchanged(entry) == _unchanged(other):
            return True
        return equal_streams(
            self._contents.stream(self._one, volume, entry),
            self._contents.stream(self._other, other_volume, other),
        )

    def untouched(self, start: int, length: int) -> bool:
        """Whether a range is the same on both disks."""
        return next(self.changed.within(start, start + length), None) is None

    def _segments(self, entry: Entry, other: Entry) -> Iterator[_CommonRange]:
        runs, others = merged(entry, self._one.item.size), merged(other, self._other.item.size)
        run, peer = next(runs, None), next(others, None)
        at = 0
        while run is not None and peer is not None:
            end = min(run.start + run.length, peer.start + peer.length)
            yield _CommonRange(
                end - at,
                run.disk + at - run.start if run.disk >= 0 else -1,
                peer.disk + at - peer.start if peer.disk >= 0 else -1,
            )
            at = end
            if run.start + run.length == end:
                run = next(runs, None)
            if peer.start + peer.length == end:
                peer = next(others, None)

    def _segment_same(self, segment: _CommonRange) -> bool:
        length, one, other = segment
        if one == other:
            if one < 0:
                return True
            return all(
                self._bytes_same(first, first, last - first)
                for first, last in self.changed.within(one, one + length)
            )
        return self._bytes_same(one, other, length)

    def _bytes_same(self, one: int, other: int, length: int) -> bool:
        for at in range(0, length, _STEP):
            count = min(_STEP, length - at)
            a = self._bytes(self._one, one, at, count)
            b = self._bytes(self._other, other, at, count)
            if a is None or b is None:
                if not is_zero(a or b or b""):
                    return False
            elif a != b:
                return False
        return True

    def _bytes(self, disk: OpenDisk, start: int, at: int, count: int) -> bytes | None:
        """Bytes of a disk; None for zeros."""
        return disk.stored.read(start + at, count) if start >= 0 else None


def _unchanged(entry: Entry) -> tuple[int, int, int]:
    return entry.inode, entry.mtime, entry.ctime


def equal_streams(one: Iterator[Buffer], other: Iterator[Buffer]) -> bool:
    """Whether both give the same bytes, in whatever pieces."""
    a, b = memoryview(b""), memoryview(b"")
    while True:
        while not a and (more := next(one, None)) is not None:
            a = memoryview(more)
        while not b and (more := next(other, None)) is not None:
            b = memoryview(more)
        count = min(len(a), len(b))
        if not count:
            return len(a) == len(b)
        if a[:count] != b[:count]:
            return False
        a, b = a[count:], b[count:]
