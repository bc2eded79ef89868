"""A disk image as a source: the virtual disk's content, independent of the image format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from holdfast.formats.disks.base.image import ExtentKind, Image
from holdfast.ingest.sources.bad_ranges import TolerantReader
from holdfast.ingest.sources.source import SourceExtent, extents_between
from holdfast.repo.snapshots.snapshot import BadRange


class ImageSource:
    """Reads an open image; the caller closes the image.

    `changed` returns at the end the names of files that were written to meanwhile. Ranges that the host's
    disk cannot read become bad ranges; a malformed image raises ImageDamaged.
    """

    head = b""

    def __init__(
        self, image: Image, name: str, *, mtime: int, changed: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self.name = name
        self.size: int | None = image.size
        self.mtime = mtime
        self.format = image.format
        self._image = image
        self._changed = changed
        self._reader = TolerantReader(name, self._read)

    @property
    def bad(self) -> list[BadRange]:
        return self._reader.bad

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        yield from extents_between(self._holes() if holes else (), self._image.size)

    def _holes(self) -> Iterator[tuple[int, int]]:
        for extent in self._image.extents():
            if extent.kind is not ExtentKind.DATA:
                yield extent.start, extent.start + extent.length

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return self._reader.fill(buffer, offset)

    def _read(self, buffer: memoryview, offset: int) -> int:
        self._image.read_into(buffer, offset)
        return len(buffer)

    def finish(self) -> str:
        changed = ", ".join(self._changed())
        return f"{changed}: written to while it was read" if changed else ""

    def close(self) -> None: ...


class BytesSource:
    """A small file in memory, such as a definition of an export."""

    def __init__(self, data: bytes, name: str, *, mtime: int) -> None:
        self._data = data
        self.name = name
        self.size: int | None = len(data)
        self.mtime = mtime
        self.head = data[: 64 << 10]
        self.bad: list[BadRange] = []

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        if self._data:
            yield SourceExtent(0, len(self._data), is_hole=False)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        part = self._data[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)

    def finish(self) -> str:
        return ""

    def close(self) -> None: ...
