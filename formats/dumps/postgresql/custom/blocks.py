"""The data blocks of a custom archive, taken out of their frames while they stream in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.compression import ERRORS, Decoder, Plain, Zlib, Zstd
from holdfast.formats.dumps.postgresql.custom.format import DATA, LARGE, NO_DATA, Entry, Head, write_integer
from holdfast.formats.dumps.postgresql.plain.text import as_text

_DECODERS: Final[dict[str, Callable[[], Decoder]]] = {"none": Plain, "gzip": Zlib, "zstd": Zstd}
_SLICE: Final = 256 << 10
"""Bytes of an archive that are worked on at once."""
_LARGE_PIECE: Final = 64 << 10
"""Bytes in a piece of a large object as it is stored."""
HEAD_SIZE: Final = 128 << 10
"""Bytes that are kept of a block that may hold INSERT statements: 1600 columns' names are 110 KB."""
TAIL_SIZE: Final = 64


class BlockError(Exception):
    """The archive is not as pg_dump writes it, from here on."""


class _At(Enum):
    BLOCK = 1
    OID = 2
    PIECES = 3


@dataclass(frozen=True, slots=True)
class Block:
    """One that was stored whole: where, and its last bytes. `insert` is a statement like those that it
    consists of, b"" if it is no such block."""

    entry: Entry
    start: int
    length: int
    tail: bytes
    insert: bytes


