"""`holdfast check`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count, fields, size
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.forgotten import read_forgotten
from holdfast.repo.records.high_water import accept_place, accept_vanished, find_vanished
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.upkeep.check import CheckReport, Depth, Subset, check, parse_subset
from holdfast.repo.upkeep.findings import Finding, Weight
from holdfast.tasks.check_logs import check_logs


def _subset(context: click.Context, option: click.Parameter, value: str | None) -> Subset | None:
    if value is None:
        return None
    try:
        return parse_subset(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None


@command("check")
@click.option("--structure", is_flag=True, help="Only the frame: keys, snapshots, ends of packs.")
@click.option("--read-data", is_flag=True, help="Every byte that is stored.")
@click.option(
    "--read-data-subset",
    "subset",
    metavar="N/T|P%|SIZE",
    callback=_subset,
    help="Part of the packs: the 2nd of 7 parts (2/7), 10% or 20G of them at random.",
)
@click.option("--expect", metavar="ID", help="A snapshot that must be there, or forgotten.")
@click.option("--accept-missing", is_flag=True, help="Take vanished snapshots as forgotten; nothing else.")
@pass_settings
def check_command(
    settings: RunSettings,
    *,
    structure: bool,
    read_data: bool,
    subset: Subset | None,
    expect: str | None,
    accept_missing: bool,
) -> ExitCode:
    """Look for damage; the exit code is 21 when there is any, and 3 when only a prune has to mend something.

    Without options: the frame, and that everything a snapshot needs is somewhere. Nothing is changed but
    the index, which is built anew. What is found damaged is noted in the repository, so that the next backup
    of the source stores it again, whoever makes it, and each check tells it until then.

    Every command that lists snapshots misses those that were there before and that nobody forgot: it says
    so, and its exit code is 22. On a new machine `--expect ID`, with the ID that the last backup printed,
    tells whether the repository is at least as new as that.
    """
    if accept_missing:
        return _accept(settings)
    if structure and (read_data or subset):
        raise click.UsageError("--structure and --read-data exclude each other")
    depth = Depth.STRUCTURE if structure else Depth.READ_DATA if read_data or subset else Depth.REACHABLE
    settings.reports_index = False
    settings.if_interrupted = "a check changes nothing; run it again"
    with settings.opened() as repository, progress(settings.output, "check") as meter:
        listed = repository.snapshots()
        settings.look_for_vanished(repository, listed)
        if expect and not _is_there(repository, listed.good, expect.lower()):
            settings.vanished = True
            settings.output.warn(f"snapshot {escape(expect)} was expected; it is neither there nor forgotten")
        report = check(repository, depth, subset=subset, progress=meter.add, announce=meter.expect)
        if depth >= Depth.REACHABLE:
            report.findings += check_logs(repository)
    _tell(settings, depth, report)
    return _code(report)


def _code(report: CheckReport) -> ExitCode:
    weights = {finding.weight for finding in report.findings}
    if Weight.DAMAGE in weights:
        return ExitCode.DAMAGE
    return ExitCode.PARTIAL if Weight.MEND in weights else ExitCode.DONE


def _accept(settings: RunSettings) -> ExitCode:
    """Accept the present snapshots: those that vanished count as forgotten."""
    settings.checks_place = False
    with settings.opened() as repository:
        accept_place(repository, settings.root, settings.cache)
        vanished = find_vanished(repository, repository.snapshots())
        if vanished:
            accept_vanished(repository, vanished, time.time())
    ids = [*vanished.gone, *vanished.trashed]
    settings.output.message("summary", action="accept-missing", accepted=ids)
    settings.output.summary(f"{count(len(ids), 'vanished snapshot')} taken as forgotten")
    return ExitCode.DONE


def _is_there(repository: Repository, snapshots: Sequence[StoredSnapshot], expected: str) -> bool:
    ids = {*(stored.id for stored in snapshots), *read_forgotten(repository).times}
    return any(id_.startswith(expected) for id_ in ids)


def _tell(settings: RunSettings, depth: Depth, report: CheckReport) -> None:
    for finding in report.findings:
        settings.output.message(
            "error",
            where=finding.where,
            problem=finding.problem,
            affects=list(finding.affects),
            advice=finding.advice,
            weight=finding.weight,
        )
        settings.output.result(_describe(finding))
    settings.output.message(
        "summary",
        action="check",
        depth=depth.name.lower(),
        findings=len(report.findings),
        snapshots=report.snapshots,
        packs=report.packs,
        chunks=report.chunks,
        bytes_read=report.bytes_read,
    )
    looked = [count(report.snapshots, "snapshot"), count(report.packs, "pack")]
    if depth >= Depth.REACHABLE:
        looked.append(count(report.chunks, "chunk"))
    if depth >= Depth.READ_DATA:
        looked.append(f"{size(report.bytes_read)} read")
    if lost := _damaged_snapshots(report):
        whole = report.snapshots - len(lost)
        settings.output.result(
            f"not whole: {escape(', '.join(lost))}; the other {count(whole, 'snapshot')} can be read whole"
        )
    damage = sum(finding.weight is Weight.DAMAGE for finding in report.findings)
    what = f"damage: {count(damage, 'finding')}" if damage else "no damage"
    (settings.output.result if report.findings else settings.output.summary)(f"{what} ({', '.join(looked)})")


def _damaged_snapshots(report: CheckReport) -> list[str]:
    """The names of the snapshots of which something is lost."""
    damage = [finding for finding in report.findings if finding.weight is Weight.DAMAGE]
    return sorted({name.partition(":")[0] for finding in damage for name in finding.affects})


def _describe(finding: Finding) -> str:
    details = fields(
        [
            ("  affects", "\n".join(finding.affects)),
            ("  next", finding.advice),
        ]
    )
    head = f"{escape(finding.where)}: {escape(finding.problem)}"
    return f"{head}\n{details}" if details else head
