"""Checks log archives for missing log files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.base.errors import Damaged
from holdfast.formats.dumps.logs.required_logs import findings
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.log_archive import LogReading, archives
from holdfast.repo.upkeep.findings import Finding

_LOG_ADVICE: Final = (
    "push the files again if the server still has them; else take a new full backup now: "
    "from it on the archive is whole"
)


def check_logs(repository: Repository) -> Iterator[Finding]:
    """Gaps in log archives, and backups that can no more be brought to a later point in time."""
    snapshots = LogReading(repository).snapshots()
    for archive in archives(snapshots):
        try:
            sentences = findings(repository, archive, snapshots)
        except Damaged:
            continue  # found already
        name = archive.subject.name
        for sentence in sentences:
            yield Finding(f"log archive {name}", sentence.removeprefix(f"{name}: "), advice=_LOG_ADVICE)