class BlockReader:
    """Reads the data blocks that follow the table of contents.

    Of a table's block the content is stored as it is, of one with large objects in an archive's own form, so
    that it need not be told how long each one is: OID, pieces of 64 KiB whatever they were before, the ends.
    """

    def __init__(
        self, head: Head, entries: Iterable[Entry], start: int, first_insert: Callable[[bytes], bytes]
    ) -> None:
        """`start` is the number of bytes that are stored before; `first_insert` finds `Block.insert`, given a
        block's first bytes."""
        self.blocks: Final[list[Block]] = []
        self.size = start
        self.starts: Final[list[int]] = []
        self._awaited = {entry.id: entry for entry in entries if entry.has_data and entry.state != NO_DATA}
        self._first_insert: Final = first_insert
        self._integer: Final = head.integer
        self._lengths: Final = head.lengths
        self._new_decoder: Final = _DECODERS[head.compression]
        self._decoder: Decoder = self._new_decoder()
        self._at = _At.BLOCK
        self._entry: Entry | None = None
        self._is_large = False
        self._start = 0
        self._rest = b""
        self._left = 0
        self._unused = True
        self._head: bytearray = bytearray()
        self._tail = b""
        self._large = bytearray()

    def feed(self, data: Buffer) -> Iterator[bytes]:
        """Yield the bytes to store, in pieces of about 1 MiB at most. Raises BlockError.

        All of it must be taken before more is fed. `starts` are offsets in what is stored where blocks begin,
        each known before its first byte comes.
        """
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _SLICE):
            part = self._rest + bytes(view[start : start + _SLICE])
            self._rest = b""
            for piece in self._take(part):
                if piece:
                    self.size += len(piece)
                    yield piece

    def fault(self) -> str:
        """Why it is not whole, now that its end has come."""
        if self._at is not _At.BLOCK or self._rest:
            where = f" within the data of {_name(self._entry)}" if self._entry else " within a block's head"
            return f"the archive ends early,{where}"
        if self._awaited:
            first = _name(next(iter(self._awaited.values())))
            return f"the archive ends early: {len(self._awaited)} entries have no data, the first is {first}"
        return ""

    # ---- frames -----------------------------------------------------------------------------------------

    def _take(self, part: bytes) -> Iterator[bytes]:
        place = 0
        while place < len(part):
            if self._at is _At.PIECES:
                place, content, ended = self._pieces(part, place)
                yield from self._content(content)
                if not ended:
                    break
                yield from self._end_pieces()
                continue
            size = (self._at is _At.BLOCK) + 1 + self._integer
            if len(part) - place < size:
                break
            number = self._number(part, place + size - 1 - self._integer)
            if self._at is _At.BLOCK:
                self._begin(part[place], number)
            else:
                yield write_integer(number, self._integer)
                self._begin_pieces()
                if not number:
                    self._end_block()
            place += size
        self._rest = part[place:]

    def _number(self, part: bytes, at: int) -> int:
        sign, value = self._lengths.unpack_from(part, at)
        return -int(value) if sign else int(value)

    def _pieces(self, part: bytes, place: int) -> tuple[int, bytes, bool]:
        """Where the pieces from here on end, their content, and whether it was the last one. Without
        compression there is one for each row: this loop decides how fast all is."""
        content: list[bytes] = []
        ended = False
        end = len(part)
        stop = min(place + self._left, end)
        if self._left:
            content.append(part[place:stop])
            self._left -= stop - place
            place = stop
        unpack, size = self._lengths.unpack_from, 1 + self._integer
        last = end - size
        while place <= last:
            sign, length = unpack(part, place)
            if sign:
                raise BlockError(f"a piece of the data of {_name(self._entry)} has a negative length")
            place += size
            if not length:
                ended = True
                break
            stop = place + length
            if stop > end:
                content.append(part[place:])
                self._left = stop - end
                place = end
                break
            content.append(part[place:stop])
            place = stop
        return place, b"".join(content), ended

    def _begin(self, kind: int, id_: int) -> None:
        if kind not in (DATA, LARGE):
            raise BlockError(f"a block of type {kind}, which is not known, or something follows the last one")
        entry = self._awaited.get(id_)
        if entry is None:
            raise BlockError(f"a block for entry {id_}, which has no data or had it already")
        self._entry = entry
        self._is_large = kind == LARGE
        if self._is_large != (entry.desc == b"BLOBS"):
            raise BlockError(f"the block of {_name(entry)} is of type {kind}")
        self._start = self.size
        self.starts.append(self.size)
        self._head.clear()
        self._tail = b""
        self._begin_pieces()
        self._at = _At.OID if self._is_large else _At.PIECES

    def _begin_pieces(self) -> None:
        self._at = _At.PIECES
        self._left = 0
        self._unused = True
        self._decoder = self._new_decoder()

    def _end_pieces(self) -> Iterator[bytes]:
        if not self._unused and not self._decoder.ended:
            raise BlockError(f"the compressed data of {_name(self._entry)} ends early")
        if not self._is_large:
            self._end_block()
            return
        self._at = _At.OID
        yield self._framed(len(self._large))
        yield write_integer(0, self._integer)

    def _end_block(self) -> None:
        entry = self._entry
        assert entry
        if entry.copy and not ends_rows(self._tail):
            raise BlockError(f"the rows of {_name(entry)} do not end with a line \\.")
        insert = b"" if self._is_large or entry.copy else self._first_insert(bytes(self._head))
        self.blocks.append(Block(entry, self._start, self.size - self._start, self._tail, insert))
        del self._awaited[entry.id]
        self._entry = None
        self._at = _At.BLOCK

    # ---- content ----------------------------------------------------------------------------------------

    def _content(self, packed: bytes) -> Iterator[bytes]:
        if not packed:
            return
        self._unused = False
        try:
            for piece in self._decoder.unpack(packed):
                yield from self._large_pieces(piece) if self._is_large else self._table_piece(piece)
            fault = "something follows the end of a compressed stream" if self._decoder.rest else ""
        except ERRORS as error:
            fault = str(error)
        if fault:
            raise BlockError(f"the compressed data of {_name(self._entry)} is damaged: {fault}")

    def _table_piece(self, piece: bytes) -> Iterator[bytes]:
        assert self._entry
        self._tail = (self._tail + piece[-TAIL_SIZE:])[-TAIL_SIZE:]
        if not self._entry.copy and len(self._head) < HEAD_SIZE:
            self._head += piece[: HEAD_SIZE - len(self._head)]
        yield piece

    def _large_pieces(self, piece: bytes) -> Iterator[bytes]:
        self._large += piece
        while len(self._large) >= _LARGE_PIECE:
            yield self._framed(_LARGE_PIECE)

    def _framed(self, size: int) -> bytes:
        if not size:
            return b""
        piece = write_integer(size, self._integer) + self._large[:size]
        del self._large[:size]
        return piece


def ends_rows(tail: bytes) -> bool:
    """Whether a COPY's data ends as it must: a line of its own, then blank lines."""
    end = tail.rstrip(b"\n")
    return end != tail and (end == b"\\." or end.endswith(b"\n\\."))


def _name(entry: Entry | None) -> str:
    return as_text(b" ".join((entry.desc, entry.namespace or b"", entry.tag))) if entry else "an entry"
