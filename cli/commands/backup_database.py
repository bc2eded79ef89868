"""`holdfast backup` of a live database: postgres://, mysql://, mariadb://, sqlite:."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from holdfast.base.errors import NotFound, Refused, SourceError, StreamFailed
from holdfast.base.escaping import escape
from holdfast.base.passwords import PasswordSources
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.exits import ExitCode
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import count
from holdfast.cli.commands.backup_options import BackupOptions
from holdfast.cli.commands.backup_run import name_fault, run_backup, subject_name
from holdfast.ingest.backup.backup import LessConsistent
from holdfast.ingest.freeze.hooks import Freeze, Frozen, frozen
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import SubjectKind
from holdfast.repo.store.interface import LockMode
from holdfast.servers.base.connection import Connection, parse_url, sqlite_path
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.base.secrets import Access, Credentials, access
from holdfast.servers.mysql import dump as mysql
from holdfast.servers.postgresql import basebackup as physical
from holdfast.servers.postgresql import dump as postgres
from holdfast.servers.sqlite import backup as sqlite
from holdfast.tasks.inputs import ImageOptions, Inputs

Prepare = Callable[[ExitStack], Prepared]
GLOBALS = "globals"
_FILE = "file"
_NO_USERS = "users and grants were not stored: only mariadb-dump writes those as statements"


@dataclass(frozen=True, slots=True)
class _Job:
    """One snapshot to make: of what, for people; the subject's name, "" for the database's own."""

    what: str
    name: str
    prepare: Prepare


def back_up_database(settings: RunSettings, options: BackupOptions, freezes: Sequence[Freeze]) -> ExitCode:
    """One database, or all of a server as one snapshot each.

    With several, one that fails leaves the others kept, and fails the whole at the end.
    """
    _check(options)
    if options.name is not None:
        subject_name(options.name)
    path = sqlite_path(options.paths[0])
    connection = None if path is not None else parse_url(options.paths[0])
    _check_engine(options, connection)
    credentials = _credentials(options)
    with ExitStack() as stack:
        jobs: Callable[[], list[_Job]]
        if connection is None:
            assert path is not None
            jobs = _one(options, path, lambda s: _sqlite(settings, options, s, Path(path)))
        else:
            reach = stack.enter_context(access(connection, credentials))
            jobs = _server_jobs(settings, options, reach)
        repository = stack.enter_context(settings.opened(index=True))
        # Before anything freezes or a dump begins: neither shall wait for a prune.
        stack.enter_context(repository.store.lock(LockMode.SHARED, options.lock_timeout))
        held = stack.enter_context(frozen(freezes))
        return _run(settings, repository, options, jobs(), held)


def _run(
    settings: RunSettings, repository: Repository, options: BackupOptions, jobs: list[_Job], held: Frozen
) -> ExitCode:
    if len(jobs) == 1 and not options.all_databases:
        return _run_one(settings, repository, options, jobs[0], held=held)
    partial = False
    failed: list[tuple[str, Exception]] = []
    for job in jobs:
        try:
            partial |= _run_one(settings, repository, options, job) is ExitCode.PARTIAL
        except (SourceError, LessConsistent, NotFound, Refused) as error:  # a repository's end all
            settings.output.warn(f"{job.what} was not backed up: {error}")
            failed.append((job.what, error))
    if failed:
        kind = LessConsistent if all(isinstance(e, LessConsistent) for _, e in failed) else StreamFailed
        names = ", ".join(escape(what) for what, _ in failed)
        raise kind(f"{len(failed)} of {count(len(jobs), 'backup')} failed: {names}; the others are kept")
    held.thaw()
    for warning in held.warnings:
        settings.output.warn(warning)
    return ExitCode.PARTIAL if partial else ExitCode.DONE


def _run_one(
    settings: RunSettings, repository: Repository, options: BackupOptions, job: _Job, **more: Any
) -> ExitCode:
    with ExitStack() as opened:
        prepared = job.prepare(opened)
        inputs = Inputs(
            prepared.parts,
            uuid=prepared.uuid,
            origin=prepared.origin,
            kind=SubjectKind.DATABASE,
            warnings=prepared.warnings,
            engine=prepared.engine,
            facts=prepared.facts,
        )
        name = job.name or subject_name(prepared.name)
        outcome = run_backup(settings, repository, options, inputs, name, close=opened.close, **more)
    return ExitCode.PARTIAL if outcome.stored.snapshot.partial else ExitCode.DONE


# ---- what there is to do ----------------------------------------------------------------------------------


def _one(options: BackupOptions, what: str, prepare: Prepare) -> Callable[[], list[_Job]]:
    return lambda: [_Job(what, options.name or "", prepare)]


def _server_jobs(settings: RunSettings, options: BackupOptions, reach: Access) -> Callable[[], list[_Job]]:
    """The server is asked only when the repository is open and everything is held still."""
    if options.all_databases and reach.connection.is_postgresql and not reach.connection.database:
        reach = _at(reach, "postgres")  # libpq's own default is a database called like the user
    connection = reach.connection
    if not options.all_databases:
        return _one(options, connection.origin, _database(options, reach))
    return lambda: _all(settings, options, reach)


def _all(settings: RunSettings, options: BackupOptions, reach: Access) -> list[_Job]:
    """Roles and users first: without them nothing else can be loaded."""
    list_databases = postgres.list_databases if reach.connection.is_postgresql else mysql.list_databases
    names = list_databases(reach)
    jobs = []
    if not options.no_globals:
        prepare = _globals(settings, reach)
        if prepare is not None:
            jobs.append(_Job("what belongs to no database", _named(options, GLOBALS), prepare))
    for database in names:
        other = _at(reach, database)
        name = _named(options, quoted_name(database))
        jobs.append(_Job(f"database {escape(database)}", name, _database(options, other)))
    return jobs


def quoted_name(database: str) -> str:
    """A subject's name for any database: what a name cannot hold is percent-encoded, and what would be
    taken for another's."""
    if database == GLOBALS or "%" in database or name_fault(database):
        quoted = quote(database, safe=" !#$&'()*+,;=@[]{}^~|<>?\"\\`")
        quoted = quoted.replace(" ", "%20") if quoted != quoted.strip() else quoted
        return quoted if quoted != database else f"%{ord(database[0]):02X}{database[1:]}"
    return database


