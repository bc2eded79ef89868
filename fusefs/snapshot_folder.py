"""The folder of one snapshot: its items, sub-folders by their paths, and a document about it. No I/O."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from holdfast.fusefs.names import unique_name
from holdfast.fusefs.nodes import Document, Folder, Node, StoredFile
from holdfast.repo.snapshot import Item, StoredSnapshot, SubjectKind


def snapshot_folder(stored: StoredSnapshot) -> Folder:
    """Its inode keys hold the snapshot's ID and the path: the same wherever the folder stands."""
    key = f"snapshot {stored.id}"
    return Folder(key, nanoseconds(stored.snapshot.time), lambda: _children(stored, key), growing=False)


def nanoseconds(time: datetime) -> int:
    """Since 1970; exact, which a float is not."""
    delta = time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000


def _children(stored: StoredSnapshot, key: str) -> dict[str, Node]:
    mtime = nanoseconds(stored.snapshot.time)
    top: dict[str, Node] = {}
    folders: dict[str, dict[str, Node]] = {"": top}

    def folder(path: str) -> dict[str, Node]:
        """The children of the folder at `path`, which is made if it is not there."""
        found = folders.get(path)
        if found is None:
            above, _, name = path.rpartition("/")
            children: dict[str, Node] = {}
            siblings = folder(above)
            # An honest snapshot never has a file and a folder of one name; a hostile one must not hide any.
            name = unique_name(name, path, siblings)
            siblings[name] = Folder(f"{key}/{path}/", mtime, lambda: children, growing=False)
            found = folders[path] = children
        return found

    for item in sorted(stored.snapshot.items, key=lambda item: item.path):
        above, _, name = item.path.rpartition("/")
        siblings = folder(above)
        name = unique_name(name, item.path, siblings)
        siblings[name] = StoredFile(f"{key}/{above}/{name}", item)
    is_vm = stored.snapshot.subject.kind is SubjectKind.VM
    names = ["vm.json", "snapshot.json"] if is_vm else ["snapshot.json"]
    free = next((name for name in names if name not in top), None)
    if free is not None:
        top[free] = Document(f"{key} document", _document(stored), mtime)
    return top


def _document(stored: StoredSnapshot) -> bytes:
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
        "disks" if s.subject.kind is SubjectKind.VM else "items": [_item(item) for item in s.items],
    }
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
    if item.bad:
        document["unreadable"] = [
            {"offset": bad.offset, "length": bad.length, "reason": bad.reason} for bad in item.bad
        ]
    return document
