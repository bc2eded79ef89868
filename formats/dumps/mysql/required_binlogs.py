"""Which binary logs of an archive the dumps of a server need."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.formats.dumps.core.facts import facts_of
from holdfast.formats.dumps.core.log_rules import ReadItem
from holdfast.formats.dumps.mysql import binlog
from holdfast.formats.dumps.mysql.product import PRODUCTS
from holdfast.repo.records.log_archive import LogArchive
from holdfast.repo.snapshots.snapshot import Snapshot, StoredSnapshot, Subject, SubjectKind


def archive_subject(name: str, product: str) -> Subject:
    """The archive of a server. Its name is its identity: servers are cloned with their UUID file, and server
    IDs are changed and are 1 by default."""
    return Subject(SubjectKind.LOGS, name, uuid=f"{product}-{name}", engine=product)


class BinlogRules:
    """`LogRules` of MySQL and MariaDB: an archive belongs to the dumps that have its name and a place in the
    binary log."""

    def is_archive_of(self, archive: Subject, database: Subject) -> bool:
        if database.uuid:
            return archive.uuid == database.uuid
        return archive.name == database.name

    def uses(self, archive: LogArchive, snapshot: Snapshot) -> bool:
        return self.may_use(snapshot) and snapshot.subject.name == archive.subject.name

    def may_use(self, snapshot: Snapshot) -> bool:
        return snapshot.subject.engine in PRODUCTS and facts_of(snapshot).binlog != ""

    def unneeded(self, archive: LogArchive, kept: Sequence[Snapshot]) -> tuple[str, ...]:
        positions = [binlog.parse_position(facts_of(snapshot).binlog) for snapshot in kept]
        if None in positions:
            return ()
        oldest: dict[str, binlog.BinlogName] = {}
        for name, _ in (position for position in positions if position):
            oldest[name.base] = min(name, oldest.get(name.base, name))
        return tuple(
            sorted(n for n in archive.files if any(binlog.is_before(n, name) for name in oldest.values()))
        )

    def findings(self, archive: LogArchive, read: ReadItem, users: Sequence[StoredSnapshot]) -> list[str]:
        positions = [(f"the dump {s.id[:8]}", facts_of(s.snapshot).binlog) for s in users]
        return binlog.archive_findings(archive.files, positions)

    def contents(self, archive: LogArchive) -> list[str]:
        names = sorted(archive.files)
        return [f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]]
