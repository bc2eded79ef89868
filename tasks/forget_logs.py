"""Log files that go with forgotten backups, and log files that backups lack after an undelete."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from holdfast.base.errors import Locked, NeedsUnknown, Refused, RepositoryError
from holdfast.base.types import SnapshotID
from holdfast.formats.dumps.logs.required_logs import (
    LogPlan,
    findings,
    holders,
    needed_of,
    needs,
    plan_logs,
    still_needed,
    unneeded,
    usable,
)
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.log_archive import LogArchive, archives, drop, is_log
from holdfast.repo.snapshots.retention import Decision
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.tasks.forget_errors import ArchiveOrphaned, LogsNeeded


@dataclass(frozen=True, slots=True)
class LogsToDrop:
    """Plans for the archives whose files go. `unknown`: a snapshot in use that cannot be read, and may need
    any file; then none goes."""

    plans: tuple[LogPlan, ...] = ()
    unknown: RepositoryError | None = None


def plan_drops(
    found: Sequence[StoredSnapshot],
    doomed: Sequence[StoredSnapshot],
    *,
    trashed: Callable[[], Sequence[StoredSnapshot]],
    damaged: Sequence[RepositoryError],
    with_logs: bool,
) -> LogsToDrop:
    """Plan which log files go with the doomed snapshots among all those `found`; `damaged` are snapshots in
    use that cannot be read, `trashed` the forgotten ones.

    Raises NeedsUnknown when snapshots of log archives are doomed and some in use cannot be read, LogsNeeded
    when backups that are kept need files that would go, ArchiveOrphaned when an archive would be left that no
    backup can use, unless `with_logs`.
    """
    if not any(map(is_log, found)):
        return LogsToDrop()
    gone = {stored.id for stored in doomed}
    if damaged and any(map(is_log, doomed)):
        raise NeedsUnknown(
            f"{damaged[0]}; which log files this snapshot needs is unknown, so none may go; "
            "nothing was changed"
        )
    for need in needed_of(found, gone):
        backups = ", ".join(stored.id[:8] for stored in need.backups[:3])
        files = f"{len(need.names):,} log file{'' if len(need.names) == 1 else 's'}"
        raise LogsNeeded(
            f"{files} of {need.archive.subject.name} ({need.names[0]}, ...) would go that backups need which "
            f"are kept ({backups}); nothing was changed; log files go by themselves when the backups that "
            "need them are forgotten"
        )
    plans = plan_logs(found, trashed(), gone)
    for plan in plans:
        if plan.orphaned and not with_logs:
            raise ArchiveOrphaned(plan.archive.subject.name, len(plan.drop))
    if damaged and plans:
        return LogsToDrop(unknown=damaged[0])
    return LogsToDrop(tuple(plan for plan in plans if plan.drop))


def drop_planned(
    repository: Repository, plans: Sequence[LogPlan], stay: Callable[[str, RepositoryError | Refused], None]
) -> list[LogPlan]:
    """Check again which files are needed, then drop those of these plans. Returns the plans carried out.

    Files that a running or a newly committed backup may need stay: `stay` is called with the archive's name
    and the reason.
    """
    done = []
    for plan in plans:
        identity = plan.archive.subject.identity

        def needed(
            snapshots: Sequence[StoredSnapshot], identity: tuple[str, str] = identity
        ) -> Collection[str]:
            return still_needed(identity, snapshots)

        try:
            drop(repository, identity, frozenset(plan.drop).__contains__, needed=needed)
        except (Locked, Refused) as error:
            stay(plan.archive.subject.name, error)
            continue
        done.append(plan)
    return done


def keep_last_users(found: Sequence[StoredSnapshot], decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions of a policy, but for the newest whole backup that each log archive can roll forward: that
    is kept, if all of them would go."""
    gone = {decision.stored.id for decision in decisions if not decision.keep}
    reasons: dict[str, str] = {}
    for archive in archives(found):
        users = usable([stored for stored in found if needs(archive, stored.snapshot)])
        if users and all(stored.id in gone for stored in users):
            reasons[users[-1].id] = (
                f"last backup that the log archive {archive.subject.name} can roll forward"
            )
    return [
        Decision(d.stored, (reasons[d.stored.id],)) if not d.keep and d.stored.id in reasons else d
        for d in decisions
    ]


@dataclass(frozen=True, slots=True)
class LogsInTrash:
    """Log files that a backup needs to be rolled forward and that were forgotten: how many, and the forgotten
    snapshots that hold them."""

    snapshot: SnapshotID
    files: int
    holders: tuple[SnapshotID, ...]


def missing_logs(
    repository: Repository,
    used: Sequence[StoredSnapshot],
    trashed: Sequence[StoredSnapshot],
    returned: Sequence[StoredSnapshot],
) -> list[LogsInTrash | str]:
    """Find required logs that backups lack after they came back from the trash: snapshots that could come
    back too, and sentences on lost logs. `used` are all snapshots in use, `trashed` the forgotten ones."""
    there = {archive.subject.identity: archive for archive in archives(used)}
    missing: list[LogsInTrash | str] = []
    for stored in returned:
        for archive in archives([*used, *trashed]):
            if needs(archive, stored.snapshot):
                now = there.get(archive.subject.identity)
                missing += _in_trash(stored, archive, now, trashed)
                if now is not None:
                    missing += findings(repository, now, [stored])
    return list(dict.fromkeys(missing))


def _in_trash(
    stored: StoredSnapshot, archive: LogArchive, now: LogArchive | None, trashed: Sequence[StoredSnapshot]
) -> list[LogsInTrash]:
    """Files that are in the trash; `archive` is with the trash, `now` without."""
    lost = set(archive.files) - set(now.files if now else ()) - set(unneeded(archive, [stored.snapshot]))
    if not lost:
        return []
    return [LogsInTrash(stored.id, len(lost), tuple(s.id for s in holders(lost, trashed, archive)))]
