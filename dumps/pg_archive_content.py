"""The content of one data block on its way through: decompressed, looked at, its last newlines set aside."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

import zstandard

from holdfast.dumps import _lexer
from holdfast.dumps.pg_archive_format import GZIP, NONE
from holdfast.dumps.postgres_statement import classify
from holdfast.dumps.postgres_text import as_text

_PIECE: Final = 1 << 20
"""Bytes that are decompressed at once."""
_ZSTD_SLICE: Final = 2048
"""Bytes given to zstd at once: each 4 may become 128 KiB, hence 64 MiB at most."""
_ZSTD_WINDOW: Final = 1 << 27
"""What `--compress=zstd:long` uses, and the most that pg_restore takes."""
_TAIL: Final = 8
"""Newlines that are set aside at most; pg_dump writes 2 or 3 behind the rows."""
_INSERTS: Final = 1000
"""Runs of INSERTs that are told apart in one block. pg_dump makes one."""
_LEAD: Final = 64 << 10


class Undo(Protocol):
    """Takes a compressed stream in pieces. Raises ValueError for what is none."""

    def feed(self, data: bytes | memoryview) -> Iterator[bytes | memoryview]: ...

    def finish(self) -> None: ...


class _Stored:
    def feed(self, data: bytes | memoryview) -> Iterator[bytes | memoryview]:
        yield data

    def finish(self) -> None: ...


class _Zlib:
    def __init__(self) -> None:
        self._inflate: Final = zlib.decompressobj()
        self._is_empty = True

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        self._is_empty = False
        waiting: bytes | memoryview = data
        while waiting:
            if self._inflate.eof:
                raise ValueError("data behind the end of what was compressed")
            try:
                piece = self._inflate.decompress(waiting, _PIECE)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            yield piece
            waiting = self._inflate.unconsumed_tail or self._inflate.unused_data

    def finish(self) -> None:
        if not self._inflate.eof and not self._is_empty:
            raise ValueError("compressed data is incomplete")


class _Zstd:
    def __init__(self) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._inflate: Final = decompressor.decompressobj()
        self._is_empty = True

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        for at in range(0, len(data), _ZSTD_SLICE):
            self._is_empty = False
            if self._inflate.eof:
                raise ValueError("data behind the end of what was compressed")
            try:
                piece = self._inflate.decompress(data[at : at + _ZSTD_SLICE])
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from None
            if self._inflate.unused_data:
                raise ValueError("data behind the end of what was compressed")
            yield piece

    def finish(self) -> None:
        if not self._inflate.eof and not self._is_empty:
            raise ValueError("compressed data is incomplete")


def undo(compression: int) -> Undo:
    """For one block, or one large object. Something empty need not have a compressed form."""
    if compression == NONE:
        return _Stored()
    return _Zlib() if compression == GZIP else _Zstd()


class CopyRows:
    """The rows of a COPY, up to and with the closing line; newlines behind it are set aside.

    A plain dump has the very same bytes between its statements, so both share what they have in common.
    """

    def __init__(self) -> None:
        self._held = 0
        self._last = b"\n"

    def feed(self, piece: bytes | memoryview) -> Iterator[bytes | memoryview]:
        """What is to be stored."""
        held = 0
        size = len(piece)
        while held < min(size, _TAIL) and piece[size - 1 - held] == _NEWLINE:
            held += 1
        if held == size:
            self._held += held
            if (more := self._held - _TAIL) > 0:
                self._held = _TAIL
                self._last = (self._last + b"\n" * more)[-3:]
                yield b"\n" * more
            return
        if self._held:
            yield b"\n" * self._held
        body = piece[: size - held]
        self._last = (self._last + b"\n" * self._held + bytes(body[-3:]))[-3:]
        self._held = held
        yield body

    def finish(self) -> tuple[bytes, int, str]:
        """(what else is to be stored, newlines set aside, why the rows are not whole or "")."""
        end = b"\n" if self._held else b""
        if self._last[-3:] != b"\n\\." or not end:
            return b"\n" * self._held, 0, "do not end with the closing line"
        return end, self._held - 1, ""

    @property
    def runs(self) -> list[list[object]]:
        return []


_NEWLINE: Final = 10


class InsertRows(CopyRows):
    """The rows of a table as INSERT statements. `runs` are [start, end, lead or statement, is a run], with
    offsets in the content."""

    def __init__(self, *, standard_strings: bool) -> None:
        super().__init__()
        self._lexer: Final = _lexer.Lexer(_lexer.POSTGRESQL, _LEAD)
        self._prefix = 0
        if not standard_strings:
            setting = b"SET standard_conforming_strings = off;"
            self._lexer.feed(setting)
            self._prefix = len(setting)
        self._runs: Final[list[list[object]]] = []
        self._last_key: object = None

    def feed(self, piece: bytes | memoryview) -> Iterator[bytes | memoryview]:
        self._see(self._lexer.feed(piece))
        yield from super().feed(piece)

    def finish(self) -> tuple[bytes, int, str]:
        self._see(self._lexer.finish())
        state = self._lexer.state
        return b"", self._held, f"end within a {state}" if state else ""

    @property
    def runs(self) -> list[list[object]]:
        return self._runs

    def _see(self, events: list[tuple[int, int, int, bytes]]) -> None:
        """One run for statements that follow each other for one table."""
        for kind, start, end, text in events:
            if kind not in (_lexer.ROWS_END, _lexer.STATEMENT):
                continue
            full = len(self._runs) >= _INSERTS
            key = self._last_key if full else _key(text)
            if self._runs and key == self._last_key:
                self._runs[-1][1] = end - self._prefix
            else:
                is_run = kind == _lexer.ROWS_END
                self._runs.append([start - self._prefix, end - self._prefix, as_text(text), is_run])
                self._last_key = key


def _key(text: bytes) -> object:
    found = classify(text)
    return (found.type, found.table, tuple(found.extra.get("columns", ())))
