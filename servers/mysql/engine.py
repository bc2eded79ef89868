"""The server sides of MySQL and MariaDB: mysqldump or mariadb-dump, and throw-away servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from holdfast.formats.dumps.mysql.product import TITLES
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
from holdfast.servers.confined.findings import ThrowawayServer
from holdfast.servers.confined.stage import Stage
from holdfast.servers.mysql import dump, throwaway
from holdfast.servers.mysql.connection import access, parse_url
from holdfast.servers.mysql.programs import find_server

_NO_USERS: Final = "users and grants were not stored: only mariadb-dump writes those as statements"


class MysqlSource:
    """A server that mysqldump or mariadb-dump reaches."""

    def __init__(self, reach: Access) -> None:
        self._reach = reach

    def one(self, choices: BackupChoices) -> DumpJob:
        connection = self._reach.connection
        return DumpJob(connection.origin, connection.database, _database(self._reach, choices))

    def all(self, choices: BackupChoices) -> DumpJobs:
        reach = self._reach
        jobs = [
            DumpJob(f"database {name}", name, _database(reach.to(name), choices))
            for name in dump.list_databases(reach)
        ]
        if choices.no_globals:
            return DumpJobs(tuple(jobs))
        if not dump.writes_users(reach):
            return DumpJobs(tuple(jobs), (_NO_USERS,))

        def prepare_globals(stack: ExitStack, meter: CopyMeter) -> Prepared:
            return dump.prepare_globals(stack, reach)

        return DumpJobs((DumpJob("what belongs to no database", "", prepare_globals), *jobs))


def _database(reach: Access, choices: BackupChoices) -> Prepare:
    def prepare(stack: ExitStack, meter: CopyMeter) -> Prepared:
        return dump.prepare_database(stack, reach, lock_all=choices.lock_all_tables)

    return prepare


class MysqlServers:
    """An `EngineServer`; which of the two a server is, it says itself."""

    choices: Final = frozenset(BackupChoice) - {BackupChoice.PHYSICAL, BackupChoice.DUMP_FORMAT}
    dump_formats: Final[tuple[str, ...]] = ()
    users: Final = ("mysql",)
    loads_every_table: Final = False  # dumps have stand-ins for views, and system tables

    @contextmanager
    def reach(self, url: str, credentials: Credentials) -> Iterator[MysqlSource]:
        with access(parse_url(url), credentials) as found:
            yield MysqlSource(found)

    def load(self, stack: ExitStack, stage: Stage) -> ThrowawayServer:
        product = stage.subject.engine.name
        parts = stage.dump()
        programs = find_server(product)
        title = TITLES[programs.product]
        stage.findings.server = f"{title} {programs.version}"
        if programs.product != product:
            stage.findings.notes.append(f"the dump is of {product}; here is {title}, which may differ")
        stage.tell("starting a server")
        server = stack.enter_context(throwaway.running(stage.confinement, programs))
        stage.tell("loading")
        server.load(parts, throwaway.database_name(stage.options.database or stage.subject.name))
        return server

    def start_command(self, folder: Path) -> list[str]:
        return [
            "mariadbd",
            "--no-defaults",
            f"--datadir={folder / throwaway.DATA_FOLDER}",
            f"--socket={folder / throwaway.SOCKET}",
            "--skip-networking",
        ]


MARIADB: Final = MysqlServers()
MYSQL: Final = MARIADB
