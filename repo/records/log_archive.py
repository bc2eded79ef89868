"""A log archive: the immutable files of one subject, kept in few snapshots however many files there are.

Each push writes a *log snapshot* that holds a batch of the newest files and the new ones, then deletes
those whose files it took over. What an archive holds is the union of its snapshots, so what a crash or a
second pusher leaves is snapshots that overlap, which the next push merges. Nothing here knows what the
files are.

Why nothing is lost when several push at once: a snapshot is deleted only by somebody whose own snapshot
holds all its files, is committed and will not be withdrawn. Two cannot delete each other's, for each lists
what it takes over before it commits: of two, one was listed first and could not see the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from holdfast.base.errors import Damaged, NeedsUnknown, NotFound, Refused, RepositoryError, Unsupported
from holdfast.base.types import SnapshotID
from holdfast.repo.core.mirrored import delete_mirrored, mirrored_names, trash_mirrored
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import Item, Snapshot, StoredSnapshot, Subject, SubjectKind
from holdfast.repo.store.interface import FileKind, LockMode

BATCH: Final = 256
"""Files from which on a log snapshot is left alone: 90 KB that each push would have to write again."""
_ATTEMPTS: Final = 8
"""Times a snapshot is made anew because what it took over turned out withdrawn."""
_READINGS: Final = 100
"""Times the listing may change while it is read; each change is a push that was done meanwhile."""

_NOBODY: Final = "0" * 64
"""No snapshot has this ID."""
_LOCK_TIMEOUT: Final = 60.0

Identity = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LogArchive:
    """The files of one subject. `snapshots` hold them, oldest first, and may overlap. `conflicts` are names
    under which they hold different files: what two racing pushes leave that died between two steps."""

    subject: Subject
    snapshots: tuple[StoredSnapshot, ...]
    files: Mapping[str, Item]
    conflicts: Mapping[str, tuple[SnapshotID, ...]]

    def get(self, name: str) -> Item | None:
        """The file of that name, None when there is none. Raises Damaged when there are two."""
        if name in self.conflicts:
            where = " and ".join(id_[:8] for id_ in self.conflicts[name])
            raise Damaged(
                f"{self.subject.name}: {name}", f"log snapshots {where} hold different files of this name"
            )
        return self.files.get(name)

    def held_elsewhere(self, ids: Iterable[str]) -> set[str]:
        """Names of files that are still there when the snapshots with these IDs are gone."""
        gone = set(ids)
        return {i.path for s in self.snapshots if s.id not in gone for i in s.snapshot.items}


def is_log(stored: StoredSnapshot) -> bool:
    """Whether it is a part of a log archive: no backup that a user would name."""
    return stored.snapshot.subject.kind is SubjectKind.LOGS


def same(one: Item, other: Item) -> bool:
    """Whether two items have the same content: equal bytes make equal recipes."""
    return one.recipe == other.recipe and one.size == other.size and one.cutter == other.cutter


def archives(snapshots: Iterable[StoredSnapshot]) -> list[LogArchive]:
    """All archives in these snapshots (others are passed over), by name."""
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
    """Reads the snapshots of a repository, each once, again and again. Not thread-safe.

    A push replaces a snapshot by another while somebody reads: what lists neither of the two would miss
    files that are there. So the listing is repeated until it stands still.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[str, StoredSnapshot] = {}
        self.damaged: tuple[RepositoryError, ...] = ()

    def snapshots(self) -> list[StoredSnapshot]:
        """All that can be read, oldest first; `damaged` says what is wrong with the others."""
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
    """The archive of that name, or of that identity (`Subject.uuid`). Raises NotFound or Refused."""
    snapshots = LogReading(repository).snapshots()
    found = archives(snapshots)
    chosen = [a for a in found if a.subject.uuid == name] or [a for a in found if a.subject.name == name]
    if not chosen:  # archived before the first backup gave the cluster its name
        of = {s.snapshot.subject.uuid for s in snapshots if s.snapshot.subject.name == name} - {""}
        chosen = [a for a in found if a.subject.uuid in of]
    if not chosen:
        there = ", ".join(a.subject.name for a in found) or "none yet"
        raise NotFound(f"no log archive {name!r}; there are: {there}")
    if len(chosen) > 1:
        raise Refused(
            f"{name!r} names several log archives; give one of {', '.join(a.subject.uuid for a in chosen)}"
        )
    return chosen[0]


