"""`holdfast backup` of a live database by its URL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import click

from holdfast.base.passwords import PasswordSources
from holdfast.cli.backup.options import BackupOptions
from holdfast.cli.backup.report import BackupReport, snapshot_labels
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exit_codes import ExitCode
from holdfast.cli.base.subject_name import subject_name
from holdfast.formats.dumps.engines import ENGINES
from holdfast.ingest.freeze.hooks import Freeze
from holdfast.repo.snapshots.snapshot import SubjectKind
from holdfast.servers.base.database_source import BackupChoice, BackupChoices
from holdfast.servers.base.secrets import Credentials
from holdfast.servers.confined.engine_server import EngineServer
from holdfast.servers.registry import engine_server
from holdfast.tasks.back_up_database import DatabaseBackup, back_up_database
from holdfast.tasks.inputs import ImageOptions

_CHOICES: Final = {
    "--all-databases": BackupChoice.ALL_DATABASES,
    "--physical": BackupChoice.PHYSICAL,
    "--db-password-file": BackupChoice.PASSWORD,
    "--db-password-fd": BackupChoice.PASSWORD,
    "--db-defaults-file": BackupChoice.OPTION_FILE,
    "--db-format": BackupChoice.DUMP_FORMAT,
    "--no-globals": BackupChoice.NO_GLOBALS,
    "--lock-all-tables": BackupChoice.LOCK_ALL_TABLES,
}


def back_up_by_url(settings: RunSettings, options: BackupOptions, freezes: Sequence[Freeze]) -> ExitCode:
    """Back up one database, or all of a server as one snapshot each."""
    _check(options)
    if options.name is not None:
        subject_name(options.name)
    url = options.paths[0]
    entry = ENGINES.entry_for_url(url)
    assert entry is not None
    server = engine_server(entry.name)
    _check_choices(options, entry.name, server)
    backup = DatabaseBackup(
        choices=BackupChoices(
            physical=options.physical,
            dump_format=options.db_format or "",
            no_globals=options.no_globals,
            lock_all_tables=options.lock_all_tables,
        ),
        labels=snapshot_labels(options),
        check_name=subject_name,
        name=options.name or "",
        all_databases=options.all_databases,
    )
    with ExitStack() as stack:
        source = stack.enter_context(server.reach(url, _credentials(options)))
        repository = stack.enter_context(settings.opened(index=True))
        partial = back_up_database(repository, source, backup, freezes, BackupReport(settings))
    return ExitCode.PARTIAL if partial else ExitCode.DONE


def _check(options: BackupOptions) -> None:
    """Raises UsageError for options that say nothing of a database's URL."""
    if len(options.paths) > 1:
        raise click.UsageError("one database at a time, or --all-databases of one server")
    if options.wanted not in (None, SubjectKind.DATABASE):
        raise click.UsageError("a database's URL is of kind database")
    if options.images != ImageOptions() or options.agent or options.stdin_filename is not None:
        raise click.UsageError(
            "--disk-format, --backing, --follow-backing, --bitmap, --checkpoint, --agent and "
            "--stdin-filename say nothing of a database's URL"
        )
    if options.engine or options.format_:
        raise click.UsageError("--engine, --format: the URL says it")


def _check_choices(options: BackupOptions, engine: str, server: EngineServer) -> None:
    """Raises UsageError for an option of another engine, or options that contradict each other."""
    wrong = [name for name in options.of_databases if _CHOICES[name] not in server.choices]
    if options.db_format not in (None, *server.dump_formats) and "--db-format" not in wrong:
        wrong.append("--db-format")
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)}: not for {engine}")
    if options.physical and (options.all_databases or options.db_format or options.no_globals):
        raise click.UsageError("--physical takes the whole cluster: it stands alone")
    if options.all_databases and options.uuid:
        raise click.UsageError("--uuid is of one subject, --all-databases makes several")


def _credentials(options: BackupOptions) -> Credentials:
    if options.db_password_file is not None and options.db_password_fd is not None:
        raise click.UsageError("--db-password-file and --db-password-fd exclude each other")
    if options.db_defaults_file and (options.db_password_file or options.db_password_fd is not None):
        raise click.UsageError("--db-defaults-file holds the password: give that or a password, not both")
    given = PasswordSources(options.db_password_file, None, options.db_password_fd)
    return Credentials(given.read(), options.db_defaults_file or "")
