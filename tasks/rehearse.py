"""Rehearsals: a database's backup is loaded into a throw-away server, and the proof is stored beside it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from holdfast import __version__
from holdfast.base.types import ProgressFunction
from holdfast.formats.dumps.postgresql.physical.recovery import Recovery
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.servers.base.proof import keep_proof
from holdfast.servers.confined.stage import RehearsalOptions, RehearsalSubject
from holdfast.servers.registry import engine_server
from holdfast.servers.rehearsal.rehearsal import Rehearsed, rehearse
from holdfast.servers.rehearsal.subject import check_commands, find_subject
from holdfast.tasks.fetch_logs import fetch_from
from holdfast.tasks.restore_cluster import check_physical, find_recovery_logs


@dataclass(frozen=True, slots=True)
class RehearsalHandlers:
    """Who hears of a rehearsal: `meter` shows the progress of loading so many bytes, `tell` hears of each
    step, `warn` sentences for the user."""

    meter: Callable[[int], AbstractContextManager[ProgressFunction]]
    tell: Callable[[str], None]
    warn: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RehearsalReport:
    """What was rehearsed and how it ended."""

    subject: RehearsalSubject
    result: Rehearsed

    def start_command(self) -> list[str]:
        """The command that starts the kept server again."""
        assert self.result.folder is not None
        return engine_server(self.subject.engine.name).start_command(self.result.folder)


def rehearse_snapshot(
    repository: Repository,
    stored: StoredSnapshot,
    path: str,
    options: RehearsalOptions,
    handlers: RehearsalHandlers,
) -> RehearsalReport:
    """Load the snapshot's database (the item at `path` of several), count, ask, and store the proof.

    With `options.recovery` its `fetch` is the archive's. Call it from the main thread. Raises Refused,
    NotFound or Damaged when there is nothing that can be rehearsed here; a snapshot that does not load is a
    result.
    """
    if options.recovery is not None:
        options = _with_logs(repository, stored, options, options.recovery, handlers)
    subject = find_subject(repository, stored, path)
    if not options.client_commands:
        check_commands(subject)
    if options.recovery is not None and not subject.is_physical:
        check_physical(stored)
    with handlers.meter(subject.item.size) as progress:
        result = rehearse(
            repository,
            stored,
            subject,
            options,
            time=datetime.now(UTC),
            host=socket.gethostname(),
            program=f"holdfast {__version__}",
            clock=time.monotonic,
            progress=progress,
            tell=handlers.tell,
        )
    keep_proof(repository, result.proof)
    return RehearsalReport(subject, result)


def _with_logs(
    repository: Repository,
    stored: StoredSnapshot,
    options: RehearsalOptions,
    recovery: Recovery,
    handlers: RehearsalHandlers,
) -> RehearsalOptions:
    logs = find_recovery_logs(repository, stored, recovery)
    if logs.note:
        handlers.warn(logs.note)
    assert logs.archive is not None
    fetch: Callable[[str, Path], bool] = fetch_from(repository, logs.reading, logs.archive)
    return replace(options, fetch=fetch)
