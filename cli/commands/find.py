"""`holdfast find`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from holdfast.base.escaping import escape
from holdfast.base.moments import moment
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID
from holdfast.cli.base.entries import exact
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.guest_options import luks_option
from holdfast.cli.base.options import command, filter_options, pass_settings
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count, iso, size
from holdfast.cli.base.subjects import describe_subject, group_by_subject
from holdfast.cli.base.table import flow
from holdfast.formats.guests.values.values import NodeType
from holdfast.repo.snapshots.select import time_name
from holdfast.repo.snapshots.snapshot import StoredSnapshot, Subject, SubjectKind
from holdfast.tasks.find_paths import PathSearch, Wanted
from holdfast.tasks.snapshot_trees import SnapshotTrees
from holdfast.tree.search.findings import SearchFindings, Version
from holdfast.tree.search.pattern import Pattern


@command("find")
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@filter_options
@click.option(
    "--snapshot", "selectors", multiple=True, metavar="SNAPSHOT", help="Only in this one (repeatable)."
)
@click.option(
    "--path",
    "prefix",
    default="",
    metavar="PATH",
    help="Only below: files/sda/p1/etc, or /etc in any volume.",
)
@click.option("-i", "--ignore-case", is_flag=True, help="Take PASSWD for passwd.")
@luks_option
@click.option("--no-progress", is_flag=True, help="No progress bar.")
@pass_settings
def find_command(
    settings: RunSettings,
    *,
    patterns: Sequence[str],
    names: Sequence[str],
    tags: Sequence[str],
    kinds: Sequence[str],
    selectors: Sequence[str],
    prefix: str,
    ignore_case: bool,
    luks: Sequence[str],
    no_progress: bool,
) -> ExitCode:
    """Find files, folders and tables by name in all snapshots, inside guests too: which versions there are.

    \b
    holdfast find fstab --name web01
    holdfast find '*.conf' --name web01 --path /etc
    holdfast find /etc/passwd --snapshot web01@2026-11-22
    holdfast find orders --name shop

    A pattern stands for a name; one with slashes for the end of a path, one that begins with a slash for a
    whole path inside a volume. A version is a size and a time of change, with the first and the last
    snapshot that has it. With --json a path is a line.
    """
    wanted = [Pattern(pattern, ignore_case=ignore_case) for pattern in patterns]
    filters = Wanted(names, tags, [SubjectKind(kind) for kind in kinds], selectors)
    with settings.opened(index=True) as repository:
        chosen = filters.choose(settings.snapshots(repository).good)
        trees = SnapshotTrees.of(repository, luks)
        search = PathSearch(trees, group_by_subject(chosen), wanted, prefix=prefix)
        with progress(settings.output, "find", search.disks, unit="disks", shown=not no_progress) as meter:
            found = search.run(meter.add)
    for newest, findings in found:
        _show(settings, newest.snapshot.subject, findings)
    return _sum_up(settings, chosen, [findings for _, findings in found])


def _show(settings: RunSettings, subject: Subject, findings: SearchFindings) -> None:
    output = settings.output
    if findings.paths:
        output.result(escape(describe_subject(subject)))
    for path, versions in sorted(findings.paths.items()):
        output.message(
            "match",
            name=subject.name,
            kind=subject.kind.value,
            path=path,
            versions=[_document(version) for version in versions.values()],
        )
        output.result(f"  {escape(path)}")
        for version in versions.values():
            output.result(flow(_parts(version), indent="    "))


def _parts(version: Version) -> list[str]:
    match = version.match
    length = size(match.size) if match.type is NodeType.FILE else match.type.value
    first, last = (time_name(stored.snapshot.time) for stored in (version.first, version.last))
    when = [first] if version.count == 1 else [first, f".. {last}"]
    told = [f"{length:>9}"]
    if match.table:
        told.append(f"table {escape(match.table)}")
    if match.mtime is not None:
        told.append(f"changed {time_name(moment(match.mtime))}")
    return [*told, f"in {count(version.count, 'snapshot')}: {when[0]}", *when[1:]]


def _document(version: Version) -> dict[str, object]:
    match = version.match
    return {
        "type": match.type.value,
        **({"table": match.table} if match.table else {}),
        "size": match.size,
        "mtime": exact(match.mtime) if match.mtime is not None else None,
        "snapshots": version.count,
        "first": _snapshot(version.first),
        "last": _snapshot(version.last),
    }


def _snapshot(stored: StoredSnapshot) -> dict[str, str]:
    return {"id": stored.id, "short_id": stored.id[:SHORT_ID], "time": iso(stored.snapshot.time)}


def _sum_up(
    settings: RunSettings, snapshots: Sequence[StoredSnapshot], findings: Sequence[SearchFindings]
) -> ExitCode:
    for found in findings:
        for path, text in found.unknown.items():
            settings.output.detail(f"{path}: {text}")
        if found.unknown:
            places = ", ".join(found.unknown)
            settings.output.note(f"not searched, because no file system is seen there: {places}")
        for failure in found.not_searched:
            when = time_name(failure.snapshot.snapshot.time)
            settings.output.warn(f"{when}: {escape(failure.path)}: not searched: {failure.reason}")
    paths = sum(len(found.paths) for found in findings)
    failures = sum(len(found.not_searched) for found in findings)
    settings.output.message("summary", paths=paths, snapshots=len(snapshots), not_searched=failures)
    settings.output.summary(f"found {count(paths, 'path')} in {count(len(snapshots), 'snapshot')}")
    return ExitCode.PARTIAL if failures else ExitCode.DONE
