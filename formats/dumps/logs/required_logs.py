"""Which log files which backups need: neither is removed while the other is kept.

Which archive a backup belongs to, and from where on it needs the logs, is for the engine to say
(`core.log_rules`). Logs are needed from the oldest kept backup on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from holdfast.formats.dumps.core.log_rules import LogRules, ReadItem
from holdfast.formats.dumps.engines import ENGINES
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.log_archive import LogArchive, archives, is_log
from holdfast.repo.snapshots.snapshot import Item, Snapshot, StoredSnapshot, Subject, SubjectKind


@dataclass(frozen=True, slots=True)
class LogPlan:
    """What becomes of an archive when snapshots are forgotten. `drop` are files that no kept backup needs and
    that a forgotten one did; `orphaned`: no whole backup that could use the archive would be left."""

    archive: LogArchive
    drop: tuple[str, ...]
    orphaned: bool


def log_rules(archive: Subject) -> LogRules | None:
    """The rules of the archive's engine; None for one that this program does not know."""
    engine = ENGINES.engine(archive.engine)
    return engine.logs if engine else None


def is_archive_of(archive: Subject, database: Subject) -> bool:
    """Whether the archive holds the logs of this database's server, as far as subjects tell."""
    rules = log_rules(archive)
    return rules is not None and rules.is_archive_of(archive, database)


def needs(archive: LogArchive, snapshot: Snapshot) -> bool:
    """Whether this is a backup that is rolled forward with the files of this archive."""
    rules = log_rules(archive.subject)
    is_backup = snapshot.subject.kind is not SubjectKind.LOGS
    return rules is not None and is_backup and rules.uses(archive, snapshot)


def _may_need(archive: LogArchive, stored: StoredSnapshot) -> bool:
    rules = log_rules(archive.subject)
    return rules is not None and rules.may_use(stored.snapshot)


def unneeded(archive: LogArchive, kept: Sequence[Snapshot]) -> tuple[str, ...]:
    """Names of files from before the oldest of these backups; none when its place in the log is unknown."""
    rules = log_rules(archive.subject)
    return rules.unneeded(archive, kept) if rules else ()


def contents(archive: LogArchive) -> list[str]:
    """What an archive holds, one text for each range without gaps."""
    rules = log_rules(archive.subject)
    return rules.contents(archive) if rules else []


def item_reader(repository: Repository) -> ReadItem:
    """Reads small stored files whole. What it gives raises Damaged."""

    def read(item: Item) -> bytes:
        reader = Reader(repository)
        return reader.read(reader.recipe(item), 0, item.size)

    return read


def usable(snapshots: Sequence[StoredSnapshot]) -> list[StoredSnapshot]:
    """The complete snapshots; all of them when none is complete."""
    return [s for s in snapshots if not s.snapshot.partial] or list(snapshots)


def plan_logs(
    snapshots: Sequence[StoredSnapshot], trashed: Sequence[StoredSnapshot], doomed: Collection[str]
) -> list[LogPlan]:
    """What forgetting the snapshots with these IDs means for each archive that they used.

    Backups in the trash count as forgotten: a forget that was killed half-way is completed by the next.
    Archives that no forgotten backup used stay as they are: perhaps backups elsewhere need them.
    """
    staying = [s for s in snapshots if s.id not in doomed]
    plans = (_plan(archive, snapshots, trashed, staying) for archive in archives(staying))
    return [plan for plan in plans if plan is not None]


def _plan(
    archive: LogArchive,
    snapshots: Sequence[StoredSnapshot],
    trashed: Sequence[StoredSnapshot],
    staying: Sequence[StoredSnapshot],
) -> LogPlan | None:
    """What becomes of one archive; None when it stays as it is."""
    stay = {s.id for s in staying}
    users = [s for s in snapshots if needs(archive, s.snapshot)]
    orphaned = bool(users) and not any(s.id in stay for s in usable(users))
    kept = [s for s in users if s.id in stay]
    if not kept:
        return LogPlan(archive, tuple(sorted(archive.files)), orphaned=True) if orphaned else None
    # Dumps of another name may rely on the archive too: they keep its files, but are no reason to drop some.
    kept += [s for s in staying if s not in kept and _may_need(archive, s)]
    drop = unneeded(archive, [s.snapshot for s in kept])
    leaving = [s for s in users if s.id not in stay]
    gone = leaving + [s for s in trashed if needs(archive, s.snapshot)]
    dropped_before = set(unneeded(archive, [s.snapshot for s in gone])) if gone else set(drop)
    return LogPlan(archive, drop, orphaned) if orphaned or set(drop) - dropped_before else None


def still_needed(identity: tuple[str, str], snapshots: Sequence[StoredSnapshot]) -> set[str]:
    """Names of the files of that archive that any of these backups needs."""
    for archive in archives(snapshots):
        if archive.subject.identity == identity:
            kept = [s.snapshot for s in snapshots if needs(archive, s.snapshot) or _may_need(archive, s)]
            if any(needs(archive, snapshot) for snapshot in kept):
                return set(archive.files) - set(unneeded(archive, kept))
    return set()


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


def findings(repository: Repository, archive: LogArchive, snapshots: Sequence[StoredSnapshot]) -> list[str]:
    """What is wrong with an archive, and with those of these backups that need it, one sentence each.

    Raises Damaged when a file of the archive that must be read cannot be.
    """
    users = [s for s in snapshots if needs(archive, s.snapshot)]
    rules = log_rules(archive.subject)
    sentences = rules.findings(archive, item_reader(repository), users) if rules else []
    conflicts = [f"there are different files called {name}" for name in archive.conflicts]
    return [f"{archive.subject.name}: {sentence}" for sentence in conflicts + sentences]
