"""The server side of an engine: backups of live servers, throw-away servers for rehearsals."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

from holdfast.servers.base.database_source import BackupChoice, DatabaseSource
from holdfast.servers.base.secrets import Credentials
from holdfast.servers.confined.findings import ThrowawayServer
from holdfast.servers.confined.stage import Stage


class EngineServer(Protocol):
    """The interface of an engine's package in `servers`; the registry's entry names it."""

    @property
    def choices(self) -> frozenset[BackupChoice]:
        """The choices that the engine allows for a backup by URL."""
        ...

    @property
    def dump_formats(self) -> tuple[str, ...]:
        """Formats that a dump may be taken in, the default first."""
        ...

    def reach(self, url: str, credentials: Credentials) -> AbstractContextManager[DatabaseSource]:
        """The server or file that the URL means, with what its programs need to reach it.

        Raises Refused for a URL that means none. Connects to nothing yet.
        """
        ...

    @property
    def users(self) -> tuple[str, ...]:
        """Whom a throw-away server runs as when this program is root: the first of these that exists."""
        ...

    @property
    def loads_every_table(self) -> bool:
        """Whether a server with fewer tables than the dump has lost some; else dumps have stand-ins."""
        ...

    def load(self, stack: ExitStack, stage: Stage) -> ThrowawayServer:
        """A throw-away server with the subject in it, until `stack` ends.

        Raises RehearsalFailed, Damaged, and Refused when no server that fits is installed.
        """
        ...

    def start_command(self, folder: Path) -> list[str]:
        """The command that starts the server again whose directory was kept."""
        ...
