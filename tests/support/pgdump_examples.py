"""Writes archives in pg_dump's custom format of any version and compression, for tests.

Layout: PostgreSQL, src/bin/pg_dump/pg_backup_archiver.c (WriteHead, WriteToc, WriteStr, WriteInt,
WriteOffset) and pg_backup_custom.c; what each version added stands in pg_backup_archiver.h (K_VERS_...).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import zstandard

from holdfast.formats.dumps.core.catalogue import Catalogue, decode, encode
from holdfast.formats.dumps.postgresql.custom.unpack import Unpacker

NONE, GZIP, LZ4, ZSTD = range(4)


@dataclass
class Entry:
    id: int
    desc: str
    tag: str
    defn: str | None = None
    copy: str | None = None
    drop: str | None = None
    namespace: str | None = "public"
    owner: str | None = "postgres"
    data: bytes | None = None
    large: Sequence[tuple[int, bytes]] | None = None
    needs: Sequence[int] = ()
    table_am: str | None = None
    relkind: str = "\0"
    section: int = 2

    @property
    def has_data(self) -> bool:
        return self.data is not None or self.large is not None


@dataclass
class Writer:
    """`piece` is the number of bytes in a piece of data. `seekable`: offsets are filled in."""

    version: tuple[int, int] = (1, 14)
    compression: int = NONE
    integer: int = 4
    offset: int = 8
    piece: int = 4096
    seekable: bool = False
    tool: str = "15.18"
    out: bytearray = field(default_factory=bytearray)

    def number(self, value: int) -> bytes:
        return bytes([value < 0]) + abs(value).to_bytes(self.integer, "little")

    def string(self, text: str | None) -> bytes:
        if text is None:
            return self.number(-1)
        raw = text.encode()
        return self.number(len(raw)) + raw

    def archive(self, entries: Sequence[Entry]) -> bytes:
        """All of it."""
        blocks = [(entry.id, b"".join(self.block(entry))) for entry in entries if entry.has_data]
        toc = self.toc(entries, {})
        if self.seekable:
            places, place = {}, len(toc)
            for id_, block in blocks:
                places[id_] = place
                place += len(block)
            toc = self.toc(entries, places)
        return toc + b"".join(block for _, block in blocks)

    def toc(self, entries: Sequence[Entry], places: dict[int, int]) -> bytes:
        head = [b"PGDMP", bytes([*self.version, 0, self.integer, self.offset, 1])]
        if self.version >= (1, 15):
            head.append(bytes([self.compression]))
        else:
            head.append(self.number(-1 if self.compression else 0))
        head += [self.number(n) for n in (1, 2, 3, 4, 5, 125, 0)]
        head += [self.string("shop"), self.string(self.tool), self.string(self.tool)]
        head.append(self.number(len(entries)))
        return b"".join([*head, *(part for entry in entries for part in self.entry(entry, places))])

    def entry(self, e: Entry, places: dict[int, int]) -> Iterator[bytes]:
        yield self.number(e.id) + self.number(int(e.has_data))
        yield from map(self.string, ("1259", str(16000 + e.id), e.tag, e.desc))
        if self.version >= (1, 11):
            yield self.number(e.section)
        yield from map(self.string, (e.defn, e.drop, e.copy, e.namespace, ""))
        if self.version >= (1, 14):
            yield self.string(e.table_am)
        if self.version >= (1, 16):
            yield self.number(ord(e.relkind))
        yield from map(self.string, (e.owner, "false", *map(str, e.needs), None))
        state = 3 if not e.has_data else 2 if e.id in places else 1
        yield bytes([state]) + places.get(e.id, 0).to_bytes(self.offset, "little")

    def block(self, e: Entry) -> Iterator[bytes]:
        if e.large is None:
            assert e.data is not None
            yield b"\1" + self.number(e.id) + self.pieces(e.data)
            return
        yield b"\3" + self.number(e.id)
        for oid, content in e.large:
            yield self.number(oid) + self.pieces(content)
        yield self.number(0)

    def pieces(self, content: bytes) -> bytes:
        packed = self.packed(content)
        parts = [packed[at : at + self.piece] for at in range(0, len(packed), self.piece)]
        return b"".join([self.number(len(part)) + part for part in parts]) + self.number(0)

    def packed(self, content: bytes) -> bytes:
        if self.compression == GZIP:
            return zlib.compress(content)
        if self.compression == ZSTD:
            return zstandard.ZstdCompressor().compress(content)
        return content


def shop(rows: bytes = b"1\ta\n2\tb\n") -> list[Entry]:
    """A small database: a table with rows, an index, a view, a large object, the special entries."""
    return [
        Entry(1, "ENCODING", "ENCODING", "SET client_encoding = 'UTF8';\n", namespace=None, owner=None),
        Entry(2, "STDSTRINGS", "STDSTRINGS", "SET standard_conforming_strings = 'on';\n", namespace=None),
        Entry(
            3,
            "SEARCHPATH",
            "SEARCHPATH",
            "SELECT pg_catalog.set_config('search_path', '', false);\n",
            namespace=None,
        ),
        Entry(
            4,
            "TABLE",
            "goods",
            "CREATE TABLE public.goods (\n    id integer,\n    name text\n);\n",
            drop="DROP TABLE public.goods;\n",
            table_am="heap",
        ),
        Entry(
            5, "VIEW", "v", "CREATE VIEW public.v AS\n SELECT 1;\n", drop="DROP VIEW public.v;\n", needs=[4]
        ),
        Entry(
            6,
            "TABLE DATA",
            "goods",
            copy="COPY public.goods (id, name) FROM stdin;\n",
            data=rows + b"\\.\n\n\n",
            needs=[4],
            section=3,
        ),
        Entry(
            7,
            "BLOBS",
            "BLOBS",
            namespace=None,
            owner=None,
            large=[(3_000_000_000, b"x" * 100_000), (17, b""), (18, bytes(range(256)))],
            section=3,
        ),
        Entry(
            8,
            "INDEX",
            "goods_id",
            "CREATE INDEX goods_id ON public.goods USING btree (id);\n",
            needs=[4],
            section=4,
        ),
    ]


def unpack(archive: bytes, step: int = 1 << 20) -> tuple[bytes, Catalogue]:
    """The stored bytes, and the catalogue as read back from the repository."""
    unpacker = Unpacker()
    stored = b"".join(
        piece for at in range(0, len(archive), step) for piece in unpacker.feed(archive[at : at + step])
    )
    found = unpacker.finish()
    return stored, decode(encode(found), "catalogue", len(stored))
