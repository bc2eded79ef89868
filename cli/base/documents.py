"""JSON documents of snapshots, items and proofs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from holdfast.base.moments import moment
from holdfast.cli.base.render import iso
from holdfast.repo.snapshots.snapshot import Item, StoredSnapshot
from holdfast.servers.base.proof import Proof, Verdict

SHORT_ID = 8


def snapshot_document(stored: StoredSnapshot, *, items: bool = True) -> dict[str, Any]:
    """All properties of a snapshot, with those of its items if `items`."""
    s = stored.snapshot
    document: dict[str, Any] = {
        "id": stored.id,
        "short_id": stored.id[:SHORT_ID],
        "name": s.subject.name,
        "kind": s.subject.kind.value,
        "engine": s.subject.engine,
        "uuid": s.subject.uuid,
        "time": iso(s.time),
        "host": s.host,
        "source": s.source,
        "consistency": s.consistency.value,
        "evidence": s.evidence,
        "partial": s.partial,
        "tags": list(s.tags),
        "parent": s.parent,
        "program": s.program,
        "size": s.size,
        "allocated": sum(item.allocated for item in s.items),
        "facts": dict(s.facts),
        "new": s.stats.new,
        "stored": s.stats.stored,
        "chunks": s.stats.chunks,
        "chunks_new": s.stats.new_chunks,
        "seconds": s.stats.seconds,
    }
    if items:
        document["items"] = [item_document(item) for item in s.items]
    return document


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """The result of a snapshot's last rehearsal."""
    v = verdict
    document = {
        "outcome": v.outcome.value,
        "time": iso(v.time),
        "engine": v.engine,
        "server": v.server,
        "host": v.host,
        "program": v.program,
        "seconds": v.seconds,
        "databases": v.databases,
        "schemas": v.schemas,
        "tables": v.tables,
        "rows": v.rows,
    }
    return document | ({"path": v.path} if v.path else {}) | ({"error": v.error} if v.error else {})


def proof_document(proof: Proof) -> dict[str, Any]:
    """All results of a rehearsal."""
    return verdict_document(proof.verdict) | {
        "counts": [
            {"database": t.database, "schema": t.schema, "table": t.name, "rows": t.rows}
            for t in proof.tables
        ],
        "queries": [
            {
                "query": q.sql,
                "database": q.database,
                "columns": list(q.columns),
                "rows": [list(row) for row in q.rows],
                "more": q.more,
            }
            for q in proof.queries
        ],
        "notes": list(proof.notes),
    }


def item_document(item: Item) -> dict[str, Any]:
    """All known properties of an item."""
    optional = {"source_format": item.source_format, "checkpoint": item.checkpoint}
    return {
        "path": item.path,
        "type": item.kind.value,
        "size": item.size,
        "allocated": item.allocated,
        "mtime": iso(mtime(item)),
        "bad": [{"offset": bad.start, "length": bad.length, "reason": bad.reason} for bad in item.bad],
        **{name: value for name, value in optional.items() if value},
    }


def mtime(item: Item) -> datetime:
    """When the source was last changed; times no calendar knows become the nearest one it does."""
    return moment(item.mtime).replace(microsecond=0)
