"""The output of `holdfast backup`, while it runs and at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.base.escaping import escape
from holdfast.base.types import ProgressFunction
from holdfast.cli.backup.options import BackupOptions
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID, snapshot_document
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import duration, rate, size
from holdfast.cli.base.subjects import describe_subject
from holdfast.ingest.backup.backup import BackupOutcome
from holdfast.tasks.back_up import SnapshotLabels


class BackupReport:
    """`BackupEvents` for the terminal or a program that reads JSON."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings

    @contextmanager
    def meter(self, label: str, total: int | None = None) -> Iterator[ProgressFunction]:
        with progress(self._settings.output, label, total) as meter:
            yield meter.add

    def done(self, outcome: BackupOutcome) -> None:
        try:
            _tell(self._settings, outcome)
        except OSError as error:
            error.add_note(f"snapshot {outcome.stored.id} is made; only telling it failed")
            raise
        self._settings.report_vanished(outcome.vanished)

    def warn(self, text: str) -> None:
        self._settings.output.warn(text)


def snapshot_labels(options: BackupOptions) -> SnapshotLabels:
    """The snapshot's labels from the options."""
    return SnapshotLabels(
        host=options.host,
        named=options.name is not None and not options.all_databases,
        choice=options.choice,
        uuid=str(options.uuid) if options.uuid else "",
        engine=options.engine,
        tags=options.tags,
        required=options.required,
        time=options.time,
        lock_timeout=options.lock_timeout,
    )


def _tell(settings: RunSettings, outcome: BackupOutcome) -> None:
    stored = outcome.stored
    s, stats = stored.snapshot, stored.snapshot.stats
    allocated = sum(item.allocated for item in s.items)
    settings.output.message(
        "summary",
        action="backup",
        snapshot_id=stored.id,
        warnings=list(outcome.warnings),
        rate=round(allocated / stats.seconds) if stats.seconds else None,
        **snapshot_document(stored),
    )
    holes = f" ({size(allocated)} of it data)" if allocated != s.size else ""
    settings.output.summary(
        f"snapshot {stored.id[:SHORT_ID]} of {escape(describe_subject(s.subject))}"
        f"{', PARTIAL' if s.partial else ''}\n"
        f"  read {size(s.size)}{holes}, new {size(stats.new)}, stored {size(stats.stored)}, "
        f"in {duration(stats.seconds)} ({rate(allocated, stats.seconds)})\n"
        f"  consistency: {s.consistency.value} ({escape(s.evidence)})"
    )
    for item in s.items:
        settings.output.detail(f"  {item.path}: {item.kind.value}, {size(item.size)}")
    if not settings.output.json:
        for warning in outcome.warnings:
            settings.output.warn(warning)
