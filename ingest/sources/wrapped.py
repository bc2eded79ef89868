"""Sources that wrap another source: they unpack it, or scan it for the sections of a dump."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from holdfast.base.errors import Refused
from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.engine import Scanning, Unpacking
from holdfast.ingest.sources.source import Source, SourceExtent
from holdfast.repo.snapshots.snapshot import BadRange

AHEAD: Final = 256 << 10
"""Bytes that a scanner reads ahead of the pipeline: it recognises a border only after reading what follows,
at most the names in an INSERT statement."""
_INPUT: Final = 1 << 20
"""Bytes that are unpacked in one call."""


class Wrapped:
    """A source that passes on the bytes and properties of another one; base of the classes below."""

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


class Peeked(Wrapped):
    """A source whose first `length` bytes are read in advance as its head; `read_into` returns them too."""

    def __init__(self, source: Source, length: int) -> None:
        super().__init__(source)
        first = memoryview(bytearray(length if source.size is None else min(length, source.size)))
        self.head = bytes(first[: source.read_into(first, 0)])

    def read_into(self, buffer: memoryview, offset: int) -> int:
        again = self.head[offset : offset + len(buffer)]
        buffer[: len(again)] = again
        if len(again) == len(buffer):
            return len(again)
        return len(again) + self.source.read_into(buffer[len(again) :], offset + len(again))


def innermost(source: Source) -> Source:
    """The source inside all wrappers; the source itself if it is not wrapped."""
    while isinstance(source, Wrapped):
        source = source.source
    return source


class SectionedSource(Wrapped):
    """A dump: call `borders` after each read, and `catalogue` at the end. Reads must be sequential."""

    def __init__(self, source: Source, finish: Callable[[], Catalogue]) -> None:
        super().__init__(source)
        self._finish = finish
        self._borders: list[int] = []
        self._read = 0

    def borders(self, end: int) -> Sequence[int]:
        """New offsets up to `end` at which a chunk must end, ascending; each is returned only once."""
        found = [border for border in self._borders if border <= end]
        self._borders = self._borders[len(found) :]
        return found

    def catalogue(self) -> Catalogue:
        """The catalogue of the dump. Call it once, after all was read."""
        return self._finish()


class UnpackedSource(SectionedSource):
    """A dump that is unpacked while it is read, such as a custom-format archive."""

    def __init__(self, source: Source, unpacker: Unpacking) -> None:
        super().__init__(source, unpacker.finish)
        self.size = None
        self._unpacker = unpacker
        self._pieces = self._unpack(source.size)
        self._rest = memoryview(b"")

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        yield SourceExtent(0, None, is_hole=False)

    @property
    def bad(self) -> list[BadRange]:
        """Bad ranges without offset and length, because those of the archive do not apply to the output."""
        return [replace(bad, start=0, length=0, reason=_told(bad)) for bad in self.source.bad]

    def read_into(self, buffer: memoryview, offset: int) -> int:
        done = 0
        while done < len(buffer):
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._rest = memoryview(piece).cast("B")
            part = self._rest[: len(buffer) - done]
            buffer[done : done + len(part)] = part
            self._rest = self._rest[len(part) :]
            done += len(part)
        self._borders += self._unpacker.borders()
        return done

    def _unpack(self, size: int | None) -> Iterator[Buffer]:
        data = memoryview(bytearray(_INPUT))
        while size is None or self._read < size:
            wanted = _INPUT if size is None else min(_INPUT, size - self._read)
            count = self.source.read_into(data[:wanted], self._read)
            self._read += count
            try:
                yield from self._unpacker.feed(bytes(data[:count]))
            except Refused as error:
                raise Refused(f"{self.name} {error}") from None
            if count < wanted:
                return


def _told(bad: BadRange) -> str:
    return (
        f"{bad.length} bytes at offset {bad.start} of the archive: {bad.reason}" if bad.length else bad.reason
    )


class ScannedSource(SectionedSource):
    """A dump that is scanned while it is read, and stored unchanged. Scans `ahead` bytes in advance."""

    def __init__(self, source: Source, scanner: Scanning, *, ahead: int = AHEAD) -> None:
        super().__init__(source, scanner.finish)
        self._scanner = scanner
        self._ahead = memoryview(bytearray(ahead))
        self._held = 0

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        """One extent of data: a scanner must read every byte, so holes are not used."""
        if self.size != 0:
            yield SourceExtent(0, self.size, is_hole=False)

    def read_into(self, buffer: memoryview, offset: int) -> int:
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
