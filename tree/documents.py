"""The documents about a snapshot that the tree shows: vm.json, snapshot.json."""

from __future__ import annotations

import json
from typing import Any

from holdfast.repo.snapshots.snapshot import Item, StoredSnapshot, SubjectKind


def about_snapshot(stored: StoredSnapshot) -> bytes:
    """All about a snapshot and its items, as JSON."""
    s = stored.snapshot
    document: dict[str, Any] = {
        "snapshot": stored.id,
        "subject": {"kind": s.subject.kind.value, "name": s.subject.name},
        "time": s.time.isoformat(),
        "host": s.host,
        "source": s.source,
        "consistency": s.consistency.value,
        "evidence": s.evidence,
        "partial": s.partial,
        "program": s.program,
        "tags": list(s.tags),
    }
    if s.subject.kind is SubjectKind.VM:
        definition = [item for item in s.items if item.path.startswith("definition/")]
        document["disks"] = [_item(item) for item in s.items if item not in definition]
        document["definition"] = [_item(item) for item in definition]
    else:
        document["items"] = [_item(item) for item in s.items]
    if s.subject.uuid:
        document["subject"]["uuid"] = s.subject.uuid
    if s.subject.engine:
        document["subject"]["engine"] = s.subject.engine
    return json.dumps(document, indent=2).encode() + b"\n"


def _item(item: Item) -> dict[str, Any]:
    document: dict[str, Any] = {
        "path": item.path,
        "kind": item.kind.value,
        "size": item.size,
        "allocated": item.allocated,
        "mtime_ns": item.mtime,
    }
    if item.source_format:
        document["source_format"] = item.source_format
    if item.bad:
        document["unreadable"] = [
            {"offset": bad.start, "length": bad.length, "reason": bad.reason} for bad in item.bad
        ]
    return document
