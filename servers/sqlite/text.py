"""A SQLite database as SQL text beside its file: single tables can be restored from text only."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final
from urllib.parse import quote

from holdfast.ingest.sources.source import HEAD_SIZE, SourceExtent
from holdfast.repo.snapshots.snapshot import BadRange, Consistency
from holdfast.servers.sqlite.limits import limit

_BLOCK: Final = 1 << 20
NAME: Final = "dump.sql"


class SqlText:
    """The output of `.dump` for a database that nobody writes to. A context manager.

    Rows that SQLite cannot read end it early: the text has no end mark then, and the scanner says so.
    """

    grade = Consistency.APPLICATION
    evidence = "all of it could be read as SQL"

    def __init__(self, path: Path) -> None:
        self.name = NAME
        self.size: int | None = None
        self.mtime = path.stat().st_mtime_ns
        self.bad: list[BadRange] = []
        self._stack = ExitStack()
        uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
        connection = self._stack.enter_context(closing(sqlite3.connect(uri, uri=True)))
        limit(connection, path)
        # Text that is not UTF-8 comes and goes as it is.
        connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        self._blocks = _blocks(connection)
        self._rest = memoryview(next(self._blocks, b""))
        self.head = bytes(self._rest[:HEAD_SIZE])

    def __enter__(self) -> SqlText:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._blocks.close()
        self._stack.close()

    def extents(self, *, holes: bool) -> Iterator[SourceExtent]:
        yield SourceExtent(0, None, is_hole=False)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Offsets must follow one another."""
        done = 0
        while done < len(buffer) and self._rest:
            part = self._rest[: len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)
            self._rest = self._rest[len(part) :] or memoryview(next(self._blocks, b""))
        return done

    def finish(self) -> str:
        return ""


def _blocks(connection: sqlite3.Connection) -> Generator[bytes, None, None]:
    lines: list[bytes] = [b"PRAGMA foreign_keys=OFF;"]
    size = 0
    try:
        for line in connection.iterdump():
            lines.append(line.encode(errors="surrogateescape"))
            size += len(lines[-1])
            if size >= _BLOCK:
                yield b"\n".join(lines) + b"\n"
                lines, size = [], 0
    except (sqlite3.Error, MemoryError):
        pass  # without its COMMIT the text is not whole
    if lines:
        yield b"\n".join(lines) + b"\n"
