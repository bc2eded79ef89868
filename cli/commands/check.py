"""`holdfast check`."""

from __future__ import annotations

import click

from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exits import ExitCode
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count, fields, size
from holdfast.repo.upkeep.check import CheckReport, Depth, Finding, Subset, check, parse_subset
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
@pass_settings
def check_command(
    settings: RunSettings, *, structure: bool, read_data: bool, subset: Subset | None
) -> ExitCode:
    """Look for damage; the exit code is 21 when there is any.

    Without options: the frame, and that everything a snapshot needs is somewhere. Nothing is changed but
    the index, which is built anew.
    """
    if structure and (read_data or subset):
        raise click.UsageError("--structure and --read-data exclude each other")
    depth = Depth.STRUCTURE if structure else Depth.READ_DATA if read_data or subset else Depth.REACHABLE
    settings.reports_index = False
    settings.if_interrupted = "a check changes nothing; run it again"
    with settings.opened() as repository, progress(settings.output, "check") as meter:
        report = check(repository, depth, subset=subset, progress=meter.add, announce=meter.expect)
        if depth >= Depth.REACHABLE:
            report.findings += check_logs(repository)
    _tell(settings, depth, report)
    return ExitCode.DAMAGE if report.findings else ExitCode.DONE


def _tell(settings: RunSettings, depth: Depth, report: CheckReport) -> None:
    for finding in report.findings:
        settings.output.message(
            "error",
            where=finding.where,
            problem=finding.problem,
            affects=list(finding.affects),
            advice=finding.advice,
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
    what = "no damage" if not report.findings else f"damage: {count(len(report.findings), 'finding')}"
    (settings.output.result if report.findings else settings.output.summary)(f"{what} ({', '.join(looked)})")


def _describe(finding: Finding) -> str:
    details = fields(
        [
            ("  affects", "\n".join(finding.affects)),
            ("  next", finding.advice),
        ]
    )
    head = f"{escape(finding.where)}: {escape(finding.problem)}"
    return f"{head}\n{details}" if details else head
