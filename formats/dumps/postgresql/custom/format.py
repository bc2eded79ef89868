"""PostgreSQL's custom archive format (`pg_dump -Fc`), versions 1.10 to 1.16: bytes and offsets. No I/O.

    head    "PGDMP"; version, 3 bytes; bytes of an integer; bytes of an offset; format (1 is custom);
            compression (from 1.15 on a byte, see `COMPRESSIONS`, before an integer, zlib's level);
            7 integers, a struct tm; strings: database, server's version, pg_dump's version
    TOC     an integer, the number of entries; the entries (see `parse_entry`)
    blocks  up to the end: type (a byte), ID of its entry (an integer), content
            DATA         pieces (an integer, the length; the bytes), and a length of 0
            LARGE        any number of large objects: OID (an integer), pieces, a length of 0; and an OID of 0

An integer is a byte, not 0 if it is negative, and little-endian bytes of the absolute value. A string is an
integer, its length, -1 if there is none, and its bytes. An offset is a byte (see `NO_DATA`) and little-endian
bytes. The pieces of a block or of a large object together are one compressed stream.

Source: PostgreSQL, src/bin/pg_dump/pg_backup_archiver.c (ReadHead, ReadToc, ReadInt, ReadStr, ReadOffset)
and pg_backup_custom.c.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from holdfast.base.errors import Refused

MAGIC: Final = b"PGDMP"
DATA: Final = 1
LARGE: Final = 3
NOT_SET: Final = 1
"""State of an offset that is not known: the archive went into a pipe."""
SET: Final = 2
NO_DATA: Final = 3
COMPRESSIONS: Final = ("none", "gzip", "lz4", "zstd")

_OLDEST: Final = (1, 10)
_NEWEST: Final = (1, 16)
_FORMATS: Final = {3: "a tar", 5: "a directory"}
_CUSTOM: Final = 1
_SIZES: Final = (4, 8)
_LENGTHS: Final = {4: struct.Struct("<BI"), 8: struct.Struct("<BQ")}
_STRING_LIMIT: Final = 64 << 20
_ENTRY_LIMIT: Final = 4_000_000
_DEPENDENCY_LIMIT: Final = 100_000
"""Of one entry. It is read again from its beginning when more has come in."""
_POST_DATA: Final = 4


class Short(Exception):
    """More bytes are needed: as many as `size` from the first one on, at least."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


