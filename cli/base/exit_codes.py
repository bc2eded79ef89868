"""The exit codes and what they mean. Imports nothing: which error leads to which is in `exits`."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """The exit codes, which scripts may rely on. Scripts should treat unknown codes as failure."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    NO_REPOSITORY = 10
    LOCKED = 11
    WRONG_PASSWORD = 12
    LESS_CONSISTENT = 20
    DAMAGE = 21
    VANISHED = 22
    INTERRUPTED = 130
    RECOVERY_STOPS = 200
    """Exit code of `wal-fetch`. After 1 to 125 PostgreSQL assumes the end of the archive and ends recovery
    successfully; after larger codes it stops (xlogarchive.c: RestoreArchivedFile)."""


MEANINGS: Final = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "wrong usage",
    ExitCode.PARTIAL: "finished but something could not be read",
    ExitCode.NO_REPOSITORY: "no repository",
    ExitCode.LOCKED: "locked",
    ExitCode.WRONG_PASSWORD: "wrong password",
    ExitCode.LESS_CONSISTENT: "less consistent than required",
    ExitCode.DAMAGE: "damage found",
    ExitCode.VANISHED: "snapshots vanished",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.RECOVERY_STOPS: "a recovery must stop",
}