def _named(options: BackupOptions, name: str) -> str:
    return subject_name(f"{options.name}-{name}" if options.name else name)


def _at(reach: Access, database: str) -> Access:
    return Access(
        reach.connection.to(database), reach.environment, reach.descriptors, reach.first, reach.secret
    )


def _database(options: BackupOptions, reach: Access) -> Prepare:
    if not reach.connection.is_postgresql:
        return lambda stack: mysql.prepare_database(stack, reach, lock_all=options.lock_all_tables)
    if options.physical:
        return lambda stack: physical.prepare_physical(stack, reach)
    return lambda stack: postgres.prepare_database(
        stack,
        reach,
        custom=options.db_format == "custom",
        with_globals=not options.no_globals and not options.all_databases,
    )


def _globals(settings: RunSettings, reach: Access) -> Prepare | None:
    if reach.connection.is_postgresql:
        return lambda stack: postgres.prepare_globals(stack, reach)
    if not mysql.writes_users(reach):
        settings.output.warn(_NO_USERS)
        return None
    return lambda stack: mysql.prepare_globals(stack, reach)


def _sqlite(settings: RunSettings, options: BackupOptions, stack: ExitStack, path: Path) -> Prepared:
    with progress(settings.output, "copy") as meter:
        as_sql = options.db_format != _FILE
        return sqlite.prepare_database(stack, path, meter.add, as_sql=as_sql)


# ---- options ----------------------------------------------------------------------------------------------


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


def _check_engine(options: BackupOptions, connection: Connection | None) -> None:
    """Raises UsageError for an option of another engine."""
    formats = (_FILE,) if connection is None else ("plain", "custom") if connection.is_postgresql else ()
    own = {
        "--physical": connection is not None and connection.is_postgresql,
        "--db-format": options.db_format in formats,
        "--lock-all-tables": connection is not None and not connection.is_postgresql,
        "--db-defaults-file": connection is not None and not connection.is_postgresql,
    }
    given = options.of_databases
    wrong = [name for name in given if not own.get(name, connection is not None)]
    if wrong:
        scheme = connection.scheme if connection else "sqlite"
        raise click.UsageError(f"{', '.join(wrong)}: not for {scheme}")
    if options.physical and (options.all_databases or options.db_format or options.no_globals):
        raise click.UsageError("--physical takes the whole cluster: it stands alone")
    if options.all_databases and options.uuid:
        raise click.UsageError("--uuid is of one subject, --all-databases makes several")


def _credentials(options: BackupOptions) -> Credentials:
    if options.db_password_file is not None and options.db_password_fd is not None:
        raise click.UsageError("--db-password-file and --db-password-fd exclude each other")
    given = PasswordSources(options.db_password_file, None, options.db_password_fd)
    return Credentials(given.read(), options.db_defaults_file or "")
