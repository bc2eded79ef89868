"""From the keys to every byte of every item: packs, snapshots, proofs and recipes, as `docs/format.md` says.

Imports nothing of the product, and only `unlock` beside it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import zstandard

from independent.unlock import (
    DIRECTORY_DOMAIN,
    FOOT_DOMAIN,
    FORGOTTEN,
    HEAD,
    HEADER_DOMAIN,
    PACK,
    PAYLOAD_DOMAIN,
    PROOF,
    SNAPSHOT,
    TAG,
    Keys,
    Refused,
    Seal,
    derive,
    keyed,
    named,
    names,
    need,
)

DATA, NODE, PADDING = 1, 2, 3
RAW, ZSTD = 0, 1
HEADER = struct.Struct("<BBHIII32s")  # type, codec, zero, raw length, encoded length, zero, chunk ID
ENTRY = struct.Struct("<32sIIBB")  # chunk ID, raw length, encoded length, type, codec
FOOT = struct.Struct("<4sIQ32s")  # mark, number of records, offset of the directory, zero
LARGEST_RECORD = 4 << 20
LARGEST_PADDING = 80 << 20
LARGEST_PACK = 80 << 20
HOLE = 1 << 63
MOST_ENTRIES = 1024


def up_to_64(length: int) -> int:
    return -(-length // 64) * 64


@dataclass(frozen=True, slots=True)
class Record:
    """Where a record stands in its pack and what its header says."""

    offset: int
    type: int
    codec: int
    raw: int
    encoded: int
    id: bytes

    @property
    def payload(self) -> tuple[int, int]:
        """Start and end of the sealed payload."""
        start = self.offset + HEADER.size + TAG
        return start, start + up_to_64(self.encoded + TAG)

    def check(self) -> Record:
        limit = LARGEST_PADDING if self.type == PADDING else LARGEST_RECORD
        need(self.type in {DATA, NODE, PADDING} and self.codec in {RAW, ZSTD}, "an unknown type or codec")
        need(self.raw <= limit and self.encoded <= limit, "a record above the limit")
        need(self.codec == ZSTD or self.raw == self.encoded, "a raw record of two lengths")
        need(self.type != PADDING or (self.codec == RAW and self.id == bytes(32)), "padding with content")
        return self


@dataclass(frozen=True, slots=True)
class Pack:
    """An open pack."""

    content: bytes
    seal: Seal

    @staticmethod
    def open(content: bytes, keys: Keys) -> Pack:
        need(len(content) <= LARGEST_PACK and len(content) % 64 == 0, "a pack of an impossible length")
        return Pack(content, keys.seal(content[:HEAD], PACK))

    def part(self, domain: int, offset: int, start: int, end: int) -> bytes:
        """The sealed bytes from start to end, opened."""
        need(HEAD <= start <= end <= len(self.content), "a part outside of its pack")
        return self.seal.open(domain, offset, self.content[start:end])

    def foot(self) -> tuple[int, int]:
        """How many records the directory has, and where it starts."""
        start = len(self.content) - HEAD
        mark, count, directory, zero = FOOT.unpack(self.part(FOOT_DOMAIN, start, start, start + HEAD))
        need(mark == b"FOOT" and zero == bytes(32), "no foot")
        return count, directory

    def directory(self) -> list[Record]:
        """The records, without the padding, as the directory at the end says."""
        count, start = self.foot()
        end = len(self.content) - HEAD
        least = up_to_64(count * ENTRY.size + TAG)
        need((end - start) % 64 == 0 and least <= end - start < least + 128, "a directory of another length")
        body = self.part(DIRECTORY_DOMAIN, start, start, end)
        need(not any(body[count * ENTRY.size :]), "a directory with more behind it")
        records, offset = [], HEAD
        for number in range(count):
            id, raw, encoded, type, codec = ENTRY.unpack_from(body, number * ENTRY.size)
            record = Record(offset, type, codec, raw, encoded, id).check()
            need(type != PADDING, "padding in a directory")
            records.append(record)
            offset = record.payload[1]
        need(offset <= start, "a directory of more records than there are")
        return records

    def walk(self) -> list[Record]:
        """The records, with the padding, by their own headers."""
        _, end = self.foot()
        records, offset = [], HEAD
        while offset < end:
            header = self.part(HEADER_DOMAIN, offset, offset, offset + HEADER.size + TAG)
            type, codec, zero, raw, encoded, zeros, id = HEADER.unpack(header)
            need(zero == 0 and zeros == 0, "a header with more in it")
            records.append(Record(offset, type, codec, raw, encoded, id).check())
            offset = records[-1].payload[1]
        need(offset == end, "records that reach into the directory")
        need(all(each.type != PADDING for each in records[:-1]), "padding before the last record")
        return records

    def bytes_of(self, record: Record) -> bytes:
        """The raw bytes of a record; whether they have its ID is the caller's to check."""
        start, end = record.payload
        padded = self.part(PAYLOAD_DOMAIN, record.offset, start, end)
        encoded = padded[: record.encoded]
        need(not any(padded[record.encoded :]), "something behind a record")
        if record.codec == RAW:
            return encoded
        try:
            need(zstandard.frame_content_size(encoded) == record.raw, "a frame of another size")
            decompressor = zstandard.ZstdDecompressor()
            raw = decompressor.decompress(encoded, max_output_size=record.raw, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Refused("no frame of zstd") from error
        need(len(raw) == record.raw, "a frame that lies about its size")
        return raw


@dataclass(frozen=True, slots=True)
class Reader:
    """A repository, unlocked. `index`: pack and record of every chunk by ID, made by `load`."""

    root: Path
    keys: Keys
    index: dict[bytes, tuple[str, Record]] = field(default_factory=dict)
    opened: dict[str, Pack] = field(default_factory=dict)

    def packs(self) -> list[str]:
        found = []
        for folder in sorted((self.root / "packs").iterdir()):
            for name in names(folder):
                need(name[:2] == folder.name, f"{name} is in a folder that is not its own")
                found.append(name)
        return found

    def pack(self, id: str) -> Pack:
        """With its content compared with its name."""
        if id not in self.opened:
            self.opened[id] = Pack.open(named(self.root / "packs" / id[:2] / id, id), self.keys)
        return self.opened[id]

    def load(self) -> None:
        """Read all directories, and compare each with what the headers say."""
        for id in self.packs():
            pack = self.pack(id)
            records = pack.directory()
            walked = [record for record in pack.walk() if record.type != PADDING]
            need(records == walked, f"pack {id}: directory and headers differ")
            for record in records:
                self.index[record.id] = (id, record)

    def chunk(self, id: bytes, type: int) -> bytes:
        """A chunk or a node, whose bytes have this ID."""
        need(id in self.index, f"chunk {id.hex()} is in no pack")
        pack, record = self.index[id]
        need(record.type == type, f"chunk {id.hex()} is of another type")
        raw = self.pack(pack).bytes_of(record)
        context = "data chunk id" if type == DATA else "recipe node id"
        need(keyed(derive(self.keys.identity, context), raw) == id, f"chunk {id.hex()} has another content")
        return raw

    def snapshots(self, folder: str = "snapshots") -> dict[str, Mapping[str, Any]]:
        """What each says, by ID."""
        return {name: self._object(folder, name, name, SNAPSHOT)[0] for name in names(self.root / folder)}

    def forgotten(self) -> dict[str, int]:
        """When snapshots were forgotten, by ID, out of all records."""
        times: dict[str, int] = {}
        for name in names(self.root / "forgotten"):
            times |= self._object("forgotten", name, name, FORGOTTEN)[0]["snapshots"]
        return times

    def proofs(self) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Verdict and details of each."""
        found = []
        for name in names(self.root / "proofs"):
            snapshot, time, digest = name.split(".")
            verdict, details = self._object("proofs", name, digest, PROOF)
            need(verdict["snapshot"] == snapshot, f"{name} is a proof of another snapshot")
            began = datetime.fromisoformat(verdict["time"]).strftime("%Y%m%dT%H%M%S%fZ")
            need(began == time, f"{name} is a proof of another time")
            found.append((verdict, details))
        return found

    def missing(self) -> set[str]:
        """Snapshots that another one names as its heads, that nobody forgot, and that are not there."""
        there = self.snapshots()
        heads = {head for snapshot in there.values() for head in snapshot.get("heads", [])}
        return heads - set(there) - set(self.forgotten())

    def _object(self, folder: str, name: str, digest: str, kind: int) -> list[Mapping[str, Any]]:
        body = self.keys.open_object(named(self.root / folder / name, digest), kind)
        lines: list[Mapping[str, Any]] = [json.loads(line) for line in body.decode("ascii").splitlines()]
        need(lines and lines[0]["version"] == 1, f"{name} is of another version")
        return lines

    def item(self, recipe: str, size: int) -> Iterator[bytes]:
        """The bytes of a stored file, holes as zeros, by the ID of its root node and its size."""
        yield from self._below(bytes.fromhex(recipe), size, None)

    def _below(self, id: bytes, size: int, level: int | None) -> Iterator[bytes]:
        here, entries = _node(self.chunk(id, NODE))
        need(level is None or here == level, "a node of another level")
        need(entries or (level is None and here == 0), "an empty node")
        need(sum(length for length, _ in entries) == size, "a node of another size")
        for length, child in entries:
            if child is None:
                yield from _zeros(length)
            elif here:
                yield from self._below(child, length, here - 1)
            else:
                data = self.chunk(child, DATA)
                need(len(data) == length, "a chunk of another length")
                yield data


def _zeros(length: int) -> Iterator[bytes]:
    while length:
        step = min(length, 1 << 20)
        yield bytes(step)
        length -= step


def _node(raw: bytes) -> tuple[int, list[tuple[int, bytes | None]]]:
    """Level, and length and ID of each entry; the ID of a hole is None."""
    need(len(raw) >= 4, "a node without a beginning")
    level, zero, count = struct.unpack_from("<BBH", raw)
    need(zero == 0 and count <= MOST_ENTRIES and len(raw) >= 4 + 8 * count, "no node")
    lengths = struct.unpack_from(f"<{count}Q", raw, 4)
    at, entries = 4 + 8 * count, list[tuple[int, bytes | None]]()
    for length in lengths:
        hole = bool(length & HOLE)
        need(length & ~HOLE and not (hole and level), "an entry without length, or a hole above the leaves")
        need(hole or at + 32 <= len(raw), "a node that ends early")
        entries.append((length & ~HOLE, None if hole else raw[at : at + 32]))
        at += 0 if hole else 32
    need(at == len(raw), "a node that goes on")
    return level, entries
