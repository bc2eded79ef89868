"""Snapshots: what one backup of one subject holds. Values and their JSON; no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any

import msgspec

from holdfast.base.errors import Damaged
from holdfast.base.moments import clamped
from holdfast.base.stored_json import VersionedJson, read_versioned
from holdfast.base.types import ChunkID, SnapshotID
from holdfast.repo.chunks.chunker import ChunkerSpec

SNAPSHOT_VERSION = 1
_LONGEST = 1e12
"""Seconds of a backup."""


class SubjectKind(Enum):
    VM = "vm"
    DATABASE = "database"
    FILES = "files"
    LOGS = "logs"


class ItemKind(Enum):
    DISK = "disk"
    DUMP = "dump"
    FILE = "file"
    LOG = "log"


class Consistency(Enum):
    """How a snapshot was made consistent, best first."""

    APPLICATION = "application"
    FILESYSTEM = "filesystem"
    CRASH = "crash"
    UNKNOWN = "unknown"

    def satisfies(self, required: Consistency) -> bool:
        grades = list(Consistency)
        return grades.index(self) <= grades.index(required)


@dataclass(frozen=True, slots=True)
class Subject:
    """The thing that is backed up. Its identity is `uuid` if the source has one, else kind, engine and name.

    `engine` names the database system ("postgresql", "mariadb", ...) and is "" for other kinds.
    """

    kind: SubjectKind
    name: str
    uuid: str = ""
    engine: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """Equal for snapshots of the same subject."""
        engine = f"{self.engine}:" if self.engine else ""
        return (self.kind.value, self.uuid or f"{engine}name:{self.name}")


@dataclass(frozen=True, slots=True)
class BadRange:
    """A range of a source, in bytes, that could not be read; stored as a hole. Length 0: data ends early."""

    start: int
    length: int
    reason: str

    def overlap(self, start: int, end: int) -> int:
        """Number of its bytes that are in [start, end)."""
        return max(0, min(end, self.start + self.length) - max(start, self.start))


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stored stream: the ID of its recipe's root node, and its size in bytes."""

    recipe: ChunkID
    size: int


