"""A prune as `prune` and `forget --prune` show it."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final

from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import Column, count, size, table
from holdfast.repo.core.repository import Repository
from holdfast.repo.upkeep.prune import PruneResult, execute
from holdfast.repo.upkeep.prune_plan import Plan, make_plan

DEFAULT_UNUSED: Final = 0.05
DEFAULT_QUARANTINE: Final = timedelta(days=7)
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
) -> None:
    """Plan, show, and carry out unless it is a dry run."""
    output = settings.output
    settings.if_interrupted = "every snapshot is whole; run `holdfast prune` again"
    with progress(output, "looking what is needed", unit="chunks") as meter:
        plan = make_plan(repository, max_unused=max_unused, reseal_all=reseal_all, progress=meter.add)
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
    reseal = [use for use in plan.repack if use.pack in plan.reseal]
    parts = (("keep", plan.keep), ("repack", plan.repack), ("reseal", reseal), ("remove", plan.remove))
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
