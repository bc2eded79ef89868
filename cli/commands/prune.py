"""`holdfast prune`."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

import click

from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.options import command, parse_duration, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import Column, count, size, table
from holdfast.repo.core.repository import Repository
from holdfast.repo.upkeep.prune import PruneResult, execute
from holdfast.repo.upkeep.prune_plan import Plan, make_plan

DEFAULT_UNUSED: Final = 0.05
DEFAULT_QUARANTINE: Final = timedelta(days=7)
_COLUMNS = (Column("packs"), Column("number", "right"), Column("size", "right"))


def _share(context: click.Context, option: click.Parameter, value: str) -> float:
    try:
        share = float(value.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value!r} is not a percentage", context, option)
    return share


def _quarantine(context: click.Context, option: click.Parameter, value: str) -> timedelta:
    if value == "none":
        return timedelta()
    parsed = parse_duration(context, option, value)
    assert parsed is not None  # there is a default
    return parsed


def _point_at_forget(context: click.Context, option: click.Parameter, value: object) -> None:
    if value:
        raise click.UsageError(
            f"prune only frees space and drops no snapshots: `holdfast forget {option.opts[0]} ... --prune` "
            "does both",
            context,
        )


def _keep_options() -> list[click.Parameter]:
    rules = ("last", "hourly", "daily", "weekly", "monthly", "yearly", "within", "tag")
    return [
        click.Option(
            [f"--keep-{rule}"], multiple=True, hidden=True, expose_value=False, callback=_point_at_forget
        )
        for rule in rules
    ]


@command("prune", params=_keep_options())
@click.option("-n", "--dry-run", is_flag=True, help="Only show the plan.")
@click.option(
    "--max-unused",
    metavar="PERCENT",
    default="5",
    show_default=True,
    callback=_share,
    help="How much of the packs may stay unneeded, to save rewriting.",
)
@click.option(
    "--quarantine",
    metavar="DURATION|none",
    default="7d",
    show_default=True,
    callback=_quarantine,
    help="How long packs lie in the trash before they are deleted.",
)
@click.option(
    "--lock-timeout", type=click.FloatRange(0), default=60.0, metavar="SECONDS", help="Default: 60."
)
@pass_settings
def prune_command(
    settings: RunSettings, *, dry_run: bool, max_unused: float, quarantine: timedelta, lock_timeout: float
) -> None:
    """Free the space of what no snapshot needs. Snapshots are not touched: that is `holdfast forget`.

    Packs that nothing needs go to the trash first, and a later prune deletes them when the quarantine is
    over; `--quarantine none` deletes them now. Backups wait while packs are moved.
    """
    with settings.opened(index=True) as repository:
        run_prune(
            settings,
            repository,
            max_unused=max_unused,
            quarantine=quarantine,
            dry_run=dry_run,
            lock_timeout=lock_timeout,
        )


def run_prune(
    settings: RunSettings,
    repository: Repository,
    *,
    max_unused: float,
    quarantine: timedelta,
    dry_run: bool,
    lock_timeout: float = 60.0,
) -> None:
    """Plan, show, and carry out unless it is a dry run."""
    output = settings.output
    settings.if_interrupted = "every snapshot is whole; run `holdfast prune` again"
    with progress(output, "looking what is needed", unit="chunks") as meter:
        plan = make_plan(repository, max_unused=max_unused, progress=meter.add)
    output.summary(table(_COLUMNS, [[what, f"{n:,}", size(held)] for what, n, held in plan.lines()]))
    if dry_run:
        output.message("summary", action="prune", dry_run=True, **_plan_document(plan))
        output.summary(f"\n{size(plan.freed)} would be freed; nothing was changed")
        if plan.missing:
            output.warn(
                f"{count(plan.missing, 'chunk')} that snapshots need are missing; run `holdfast check`"
            )
        return
    with progress(output, "prune", sum(use.size for use in plan.repack)) as meter:
        pruned = execute(
            repository,
            plan,
            quarantine=quarantine,
            now=time.time,
            progress=meter.add,
            lock_timeout=lock_timeout,
        )
    _tell(settings, plan, pruned)


def _plan_document(plan: Plan) -> dict[str, object]:
    parts = (("keep", plan.keep), ("repack", plan.repack), ("remove", plan.remove))
    return {
        **{name: {"packs": len(packs), "bytes": sum(p.size for p in packs)} for name, packs in parts},
        "freed": plan.freed,
        "missing": plan.missing,
    }


def _tell(settings: RunSettings, plan: Plan, pruned: PruneResult) -> None:
    notes = [f"{error}; this pack was kept; run `holdfast check`" for error in pruned.damaged] + pruned.notes
    settings.output.message(
        "summary",
        action="prune",
        dry_run=False,
        **_plan_document(plan),
        trashed={"packs": pruned.trashed, "bytes": pruned.trashed_bytes},
        deleted={"packs": pruned.deleted, "bytes": pruned.freed_bytes},
        repacked_bytes=pruned.repacked_bytes,
        notes=notes,
    )
    lines = [f"{size(pruned.freed_bytes)} freed: {count(pruned.deleted, 'pack')} deleted"]
    if pruned.repacked_bytes:
        lines.append(f"{size(pruned.repacked_bytes)} written into new packs")
    if pruned.trashed:
        lines.append(f"{count(pruned.trashed, 'pack')} ({size(pruned.trashed_bytes)}) moved to the trash")
    settings.output.summary("\n" + "\n".join([*lines, *notes]))
    if pruned.trashed > pruned.deleted:
        settings.output.note(
            "packs in the trash are deleted by a prune after the quarantine; "
            "`holdfast prune --quarantine none` deletes them now"
        )