def snapshots_to_merge(archive: LogArchive | None) -> tuple[list[StoredSnapshot], list[Item]]:
    """(snapshots that the next one replaces, their files): those that are no full batch yet.

    Snapshots that hold different files under one name stay as they are, so that none of these is lost.
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
    """Enter files whose content `writer` was given; `snapshot` makes the record that holds them.

    1. list the archive; refuse a name that is taken; 2. commit a snapshot with the open batch and the new
    files; 3. look again: when one of its files is contradicted by another snapshot, it is withdrawn, and all
    is done once more, which ends in a refusal if the name is still taken; 4. only then delete the snapshots
    taken over, directly: all they hold is in ours.

    Of two pushes of one name at most one succeeds: each looks after it committed, so the second to commit
    sees the first. A file that was taken over may have been withdrawn by its own push in between: hence all
    files count in 3, not the new ones alone.
    A crash after 2 leaves snapshots that overlap and a file that was not asked for again: harmless.
    The caller has entered `writer`, whose lock keeps prunes away throughout. Raises Refused.
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
    """A snapshot of files that are there already."""
    with Writer(repository) as writer:
        return writer.commit(record)


def _refuse_taken(archive: LogArchive | None, items: Sequence[Item]) -> None:
    for item in items if archive else ():
        assert archive is not None
        if item.path in archive.conflicts or not same(archive.files.get(item.path, item), item):
            raise refusal(archive, item.path)


def refusal(archive: LogArchive, name: str) -> Refused:
    """That another file of this name is there."""
    holders = archive.conflicts.get(name) or tuple(
        s.id for s in archive.snapshots if any(i.path == name for i in s.snapshot.items)
    )
    return Refused(
        f"{name}: a different file of this name is in the log archive {archive.subject.name} already "
        f"(snapshot {', '.join(id_[:8] for id_ in holders)}); it was kept, this one was not stored. "
        "Do two servers write to one archive?"
    )


def _nothing(snapshots: Sequence[StoredSnapshot]) -> Collection[str]:
    """No file."""
    return ()


def drop(
    repository: Repository,
    identity: Identity,
    doomed: Callable[[str], bool],
    *,
    needed: Callable[[Sequence[StoredSnapshot]], Collection[str]] = _nothing,
    lock_timeout: float = _LOCK_TIMEOUT,
) -> int:
    """Take files out of an archive, by name; returns how many. They can be had back from the trash.

    `needed` is given all snapshots in use and says which files must stay all the same: the plan that doomed
    them may be older than a backup that needs them.

    Snapshots without the doomed files are committed first, then the old ones go to the trash: a crash
    leaves files that were to go, and nothing else. A push that took a snapshot over meanwhile may keep
    some, too: the next run drops them. The trash is filled under the exclusive lock, after another look: a
    backup that is being taken needs log files, and which ones nobody knows before it is committed.

    Raises Refused when a snapshot cannot be read, for it may need any file, or when a backup that came
    meanwhile needs them; Locked when a backup runs past `lock_timeout` seconds. Then nothing was dropped.
    """
    with repository.store.lock(LockMode.SHARED, lock_timeout):
        snapshots = _all_snapshots(repository)
        stay = set(needed(snapshots))
        archive = next((a for a in archives(snapshots) if a.subject.identity == identity), None)
        gone = {name for name in archive.files if doomed(name) and name not in stay} if archive else set()
        old = [s for s in archive.snapshots if _holds(s, gone)] if archive else []
        for stored in old:
            kept = tuple(item for item in stored.snapshot.items if item.path not in gone)
            if kept:  # the time stays: the order of an archive's snapshots is that of its files
                _commit(repository, replace(stored.snapshot, items=kept, parent=stored.id))
    if not old:
        return 0
    with repository.store.lock(LockMode.EXCLUSIVE, lock_timeout):
        if gone & set(needed(_all_snapshots(repository))):
            raise Refused("a backup that was made meanwhile needs the log files; none was dropped")
        for stored in old:
            with suppress(FileNotFoundError):  # a push took it over
                trash_mirrored(repository.store, FileKind.SNAPSHOT, stored.id)
    return len(gone)


def _holds(stored: StoredSnapshot, names: Collection[str]) -> bool:
    return any(item.path in names for item in stored.snapshot.items)


def _all_snapshots(repository: Repository) -> list[StoredSnapshot]:
    """Every snapshot, also those that a killed backup left half committed. Raises Refused when one in use
    cannot be read."""
    reading = LogReading(repository)
    found = reading.snapshots()
    if reading.damaged:
        raise NeedsUnknown(
            f"{reading.damaged[0]}; which log files this snapshot needs is unknown, so none was dropped"
        )
    return [*found, *repository.snapshots(pending=True).good]


def make_listing_durable(repository: Repository) -> None:
    """Make durable what this process saw in the listing of snapshots, whoever wrote it.

    A push that was killed just before its last fsync leaves a snapshot that is visible and may be gone
    after a power cut: whoever finds its file there and says so must bring that fsync about first.
    """
    repository.store.delete(FileKind.SNAPSHOT, _NOBODY)  # a change of that folder, so that `sync` takes it
    repository.store.sync()
