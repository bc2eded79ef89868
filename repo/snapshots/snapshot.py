"""Snapshots: what one backup of one subject holds. Values; their stored form is in `snapshot_json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TypeAlias

from holdfast.base.types import ChunkID, SnapshotID
from holdfast.repo.chunks.chunker import ChunkerSpec


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


Identity: TypeAlias = tuple[str, str]
"""What tells subjects apart: the kind, and a key made of the facts of the source."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a subject is: facts of the source, for a subject without a UUID.

    `host` is the machine that has it, `server` what a database server calls itself ("" when it does not say),
    `place` the absolute path or the database on it. Without a `place` the subject's name tells it apart.
    """

    host: str = ""
    server: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """The thing that is backed up. Its `name` is a label, and no more where facts tell it apart.

    `engine` names the database system ("postgresql", "mariadb", ...) and is "" for other kinds. `history`
    tells apart what began anew under the same facts. `joined` is the key of the subject that this one became
    a part of; a record says so (`repo.core.subject_records`), not the snapshot.
    """

    kind: SubjectKind
    name: str
    uuid: str = ""
    engine: str = ""
    origin: Origin = field(default_factory=Origin)
    history: str = ""
    joined: str = ""

    @property
    def facts_key(self) -> str:
        """Equal for everything from the same source, whatever histories it has."""
        if self.uuid:
            return self.uuid
        where = f"server {self.origin.server}" if self.origin.server else f"host {self.origin.host}"
        what = self.origin.place or f"name:{self.name}"
        return "\n".join((self.engine, where, what))

    @property
    def own_identity(self) -> Identity:
        """The identity that the source's facts give, before subjects were joined."""
        return (self.kind.value, f"{self.facts_key}\n#{self.history}" if self.history else self.facts_key)

    @property
    def identity(self) -> Identity:
        """Equal for snapshots of the same subject."""
        return (self.kind.value, self.joined) if self.joined else self.own_identity


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


def check_item_path(path: str) -> str:
    """The path; ValueError unless it is relative, plain and made of real names."""
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
        raise ValueError(f"impossible item path {path!r}")
    return path
