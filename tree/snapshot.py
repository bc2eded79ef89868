"""The folder of one snapshot: its items, sub-folders by their paths, and a document about it. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from holdfast.base.errors import RepositoryError
from holdfast.formats.disks.export_formats import MOUNTED, view_size
from holdfast.formats.dumps import virtual_files as stored_files
from holdfast.formats.guests.values.naming import FILES, disk_name
from holdfast.repo.core.reader import Reader
from holdfast.repo.snapshots.snapshot import Item, StoredSnapshot, SubjectKind
from holdfast.tree.names import unique_name
from holdfast.tree.nodes import DiskFiles, Document, Folder, Link, MadeFile, Node, StoredFile, ViewFile


def snapshot_folder(stored: StoredSnapshot) -> Folder:
    """Its inode keys hold the snapshot's ID and the path: the same wherever the folder stands."""
    key = f"snapshot {stored.id}"
    made = stored_files.Made()

    def load(reader: Reader) -> Iterable[RepositoryError]:
        nonlocal made
        made = stored_files.made_files(reader, stored.snapshot)
        return made.faults.values()

    return Folder(
        key,
        nanoseconds(stored.snapshot.time),
        lambda: _children(stored, key, made),
        growing=False,
        load=load if stored_files.has_made_files(stored.snapshot) else None,
    )


def nanoseconds(time: datetime) -> int:
    """Since 1970; exact, which a float is not."""
    delta = time.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000


def _children(stored: StoredSnapshot, key: str, made: stored_files.Made) -> dict[str, Node]:
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
        if item.path not in made.files and item.path not in made.withheld:
            siblings[name] = StoredFile(f"{key}/{above}/{name}", item)
    for path, file in sorted(made.files.items()):
        above, _, name = path.rpartition("/")
        siblings = folder(above)  # what ends in a slash is a folder that may be empty
        if name:
            name = unique_name(name, path, siblings)
            siblings[name] = _made_node(f"{key}/{above}/{name}", file, mtime)
    _add_views(stored, folders)
    _add_insides(stored, key, top)
    is_vm = stored.snapshot.subject.kind is SubjectKind.VM
    names = ["vm.json", "snapshot.json"] if is_vm else ["snapshot.json"]
    free = next((name for name in names if name not in top), None)
    if free is not None:
        top[free] = Document(f"{key} document", _document(stored), mtime)
    return top


def _made_node(key: str, file: stored_files.MadeFile, mtime: int) -> Node:
    if file.composed.target:
        return Link(key, file.composed.target, mtime)
    return MadeFile(key, file.item, file.composed)


def _add_views(stored: StoredSnapshot, folders: dict[str, dict[str, Node]]) -> None:
    """Beside each disk the same as images of other formats, where the names are free.

    Their keys have an empty name in them, which no item's path has.
    """
    for children in folders.values():
        for node in [node for node in children.values() if isinstance(node, StoredFile)]:
            if not disk_name(node.item):
                continue
            for format_ in MOUNTED:
                name = f"{disk_name(node.item)}.{format_}"
                size = view_size(node.item.size, format_)
                if size is not None and name not in children:
                    children[name] = ViewFile(f"{node.key}//{format_}", node.item, format_, size)


def _add_insides(stored: StoredSnapshot, key: str, top: dict[str, Node]) -> None:
    """`files/DISK` for each disk, unless the snapshot has something else of that name."""
    disks = [item for item in stored.snapshot.items if disk_name(item)]
    if not disks or FILES in top:
        return
    children: dict[str, Node] = {}
    for item in disks:
        name = unique_name(disk_name(item), item.path, children)
        children[name] = DiskFiles(f"{key}/{FILES}/{name}", stored.id, item)
    mtime = nanoseconds(stored.snapshot.time)
    top[FILES] = Folder(f"{key}/{FILES}/", mtime, lambda: children, growing=False)


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
            {"offset": bad.offset, "length": bad.length, "reason": bad.reason} for bad in item.bad
        ]
    return document
