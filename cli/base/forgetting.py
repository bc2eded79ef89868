"""Forgets the chosen snapshots and their log files, and shows which go and which stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.base.errors import HoldfastError
from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID, snapshot_document
from holdfast.cli.base.render import count
from holdfast.cli.base.subjects import SubjectTitles, group_by_subject
from holdfast.cli.base.table import Column, table
from holdfast.formats.dumps.logs.required_logs import LogPlan
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.listed import Snapshots
from holdfast.repo.snapshots.retention import Decision
from holdfast.repo.snapshots.select import time_name
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.upkeep.forget import forget
from holdfast.tasks.forget_logs import drop_planned, plan_drops

_COLUMNS: Final = (
    Column("ID"),
    Column("time (UTC)"),
    Column("tags", leaves=1, optional=True),
    Column("what"),
    Column("because", folds=True),
)


def forget_decided(
    settings: RunSettings,
    repository: Repository,
    listed: Snapshots,
    decisions: Sequence[Decision],
    *,
    dry_run: bool,
    with_logs: bool,
) -> None:
    """Forget what no rule keeps, and show all decisions. Raises as `forget` and `plan_drops` do."""
    doomed = [decision.stored for decision in decisions if not decision.keep]
    logs = _plan_drops(settings, repository, listed, doomed, with_logs=with_logs)
    _show(settings, listed, decisions, dry_run=dry_run)
    if not dry_run:
        forget(repository, [stored.id for stored in doomed])
        # The backups first: what a crash leaves is logs that nobody needs.
        logs = _drop(settings, repository, logs)
    _tell(settings, decisions, doomed, logs, dry_run=dry_run)


def _plan_drops(
    settings: RunSettings,
    repository: Repository,
    listed: Snapshots,
    doomed: Sequence[StoredSnapshot],
    *,
    with_logs: bool,
) -> Sequence[LogPlan]:
    logs = plan_drops(
        listed.good,
        doomed,
        trashed=lambda: settings.snapshots(repository, trashed=True).good,
        damaged=listed.damaged,
        with_logs=with_logs,
    )
    if logs.unknown is not None:
        settings.output.warn(
            f"no log files are dropped: {logs.unknown}; which log files this snapshot needs is unknown; run "
            "`holdfast check`; the next forget after it was repaired drops them"
        )
    return logs.plans


def _drop(settings: RunSettings, repository: Repository, logs: Sequence[LogPlan]) -> Sequence[LogPlan]:
    def stay(archive: str, reason: HoldfastError) -> None:
        settings.output.warn(f"the log files of {archive} stay for now: {reason}; the next forget drops them")

    return drop_planned(repository, logs, stay)


def _show(settings: RunSettings, listed: Snapshots, decisions: Sequence[Decision], *, dry_run: bool) -> None:
    titles = SubjectTitles(listed.good)
    by_id = {decision.stored.id: decision for decision in decisions}
    verb = "would be forgotten" if dry_run else "forget"
    tables = []
    for group in group_by_subject([decision.stored for decision in decisions]):
        rows = [
            [
                stored.id[:SHORT_ID],
                time_name(stored.snapshot.time),
                ",".join(stored.snapshot.tags),
                "keep" if by_id[stored.id].keep else verb,
                ", ".join(by_id[stored.id].reasons),
            ]
            for stored in group
        ]
        tables.append(table(_COLUMNS, rows, title=titles.title(group[-1].snapshot.subject)))
    if tables:
        settings.output.summary("\n\n".join(tables))


def _tell(
    settings: RunSettings,
    decisions: Sequence[Decision],
    doomed: Sequence[StoredSnapshot],
    logs: Sequence[LogPlan],
    *,
    dry_run: bool,
) -> None:
    settings.output.message(
        "summary",
        action="forget",
        dry_run=dry_run,
        keep=[
            {**snapshot_document(d.stored, items=False), "reasons": list(d.reasons)}
            for d in decisions
            if d.keep
        ],
        forget=[snapshot_document(stored, items=False) for stored in doomed],
        logs=[{"archive": plan.archive.subject.name, "files": list(plan.drop)} for plan in logs],
    )
    for plan in logs:
        settings.output.summary(f"\n{_describe_plan(plan, dry_run=dry_run)}")
    kept = len(decisions) - len(doomed)
    if dry_run:
        settings.output.summary(f"\n{count(len(doomed), 'snapshot')} would be forgotten, {kept} kept")
        return
    settings.output.summary(f"\n{count(len(doomed), 'snapshot')} forgotten, {kept} kept")
    if doomed:
        settings.output.note("`holdfast undelete` brings them back; `holdfast prune` frees the space")


def _describe_plan(plan: LogPlan, *, dry_run: bool) -> str:
    """A sentence on which files of an archive go and which stay."""
    verb = "would be dropped from" if dry_run else "dropped from"
    what = f"{count(len(plan.drop), 'log file')} {verb} the log archive {escape(plan.archive.subject.name)}"
    first, last = escape(plan.drop[0]), escape(plan.drop[-1])
    return f"{what}: {first}" + (f" to {last}" if len(plan.drop) > 1 else "")
