"""The mount tree: snapshots in, folders out. No I/O.

vms/NAME/TIME/...             latest -> TIME
databases/ENGINE/NAME/TIME/...
files/NAME/TIME/...
snapshots/ID8 -> the TIME folder
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.fusefs.names import safe_name, short_ids, time_name, unique_name
from holdfast.fusefs.nodes import Folder, Link, Node
from holdfast.fusefs.snapshot_folder import nanoseconds, snapshot_folder
from holdfast.repo.snapshot import StoredSnapshot, Subject, SubjectKind
from holdfast.repo.types import SnapshotID

_KINDS = {SubjectKind.VM: "vms", SubjectKind.DATABASE: "databases", SubjectKind.FILES: "files"}
_OTHER_ENGINE = "other"
_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Tree:
    """The root, and the folder of each snapshot (which outlives a rebuild)."""

    root: Folder
    snapshots: Mapping[SnapshotID, Folder]


def build_tree(snapshots: Iterable[StoredSnapshot], before: Tree | None = None, *, born: int = 0) -> Tree:
    """The tree of these snapshots. Folders of snapshots that `before` has are taken from it.

    `born` (ns) is the time of folders that are empty.
    """
    ordered = sorted(snapshots, key=lambda stored: (stored.snapshot.time, stored.id))
    known = before.snapshots if before else {}
    folders = {stored.id: known.get(stored.id) or snapshot_folder(stored) for stored in ordered}
    kinds: dict[SubjectKind, list[StoredSnapshot]] = {kind: [] for kind in SubjectKind}
    for stored in ordered:
        kinds[stored.snapshot.subject.kind].append(stored)
    top: dict[str, Node] = {}
    paths: dict[SnapshotID, str] = {}
    for kind, members in kinds.items():
        name = _KINDS[kind]
        if kind is SubjectKind.DATABASE:
            top[name] = _engines(name, members, folders, paths, born=born)
        else:
            top[name] = _subjects(name, members, folders, paths, born=born)
    links: dict[str, Node] = {
        short: Link(f"link {stored.id}", f"../{paths[stored.id]}", nanoseconds(stored.snapshot.time))
        for short, stored in zip(short_ids([s.id for s in ordered]), ordered, strict=True)
    }
    top["snapshots"] = _growing("snapshots", links, born)
    return Tree(_growing("", top, born), folders)


def _engines(
    path: str,
    members: list[StoredSnapshot],
    folders: Mapping[SnapshotID, Folder],
    paths: dict[SnapshotID, str],
    *,
    born: int,
) -> Folder:
    engines: dict[str, list[StoredSnapshot]] = {}
    for stored in members:
        engines.setdefault(stored.snapshot.subject.engine or _OTHER_ENGINE, []).append(stored)
    children: dict[str, Node] = {}
    for engine in sorted(engines, key=lambda engine: (safe_name(engine) != engine, engine)):
        name = unique_name(safe_name(engine), engine, children)
        children[name] = _subjects(f"{path}/{name}", engines[engine], folders, paths, born=born)
    return _growing(path, children, born)


def _subjects(
    path: str,
    members: list[StoredSnapshot],
    folders: Mapping[SnapshotID, Folder],
    paths: dict[SnapshotID, str],
    *,
    born: int,
) -> Folder:
    """One folder a subject, by its newest name. Of two subjects of one name the older has it plain,
    so that a path does not change because another subject appears."""
    subjects: dict[tuple[str, str], list[StoredSnapshot]] = {}
    for stored in members:
        subjects.setdefault(stored.snapshot.subject.identity, []).append(stored)

    def precedence(group: list[StoredSnapshot]) -> tuple[bool, object, str]:
        raw = _newest(group).name
        return safe_name(raw) != raw, group[0].snapshot.time, group[0].id

    children: dict[str, Node] = {}
    for group in sorted(subjects.values(), key=precedence):
        subject = _newest(group)
        name = unique_name(safe_name(subject.name), "/".join(subject.identity), children)
        children[name] = _times(f"{path}/{name}", group, folders, paths)
    return _growing(path, children, born)


def _newest(group: list[StoredSnapshot]) -> Subject:
    return group[-1].snapshot.subject


def _times(
    path: str,
    group: list[StoredSnapshot],
    folders: Mapping[SnapshotID, Folder],
    paths: dict[SnapshotID, str],
) -> Folder:
    children: dict[str, Node] = {}
    for stored in group:
        name = time_name(stored.snapshot.time)
        length = 8
        while name in children:  # another backup of the same second
            name = f"{time_name(stored.snapshot.time)}_{stored.id[:length]}"
            length += 1
        children[name] = folders[stored.id]
        paths[stored.id] = f"{path}/{name}"
    newest = group[-1]
    target = paths[newest.id].rpartition("/")[2]
    children[_LATEST] = Link(f"latest {path}", target, nanoseconds(newest.snapshot.time))
    return _growing(path, children)


def _growing(path: str, children: dict[str, Node], born: int = 0) -> Folder:
    mtime = max((child.mtime for child in children.values()), default=born)
    return Folder(f"folder {path}", mtime, lambda: children, growing=True)