@dataclass(frozen=True, slots=True)
class Head:
    """`length` in bytes, that of the number of entries included. `gap` is where [start, end) the compression
    stands; zeros there mean none, in all versions."""

    version: tuple[int, int]
    integer: int
    offset: int
    compression: str
    server: bytes
    tool: bytes
    entries: int
    gap: tuple[int, int]
    length: int

    @property
    def lengths(self) -> struct.Struct:
        """An integer's sign and absolute value."""
        return _LENGTHS[self.integer]

    @property
    def major(self) -> int:
        """The major release of the pg_dump that made it, 0 if that is not known."""
        found = re.match(rb"[0-9]{1,4}", self.tool)
        return int(found[0]) if found else 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One of the table of contents, in pg_dump's words; `end` is where it ends in the archive, and where its
    offset does. `defn_at` and `copy_at` are where `defn` and `copy` begin."""

    id: int
    has_data: bool
    tag: bytes
    desc: bytes
    is_post_data: bool
    defn: bytes
    defn_at: int
    drop: bytes
    copy: bytes
    copy_at: int
    namespace: bytes | None
    tablespace: bytes | None
    table_am: bytes | None
    is_partitioned: bool
    owner: bytes | None
    dependencies: tuple[int, ...]
    state: int
    end: int


def write_integer(value: int, size: int) -> bytes:
    return bytes([value < 0]) + abs(value).to_bytes(size, "little")


class _Cursor:
    """Reads from `data`, which holds a part of an archive from its beginning. Raises Short, Refused."""

    def __init__(self, data: bytearray, at: int, integer: int) -> None:
        self._data = data
        self.at = at
        self.integer = integer

    def raw(self, size: int) -> bytes:
        start = self.at
        self.at += size
        if self.at > len(self._data):
            raise Short(self.at)
        return bytes(self._data[start : self.at])

    def number(self) -> int:
        raw = self.raw(1 + self.integer)
        value = int.from_bytes(raw[1:], "little")
        return -value if raw[0] else value

    def string(self) -> bytes | None:
        length = self.number()
        if length < 0:
            return None
        if length > _STRING_LIMIT:
            raise Refused(f"is damaged: a string of {length} bytes at {self.at}; nothing was stored")
        return self.raw(length)


def parse_head(data: bytearray) -> Head:
    """Raises Short, and Refused for what is no custom archive or one of a kind that is not known."""
    if len(data) < 11:
        raise Short(11)
    version = (data[5], data[6])
    integer, offset, format_ = data[8:11]
    if not data.startswith(MAGIC):
        raise Refused("is not an archive of pg_dump; nothing was stored")
    if format_ in _FORMATS:
        raise Refused(
            f"is the table of contents of {_FORMATS[format_]}-format dump, without its data; use pg_dump -Fc "
            "instead; nothing was stored"
        )
    if format_ != _CUSTOM or not _OLDEST <= version <= _NEWEST:
        raise Refused(
            f"is an archive of pg_dump of version {version[0]}.{version[1]}; this program reads 1.10 to "
            "1.16, the custom format of PostgreSQL 8 to 18; nothing was stored"
        )
    if integer not in _SIZES or offset not in _SIZES:
        raise Refused(f"has integers of {integer} and offsets of {offset} bytes; nothing was stored")
    cursor = _Cursor(data, 11, integer)
    if version >= (1, 15):
        method = cursor.raw(1)[0]
        compression = COMPRESSIONS[method] if method < len(COMPRESSIONS) else f"of method {method}"
    else:
        compression = "gzip" if cursor.number() else "none"
    gap = (11, cursor.at)
    for _ in range(7):
        cursor.number()
    cursor.string()
    server, tool = cursor.string() or b"", cursor.string() or b""
    entries = cursor.number()
    if not 0 <= entries <= _ENTRY_LIMIT:
        raise Refused(f"is damaged, or too large: {entries} entries; nothing was stored")
    return Head(version, integer, offset, compression, server, tool, entries, gap, cursor.at)


def parse_entry(data: bytearray, at: int, head: Head) -> Entry:
    """The entry that begins at `at`. Raises Short, and Refused for what cannot be one."""
    cursor = _Cursor(data, at, head.integer)
    id_, has_data = cursor.number(), bool(cursor.number())
    if id_ <= 0:
        raise Refused(f"is damaged: an entry with ID {id_} at {at}; nothing was stored")
    cursor.string()
    cursor.string()  # two OIDs
    tag, desc = cursor.string() or b"", cursor.string() or b""
    section = cursor.number() if head.version >= (1, 11) else 0
    defn = cursor.string() or b""
    defn_at = cursor.at - len(defn)
    drop = cursor.string() or b""
    copy = cursor.string() or b""
    copy_at = cursor.at - len(copy)
    namespace = cursor.string()
    tablespace = cursor.string()
    table_am = cursor.string() if head.version >= (1, 14) else None
    kind = cursor.number() if head.version >= (1, 16) else 0
    owner = cursor.string()
    cursor.string()  # with OIDs
    dependencies: list[int] = []
    while (need := cursor.string()) is not None:
        if not need.isdigit() or len(need) > 10 or len(dependencies) == _DEPENDENCY_LIMIT:
            raise Refused(f"is damaged: impossible dependencies, at {cursor.at}; nothing was stored")
        dependencies.append(int(need))
    state = cursor.raw(1 + head.offset)[0]
    if state not in (NOT_SET, SET, NO_DATA):
        raise Refused(f"is damaged: an offset of kind {state} at {cursor.at}; nothing was stored")
    return Entry(
        id_, has_data, tag, desc, section == _POST_DATA, defn, defn_at, drop, copy, copy_at, namespace,
        tablespace, table_am, kind == ord("p"), owner, tuple(dependencies), state, cursor.at,
    )  # fmt: skip
