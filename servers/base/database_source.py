"""A database that a URL names, and the backups that can be taken of it: the interface of all engines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from holdfast.base.types import ProgressFunction
from holdfast.servers.base.prepared import Prepared


class BackupChoice(Enum):
    """A choice for a backup, where the engine allows it."""

    ALL_DATABASES = "a snapshot of each database of a server"
    PHYSICAL = "the files of the whole server"
    PASSWORD = "a password"  # noqa: S105  no password
    OPTION_FILE = "a file with options of the engine's programs"
    DUMP_FORMAT = "the format of the dump"
    NO_GLOBALS = "no users or roles"
    LOCK_ALL_TABLES = "writers wait while the dump runs"


@dataclass(frozen=True, slots=True)
class BackupChoices:
    """The choices. `dump_format` is one of `EngineServer.dump_formats`, "" for the engine's default."""

    physical: bool = False
    dump_format: str = ""
    no_globals: bool = False
    lock_all_tables: bool = False


CopyMeter = Callable[[], AbstractContextManager[ProgressFunction]]
"""Shows how far a copy is that must be made before the backup begins. Entered only if there is one."""
Prepare = Callable[[ExitStack, CopyMeter], Prepared]
"""Starts a dump, which is stopped when the stack ends."""


@dataclass(frozen=True, slots=True)
class DumpJob:
    """One backup to take. `what` names its content in messages; `database` is "" for none."""

    what: str
    database: str
    prepare: Prepare


@dataclass(frozen=True, slots=True)
class DumpJobs:
    """The backups of all databases, that of users or roles first; `warnings` are sentences for the user."""

    jobs: tuple[DumpJob, ...]
    warnings: tuple[str, ...] = ()


class DatabaseSource(Protocol):
    """A server or file that can be reached."""

    def one(self, choices: BackupChoices) -> DumpJob:
        """The database that the URL names, or the whole server."""
        ...

    def all(self, choices: BackupChoices) -> DumpJobs:
        """Every database. Asks the server; raises StreamFailed."""
        ...
