"""`holdfast forget` and `holdfast undelete`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Final

import click
from click.core import ParameterSource

from holdfast.base.errors import NeedsUnknown, NotFound
from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID, snapshot_document
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.forgetting import forget_decided
from holdfast.cli.base.options import command, filter_options, parse_duration, pass_settings
from holdfast.cli.base.pruning import DEFAULT_QUARANTINE, DEFAULT_UNUSED, run_prune
from holdfast.cli.base.render import count
from holdfast.cli.base.subjects import describe_subject, group_by_subject
from holdfast.cli.base.table import Column, table
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.retention import Decision, Policy, decide
from holdfast.repo.snapshots.select import filter_snapshots, select_one, split_selector, time_name
from holdfast.repo.snapshots.snapshot import StoredSnapshot, SubjectKind
from holdfast.repo.snapshots.subjects import Subjects
from holdfast.repo.upkeep.forget import undelete
from holdfast.tasks.forget_errors import LastOfSubject, SeveralSnapshots
from holdfast.tasks.forget_logs import (
    LogsInTrash,
    keep_last_users,
    missing_logs,
)

_RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
_LETTERS = {"last": "-l", "hourly": "-H", "daily": "-d", "weekly": "-w", "monthly": "-m", "yearly": "-y"}


def _policy_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The --keep options, handed to the command as one `policy`; `ruled` says whether any was given."""

    @functools.wraps(function)
    def with_policy(*args: Any, **given: Any) -> Any:
        context = click.get_current_context()
        names = [f"keep_{field.name}" for field in fields(Policy)]
        ruled = any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in names)
        policy = Policy(**{name.removeprefix("keep_"): given.pop(name) for name in names})
        return function(*args, policy=policy, ruled=ruled, **given)

    decorated: Callable[..., Any] = with_policy
    for option in reversed([*map(_keep_option, _RULES), _KEEP_WITHIN, _KEEP_TAG]):
        decorated = option(decorated)
    return decorated


def _keep_option(rule: str) -> Callable[..., Any]:
    which = "the" if rule == "last" else f"one {rule} for"
    return click.option(
        _LETTERS[rule],
        f"--keep-{rule}",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help=f"Keep {which} N newest.",
    )


_KEEP_WITHIN: Final = click.option(
    "--keep-within", callback=parse_duration, metavar="DURATION", help="Younger than, e.g. 30d."
)
_KEEP_TAG: Final = click.option(
    "--keep-tag", "keep_tags", multiple=True, metavar="TAG", help="With this tag (repeatable)."
)


@command("forget")
@click.argument("snapshots", nargs=-1, metavar="[SNAPSHOT...]")
@_policy_options
@filter_options
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be done, and why.")
@click.option("--prune", is_flag=True, help="Free the space at once, as `holdfast prune` does.")
@click.option("--allow-empty", is_flag=True, help="Even if nothing of a subject is left.")
@click.option("--with-logs", is_flag=True, help="Even if a log archive is of no use then: it goes, too.")
@pass_settings
def forget_command(
    settings: RunSettings,
    *,
    snapshots: Sequence[str],
    policy: Policy,
    ruled: bool,
    names: Sequence[str],
    tags: Sequence[str],
    kinds: Sequence[str],
    dry_run: bool,
    prune: bool,
    allow_empty: bool,
    with_logs: bool,
) -> ExitCode:
    """Take snapshots out of use: those named, or by policy those that no --keep rule keeps.

    \b
    holdfast forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
    holdfast forget 1a2b3c4d

    The policy counts for each VM, database and file set by itself. Forgotten snapshots go to the trash;
    `holdfast undelete` brings them back until a prune has removed their data.

    Log archives (`wal-push`, `binlog-push`) go with the backups that need them: log files from before the
    oldest backup that is kept are dropped in the same run, and the last backup that an archive can roll
    forward is kept unless --with-logs is given.
    """
    if bool(snapshots) == ruled or (policy.is_empty and ruled and not (names and allow_empty)):
        raise click.UsageError(
            "give either snapshots to forget or --keep rules; --name NAME --keep-last 0 --allow-empty "
            "forgets all of one subject"
        )
    with settings.opened() as repository:
        listed = settings.snapshots(repository)
        if listed.unread and not snapshots:
            raise NeedsUnknown(
                f"{listed.unread[0]}; which snapshots belong together is unknown, so no rule may count them; "
                "nothing was changed"
            )
        if snapshots:
            for selector in snapshots:
                _refuse_several(listed.good, selector)
            decisions = [Decision(stored, ()) for stored in _named(listed.good, snapshots)]
        else:
            wanted = [SubjectKind(kind) for kind in kinds]
            chosen = filter_snapshots(listed.good, names=names, tags=tags, kinds=wanted)
            decisions = decide(chosen, policy, datetime.now(UTC))
            if not with_logs:
                decisions = keep_last_users(listed.good, decisions)
        if not snapshots and not allow_empty:
            _refuse_empty(listed.good, [decision.stored for decision in decisions if not decision.keep])
        forget_decided(settings, repository, listed, decisions, dry_run=dry_run, with_logs=with_logs)
        if prune:
            return run_prune(
                settings,
                repository,
                max_unused=DEFAULT_UNUSED,
                quarantine=DEFAULT_QUARANTINE,
                dry_run=dry_run,
            )
    return ExitCode.DONE


