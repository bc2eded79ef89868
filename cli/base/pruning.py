"""A prune as `prune` and `forget --prune` show it."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count, duration, size
from holdfast.cli.base.table import Column, table
from holdfast.repo.core.repository import Repository
from holdfast.repo.upkeep.prune import PruneResult, execute
from holdfast.repo.upkeep.prune_plan import Plan, make_plan

DEFAULT_UNUSED: Final = 0.05
DEFAULT_QUARANTINE: Final = timedelta(days=7)
_DAY: Final = timedelta(days=1)
_COLUMNS = (Column("packs"), Column("number", "right"), Column("size", "right"))


def run_prune(
    settings: RunSettings,
    repository: Repository,
    *,
    max_unused: float,
    quarantine: timedelta,
    dry_run: bool,
    reseal_all: bool = False,
    lock_timeout: float = 60.0,
) -> ExitCode:
    """Plan, show, and carry out unless it is a dry run. DAMAGE when packs had to be kept that are damaged."""
    output = settings.output
    settings.if_interrupted = "every snapshot is whole; run `holdfast prune` again"
    with progress(output, "looking what is needed", unit="chunks") as meter:
        plan = make_plan(repository, max_unused=max_unused, reseal_all=reseal_all, progress=meter.add)
    output.summary(table(_COLUMNS, [[what, f"{n:,}", size(held)] for what, n, held in plan.lines()]))
    if dry_run:
        output.message("summary", action="prune", dry_run=True, **_plan_document(plan))
        output.summary(f"\n{_forecast(plan, quarantine)}; nothing was changed")
        if plan.missing:
            output.warn(
                f"{count(plan.missing, 'chunk')} that snapshots need are missing; run `holdfast check`"
            )
        return ExitCode.DONE
    with progress(output, "prune", sum(use.size for use in plan.repack)) as meter:
        pruned = execute(
            repository,
            plan,
            quarantine=quarantine,
            now=time.time,
            progress=meter.add,
            lock_timeout=lock_timeout,
        )
    _tell(settings, plan, pruned, quarantine)
    return ExitCode.DAMAGE if pruned.damaged else ExitCode.DONE


def _forecast(plan: Plan, quarantine: timedelta) -> str:
    """A sentence on what the plan would do."""
    doomed = [*plan.remove, *plan.repack]
    held, kept = sum(p.size for p in doomed), sum(p.used for p in plan.repack)
    written = f", {size(kept)} are written into new packs" if kept else ""
    if quarantine:
        return (
            f"{count(len(doomed), 'pack')} ({size(held)}) go to the trash and are freed after "
            f"{_days(quarantine)}{written}"
        )
    return (
        f"{size(plan.freed)} would be freed: {count(len(doomed), 'pack')} ({size(held)}) are deleted{written}"
    )


def _days(time: timedelta) -> str:
    return duration(time.total_seconds()) if time % _DAY else count(time // _DAY, "day")


def _plan_document(plan: Plan) -> dict[str, object]:
    reseal = [use for use in plan.repack if use.pack in plan.reseal]
    parts = (("keep", plan.keep), ("repack", plan.repack), ("reseal", reseal), ("remove", plan.remove))
    return {
        **{name: {"packs": len(packs), "bytes": sum(p.size for p in packs)} for name, packs in parts},
        "freed": plan.freed,
        "missing": plan.missing,
    }


def _tell(settings: RunSettings, plan: Plan, pruned: PruneResult, quarantine: timedelta) -> None:
    notes = [f"{error}; this pack was kept" for error in pruned.damaged]
    if notes:
        notes.append(
            "`holdfast check --read-data` tells which snapshots that affects; what a new backup of their "
            "sources still finds there heals them, and the next prune frees the damaged packs"
        )
    notes += pruned.notes
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
    net = pruned.freed_bytes - pruned.repacked_bytes
    parts = [f"{count(pruned.deleted, 'pack')} ({size(pruned.freed_bytes)}) deleted"]
    if pruned.repacked_bytes:
        parts.append(f"{size(pruned.repacked_bytes)} written into new packs")
    lines = [f"{size(abs(net))} {'freed' if net >= 0 else 'more in use'}: {', '.join(parts)}"]
    in_trash = pruned.trashed and (quarantine or pruned.trashed > pruned.deleted)
    if in_trash:
        after = f", freed after {_days(quarantine)}" if quarantine else ""
        lines.append(
            f"{count(pruned.trashed, 'pack')} ({size(pruned.trashed_bytes)}) moved to the trash{after}"
        )
    settings.output.summary("\n" + "\n".join([*lines, *notes]))
    if in_trash:
        settings.output.note(
            "packs in the trash are deleted by a prune after the quarantine; "
            "`holdfast prune --quarantine none` deletes them now"
        )
