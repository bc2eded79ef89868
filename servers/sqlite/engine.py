"""SQLite's server side: copies of database files, and throw-away databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from holdfast.base.errors import Refused
from holdfast.formats.dumps.core.engine import DumpKind
from holdfast.servers.base.database_source import BackupChoice, BackupChoices, CopyMeter, DumpJob, DumpJobs
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.base.programs import ask_version, look_up
from holdfast.servers.base.secrets import Credentials
from holdfast.servers.confined.findings import ThrowawayServer
from holdfast.servers.confined.stage import Stage
from holdfast.servers.sqlite import backup
from holdfast.servers.sqlite.throwaway import DATABASE, ThrowawaySqlite

_FILE: Final = "file"


class SqliteSource:
    """A database file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def one(self, choices: BackupChoices) -> DumpJob:
        def prepare(stack: ExitStack, meter: CopyMeter) -> Prepared:
            as_sql = choices.dump_format != _FILE
            with meter() as progress:
                return backup.prepare_database(stack, Path(self._path), progress, as_sql=as_sql)

        return DumpJob(self._path, self._path, prepare)

    def all(self, choices: BackupChoices) -> DumpJobs:
        return DumpJobs((self.one(choices),))


def path_in(url: str) -> str:
    """The path in `sqlite:PATH`, as it is written. Raises Refused without a path."""
    path = url.partition(":")[2]
    if not path or "\0" in path:
        raise Refused("which SQLite database? Write sqlite:PATH")
    return path


class SqliteServers:
    """An `EngineServer`."""

    choices: Final = frozenset({BackupChoice.DUMP_FORMAT})
    dump_formats: Final = (_FILE,)
    users: Final[tuple[str, ...]] = ()
    loads_every_table: Final = True

    @contextmanager
    def reach(self, url: str, credentials: Credentials) -> Iterator[SqliteSource]:
        yield SqliteSource(path_in(url))

    def load(self, stack: ExitStack, stage: Stage) -> ThrowawayServer:
        parts = stage.dump()
        program = look_up("sqlite3")
        if program is None:
            raise Refused(
                "a rehearsal of this snapshot needs the program sqlite3; install it (Debian: sqlite3)"
            )
        database = ThrowawaySqlite(stage.confinement, program)
        stage.findings.server = f"SQLite {ask_version(program).partition(' ')[0]}"
        stage.tell("loading")
        if stage.subject.format.kind is DumpKind.FILE:
            database.put(parts)
        else:
            database.load(parts)
        return database

    def start_command(self, folder: Path) -> list[str]:
        return ["sqlite3", str(folder / DATABASE)]


SERVER: Final = SqliteServers()
