"""Refusals for which whoever calls knows what to do: one class for each."""

from __future__ import annotations

from holdfast.base.errors import Refused


class PasswordInUrl(Refused):
    """A URL holds a password, which everybody on this machine can read. `file` is where the engine's own
    programs find one."""

    def __init__(self, file: str) -> None:
        super().__init__("a password in a URL can be read by everybody on this machine; nothing was done")
        self.file = file


class NoDatabase(Refused):
    """A URL names no database, and the engine has no default."""


class SeveralDatabases(Refused):
    """A query does not say in which of several databases it shall run."""


class NoPhysicalBackup(Refused):
    """The server's own files cannot be backed up as one stream; dumps of it can."""


class ClientCommandsFound(Refused):
    """A dump has commands for the client that loads it, which run programs."""


class BadScratch(Refused):
    """The directory for a throw-away server's files cannot serve."""
