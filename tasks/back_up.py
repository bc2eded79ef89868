"""One backup: opened inputs become one snapshot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from holdfast import __version__
from holdfast.base.types import ProgressFunction
from holdfast.ingest.backup.backup import BackupOutcome, BackupRequest, back_up
from holdfast.ingest.freeze.hooks import Frozen
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.histories import HistoryChoice
from holdfast.repo.snapshots.snapshot import Consistency
from holdfast.tasks.inputs import Inputs


class BackupEvents(Protocol):
    """Hears what happens while backups run."""

    def meter(self, label: str, total: int | None = None) -> AbstractContextManager[ProgressFunction]:
        """Progress of one piece of work of `total` bytes, None when that is not known."""
        ...

    def done(self, outcome: BackupOutcome) -> None:
        """One snapshot is committed."""
        ...

    def warn(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotLabels:
    """The user's values for a snapshot; "" or None take those of the inputs. `lock_timeout` in seconds.

    `named`: the user gave the subject's name. `choice`: which history the backup continues.
    """

    host: str
    named: bool = False
    choice: HistoryChoice = HistoryChoice.BY_FACTS
    uuid: str = ""
    engine: str = ""
    tags: tuple[str, ...] = ()
    required: Consistency = Consistency.UNKNOWN
    time: datetime | None = None
    lock_timeout: float = 60.0


def store_inputs(
    repository: Repository,
    inputs: Inputs,
    name: str,
    labels: SnapshotLabels,
    events: BackupEvents,
    *,
    held: Frozen | None = None,
    close: Callable[[], None] = lambda: None,
) -> BackupOutcome:
    """Store the inputs as one snapshot of the subject `name`. `held` and `close` as in `BackupRequest`.

    Raises as `ingest.backup.backup.back_up`.
    """
    request = BackupRequest(
        inputs.items,
        name,
        labels.host,
        f"holdfast {__version__}",
        kind=inputs.kind,
        uuid=labels.uuid or inputs.uuid,
        origin=inputs.origin,
        where=inputs.where,
        named=labels.named,
        movable=inputs.movable,
        choice=labels.choice,
        held=held,
        close=close,
        warnings=inputs.warnings,
        tags=labels.tags,
        required=labels.required,
        engine=inputs.engine or labels.engine,
        facts=inputs.facts,
        time=labels.time or datetime.now(UTC),
    )
    sizes = [item.source.size for item in inputs.items]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    with events.meter("backup", total) as progress:
        outcome = back_up(repository, request, progress=progress, lock_timeout=labels.lock_timeout)
    events.done(outcome)
    return outcome
