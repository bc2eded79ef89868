"""The tree of a whole repository: snapshots in, directories out. No I/O.

vms/NAME/TIME/...             latest -> TIME
databases/ENGINE/NAME/TIME/...
                     logs/FILE      of the database's log archive
files/NAME/TIME/...
snapshots/ID8 -> the TIME directory
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.base.types import SnapshotID
from holdfast.formats.dumps.logs.required_logs import is_archive_of
from holdfast.repo.records.log_archive import LogArchive, archives, is_log
from holdfast.repo.snapshots.snapshot import StoredSnapshot, Subject, SubjectKind
from holdfast.tree.names import safe_name, short_ids, time_name, unique_name
from holdfast.tree.nodes import DirectoryNode, ItemNode, LinkNode, Node
from holdfast.tree.snapshot import SnapshotNode, nanoseconds

_KINDS = {SubjectKind.VM: "vms", SubjectKind.DATABASE: "databases", SubjectKind.FILES: "files"}
_OTHER_ENGINE = "other"
_LATEST = "latest"
_LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Tree:
    """The root, and the directory of each snapshot (which outlives a rebuild)."""

    root: DirectoryNode
    snapshots: Mapping[SnapshotID, SnapshotNode]


def build_tree(snapshots: Iterable[StoredSnapshot], before: Tree | None = None, *, born: int = 0) -> Tree:
    """The tree of these snapshots. Directories of snapshots that `before` has are taken from it.

    `born` (ns since 1970) is the time of directories that are empty.
    """
    every = sorted(snapshots, key=lambda stored: (stored.snapshot.time, stored.id))
    ordered = [stored for stored in every if not is_log(stored)]
    known = before.snapshots if before else {}
    folders = {stored.id: known.get(stored.id) or SnapshotNode(stored) for stored in ordered}
    kinds: dict[SubjectKind, list[StoredSnapshot]] = {kind: [] for kind in _KINDS}
    for stored in ordered:
        kinds[stored.snapshot.subject.kind].append(stored)
    top: dict[str, Node] = {}
    paths: dict[SnapshotID, str] = {}
    for kind, members in kinds.items():
        name = _KINDS[kind]
        if kind is SubjectKind.DATABASE:
            top[name] = _engines(name, members, archives(every), folders, paths, born=born)
        else:
            top[name] = _subjects(name, members, folders, paths, born=born)
    links: dict[str, Node] = {
        short: _link(f"snapshots/{short}", f"link {stored.id}", f"../{paths[stored.id]}", stored)
        for short, stored in zip(short_ids([s.id for s in ordered]), ordered, strict=True)
    }
    top["snapshots"] = _growing("snapshots", links, born)
    return Tree(_growing("", top, born), folders)


def _engines(
    path: str,
    members: list[StoredSnapshot],
    logs: Iterable[LogArchive],
    folders: Mapping[SnapshotID, SnapshotNode],
    paths: dict[SnapshotID, str],
    *,
    born: int,
) -> DirectoryNode:
    engines: dict[str, list[StoredSnapshot]] = {}
    kept: dict[str, list[LogArchive]] = {}
    for archive in logs:
        kept.setdefault(archive.subject.engine or _OTHER_ENGINE, []).append(archive)
        engines.setdefault(archive.subject.engine or _OTHER_ENGINE, [])
    for stored in members:
        engines.setdefault(stored.snapshot.subject.engine or _OTHER_ENGINE, []).append(stored)
    children: dict[str, Node] = {}
    for engine in sorted(engines, key=lambda engine: (safe_name(engine) != engine, engine)):
        name = unique_name(safe_name(engine), engine, children)
        children[name] = _subjects(
            f"{path}/{name}", engines[engine], folders, paths, logs=kept.get(engine, ()), born=born
        )
    return _growing(path, children, born)


def _subjects(
    path: str,
    members: list[StoredSnapshot],
    folders: Mapping[SnapshotID, SnapshotNode],
    paths: dict[SnapshotID, str],
    *,
    logs: Iterable[LogArchive] = (),
    born: int,
) -> DirectoryNode:
    """One directory a subject, by its newest name. Of two subjects of one name the older has it plain,
    so that a path does not change because another subject appears. A log archive stands in the directory of
    the database that it is of, in one of its own name when there is none."""
    subjects: dict[tuple[str, str], list[StoredSnapshot]] = {}
    for stored in members:
        subjects.setdefault(stored.snapshot.subject.identity, []).append(stored)

    def precedence(group: list[StoredSnapshot]) -> tuple[bool, object, str]:
        raw = _newest(group).name
        return safe_name(raw) != raw, group[0].snapshot.time, group[0].id

    children: dict[str, Node] = {}
    unplaced = list(logs)
    for group in sorted(subjects.values(), key=precedence):
        subject = _newest(group)
        name = unique_name(safe_name(subject.name), "/".join(subject.identity), children)
        archive = next((archive for archive in unplaced if is_archive_of(archive.subject, subject)), None)
        if archive is not None:
            unplaced.remove(archive)
        children[name] = _times(f"{path}/{name}", group, folders, paths, archive)
    for archive in unplaced:
        name = unique_name(safe_name(archive.subject.name), "/".join(archive.subject.identity), children)
        children[name] = _growing(f"{path}/{name}", {_LOGS: _log_folder(f"{path}/{name}", archive)})
    return _growing(path, children, born)


def _log_folder(path: str, archive: LogArchive) -> DirectoryNode:
    children: dict[str, Node] = {}
    whole = (pair for pair in sorted(archive.files.items()) if pair[0] not in archive.conflicts)
    for name, item in whole:
        # The key holds what is in it: another file of this name is another file.
        shown = unique_name(safe_name(name), name, children)
        children[shown] = ItemNode(f"{path}/{_LOGS}/{shown}", f"log {item.recipe.hex()} {name}", item)
    return _growing(f"{path}/{_LOGS}", children)


def _newest(group: list[StoredSnapshot]) -> Subject:
    return group[-1].snapshot.subject


def _times(
    path: str,
    group: list[StoredSnapshot],
    folders: Mapping[SnapshotID, SnapshotNode],
    paths: dict[SnapshotID, str],
    archive: LogArchive | None = None,
) -> DirectoryNode:
    children: dict[str, Node] = {}
    if archive is not None:
        children[_LOGS] = _log_folder(path, archive)
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
    children[_LATEST] = _link(f"{path}/{_LATEST}", f"latest {path}", target, newest)
    return _growing(path, children)


def _link(path: str, key: str, target: str, to: StoredSnapshot) -> LinkNode:
    return LinkNode(path, key, target, nanoseconds(to.snapshot.time))


def _growing(path: str, children: dict[str, Node], born: int = 0) -> DirectoryNode:
    mtime = max((child.mtime for child in children.values()), default=born)
    return DirectoryNode(path, f"folder {path}", mtime, lambda: children, growing=True)
