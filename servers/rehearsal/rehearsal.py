"""One rehearsal: a snapshot is loaded into a throw-away server, counted and queried; a proof comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from holdfast.base.errors import Damaged
from holdfast.base.types import ProgressFunction
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.servers.base.proof import Outcome, Proof, Verdict
from holdfast.servers.confined.confined import Confinement, user_for
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.findings import Findings, ThrowawayServer
from holdfast.servers.confined.private import private_folder
from holdfast.servers.confined.stage import RehearsalOptions, RehearsalSubject, Stage
from holdfast.servers.registry import engine_server

_ERROR: Final = 4000


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """The result. `folder` is what was kept; `loads`: the server took it, whatever else is wrong; `damage`
    is what could not be read of the repository."""

    proof: Proof
    folder: Path | None
    loads: bool
    damage: Damaged | None


def rehearse(
    repository: Repository,
    stored: StoredSnapshot,
    subject: RehearsalSubject,
    options: RehearsalOptions,
    *,
    time: datetime,
    host: str,
    program: str,
    clock: Callable[[], float],
    progress: ProgressFunction,
    tell: Callable[[str], None] = lambda step: None,
) -> Rehearsed:
    """Try it. The repository is only read; `tell` hears of each step. Call it from the main thread.

    Whatever happens, the server and its folder are gone at the end (the folder not with `keep`). A snapshot
    that does not load is a result, not an error. Raises Refused when there is no server to try it with.
    """
    began = clock()
    side = engine_server(subject.engine.name)
    findings = Findings(subject.engine.name, expected=subject.expected)
    error = ""
    loads = False
    damage: Damaged | None = None
    user = user_for(side.users)
    with (
        private_folder(options.scratch, user, keep=options.keep) as folder,
        Confinement(user, folder, keep=options.keep) as confined,
    ):
        findings.notes += confined.notes
        try:
            with _limited(confined, options.timeout) as limit, ExitStack() as stack:
                watched = _until_timeout(progress, limit)
                stage = Stage(confined, repository, subject, options, findings, watched, tell)
                server = side.load(stack, stage)
                loads = True
                _examine(server, subject, options, findings, tell)
        except RehearsalFailed as failed:
            error = str(failed)
        except Damaged as damaged:
            error, damage = f"the repository is damaged: {damaged}", damaged
    outcome = Outcome.FAILED if error else Outcome.PROVEN
    verdict = Verdict(
        stored.id,
        time,
        outcome,
        findings.engine,
        findings.server,
        host,
        program,
        clock() - began,
        findings.databases,
        findings.schemas,
        findings.tables,
        findings.rows,
        error[:_ERROR],
        "" if subject.alone else subject.item.path,
    )
    proof = Proof(verdict, tuple(findings.counted), tuple(findings.queries), tuple(findings.notes))
    return Rehearsed(proof, folder if options.keep else None, loads, damage)


def _examine(
    server: ThrowawayServer,
    subject: RehearsalSubject,
    options: RehearsalOptions,
    findings: Findings,
    tell: Callable[[str], None],
) -> None:
    tell("counting rows")
    findings.enter(server.count())
    for sql in options.queries:
        tell("asking")
        findings.queries.append(server.query(sql, options.database))
    tell("checking")
    note = server.inspect()
    if note:
        findings.notes.append(note)
    if subject.fault:
        raise RehearsalFailed(f"it loads, but it is not whole: {subject.fault}")
    if findings.expected is not None and findings.expected != findings.tables:
        differ = f"the dump has {findings.expected} tables, the server {findings.tables} after it"
        if findings.tables < findings.expected and engine_server(subject.engine.name).loads_every_table:
            raise RehearsalFailed(differ)
        # Extensions bring tables of their own.
        findings.notes.append(differ)


@contextmanager
def _limited(confined: Confinement, seconds: float | None) -> Iterator[threading.Event]:
    """End everything after `seconds`; the event is set then."""
    over = threading.Event()

    def expire() -> None:
        over.set()
        confined.end_all()

    timer = threading.Timer(seconds, expire) if seconds is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield over
    except RehearsalFailed:
        if over.is_set():
            raise RehearsalFailed(f"it was not done within {seconds:g} s, and was ended") from None
        raise
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()


def _until_timeout(progress: ProgressFunction, over: threading.Event) -> ProgressFunction:
    def heard(count: int) -> None:
        if over.is_set():
            raise RehearsalFailed("out of time")
        progress(count)

    return heard
