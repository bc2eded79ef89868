"""A log archive: the immutable files of one subject, kept in few snapshots however many files there are.

Each push writes a *log snapshot* that holds the pushed files and those of the last incomplete batch, then
deletes the snapshots whose files it merged. An archive is the union of its snapshots. A crash or a
concurrent push leaves snapshots that overlap, and the next push merges them. This module does not interpret
the files.

Why concurrent pushes lose nothing: a push deletes a snapshot only if its own snapshot holds all those files,
is committed and will not be withdrawn. Two pushes cannot delete each other's snapshots, because each lists
the snapshots it merges before it commits: the one that listed first cannot have seen the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from holdfast.base.errors import (
    Damaged,
    NeedsUnknown,
    NoSuchLogArchive,
    Refused,
    RepositoryError,
    Unsupported,
)
from holdfast.base.types import SnapshotID
from holdfast.repo.core.mirrored import delete_mirrored, mirrored_names, trash_mirrored
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.records.forgotten import record_forgotten
from holdfast.repo.snapshots.snapshot import Item, Snapshot, StoredSnapshot, Subject, SubjectKind
from holdfast.repo.store.interface import FileKind, LockMode

BATCH: Final = 256
"""A log snapshot with this many files is not merged again: each push would rewrite its 90 KB."""
_ATTEMPTS: Final = 8
"""Attempts to merge when a concurrent push withdrew a snapshot that was merged from."""
_READINGS: Final = 100
"""Attempts to read the listing; each concurrent push that changes it costs one."""

_NOBODY: Final = "0" * 64
"""No snapshot has this ID."""
_LOCK_TIMEOUT: Final = 60.0

Identity = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LogArchive:
    """The log files of one subject.

    `snapshots` hold them, oldest first, and may overlap. `conflicts` maps a name under which snapshots hold
    different files to those snapshots: two concurrent pushes that both crashed leave such names.
    """

    subject: Subject
    snapshots: tuple[StoredSnapshot, ...]
    files: Mapping[str, Item]
    conflicts: Mapping[str, tuple[SnapshotID, ...]]

    def get(self, name: str) -> Item | None:
        """The file of that name; None when there is none. Raises Damaged when snapshots hold two."""
        if name in self.conflicts:
            where = " and ".join(id_[:8] for id_ in self.conflicts[name])
            raise Damaged(
                f"{self.subject.name}: {name}", f"log snapshots {where} hold different files of this name"
            )
        return self.files.get(name)

    def held_elsewhere(self, ids: Iterable[str]) -> set[str]:
        """Names of the files that snapshots other than these hold."""
        gone = set(ids)
        return {i.path for s in self.snapshots if s.id not in gone for i in s.snapshot.items}


def is_log(stored: StoredSnapshot) -> bool:
    """Whether the snapshot is part of a log archive. Users do not select such snapshots by name."""
    return stored.snapshot.subject.kind is SubjectKind.LOGS


def same(one: Item, other: Item) -> bool:
    """Whether two items have the same content: equal bytes make equal recipes."""
    return one.recipe == other.recipe and one.size == other.size and one.chunker == other.chunker


def archives(snapshots: Iterable[StoredSnapshot]) -> list[LogArchive]:
    """The log archives among these snapshots, sorted by name; other snapshots are ignored."""
    groups: dict[Identity, list[StoredSnapshot]] = {}
    for stored in snapshots:
        if is_log(stored):
            groups.setdefault(stored.snapshot.subject.identity, []).append(stored)
    found = [_archive(group) for group in groups.values()]
    return sorted(found, key=lambda archive: (archive.subject.name, archive.subject.identity))


def _archive(group: Sequence[StoredSnapshot]) -> LogArchive:
    files: dict[str, Item] = {}
    holders: dict[str, list[SnapshotID]] = {}
    torn: set[str] = set()
    for stored in group:
        for item in stored.snapshot.items:
            if not same(files.setdefault(item.path, item), item):
                torn.add(item.path)
            holders.setdefault(item.path, []).append(stored.id)
    conflicts = {name: tuple(holders[name]) for name in sorted(torn)}
    return LogArchive(group[-1].snapshot.subject, tuple(group), files, conflicts)


class LogReading:
    """Reads all snapshots of a repository repeatedly, each file only once. Not thread-safe.

    A concurrent push replaces a snapshot by another. A listing that shows neither of the two would miss
    files, so the listing is repeated until it does not change.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[str, StoredSnapshot] = {}
        self.damaged: tuple[RepositoryError, ...] = ()

    def snapshots(self) -> list[StoredSnapshot]:
        """All readable snapshots, oldest first; `damaged` then has the errors of the others."""
        names = self._names()
        for _ in range(_READINGS):
            damaged = self._read(names)
            again = self._names()
            if again == names:
                break
            names = again
        self.damaged = tuple(damaged)
        self._known = {name: stored for name, stored in self._known.items() if name in names}
        return sorted(self._known.values(), key=lambda stored: (stored.snapshot.time, stored.id))

    def _names(self) -> set[str]:
        return set(mirrored_names(self._repository.store, FileKind.SNAPSHOT))

    def _read(self, names: Iterable[str]) -> list[RepositoryError]:
        damaged: list[RepositoryError] = []
        for name in names:
            if name not in self._known:
                try:
                    self._known[name] = self._repository.read_snapshot(FileKind.SNAPSHOT, name)
                except FileNotFoundError:
                    continue
                except (Damaged, Unsupported) as error:
                    damaged.append(error)
        return damaged

    def archive(self, identity: Identity) -> LogArchive | None:
        """The archive of a subject; None when there is none yet."""
        found = [s for s in self.snapshots() if is_log(s) and s.snapshot.subject.identity == identity]
        return _archive(found) if found else None