@dataclass(frozen=True, slots=True)
class Item:
    """One stored file. `size` and `allocated` (bytes that are not holes) are in bytes, `mtime` in ns.

    `source_format` is the image format of a disk's source or the compression of a dump's, "" if the source
    had the stored bytes. `checkpoint` names the dirty bitmap that began to record when this disk was read.
    `catalogue` is the stored stream of a dump's catalogue (`formats.dumps.core.catalogue`).
    """

    path: str
    kind: ItemKind
    size: int
    allocated: int
    mtime: int
    chunker: ChunkerSpec
    recipe: ChunkID
    bad: tuple[BadRange, ...] = ()
    source_format: str = ""
    checkpoint: str = ""
    catalogue: StoredStream | None = None

    @property
    def recipes(self) -> tuple[ChunkID, ...]:
        """Root node IDs of all streams of this item: its content and its catalogue."""
        return (self.recipe, self.catalogue.recipe) if self.catalogue else (self.recipe,)


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of a backup: `read`, `new` and `stored` in bytes, `chunks` looked up, `new_chunks` stored.

    `new` is the size of the new chunks before compression, `stored` the growth of the packs.
    """

    read: int = 0
    chunks: int = 0
    new_chunks: int = 0
    new: int = 0
    stored: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The record of one backup. `time` is when it began, UTC.

    `facts` describe a database at that moment, under these names as far as they are known:
    "server" (its version), "tool" (what made the dump, with version), "system_id" and "timeline" of a
    PostgreSQL cluster, "lsn" (where the dump or physical backup begins in the write-ahead log), "stop_lsn"
    and "stop_time" (where and when a physical backup is consistent), "binlog" (FILE:POSITION), "gtid",
    "physical" ("yes"). `heads` are the snapshots that this one knew and no other one named (`heads_of`).
    """

    subject: Subject
    time: datetime
    host: str
    source: str
    consistency: Consistency
    evidence: str
    items: tuple[Item, ...]
    program: str
    parent: SnapshotID | None = None
    tags: tuple[str, ...] = ()
    stats: Stats = field(default_factory=Stats)
    facts: Mapping[str, str] = field(default_factory=dict)
    heads: tuple[SnapshotID, ...] = ()

    @property
    def partial(self) -> bool:
        """Whether something of the source could not be read."""
        return any(item.bad for item in self.items)

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items)


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A snapshot and its ID in the repository."""

    id: SnapshotID
    snapshot: Snapshot


def encode(snapshot: Snapshot) -> bytes:
    """The plaintext of a snapshot file."""
    s = snapshot
    document: dict[str, Any] = {
        "version": SNAPSHOT_VERSION,
        "subject": {
            "kind": s.subject.kind.value,
            "name": s.subject.name,
            "uuid": s.subject.uuid,
            "engine": s.subject.engine,
        },
        "time": s.time.astimezone(UTC).isoformat(),
        "host": s.host,
        "source": s.source,
        "consistency": s.consistency.value,
        "evidence": s.evidence,
        "program": s.program,
        "parent": s.parent,
        "tags": list(s.tags),
        "items": [_encode_item(item) for item in s.items],
        "stats": {
            "read": s.stats.read,
            "chunks": s.stats.chunks,
            "new_chunks": s.stats.new_chunks,
            "new": s.stats.new,
            "stored": s.stats.stored,
            "seconds": round(s.stats.seconds, 3),
        },
    }
    if s.facts:
        document["facts"] = dict(s.facts)
    if s.heads:
        document["heads"] = list(s.heads)
    return json.dumps(document, sort_keys=True, ensure_ascii=True).encode()


def _encode_item(item: Item) -> dict[str, Any]:
    document: dict[str, Any] = {
        "path": item.path,
        "kind": item.kind.value,
        "size": item.size,
        "allocated": item.allocated,
        "mtime": item.mtime,
        "cutter": item.chunker.to_json(),
        "recipe": item.recipe.hex(),
        "bad": [[bad.start, bad.length, bad.reason] for bad in item.bad],
    }
    content = [item.catalogue.recipe.hex(), item.catalogue.size] if item.catalogue else None
    optional = {
        "source_format": item.source_format,
        "checkpoint": item.checkpoint,
        "catalogue": content,
    }
    return document | {name: value for name, value in optional.items() if value}


class _SubjectJson(msgspec.Struct):
    kind: SubjectKind
    name: str
    uuid: str
    engine: str


class _ItemJson(msgspec.Struct):
    """`recipe` and the first half of `catalogue` are 64 hex digits."""

    path: str
    kind: ItemKind
    size: int
    allocated: int
    mtime: int
    cutter: Any
    recipe: str
    bad: tuple[tuple[int, int, str], ...]
    source_format: str = ""
    checkpoint: str = ""
    catalogue: tuple[str, int] | msgspec.UnsetType = msgspec.UNSET


class _SnapshotJson(VersionedJson):
    """The stored form of a snapshot."""

    subject: _SubjectJson
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    host: str
    source: str
    consistency: Consistency
    evidence: str
    program: str
    parent: SnapshotID | None
    tags: tuple[str, ...]
    items: tuple[_ItemJson, ...]
    stats: Stats
    facts: dict[str, str] = msgspec.field(default_factory=dict)
    heads: tuple[SnapshotID, ...] = ()


def decode(data: bytes, where: str) -> Snapshot:
    """Raises Damaged when it is not a snapshot, Unsupported when it is of a newer kind."""
    d = read_versioned(data, _SnapshotJson, kind="snapshot", version=SNAPSHOT_VERSION, where=where)
    try:
        return Snapshot(
            subject=Subject(d.subject.kind, d.subject.name, d.subject.uuid, d.subject.engine),
            time=d.time.astimezone(UTC),
            host=d.host,
            source=d.source,
            consistency=d.consistency,
            evidence=d.evidence,
            items=tuple(_decode_item(item) for item in d.items),
            program=d.program,
            parent=d.parent or None,
            tags=d.tags,
            stats=_checked(d.stats),
            facts=d.facts,
            heads=d.heads,
        )
    except (ValueError, OverflowError) as error:
        raise Damaged(where, f"not a snapshot: {error}") from None


def _decode_item(d: _ItemJson) -> Item:
    content = _decode_content(d.recipe, d.size)
    return Item(
        path=check_item_path(d.path),
        kind=d.kind,
        size=content.size,
        allocated=d.allocated,
        mtime=clamped(d.mtime),
        chunker=ChunkerSpec.from_json(d.cutter),
        recipe=content.recipe,
        bad=tuple(BadRange(*bad) for bad in d.bad),
        source_format=d.source_format,
        checkpoint=d.checkpoint,
        catalogue=None if isinstance(d.catalogue, msgspec.UnsetType) else _decode_content(*d.catalogue),
    )


def _checked(stats: Stats) -> Stats:
    if not 0 <= stats.seconds <= _LONGEST:
        raise ValueError(f"a backup that took {stats.seconds} s")
    return stats


def _decode_content(recipe: str, size: int) -> StoredStream:
    root = bytes.fromhex(recipe)
    if len(root) != 32 or size < 0:
        raise ValueError(f"an item of {size} bytes with a recipe ID of {len(root)} bytes, not 32")
    return StoredStream(ChunkID(root), size)


def check_item_path(path: str) -> str:
    """The path; ValueError unless it is relative, plain and made of real names."""
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
        raise ValueError(f"impossible item path {path!r}")
    return path
