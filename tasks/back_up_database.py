"""Backups of live databases: one, or all of a server as one snapshot each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from holdfast.base.errors import NotFound, Refused, SourceError, StreamFailed
from holdfast.base.types import ProgressFunction
from holdfast.ingest.backup.backup import BackupOutcome, LessConsistent
from holdfast.ingest.freeze.hooks import Freeze, Frozen, frozen
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import SubjectKind
from holdfast.repo.store.interface import LockMode
from holdfast.servers.base.database_source import BackupChoices, DatabaseSource, DumpJob
from holdfast.tasks.back_up import BackupEvents, SnapshotLabels, store_inputs
from holdfast.tasks.inputs import Inputs
from holdfast.tasks.subject_names import GLOBALS, quoted_name


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseBackup:
    """What to back up. `name` is the subject's, "" for the database's own; with `all_databases` it is the
    first part of each subject's. `check_name` returns the name, or raises if no selector could say it."""

    choices: BackupChoices
    labels: SnapshotLabels
    check_name: Callable[[str], str]
    name: str = ""
    all_databases: bool = False


def back_up_database(
    repository: Repository,
    source: DatabaseSource,
    backup: DatabaseBackup,
    freezes: Sequence[Freeze],
    events: BackupEvents,
) -> bool:
    """Back up one database, or all of a server. Returns True when a part of it could not be read, or a
    command that was to thaw or tidy up failed.

    Of several, one that fails does not stop the others; its error is raised at the end. Raises SourceError,
    LessConsistent, NotFound, Refused or a RepositoryError.
    """
    with ExitStack() as stack:
        # Before anything freezes or a dump begins: neither shall wait for a prune.
        stack.enter_context(repository.store.lock(LockMode.SHARED, backup.labels.lock_timeout))
        held = stack.enter_context(frozen(freezes))
        # The server is asked only when the repository is open and everything is held still.
        if backup.all_databases:
            return _all(repository, source, backup, held, events)
        job = source.one(backup.choices)
        outcome = _one(repository, job, backup.name, backup, events, held=held)
        return outcome.stored.snapshot.partial or outcome.left_behind


def _all(
    repository: Repository,
    source: DatabaseSource,
    backup: DatabaseBackup,
    held: Frozen,
    events: BackupEvents,
) -> bool:
    """Users or roles first: without them nothing else can be loaded."""
    found = source.all(backup.choices)
    for warning in found.warnings:
        events.warn(warning)
    partial = False
    failed: list[tuple[str, Exception]] = []
    for job in found.jobs:
        name = quoted_name(job.database) if job.database else GLOBALS
        name = backup.check_name(f"{backup.name}-{name}" if backup.name else name)
        try:
            partial |= _one(repository, job, name, backup, events).stored.snapshot.partial
        except (SourceError, LessConsistent, NotFound, Refused) as error:  # a repository's end all
            events.warn(f"{job.what} was not backed up: {error}")
            failed.append((job.what, error))
    if failed:
        kind = LessConsistent if all(isinstance(e, LessConsistent) for _, e in failed) else StreamFailed
        names = ", ".join(what for what, _ in failed)
        count = f"{len(found.jobs)} backup{'s' if len(found.jobs) != 1 else ''}"
        raise kind(f"{len(failed)} of {count} failed: {names}; the others are kept")
    held.thaw()
    for warning in held.warnings:
        events.warn(warning)
    return partial or held.failed


def _one(
    repository: Repository,
    job: DumpJob,
    name: str,
    backup: DatabaseBackup,
    events: BackupEvents,
    *,
    held: Frozen | None = None,
) -> BackupOutcome:
    def copy_meter() -> AbstractContextManager[ProgressFunction]:
        return events.meter("copy")

    with ExitStack() as opened:
        prepared = job.prepare(opened, copy_meter)
        inputs = Inputs(
            prepared.items,
            uuid=prepared.uuid,
            origin=prepared.origin,
            where=prepared.where,
            movable=False,
            kind=SubjectKind.DATABASE,
            warnings=prepared.warnings,
            engine=prepared.engine,
            facts=prepared.facts,
        )
        subject = name or backup.check_name(prepared.name)
        close = opened.close
        return store_inputs(repository, inputs, subject, backup.labels, events, held=held, close=close)