def _named(found: Sequence[StoredSnapshot], selectors: Sequence[str]) -> list[StoredSnapshot]:
    chosen: dict[str, StoredSnapshot] = {}
    for text in selectors:
        selector, path = split_selector(text)
        if path:
            raise click.UsageError(f"{escape(text)}: snapshots are forgotten whole, not paths in them")
        stored = select_one(found, selector)
        chosen[stored.id] = stored
    return list(chosen.values())


def _refuse_several(found: Sequence[StoredSnapshot], selector: str) -> None:
    """A bare name must not take the newest snapshot of several: that is the one most wanted."""
    of = [
        s
        for subject in Subjects(found).named(selector)
        for s in found
        if s.snapshot.subject.identity == subject.identity
    ]
    if len(of) > 1:
        raise SeveralSnapshots(selector, len(of))


def _refuse_empty(found: Sequence[StoredSnapshot], doomed: Sequence[StoredSnapshot]) -> None:
    """A policy must not take the last snapshot of anything by accident."""
    gone = {stored.id for stored in doomed}
    for group in group_by_subject(found):
        if all(stored.id in gone for stored in group):
            name = describe_subject(group[-1].snapshot.subject)
            raise LastOfSubject(name)


@command("undelete")
@click.argument("snapshots", nargs=-1, metavar="[SNAPSHOT...]")
@pass_settings
def undelete_command(settings: RunSettings, *, snapshots: Sequence[str]) -> None:
    """Bring forgotten snapshots back, with a NAME all of it; without arguments, list them."""
    with settings.opened() as repository:
        trashed = settings.snapshots(repository, trashed=True).good
        if not snapshots:
            _list_trash(settings, trashed)
            return
        _bring_back(settings, repository, trashed, snapshots)


def _list_trash(settings: RunSettings, trashed: Sequence[StoredSnapshot]) -> None:
    settings.output.document({"trash": [snapshot_document(stored, items=False) for stored in trashed]})
    columns = (
        Column("ID"),
        Column("of"),
        Column("time (UTC)", leaves=1),
        Column("tags", leaves=2, optional=True),
    )
    rows = [
        [
            stored.id[:SHORT_ID],
            describe_subject(stored.snapshot.subject),
            time_name(stored.snapshot.time),
            ",".join(stored.snapshot.tags),
        ]
        for stored in trashed
    ]
    settings.output.result(table(columns, rows) if rows else "the trash is empty")


def _bring_back(
    settings: RunSettings, repository: Repository, trashed: Sequence[StoredSnapshot], selectors: Sequence[str]
) -> None:
    if not trashed:
        raise NotFound("the trash is empty; `holdfast snapshots` lists the snapshots in use")
    there = Subjects(trashed)
    whole = {each.identity for selector in selectors for each in there.named(selector)}
    others = [selector for selector in selectors if not there.named(selector)]
    chosen = [s for s in trashed if s.snapshot.subject.identity in whole]
    chosen += [s for s in _named(trashed, others) if s not in chosen]
    undelete(repository, [stored.id for stored in chosen])
    settings.output.message(
        "summary", action="undelete", undeleted=[snapshot_document(stored, items=False) for stored in chosen]
    )
    for stored in chosen:
        name = escape(describe_subject(stored.snapshot.subject))
        settings.output.summary(f"{stored.id[:SHORT_ID]} of {name} is back")
    used = settings.snapshots(repository).good
    trashed = settings.snapshots(repository, trashed=True).good
    for missing in missing_logs(repository, used, trashed, chosen):
        settings.output.warn(_describe_missing(missing) if isinstance(missing, LogsInTrash) else missing)


def _describe_missing(missing: LogsInTrash) -> str:
    ids = " ".join(id_[:SHORT_ID] for id_ in missing.holders)
    return (
        f"{missing.snapshot[:SHORT_ID]} lacks {count(missing.files, 'log file')} to be rolled forward, "
        f"which went to the trash with it; `holdfast undelete {ids}` brings them back"
    )
