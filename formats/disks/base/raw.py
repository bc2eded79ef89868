"""Raw images: the disk's bytes and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.formats.disks.base.files import fill_exactly
from holdfast.formats.disks.base.image import ExtentKind, ImageExtent, ImageFile


class RawImage:
    """A file whose bytes are the disk's. The holes of the file are the holes of the disk."""

    format = "raw"

    def __init__(self, file: ImageFile) -> None:
        self._file = file
        self.size = file.size

    def extents(self) -> Iterator[ImageExtent]:
        at = 0
        for start, end in self._file.holes():
            if start > at:
                yield ImageExtent(at, start - at, ExtentKind.DATA)
            yield ImageExtent(start, end - start, ExtentKind.HOLE)
            at = end
        if at < self.size:
            yield ImageExtent(at, self.size - at, ExtentKind.DATA)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        fill_exactly(self._file, buffer, offset, "the disk")
