"""`holdfast check`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from holdfast.base.errors import Damaged
from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exits import ExitCode
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count, fields, size
from holdfast.formats.dumps.logs.required_logs import findings
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.log_archive import LogReading, archives
from holdfast.repo.upkeep.check import CheckReport, Depth, Finding, Subset, check, parse_subset

_LOG_ADVICE: Final = (
    "push the files again if the server still has them; else take a new full backup now: "
    "from it on the archive is whole"
)


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
            report.findings += _check_logs(repository)
    _tell(settings, depth, report)
    return ExitCode.DAMAGE if report.findings else ExitCode.DONE


def _check_logs(repository: Repository) -> Iterator[Finding]:
    """Gaps in log archives, and backups that can no more be brought to a later point in time."""
    snapshots = LogReading(repository).snapshots()
    for archive in archives(snapshots):
        try:
            sentences = findings(repository, archive, snapshots)
        except Damaged:
            continue  # found already
        name = archive.subject.name
        for sentence in sentences:
            yield Finding(f"log archive {name}", sentence.removeprefix(f"{name}: "), advice=_LOG_ADVICE)


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
