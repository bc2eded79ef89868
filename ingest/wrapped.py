"""Sources around another source: unpacked on the way in, and looked through for what stands where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from holdfast.dumps.catalogue import Catalogue
from holdfast.ingest.source import Source, SourceExtent
from holdfast.repo.snapshot import BadRange
from holdfast.repo.types import Buffer

_AHEAD: Final = 256 << 10
"""Bytes that a scanner sees before they are handed on: it knows a border when it has read what follows it,
the names in an INSERT statement at most."""


class Wrapped:
    """Hands on another source's bytes, and all else about it."""

    def __init__(self, source: Source) -> None:
        self.source: Final = source
        self.name = source.name
        self.size = source.size
        self.mtime = source.mtime
        self.head = source.head

    @property
    def bad(self) -> list[BadRange]:
        return self.source.bad

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        yield from self.source.extents(holes=holes)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return self.source.read_into(buffer, offset)

    def finish(self) -> str:
        return self.source.finish()

    def close(self) -> None:
        self.source.close()


def innermost(source: Source) -> Source:
    """What is wrapped, the source itself if nothing is."""
    while isinstance(source, Wrapped):
        source = source.source
    return source


class Scanning(Protocol):
    """Looks through a stream: `dumps.scan.Scanner` and its like."""

    def feed(self, data: Buffer) -> list[int]:
        """Offsets in the stream where chunks shall end, ascending, found in this piece of it."""
        ...

    def finish(self) -> Catalogue: ...


class ScannedSource(Wrapped):
    """A stream that is scanned as it is read: `borders` after each read, the `catalogue` at the end."""

    def __init__(self, source: Source, scanner: Scanning) -> None:
        super().__init__(source)
        self._scanner = scanner
        self._borders: list[int] = []
        self._read = 0
        self._ahead = memoryview(bytearray(_AHEAD))
        self._held = 0

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        """One run of data: a dump has no holes, and a scanner must see every byte."""
        if self.size != 0:
            yield SourceExtent(0, self.size, is_hole=False)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Offsets must follow one another."""
        done = min(self._held, len(buffer))
        buffer[:done] = self._ahead[:done]
        self._ahead[: self._held - done] = self._ahead[done : self._held]
        self._held -= done
        done += self._fill(buffer[done:])
        self._held += self._fill(self._ahead[self._held :])
        return done

    def _fill(self, buffer: memoryview) -> int:
        wanted = len(buffer) if self.size is None else min(len(buffer), self.size - self._read)
        if not wanted:
            return 0
        count = self.source.read_into(buffer[:wanted], self._read)
        self._borders += self._scanner.feed(buffer[:count])
        self._read += count
        return count

    def borders(self, end: int) -> Sequence[int]:
        """Offsets up to `end` where a chunk shall end, ascending; each is told once."""
        found = [border for border in self._borders if border <= end]
        self._borders = self._borders[len(found) :]
        return found

    def catalogue(self) -> Catalogue:
        """What the scanner found; call it when all was read."""
        return self._scanner.finish()
