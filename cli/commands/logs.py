"""`holdfast logs` and `holdfast binlog-push`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from holdfast.base.errors import NotFound
from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.options import command, pass_settings
from holdfast.cli.base.render import count, size
from holdfast.cli.base.subject_name import subject_name
from holdfast.cli.base.table import Column, table
from holdfast.formats.dumps.logs.required_logs import contents, findings
from holdfast.ingest.sources.source import FileSource
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.log_archive import LogArchive, LogReading, archives, open_archive
from holdfast.tasks.fetch_logs import write_logs
from holdfast.tasks.push_logs import push_binlogs
from holdfast.tasks.wal_source import pusher

_ARCHIVES = (
    Column("archive"),
    Column("engine", leaves=3),
    Column("files", "right", leaves=2),
    Column("size", "right", leaves=1),
    Column("holds", folds=True),
)
_FILES = (Column("file"), Column("size", "right"))


@command("binlog-push")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--name", metavar="NAME", required=True, help="The archive's name: the server's, as its dumps are called."
)
@click.option("--current", is_flag=True, help="Take one that was never closed as it is: its server is gone.")
@pass_settings
def binlog_push_command(
    settings: RunSettings, *, files: Sequence[Path], name: str, current: bool
) -> ExitCode:
    """Put closed binary logs of MySQL or MariaDB into the archive NAME, all or none.

    \b
    holdfast binlog-push --name shop /var/log/mysql/shop-bin.0*

    Files that are there already are compared and passed over, so that all of them may be named each time.
    The one that is still being written is refused: `FLUSH BINARY LOGS` makes the server close it.
    """
    subject_name(name)
    with ExitStack() as stack:
        sources = [stack.enter_context(FileSource(path)) for path in files]
        repository = stack.enter_context(settings.opened())
        done = push_binlogs(repository, LogReading(repository), sources, pusher(), name=name, current=current)
    settings.output.message(
        "summary", action="binlog-push", archive=done.subject.name, new=list(done.new), there=list(done.there)
    )
    settings.output.summary(
        f"{count(len(done.new), 'binary log')} archived, {len(done.there)} were there already"
    )
    return ExitCode.DONE


@command("logs")
@click.argument("archive", metavar="[ARCHIVE]", required=False)
@click.argument("files", metavar="[FILE...]", nargs=-1)
@click.option(
    "--target", metavar="DIR", type=click.Path(path_type=Path), help="Write FILEs (default: all) there."
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@pass_settings
def logs_command(
    settings: RunSettings,
    *,
    archive: str | None,
    files: Sequence[str],
    target: Path | None,
    overwrite: bool,
) -> ExitCode:
    """List log archives and what they lack, or the files of one; with --target, bring files back.

    \b
    holdfast logs
    holdfast logs shop
    holdfast logs shop shop-bin.000041 shop-bin.000042 --target /tmp/logs
    """
    with settings.opened() as repository:
        if archive is None:
            if target:
                raise click.UsageError("--target: of which archive? `holdfast logs` lists them")
            return _list(settings, repository)
        found = open_archive(repository, archive)
        unknown = sorted(set(files) - set(found.files))
        if unknown:
            raise NotFound(f"{unknown[0]} is not in the log archive {archive}; `holdfast logs` lists what is")
        names = files or sorted(found.files)
        if target is None:
            _list_files(settings, found, names)
        else:
            _write(settings, repository, found, names, target, overwrite=overwrite)
    return ExitCode.DONE


def _list(settings: RunSettings, repository: Repository) -> ExitCode:
    reading = LogReading(repository)
    snapshots = reading.snapshots()
    rows, documents, problems = [], [], [str(error) for error in reading.damaged]
    for archive in archives(snapshots):
        faults = findings(repository, archive, snapshots)
        total = sum(item.size for item in archive.files.values())
        holds = contents(archive)
        rows.append(
            [
                archive.subject.name,
                archive.subject.engine,
                f"{len(archive.files):,}",
                size(total),
                "; ".join(holds),
            ]
        )
        documents.append(
            {
                "name": archive.subject.name,
                "uuid": archive.subject.uuid,
                "engine": archive.subject.engine,
                "files": len(archive.files),
                "size": total,
                "holds": holds,
                "problems": faults,
            }
        )
        problems += faults
    settings.output.document({"archives": documents, "problems": problems})
    settings.output.result(
        table(_ARCHIVES, rows) if rows else "no log archives; `holdfast wal-push` makes one"
    )
    if not settings.output.json:
        for problem in problems:
            settings.output.warn(problem)
    return ExitCode.DAMAGE if reading.damaged else ExitCode.DONE


def _list_files(settings: RunSettings, archive: LogArchive, names: Sequence[str]) -> None:
    items = [archive.files[name] for name in names]
    settings.output.document(
        {"archive": archive.subject.name, "files": [{"name": i.path, "size": i.size} for i in items]}
    )
    settings.output.result(table(_FILES, [[escape(item.path), size(item.size)] for item in items]))


def _write(
    settings: RunSettings,
    repository: Repository,
    archive: LogArchive,
    names: Sequence[str],
    target: Path,
    *,
    overwrite: bool,
) -> None:
    write_logs(repository, archive, names, target, overwrite=overwrite)
    settings.output.message("summary", action="logs", archive=archive.subject.name, written=list(names))
    settings.output.summary(f"{count(len(names), 'file')} written to {target}")
