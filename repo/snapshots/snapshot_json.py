"""The stored form of snapshots: JSON, checked when it is read. No I/O."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec

from holdfast.base.errors import Damaged
from holdfast.base.moments import clamped
from holdfast.base.stored_json import VersionedJson, read_versioned
from holdfast.base.types import ChunkID, SnapshotID
from holdfast.repo.chunks.chunker import ChunkerSpec
from holdfast.repo.snapshots.snapshot import (
    BadRange,
    Consistency,
    Item,
    ItemKind,
    Origin,
    Snapshot,
    Stats,
    StoredStream,
    Subject,
    SubjectKind,
    check_item_path,
)

SNAPSHOT_VERSION: Final = 1
_LONGEST: Final = 1e12
"""Seconds of a backup."""


def encode(snapshot: Snapshot) -> bytes:
    """The plaintext of a snapshot file."""
    s = snapshot
    document: dict[str, Any] = {
        "version": SNAPSHOT_VERSION,
        "subject": _encode_subject(s.subject),
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


def _encode_subject(subject: Subject) -> dict[str, str]:
    origin = subject.origin
    optional = {
        "host": origin.host,
        "server": origin.server,
        "place": origin.place,
        "history": subject.history,
    }
    return {
        "kind": subject.kind.value,
        "name": subject.name,
        "uuid": subject.uuid,
        "engine": subject.engine,
        **{name: value for name, value in optional.items() if value},
    }


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
    host: str = ""
    server: str = ""
    place: str = ""
    history: str = ""

    def subject(self) -> Subject:
        origin = Origin(self.host, self.server, self.place)
        return Subject(self.kind, self.name, self.uuid, self.engine, origin, self.history)


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
            subject=d.subject.subject(),
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