def open_archive(repository: Repository, name: str) -> LogArchive:
    """The archive whose subject has this name or UUID. Raises NoSuchLogArchive, or Refused for several."""
    snapshots = LogReading(repository).snapshots()
    found = archives(snapshots)
    chosen = [a for a in found if a.subject.uuid == name] or [a for a in found if a.subject.name == name]
    if not chosen:  # logs that were archived before the first backup are named by the cluster's UUID only
        of = {s.snapshot.subject.uuid for s in snapshots if s.snapshot.subject.name == name} - {""}
        chosen = [a for a in found if a.subject.uuid in of]
    if not chosen:
        there = ", ".join(a.subject.name for a in found) or "none yet"
        raise NoSuchLogArchive(f"no log archive {name!r}; there are: {there}")
    if len(chosen) > 1:
        raise Refused(
            f"{name!r} names several log archives; give one of {', '.join(a.subject.uuid for a in chosen)}"
        )
    return chosen[0]


def snapshots_to_merge(archive: LogArchive | None) -> tuple[list[StoredSnapshot], list[Item]]:
    """(snapshots that the next one replaces, their files): all that hold less than a full batch.

    Snapshots with conflicts are not merged, so that none of their files is lost.
    """
    if archive is None:
        return [], []
    torn = {id_ for ids in archive.conflicts.values() for id_ in ids}
    replaced = [s for s in archive.snapshots if len(s.snapshot.items) < BATCH and s.id not in torn]
    carried = {item.path: item for stored in replaced for item in stored.snapshot.items}
    return replaced, list(carried.values())


def add(
    repository: Repository,
    writer: Writer,
    reading: LogReading,
    items: Sequence[Item],
    snapshot: Callable[[tuple[Item, ...]], Snapshot],
) -> StoredSnapshot:
    """Add files whose content `writer` has stored; `snapshot(items)` makes the record that holds them.

    1. List the archive; refuse a name that is taken by a different file. 2. Commit a snapshot with the
    incomplete batch and the new files. 3. List again: if another snapshot holds a different file under one
    of its names, withdraw the snapshot and start again, which refuses if the name is still taken. 4. Only
    then delete the merged snapshots, without the trash: the new snapshot holds all their files.

    Of two pushes of one name at most one succeeds: each lists after it committed, so the second to commit
    sees the first. Step 3 compares all files and not only the new ones, because a concurrent push may
    have withdrawn a snapshot that was merged. A crash after step 2 leaves snapshots that overlap, which is
    harmless. The caller has entered `writer`, whose shared lock keeps prunes out. Raises Refused.
    """
    identity = snapshot(()).subject.identity
    for attempt in range(_ATTEMPTS):
        before = reading.archive(identity)
        _refuse_taken(before, items)
        replaced, carried = snapshots_to_merge(before)
        new = {item.path for item in items}
        record = snapshot((*(item for item in carried if item.path not in new), *items))
        stored = writer.commit(record) if attempt == 0 else _commit(repository, record)
        after = reading.archive(identity)
        if after is None or not any(stored.id in ids for ids in after.conflicts.values()):
            for old in replaced:
                delete_mirrored(repository.store, FileKind.SNAPSHOT, old.id)
            return stored
        delete_mirrored(repository.store, FileKind.SNAPSHOT, stored.id)
    raise Refused("the log archive changed again and again; nothing was stored; run it again")


