"""Why something is not backed up or archived. Nothing was stored. Data: the command line says what helps."""

from __future__ import annotations

from pathlib import Path

from holdfast.base.errors import Refused


class UnknownDirectory(Refused):
    """A directory stands among the sources, and is not known to be an export or a dump."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is a directory; a virtual machine's export is backed up by itself")
        self.path = path


class LogInUse(Refused):
    """A server still writes to a binary log, or was killed while it did."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is still being written; nothing was stored")
        self.path = path


class NoCluster(Refused):
    """A directory is no data directory of PostgreSQL, so that it does not tell whose WAL is meant."""
