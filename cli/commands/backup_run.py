"""One run of `holdfast backup`, from opened inputs to the words at its end."""

from __future__ import annotations

from typing import Any

import click

from holdfast import __version__
from holdfast.base.escaping import escape
from holdfast.cli.base.context import RunSettings
from holdfast.cli.base.documents import SHORT_ID, snapshot_document
from holdfast.cli.base.progress import progress
from holdfast.cli.base.render import duration, rate, size
from holdfast.cli.base.subjects import describe_subject
from holdfast.cli.commands.backup_options import BackupOptions
from holdfast.ingest.backup.backup import BackupOutcome, BackupRequest, back_up
from holdfast.repo.core.repository import Repository
from holdfast.tasks.inputs import Inputs

_NAME_LIMIT = 200


def run_backup(
    settings: RunSettings,
    repository: Repository,
    options: BackupOptions,
    inputs: Inputs,
    name: str,
    **more: Any,
) -> BackupOutcome:
    """Store the inputs as one snapshot and tell about it. `more` are further fields of the request."""
    if options.time is not None:
        more["time"] = options.time
    request = BackupRequest(
        inputs.parts,
        name,
        options.host,
        f"holdfast {__version__}",
        kind=inputs.kind,
        uuid=str(options.uuid) if options.uuid else inputs.uuid,
        origin=inputs.origin,
        tags=options.tags,
        required=options.required,
        warnings=inputs.warnings,
        engine=inputs.engine or options.engine,
        facts=inputs.facts,
        **more,
    )
    sizes = [part.source.size for part in inputs.parts]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    with progress(settings.output, "backup", total) as meter:
        outcome = back_up(repository, request, progress=meter.add, lock_timeout=options.lock_timeout)
    _tell(settings, outcome)
    return outcome


def subject_name(name: str) -> str:
    """Raises UsageError for a name that could not be selected later."""
    reason = name_fault(name)
    if reason:
        raise click.UsageError(f"{escape(name)!r} cannot be a name: {reason}; give another with --name")
    return name


def name_fault(name: str) -> str:
    """Why this cannot be a subject's name: names are folders in the mount and parts of selectors."""
    if not name or name in (".", "..", "latest"):
        return "it is empty or has a meaning of its own"
    if not name.isprintable() or name != name.strip():
        return "it has control characters in it, or space around it"
    if set(name) & set("/:"):
        return "/ and : cannot be in it"
    return f"it is longer than {_NAME_LIMIT} bytes" if len(name.encode()) > _NAME_LIMIT else ""


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