def _commit(repository: Repository, record: Snapshot) -> StoredSnapshot:
    """Commit a snapshot of files that are stored already."""
    with Writer(repository) as writer:
        return writer.commit(record)


def _refuse_taken(archive: LogArchive | None, items: Sequence[Item]) -> None:
    for item in items if archive else ():
        assert archive is not None
        if item.path in archive.conflicts or not same(archive.files.get(item.path, item), item):
            raise refusal(archive, item.path)


def refusal(archive: LogArchive, name: str) -> Refused:
    """The error for a name under which the archive holds a different file."""
    holders = archive.conflicts.get(name) or tuple(
        s.id for s in archive.snapshots if any(i.path == name for i in s.snapshot.items)
    )
    return Refused(
        f"{name}: a different file of this name is in the log archive {archive.subject.name} already "
        f"(snapshot {', '.join(id_[:8] for id_ in holders)}); it was kept, this one was not stored. "
        "Do two servers write to one archive?"
    )


def _nothing(snapshots: Sequence[StoredSnapshot]) -> Collection[str]:
    """The default of `drop`: no file is needed."""
    return ()


def drop(
    repository: Repository,
    identity: Identity,
    doomed: Callable[[str], bool],
    *,
    needed: Callable[[Sequence[StoredSnapshot]], Collection[str]] = _nothing,
    lock_timeout: float = _LOCK_TIMEOUT,
) -> int:
    """Remove files from an archive, by name; returns how many. `undelete` restores them from the trash.

    `needed(snapshots)` gets all snapshots in use and returns the names of files that must stay: a backup may
    need files and be newer than the plan behind `doomed`.

    Snapshots without the doomed files are committed first, then the old ones are moved to the trash, so a
    crash only leaves files that were to be removed. A concurrent push that merges a snapshot may keep some
    files; the next run removes them. The move takes the exclusive lock and calls `needed` again, because it
    is unknown which log files a running backup needs until it is committed.

    Raises Refused when a snapshot cannot be read (it might need any file) or when a new backup needs one of
    the files; Locked when a backup runs longer than `lock_timeout` seconds. Then no file is removed.
    """
    with repository.store.lock(LockMode.SHARED, lock_timeout):
        snapshots = _all_snapshots(repository)
        stay = set(needed(snapshots))
        archive = next((a for a in archives(snapshots) if a.subject.identity == identity), None)
        gone = {name for name in archive.files if doomed(name) and name not in stay} if archive else set()
        old = [s for s in archive.snapshots if _holds(s, gone)] if archive else []
        for stored in old:
            kept = tuple(item for item in stored.snapshot.items if item.path not in gone)
            if kept:  # with its old time, because an archive's snapshots are in the order of its files
                _commit(repository, replace(stored.snapshot, items=kept, parent=stored.id))
    if not old:
        return 0
    with repository.store.lock(LockMode.EXCLUSIVE, lock_timeout):
        if gone & set(needed(_all_snapshots(repository))):
            raise Refused("a backup that was made meanwhile needs the log files; none was dropped")
        record_forgotten(repository, [stored.id for stored in old], time.time())
        for stored in old:
            with suppress(FileNotFoundError):  # a push merged and deleted it
                trash_mirrored(repository.store, FileKind.SNAPSHOT, stored.id)
    return len(gone)


def _holds(stored: StoredSnapshot, names: Collection[str]) -> bool:
    return any(item.path in names for item in stored.snapshot.items)


def _all_snapshots(repository: Repository) -> list[StoredSnapshot]:
    """Every snapshot, pending ones included. Raises Refused when a committed one cannot be read."""
    reading = LogReading(repository)
    found = reading.snapshots()
    if reading.damaged:
        raise NeedsUnknown(
            f"{reading.damaged[0]}; which log files this snapshot needs is unknown, so none was dropped"
        )
    return [*found, *repository.snapshots(pending=True).good]


def make_listing_durable(repository: Repository) -> None:
    """Make the names of all listed snapshots durable, also those that another process wrote.

    A push that was killed just before its last fsync leaves a snapshot that is visible and that a power cut
    may remove. A caller that reports one of its files as archived must call this first.
    """
    repository.store.delete(FileKind.SNAPSHOT, _NOBODY)  # marks the directory as changed for `sync`
    repository.store.sync()
