"""qcow2 images: QEMU's format, with overlays, compressed clusters and external data files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final

from holdfast.base.ranges import RangeSet
from holdfast.formats.disks.base.allocation import AllocationKind, AllocationRange
from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import fill_exactly
from holdfast.formats.disks.base.image import Companions, ExtentKind, Image, ImageExtent, ImageFile
from holdfast.formats.disks.qcow2.clusters import Packed, Unpacker
from holdfast.formats.disks.qcow2.format import Qcow2Head, read_head
from holdfast.formats.disks.qcow2.tables import Qcow2Tables

_CHAIN_LIMIT: Final = 64
"""Most backing files below an image."""
_HOLES_LIMIT: Final = 1 << 16
"""Most holes of the file that are kept in memory."""


def open_qcow2(
    file: ImageFile,
    companions: Companions,
    openers: Mapping[str, Callable[[ImageFile, Companions], Image]],
) -> Image:
    """Open an image together with the backing files below it. Internal snapshots are not looked at.

    Backing files and external data files come from `companions`; a backing file is opened as the format
    that its overlay states, by one of `openers`, and never as what it looks like. Raises ImageDamaged, and
    ImageRefused for encryption, unknown features, and files that the user did not name.
    """
    overlays: list[tuple[ImageFile, ImageFile, Qcow2Head]] = []
    asked: set[str] = set()
    backing: Image | None = None
    while True:
        head = read_head(file)
        overlays.append((file, _data_file(file, head, companions), head))
        if head.backing is None:
            break
        if head.backing in asked:
            raise ImageRefused(file.name, f"its backing file {head.backing} has it below itself")
        asked.add(head.backing)
        if len(asked) > _CHAIN_LIMIT:
            raise ImageRefused(file.name, f"has {_CHAIN_LIMIT} images on top of it, and another one below")
        format_ = head.backing_format
        if format_ is None:
            raise ImageRefused(
                file.name,
                f"does not say of what format its backing file {head.backing} is, and a guest can make one "
                "look like another; qemu-img rebase -u can write it down",
            )
        if format_ != "qcow2" and format_ not in openers:
            raise ImageRefused(file.name, f"has a backing file of format {format_}, which cannot be read")
        below = companions(head.backing)
        if format_ != "qcow2":
            backing = openers[format_](below, companions)
            break
        file = below
    for each, data, head in reversed(overlays):
        backing = Qcow2Image(each, data, head, backing)
    assert backing is not None
    return backing


def _data_file(file: ImageFile, head: Qcow2Head, companions: Companions) -> ImageFile:
    if not head.external:
        return file
    if head.data_file is None:
        raise ImageRefused(file.name, "has its data in another file and does not say in which")
    return companions(head.data_file)


class Qcow2Image:
    """One image of a chain; what it does not hold comes from `backing`."""

    format = "qcow2"

    def __init__(self, file: ImageFile, data: ImageFile, head: Qcow2Head, backing: Image | None) -> None:
        self.size = head.size
        self._data = data
        self._backing = backing
        self._file = file
        self._cluster = head.cluster
        self._tables = Qcow2Tables(file, data, head)
        self._unpacker = Unpacker(file, head)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        packed: list[Packed] = []
        for stored in self._tables.ranges(offset, offset + len(buffer)):
            part = buffer[stored.start - offset : stored.start - offset + stored.length]
            if stored.kind is AllocationKind.DATA:
                fill_exactly(self._data, part, stored.file_offset, "a cluster")
            elif stored.kind is AllocationKind.PACKED:
                packed.append(Packed(stored, part))
            else:
                below = self._read_backing(part, stored) if stored.kind is AllocationKind.HOLE else 0
                part[below:] = bytes(len(part) - below)
        if packed:
            self._unpacker.unpack(packed)

    def _read_backing(self, part: memoryview, stored: AllocationRange) -> int:
        """Fill as much of a range as the backing file has, which may be shorter than its overlay."""
        if self._backing is None:
            return 0
        length = max(0, min(stored.length, self._backing.size - stored.start))
        if length:
            self._backing.read_into(part[:length], stored.start)
        return length

    def extents(self) -> Iterator[ImageExtent]:
        start, at, kind = 0, 0, ExtentKind.HOLE
        for part in self._layers():
            if part.kind is not kind:
                if at > start:
                    yield ImageExtent(start, at - start, kind)
                start, kind = part.start, part.kind
            at = part.start + part.length
        if at > start:
            yield ImageExtent(start, at - start, kind)

    def _layers(self) -> Iterator[ImageExtent]:
        holes = _holes(self._data, self._cluster)
        below = _Below(self._backing)
        left = self._data.size
        for stored in self._tables.ranges(0, self.size):
            if stored.kind is AllocationKind.HOLE:
                yield from below.extents(stored.start, stored.start + stored.length)
            elif stored.kind is AllocationKind.DATA:
                # One cluster that is pointed to over and over would make a disk without end.
                left -= stored.length
                if left < 0:
                    where = stored.file_offset
                    raise ImageDamaged(self._file.name, "more clusters than the file has", offset=where)
                yield from _split(stored, holes)
            else:
                yield ImageExtent(stored.start, stored.length, stored.kind.extent_kind)


class _Below:
    """The extents of a backing file, for ranges that ascend: one walk serves the whole overlay."""

    def __init__(self, backing: Image | None) -> None:
        self._extents = backing.extents() if backing is not None else iter(())
        self._now: ImageExtent | None = None

    def extents(self, start: int, end: int) -> Iterator[ImageExtent]:
        while start < end:
            while self._now is None or self._now.start + self._now.length <= start:
                self._now = next(self._extents, None)
                if self._now is None:
                    yield ImageExtent(start, end - start, ExtentKind.HOLE)
                    return
            stop = min(end, self._now.start + self._now.length)
            yield ImageExtent(start, stop - start, self._now.kind)
            start = stop


def _holes(file: ImageFile, cluster: int) -> RangeSet:
    """Holes of the image file, of at least one cluster: clusters that were allocated and never written, as
    virt-manager makes them (preallocation=metadata). At most _HOLES_LIMIT."""
    large = ((start, end) for start, end in file.holes() if end - start >= cluster)
    return RangeSet(islice(large, _HOLES_LIMIT))


def _split(stored: AllocationRange, holes: RangeSet) -> Iterator[ImageExtent]:
    """The extents of a range of data: its parts that are holes in the file are holes."""
    at, end = stored.file_offset, stored.file_offset + stored.length
    shift = stored.start - stored.file_offset
    for first, last in holes.within(at, end):
        if at < first:
            yield ImageExtent(at + shift, first - at, ExtentKind.DATA)
        yield ImageExtent(first + shift, last - first, ExtentKind.HOLE)
        at = last
    if at < end:
        yield ImageExtent(at + shift, end - at, ExtentKind.DATA)
