"""Which files of a WAL archive the physical backups of a cluster need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.formats.dumps.core.facts import facts_of
from holdfast.formats.dumps.core.log_rules import ReadItem
from holdfast.formats.dumps.postgresql.physical import wal
from holdfast.formats.dumps.postgresql.plain.marks import NAME
from holdfast.repo.records.log_archive import LogArchive
from holdfast.repo.snapshots.snapshot import Item, Snapshot, StoredSnapshot, Subject, SubjectKind

"""The engine's name in snapshots and catalogues."""
_DEFAULT_SEGMENT: Final = 16 << 20


def cluster_identity(system_id: str) -> str:
    """`Subject.uuid` of a cluster's WAL archive and of its physical backups."""
    return f"{NAME}-{system_id}"


def archive_subject(system_id: str, name: str = "") -> Subject:
    """The archive of the cluster with this system identifier; only its identity without a `name`."""
    return Subject(SubjectKind.LOGS, name, uuid=cluster_identity(system_id), engine=NAME)


class WalRules:
    """`LogRules` of PostgreSQL: an archive belongs to the backups with its system identifier."""

    def is_archive_of(self, archive: Subject, database: Subject) -> bool:
        return archive.uuid == database.uuid

    def uses(self, archive: LogArchive, snapshot: Snapshot) -> bool:
        facts = facts_of(snapshot)
        return facts.physical and archive.subject.uuid == cluster_identity(facts.system_id)

    def may_use(self, snapshot: Snapshot) -> bool:
        return False

    def unneeded(self, archive: LogArchive, kept: Sequence[Snapshot]) -> tuple[str, ...]:
        starts = [wal.parse_lsn(facts_of(snapshot).lsn) for snapshot in kept]
        start = min((0 if lsn is None else lsn for lsn in starts), default=0)
        usual = segment_size(archive)
        sizes = {name: item.size if _is_segment(item) else usual for name, item in archive.files.items()}
        return tuple(sorted(name for name, size in sizes.items() if wal.is_before(name, start, size)))

    def findings(self, archive: LogArchive, read: ReadItem, users: Sequence[StoredSnapshot]) -> list[str]:
        bases = [wal.base_of(facts_of(s.snapshot), f"the physical backup {s.id[:8]}") for s in users]
        histories = read_histories(archive, read)
        known = [base for base in bases if base]
        return wal.archive_findings(archive.files, segment_size(archive), histories, known)

    def contents(self, archive: LogArchive) -> list[str]:
        length = segment_size(archive)
        return [found.text(length) for found in wal.coverage(archive.files, length, {}).ranges]


def segment_size(archive: LogArchive) -> int:
    """Size in bytes of the archive's newest segments; initdb's default when it has none."""
    segments = [name for name, item in archive.files.items() if _is_segment(item)]
    return archive.files[max(segments)].size if segments else _DEFAULT_SEGMENT


def _is_segment(item: Item) -> bool:
    name = wal.parse_name(item.path)
    whole = (wal.WalKind.SEGMENT, wal.WalKind.PARTIAL)
    return name is not None and name.kind in whole and wal.is_segment_size(item.size)


def read_histories(archive: LogArchive, read: ReadItem) -> dict[int, tuple[wal.Branch, ...]]:
    """The timelines of an archive, out of its history files. Raises what `read` does."""
    found = {}
    for name, item in archive.files.items():
        parsed = wal.parse_name(name)
        if parsed and parsed.kind is wal.WalKind.HISTORY and item.size <= wal.HISTORY_LIMIT:
            found[parsed.timeline] = wal.parse_history(read(item).decode(errors="replace"))
    return found
