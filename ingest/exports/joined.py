"""A file that is the concatenation of several files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from holdfast.formats.disks.base.image import ImageFile


class JoinedFile:
    """The concatenation of files, such as a disk that an OVF package stores in several files."""

    def __init__(self, files: Sequence[ImageFile], name: str) -> None:
        self._files = tuple(files)
        self._ends = list(accumulate(file.size for file in files))
        self.size = self._ends[-1] if self._ends else 0
        self.name = name

    def read_into(self, buffer: memoryview, offset: int) -> int:
        done = 0
        number = bisect_right(self._ends, offset)
        while done < len(buffer) and number < len(self._files):
            start = self._ends[number] - self._files[number].size
            inside = offset + done - start
            wanted = min(len(buffer) - done, self._files[number].size - inside)
            count = self._files[number].read_into(buffer[done : done + wanted], inside)
            done += count
            if count < wanted:
                break
            number += 1
        return done

    def holes(self) -> Iterator[tuple[int, int]]:
        start = 0
        for file, end in zip(self._files, self._ends, strict=True):
            for hole, hole_end in file.holes():
                yield start + hole, start + hole_end
            start = end
