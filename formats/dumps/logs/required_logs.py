"""Which log files which backups need: so that neither goes while the other is kept. Pure.

A physical backup of PostgreSQL is tied to the archive of its system identifier, a dump of MySQL or MariaDB
with a binary log position to the archive of its name. Logs are needed from the oldest kept backup on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from holdfast.formats.dumps.mysql import binlog
from holdfast.formats.dumps.postgresql import wal
from holdfast.repo.records.log_archive import LogArchive, archives, is_log
from holdfast.repo.snapshots.snapshot import Item, Snapshot, StoredSnapshot, SubjectKind

_DEFAULT_SEGMENT = 16 << 20
POSTGRESQL = "postgresql"
_MYSQL = ("mysql", "mariadb")


@dataclass(frozen=True, slots=True)
class LogPlan:
    """What becomes of an archive when snapshots are forgotten. `drop` are files that no kept backup needs and
    that a forgotten one did; `orphaned`: no whole backup that could use the archive would be left."""

    archive: LogArchive
    drop: tuple[str, ...]
    orphaned: bool


def wal_identity(system_id: str) -> str:
    """`Subject.uuid` of the WAL archive of a cluster."""
    return f"{POSTGRESQL}-{system_id}"


def needs(archive: LogArchive, snapshot: Snapshot) -> bool:
    """Whether this is a backup that is rolled forward with the files of this archive."""
    if snapshot.subject.kind is SubjectKind.LOGS:
        return False
    if archive.subject.engine == POSTGRESQL:
        system = snapshot.facts.get("system_id", "")
        return snapshot.facts.get("physical") == "yes" and archive.subject.uuid == wal_identity(system)
    return (
        snapshot.subject.engine in _MYSQL
        and "binlog" in snapshot.facts
        and snapshot.subject.name == archive.subject.name
    )


def usable(snapshots: Sequence[StoredSnapshot]) -> list[StoredSnapshot]:
    """Those that are whole; the others only where there is no other."""
    return [s for s in snapshots if not s.snapshot.partial] or list(snapshots)


def segment_size(archive: LogArchive) -> int:
    """Of the archive's newest segments, in bytes; that of initdb's default when it has none."""
    segments = [name for name, item in archive.files.items() if _is_segment(item)]
    return archive.files[max(segments)].size if segments else _DEFAULT_SEGMENT


def _is_segment(item: Item) -> bool:
    name = wal.parse_name(item.path)
    whole = (wal.WalKind.SEGMENT, wal.WalKind.PARTIAL)
    return name is not None and name.kind in whole and wal.is_segment_size(item.size)


def plan_logs(
    snapshots: Sequence[StoredSnapshot], trashed: Sequence[StoredSnapshot], doomed: Collection[str]
) -> list[LogPlan]:
    """What forgetting the snapshots with these IDs means for each archive that they used.

    Backups in the trash count as forgotten: a forget that was killed half-way is completed by the next.
    Archives that no forgotten backup used stay as they are: perhaps backups elsewhere need them.
    """
    plans = []
    for archive in archives(s for s in snapshots if s.id not in doomed):
        users = [s for s in snapshots if needs(archive, s.snapshot)]
        leaving = [s for s in users if s.id in doomed]
        kept = [s for s in users if s.id not in doomed]
        orphaned = bool(users) and all(s.id in doomed for s in usable(users))
        if not kept:
            if orphaned:
                plans.append(LogPlan(archive, tuple(sorted(archive.files)), orphaned=True))
            continue
        gone = leaving + [s for s in trashed if needs(archive, s.snapshot)]
        # Other servers' dumps may be tied to it under another name: they keep, but are no reason to drop.
        kept += [s for s in snapshots if s.id not in doomed and s not in kept and _may_need(archive, s)]
        drop = unneeded(archive, [s.snapshot for s in kept])
        if orphaned or (gone and set(drop) - set(unneeded(archive, [s.snapshot for s in gone]))):
            plans.append(LogPlan(archive, drop, orphaned))
    return plans


def still_needed(identity: tuple[str, str], snapshots: Sequence[StoredSnapshot]) -> set[str]:
    """Names of the files of that archive that any of these backups needs."""
    for archive in archives(snapshots):
        if archive.subject.identity == identity:
            kept = [s.snapshot for s in snapshots if needs(archive, s.snapshot) or _may_need(archive, s)]
            if any(needs(archive, snapshot) for snapshot in kept):
                return set(archive.files) - set(unneeded(archive, kept))
    return set()


def _may_need(archive: LogArchive, stored: StoredSnapshot) -> bool:
    s = stored.snapshot
    return archive.subject.engine in _MYSQL and s.subject.engine in _MYSQL and "binlog" in s.facts


def unneeded(archive: LogArchive, kept: Sequence[Snapshot]) -> tuple[str, ...]:
    """Names of files from before the oldest of these backups; none when it is unknown where one begins."""
    if archive.subject.engine == POSTGRESQL:
        starts = [wal.parse_lsn(s.facts.get("lsn", "")) for s in kept]
        start = min((0 if lsn is None else lsn for lsn in starts), default=0)
        usual = segment_size(archive)
        sizes = {name: item.size if _is_segment(item) else usual for name, item in archive.files.items()}
        return tuple(sorted(n for n, size in sizes.items() if wal.is_before(n, start, size)))
    positions = [binlog.parse_position(s.facts["binlog"]) for s in kept]
    if None in positions:
        return ()
    oldest: dict[str, binlog.BinlogName] = {}
    for name, _ in (position for position in positions if position):
        oldest[name.base] = min(name, oldest.get(name.base, name))
    return tuple(
        sorted(n for n in archive.files if any(binlog.is_before(n, name) for name in oldest.values()))
    )


@dataclass(frozen=True, slots=True)
class Need:
    """Files that kept backups need, and that would go: `backups` are some of those."""

    archive: LogArchive
    names: tuple[str, ...]
    backups: tuple[StoredSnapshot, ...]


def needed_of(snapshots: Sequence[StoredSnapshot], doomed: Collection[str]) -> list[Need]:
    """Why log snapshots among the doomed may not go: files that are held nowhere else and that backups need
    which are kept."""
    found = []
    for archive in archives(snapshots):
        leaving = {s.id for s in archive.snapshots if s.id in doomed}
        users = [s for s in snapshots if s.id not in doomed and needs(archive, s.snapshot)]
        if not leaving or not users:
            continue
        lost = set(archive.files) - archive.held_elsewhere(leaving)
        lost -= set(unneeded(archive, [s.snapshot for s in users]))
        if lost:
            found.append(Need(archive, tuple(sorted(lost)), tuple(users)))
    return found


def holders(
    names: Collection[str], trashed: Sequence[StoredSnapshot], archive: LogArchive
) -> list[StoredSnapshot]:
    """Log snapshots in the trash that hold any of these files of an archive."""
    return [
        s
        for s in trashed
        if is_log(s)
        and s.snapshot.subject.identity == archive.subject.identity
        and any(item.path in names for item in s.snapshot.items)
    ]


def findings(archive: LogArchive, histories: wal.Histories, snapshots: Sequence[StoredSnapshot]) -> list[str]:
    """What is wrong with an archive, and with those of these backups that need it, one sentence each."""
    users = [s for s in snapshots if needs(archive, s.snapshot)]
    if archive.subject.engine == POSTGRESQL:
        found = [
            base for s in users if (base := wal.base_of(s.snapshot.facts, f"the physical backup {s.id[:8]}"))
        ]
        sentences = wal.archive_findings(archive.files, segment_size(archive), histories, found)
    else:
        positions = [(f"the dump {s.id[:8]}", s.snapshot.facts["binlog"]) for s in users]
        sentences = binlog.archive_findings(archive.files, positions)
    conflicts = [f"there are different files called {name}" for name in archive.conflicts]
    return [f"{archive.subject.name}: {sentence}" for sentence in conflicts + sentences]
