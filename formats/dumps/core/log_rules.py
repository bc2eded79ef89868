"""What an engine knows of the logs that its backups are rolled forward with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from holdfast.repo.records.log_archive import LogArchive
from holdfast.repo.snapshots.snapshot import Item, Snapshot, StoredSnapshot, Subject

ReadItem = Callable[[Item], bytes]
"""The content of a stored file."""


class LogRules(Protocol):
    """Rules for archives of one engine's logs. All are pure but for `read`."""

    def is_archive_of(self, archive: Subject, database: Subject) -> bool:
        """Whether the archive holds the logs of this database's server, as far as subjects tell."""
        ...

    def uses(self, archive: LogArchive, snapshot: Snapshot) -> bool:
        """Whether this is a backup that is rolled forward with the archive's files."""
        ...

    def may_use(self, snapshot: Snapshot) -> bool:
        """Whether this backup, of another name, may still rely on the archive: its files stay then."""
        ...

    def unneeded(self, archive: LogArchive, kept: Sequence[Snapshot]) -> tuple[str, ...]:
        """Sorted names of files from before the oldest of these backups; none when one's place in the log is
        unknown."""
        ...

    def findings(self, archive: LogArchive, read: ReadItem, users: Sequence[StoredSnapshot]) -> list[str]:
        """What is wrong with an archive, and with those of these backups that use it, one sentence each."""
        ...

    def contents(self, archive: LogArchive) -> list[str]:
        """What an archive holds, one text for each range without gaps."""
        ...
