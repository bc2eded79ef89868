"""What `forget` and `undelete` have to do with log archives."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from holdfast.base.errors import Locked, Refused, RepositoryError
from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID
from holdfast.cli.base.render import count
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


def plan_for(
    settings: RunSettings,
    repository: Repository,
    found: Sequence[StoredSnapshot],
    doomed: Sequence[StoredSnapshot],
    *,
    damaged: Sequence[RepositoryError],
    with_logs: bool,
) -> list[LogPlan]:
    """Which log files go with the doomed snapshots. Raises Refused when backups that are kept need some that
    would go, or when an archive would be left that no backup can use, unless `with_logs`. No files go while
    snapshots in use cannot be read (`damaged`): which files those need is unknown."""
    if not any(map(is_log, found)):
        return []
    gone = {stored.id for stored in doomed}
    if damaged and any(map(is_log, doomed)):
        raise Refused(
            f"{damaged[0]}; which log files this snapshot needs is unknown, so none may go; nothing was "
            "changed; run `holdfast check`"
        )
    for need in needed_of(found, gone):
        backups = ", ".join(stored.id[:SHORT_ID] for stored in need.backups[:3])
        raise Refused(
            f"{count(len(need.names), 'log file')} of {need.archive.subject.name} ({need.names[0]}, ...) "
            f"would go that backups need which are kept ({backups}); nothing was changed; log files go by "
            "themselves when the backups that need them are forgotten"
        )
    trashed = settings.snapshots(repository, trashed=True).good
    plans = plan_logs(found, trashed, gone)
    for plan in plans:
        if plan.orphaned and not with_logs:
            raise Refused(
                f"no whole backup would be left that the log archive {plan.archive.subject.name} can roll "
                f"forward; nothing was changed; --with-logs drops {count(len(plan.drop), 'file')} of it, too"
            )
    if damaged and plans:
        settings.output.warn(
            f"no log files are dropped: {damaged[0]}; which log files this snapshot needs is unknown; run "
            "`holdfast check`; the next forget after it was repaired drops them"
        )
        return []
    return [plan for plan in plans if plan.drop]


def drop_planned(settings: RunSettings, repository: Repository, plans: Sequence[LogPlan]) -> list[LogPlan]:
    """Drop the files of these plans, after another look at what needs them; the plans that were carried out.

    Those that a running backup, or one that was committed meanwhile, may need stay, with a warning.
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
            settings.output.warn(
                f"the log files of {plan.archive.subject.name} stay for now: {error}; the next forget drops "
                "them"
            )
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


def describe_plan(plan: LogPlan, *, dry_run: bool) -> str:
    """What becomes of the files of an archive."""
    verb = "would be dropped from" if dry_run else "dropped from"
    what = f"{count(len(plan.drop), 'log file')} {verb} the log archive {escape(plan.archive.subject.name)}"
    first, last = escape(plan.drop[0]), escape(plan.drop[-1])
    return f"{what}: {first}" + (f" to {last}" if len(plan.drop) > 1 else "")


def missing_logs(
    settings: RunSettings, repository: Repository, returned: Sequence[StoredSnapshot]
) -> list[str]:
    """What backups that came back from the trash lack of the log files that they need; a sentence each."""
    used = settings.snapshots(repository).good
    trashed = settings.snapshots(repository, trashed=True).good
    there = {archive.subject.identity: archive for archive in archives(used)}
    sentences: list[str] = []
    for stored in returned:
        for archive in archives([*used, *trashed]):
            if needs(archive, stored.snapshot):
                now = there.get(archive.subject.identity)
                sentences += _missing(stored, archive, now, trashed)
                if now is not None:
                    sentences += findings(repository, now, [stored])
    return list(dict.fromkeys(sentences))


def _missing(
    stored: StoredSnapshot, archive: LogArchive, now: LogArchive | None, trashed: Sequence[StoredSnapshot]
) -> list[str]:
    """Files that are in the trash; `archive` is with the trash, `now` without."""
    lost = set(archive.files) - set(now.files if now else ()) - set(unneeded(archive, [stored.snapshot]))
    if not lost:
        return []
    ids = " ".join(s.id[:SHORT_ID] for s in holders(lost, trashed, archive))
    return [
        f"{stored.id[:SHORT_ID]} lacks {count(len(lost), 'log file')} to be rolled forward, which went to "
        f"the trash with it; `holdfast undelete {ids}` brings them back"
    ]
