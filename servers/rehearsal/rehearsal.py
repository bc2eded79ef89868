"""One rehearsal: a snapshot is loaded into a throw-away server, counted and queried; a proof comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from holdfast.base.confinement.plan import Ended, Plan
from holdfast.base.confinement.spare_user import known_user, spare_user
from holdfast.base.errors import Damaged
from holdfast.base.types import ProgressFunction
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.servers.base.proof import Outcome, Proof, Verdict
from holdfast.servers.confined.confined import Confinement
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.findings import Findings, ThrowawayServer
from holdfast.servers.confined.private import give_to, limits_in, private_folder
from holdfast.servers.confined.stage import RehearsalOptions, RehearsalSubject, Stage
from holdfast.servers.registry import engine_server

_ERROR: Final = 4000
_GRACE: Final = 60.0
"""Seconds after which programs end by themselves, when we were not there to end them in time."""
_MET: Final = {
    Ended.MEMORY: "it needed more than 4 GiB of memory, and was ended",
    Ended.DISK: "it left too little room on the disk of its folder, and was ended",
    Ended.TIME: "it was not done in time, and was ended",
}
_UNCONFINED: Final = (
    "not confined, as was asked for: the dump's SQL could reach this machine's files, sockets and network as "
    "the user {}"
)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """The result. `folder` was kept; `loads`: the server took the backup, whatever else is wrong; `damage` is
    why something of the repository could not be read."""

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
    limits = limits_in(options.scratch, options.timeout + _GRACE)
    with (
        spare_user() if options.confined else nullcontext(known_user(side.users)) as user,
        private_folder(options.scratch, user, keep=options.keep, shown=options.confined) as folder,
        Confinement(Plan(user, folder, limits, options.confined), keep=options.keep) as confined,
    ):
        findings.notes += () if options.confined else (_UNCONFINED.format(user.name or user.uid),)
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
    if options.keep:
        give_to(folder, side.users)
    outcome = Outcome.FAILED if error else Outcome.PROVEN
    verdict = Verdict(
        snapshot=stored.id,
        time=time,
        outcome=outcome,
        engine=findings.engine,
        server=findings.server,
        host=host,
        program=program,
        seconds=clock() - began,
        databases=findings.databases,
        schemas=findings.schemas,
        tables=findings.tables,
        rows=findings.rows,
        error=error[:_ERROR],
        path="" if subject.alone else subject.item.path,
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
def _limited(confined: Confinement, seconds: float) -> Iterator[threading.Event]:
    """End everything after `seconds`; the event is set then."""
    over = threading.Event()

    def expire() -> None:
        over.set()
        confined.end_all()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield over
    except RehearsalFailed:
        if over.is_set():
            raise RehearsalFailed(f"it was not done within {seconds:g} s, and was ended") from None
        met = confined.ended_for
        if met is not None:
            raise RehearsalFailed(_MET[met]) from None
        raise
    finally:
        timer.cancel()
        timer.join()


def _until_timeout(progress: ProgressFunction, over: threading.Event) -> ProgressFunction:
    def heard(count: int) -> None:
        if over.is_set():
            raise RehearsalFailed("out of time")
        progress(count)

    return heard
