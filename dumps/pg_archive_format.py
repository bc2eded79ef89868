"""Bytes of pg_dump's custom format (`pg_dump -Fc`), versions 1.12 to 1.16: PostgreSQL 9.0 to 18.

    head     "PGDMP", version (3 bytes), size of an integer, size of an offset, format (1: custom),
             compression (an integer until 1.14: its level; a byte since 1.15: 0 none, 1 gzip, 2 lz4, 3 zstd),
             7 integers of the time it was made, 3 strings: database, version of server, of pg_dump
    contents integer: entries; each 2 integers (ID, has data), 4 strings (2 OIDs, tag, type), integer (section),
             strings: definition, drop, copy, schema, tablespace, [access method, since 1.14]
             [integer since 1.16: kind of relation], strings: owner, "false", IDs of other entries, null;
             data's state (1 byte: 1 not known where, 2 known, 3 none), its offset (little-endian)
    blocks   1 byte: 1 rows, 3 large objects; integer: the entry's ID;
             rows: chunks; large objects: for each its OID (integer, not 0) and chunks, then 0
    chunks   integer: length, so many bytes; at last the length 0

An integer is a byte for the sign (0 or 1) and 4 bytes, little-endian; a string an integer and so many bytes, or -1
for null. Source: src/bin/pg_dump/pg_backup_archiver.c and pg_backup_custom.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from holdfast.repo.errors import Refused, SourceError

MAGIC: Final = b"PGDMP"
FORMAT_CUSTOM: Final = 1
ROWS: Final = 1
LARGE_OBJECTS: Final = 3
OFFSET_UNKNOWN: Final = 1
OFFSET_KNOWN: Final = 2
OFFSET_NONE: Final = 3
NONE, GZIP, LZ4, ZSTD = range(4)
"""Compressions."""
OFFSET_SIZE: Final = 9
"""Bytes of an entry's state and offset in what we write."""
INT: Final = struct.Struct("<BI")
_OFFSET: Final = struct.Struct("<BQ")
_OLDEST: Final = 12
_NEWEST: Final = 16
_COMPRESSION_BYTE: Final = 15
_LENGTH_LIMIT: Final = 1 << 31
_START: Final = struct.Struct("<5sBBBBBB")
_TAR_NAME: Final = b"toc.dat\0"
_TAR_MAGIC: Final = b"ustar"
_TAR_MAGIC_AT: Final = 257


def is_archive(head: bytes) -> bool:
    """Whether a stream that begins so is an archive in custom format, of any version."""
    return head.startswith(MAGIC)


def is_tar_dump(head: bytes) -> bool:
    """Whether it is one of `pg_dump -Ft`; `head` has 512 bytes or more."""
    return head.startswith(_TAR_NAME) and head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == _TAR_MAGIC


class MoreNeeded(Exception):
    """The bytes end within a field. `size` is how many there must be, from the beginning, to get further."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes are needed")
        self.size = size


def broken(offset: int, reason: str) -> SourceError:
    return SourceError(
        f"the pg_dump archive is broken at byte {offset}: {reason}; nothing of it was committed. "
        "pg_restore could not read it either: make a new dump"
    )


def put_int(value: int) -> bytes:
    return INT.pack(value < 0, abs(value))


def put_offset(state: int, offset: int) -> bytes:
    return _OFFSET.pack(state, offset)


class Fields:
    """Reads one field after the other out of `data`. Raises MoreNeeded, SourceError.

    `base` is where in the archive the data stands; for messages.
    """

    __slots__ = ("_base", "_data", "_limit", "at")

    def __init__(self, data: bytes | bytearray, base: int = 0, limit: int = _LENGTH_LIMIT) -> None:
        """`limit`: bytes of one string, at most."""
        self._data: Final = data
        self._base: Final = base
        self._limit: Final = limit
        self.at = 0

    def fail(self, reason: str) -> SourceError:
        return broken(self._base + self.at, reason)

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self._data):
            raise MoreNeeded(end)
        found = bytes(self._data[self.at : end])
        self.at = end
        return found

    def integer(self) -> int:
        if self.at + INT.size > len(self._data):
            raise MoreNeeded(self.at + INT.size)
        sign, value = INT.unpack_from(self._data, self.at)
        if sign > 1:
            raise self.fail(f"a sign is {sign}")
        self.at += INT.size
        return -value if sign else int(value)

    def string(self) -> bytes | None:
        length = self.integer()
        if length < 0:
            return None
        if length > self._limit:
            raise self.fail(f"a string of {length} bytes")
        found = self.take(length)
        if b"\0" in found:
            raise self.fail("a string with a zero byte")
        return found

    def text(self) -> bytes:
        """A string that must not be null."""
        found = self.string()
        if found is None:
            raise self.fail("a string is missing")
        return found


@dataclass(frozen=True, slots=True)
class Head:
    """`minor` is that of version 1.x; `offset_size` in bytes; `size` what the head took."""

    minor: int
    offset_size: int
    compression: int
    database: bytes
    server: bytes
    tool: bytes
    size: int
    canonical: bytes
    """As we write it: not compressed, offsets of 8 bytes."""


def read_head(data: bytes | bytearray) -> Head:
    """Raises MoreNeeded; Refused for what other versions or programs wrote; SourceError."""
    fields = Fields(data, limit=1 << 16)
    magic, major, minor, revision, int_size, offset_size, form = _START.unpack(fields.take(_START.size))
    if magic != MAGIC:
        raise fields.fail("no archive in custom format")
    if major != 1 or not _OLDEST <= minor <= _NEWEST:
        raise Refused(
            f"a pg_dump archive of version {major}.{minor}: versions 1.{_OLDEST} to 1.{_NEWEST} "
            "(PostgreSQL 9.0 to 18) are understood. A plain dump (pg_dump without -Fc) can be backed up"
        )
    if form != FORMAT_CUSTOM or int_size != 4 or offset_size not in (4, 8):
        raise fields.fail(f"format {form}, integers of {int_size} and offsets of {offset_size} bytes")
    start = MAGIC + bytes((major, minor, revision, 4, 8, FORMAT_CUSTOM))
    if minor >= _COMPRESSION_BYTE:
        compression = fields.take(1)[0]
        start += b"\0"
    else:
        compression = GZIP if fields.integer() else NONE
        start += put_int(0)
    _check_compression(compression)
    rest = fields.at
    for _ in range(7):
        fields.integer()
    database, server, tool = ((fields.string() or b"") for _ in range(3))
    canonical = start + bytes(data[rest : fields.at])
    return Head(minor, offset_size, compression, database, server, tool, fields.at, canonical)


def _check_compression(compression: int) -> None:
    if compression == LZ4:
        raise Refused(
            "the pg_dump archive is compressed with lz4, which this program cannot undo: "
            "dump with --compress=zstd, gzip or none; none is best, as the repository compresses itself"
        )
    if compression not in (NONE, GZIP, ZSTD):
        raise Refused(f"the pg_dump archive is compressed in a way that is not known ({compression})")
