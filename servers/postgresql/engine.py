"""PostgreSQL's server side: pg_dump, pg_basebackup, and throw-away clusters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from holdfast.formats.dumps.core.engine import DumpKind
from holdfast.servers.base.database_source import (
    BackupChoice,
    BackupChoices,
    CopyMeter,
    DumpJob,
    DumpJobs,
    Prepare,
)
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.base.secrets import Access, Credentials
from holdfast.servers.confined.clients import converted
from holdfast.servers.confined.findings import ThrowawayServer
from holdfast.servers.confined.stage import RehearsalSubject, Stage, stored_bytes
from holdfast.servers.postgresql import basebackup, dump, throwaway
from holdfast.servers.postgresql.connection import access, parse_url
from holdfast.servers.postgresql.programs import find_release
from holdfast.servers.postgresql.recovered import recovered
from holdfast.servers.postgresql.script import guarded

_PLAIN: Final = "plain"
_CUSTOM: Final = "custom"
_FIRST_DATABASE: Final = "postgres"
"""libpq's own default is a database called like the user."""


class PostgresSource:
    """A server that `pg_dump` reaches."""

    def __init__(self, reach: Access) -> None:
        self._reach = reach

    def one(self, choices: BackupChoices) -> DumpJob:
        connection = self._reach.connection
        if choices.physical:
            return DumpJob(connection.origin, connection.database, self._physical)
        prepare = _database(self._reach, choices, with_globals=not choices.no_globals)
        return DumpJob(connection.origin, connection.database, prepare)

    def all(self, choices: BackupChoices) -> DumpJobs:
        reach = self._reach if self._reach.connection.database else self._reach.to(_FIRST_DATABASE)
        jobs = [
            DumpJob(f"database {name}", name, _database(reach.to(name), choices, with_globals=False))
            for name in dump.list_databases(reach)
        ]

        def prepare_globals(stack: ExitStack, meter: CopyMeter) -> Prepared:
            return dump.prepare_globals(stack, reach)

        if not choices.no_globals:
            jobs.insert(0, DumpJob("what belongs to no database", "", prepare_globals))
        return DumpJobs(tuple(jobs))

    def _physical(self, stack: ExitStack, meter: CopyMeter) -> Prepared:
        return basebackup.prepare_physical(stack, self._reach)


def _database(reach: Access, choices: BackupChoices, *, with_globals: bool) -> Prepare:
    def prepare(stack: ExitStack, meter: CopyMeter) -> Prepared:
        custom = choices.dump_format == _CUSTOM
        return dump.prepare_database(stack, reach, custom=custom, with_globals=with_globals)

    return prepare


class PostgresServers:
    """An `EngineServer`."""

    choices: Final = frozenset(BackupChoice) - {BackupChoice.LOCK_ALL_TABLES, BackupChoice.OPTION_FILE}
    dump_formats: Final = (_PLAIN, _CUSTOM)
    users: Final = ("postgres",)
    loads_every_table: Final = True

    @contextmanager
    def reach(self, url: str, credentials: Credentials) -> Iterator[PostgresSource]:
        with access(parse_url(url), credentials) as found:
            yield PostgresSource(found)

    def load(self, stack: ExitStack, stage: Stage) -> ThrowawayServer:
        return _recover(stack, stage) if stage.subject.is_physical else _load(stack, stage)

    def start_command(self, folder: Path) -> list[str]:
        settings = f"config_file={folder / throwaway.SETTINGS_FILE}"
        return ["postgres", "-D", str(folder / throwaway.DATA_FOLDER), "-c", settings]


def _recover(stack: ExitStack, stage: Stage) -> ThrowawayServer:
    assert stage.subject.catalogue is not None
    stage.tell("recovering")
    return stack.enter_context(
        recovered(
            stage.confinement,
            stage.repository,
            stage.subject.item,
            stage.subject.catalogue,
            findings=stage.findings,
            recovery=stage.options.recovery,
            fetch=stage.options.fetch,
            superuser=stage.options.superuser,
            progress=stage.progress,
        )
    )


def _load(stack: ExitStack, stage: Stage) -> ThrowawayServer:
    subject, confinement = stage.subject, stage.confinement
    parts = stage.dump()
    programs = find_release(_major(subject))
    stage.findings.server = f"PostgreSQL {programs.version}"
    stage.tell("starting a server")
    catalogue = subject.catalogue
    bytewise = catalogue is not None and catalogue.extra.get("encoding") == "SQL_ASCII"
    data = throwaway.initialise(confinement, programs, "SQL_ASCII" if bytewise else "UTF8")
    server = stack.enter_context(throwaway.running(confinement, programs, data))
    stage.tell("loading")
    if subject.roles is not None:
        server.load(stored_bytes(stage.repository, subject.roles))
    if subject.format.kind is DumpKind.APART:
        parts = converted(confinement, [programs.path("pg_restore"), "-f", "-"], parts, env={})
    elif catalogue is not None:
        parts = guarded(parts, [section for section in catalogue.sections if section.type == "DROP"])
    server.load(parts)
    return server


def _major(subject: RehearsalSubject) -> int | None:
    """The major release that the dump is from."""
    match = re.match(r"(?:PostgreSQL )?(\d+)", subject.server)
    return int(match[1]) if match else None


SERVER: Final = PostgresServers()
