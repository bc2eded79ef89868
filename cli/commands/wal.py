"""`holdfast wal-push` and `holdfast wal-fetch`: PostgreSQL's archive_command and restore_command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.failures import report
from holdfast.cli.base.options import SharedOptionsCommand, command, pass_settings
from holdfast.cli.base.subject_name import subject_name
from holdfast.ingest.sources.source import FileSource
from holdfast.repo.records.log_archive import LogReading
from holdfast.tasks.fetch_logs import fetch_from, find_wal_archive
from holdfast.tasks.push_logs import push_wal
from holdfast.tasks.wal_server import leave_behind
from holdfast.tasks.wal_source import pusher, system_id_in

system_id_option = click.option(
    "--system-id",
    metavar="ID",
    help="The cluster's system identifier; default: read from global/pg_control in the working directory.",
)


@command("wal-push")
@click.argument("path", metavar="%p", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", default="", help="The archive's name; default: that of the backups.")
@system_id_option
@pass_settings
def wal_push_command(settings: RunSettings, *, path: Path, name: str, system_id: str | None) -> ExitCode:
    """Put a finished WAL file into the archive of its cluster; durable when this exits with 0.

    \b
    archive_command = 'holdfast wal-push %p'

    The server runs it in the data directory, where global/pg_control tells the cluster; one repository
    holds the archives of many. A file that is there already is compared: equal, this succeeds; different,
    it fails and changes nothing. A recovery key in HOLDFAST_PASSWORD_FILE opens the repository fastest.
    """
    if name:
        subject_name(name)
    with FileSource(path) as source:
        system = system_id or system_id_in(Path())
        with settings.opened() as repository:
            done = push_wal(repository, LogReading(repository), source, pusher(), system_id=system, name=name)
    settings.output.message(
        "summary", action="wal-push", archive=done.subject.name, new=list(done.new), there=list(done.there)
    )
    settings.output.detail(f"{source.name} is in the archive {done.subject.name}")
    if not (name or system_id or settings.repo or settings.cache_dir or settings.passwords.given()):
        leave_behind(settings.variables, settings.cache_home)
    return ExitCode.DONE


class _FetchCommand(SharedOptionsCommand):
    """Whatever goes wrong, wrong usage too, stops the recovery."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*args, **extra)
        except click.UsageError as error:
            parent = extra.get("parent")
            report(error, parent.ensure_object(RunSettings) if parent else RunSettings({}))
            raise click.exceptions.Exit(ExitCode.RECOVERY_STOPS) from None


@click.command("wal-fetch", cls=_FetchCommand)
@click.argument("file", metavar="%f")
@click.argument("target", metavar="%p", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", default="", help="The archive's name, when there is no pg_control.")
@system_id_option
@pass_settings
def wal_fetch_command(
    settings: RunSettings, *, file: str, target: Path, name: str, system_id: str | None
) -> int:
    """Write a WAL file from the archive to where PostgreSQL asks for it.

    \b
    restore_command = 'holdfast wal-fetch %f %p'

    Exits with 1 when the archive does not hold it, which is how a recovery learns that it is at the end,
    and with 200 for every other trouble, which stops the recovery: it must not end early unnoticed.
    """
    try:
        with settings.opened() as repository:
            reading = LogReading(repository)
            archive = find_wal_archive(reading, name, system_id)
            if not fetch_from(repository, reading, archive)(file, target):
                settings.output.detail(f"{file} is not in the archive {archive.subject.name}")
                return ExitCode.FAILED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the recovery must hear of all
        report(error, settings)
        return ExitCode.RECOVERY_STOPS
    return ExitCode.DONE
