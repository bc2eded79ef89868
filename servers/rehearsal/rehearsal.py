"""One rehearsal: a snapshot into a throw-away server, counted, asked, and the proof of it."""

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
from holdfast.servers.confined.findings import Findings, Server
from holdfast.servers.confined.private import private_folder
from holdfast.servers.rehearsal.loading import Stage, loaded
from holdfast.servers.rehearsal.options import Wishes
from holdfast.servers.rehearsal.subject import Material

_USERS: Final = {"postgresql": ("postgres",), "mariadb": ("mysql",), "mysql": ("mysql",), "sqlite": ()}
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
    material: Material,
    wishes: Wishes,
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
    findings = Findings(material.engine, expected=material.expected)
    error = ""
    loads = False
    damage: Damaged | None = None
    user = user_for(_USERS[material.engine])
    with (
        private_folder(wishes.scratch, user, keep=wishes.keep) as folder,
        Confinement(user, folder, keep=wishes.keep) as confined,
    ):
        findings.notes += confined.notes
        try:
            with _limited(confined, wishes.timeout) as limit, ExitStack() as stack:
                stage = Stage(confined, repository, material, findings, _both(progress, limit), tell)
                server = loaded(stack, stage, wishes)
                loads = True
                _examine(server, material, wishes, findings, tell)
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
        "" if material.alone else material.item.path,
    )
    proof = Proof(verdict, tuple(findings.counted), tuple(findings.queries), tuple(findings.notes))
    return Rehearsed(proof, folder if wishes.keep else None, loads, damage)


def _examine(
    server: Server, material: Material, wishes: Wishes, findings: Findings, tell: Callable[[str], None]
) -> None:
    tell("counting rows")
    findings.enter(server.count())
    for sql in wishes.queries:
        tell("asking")
        findings.queries.append(server.query(sql, wishes.database))
    tell("checking")
    note = server.inspect()
    if note:
        findings.notes.append(note)
    if material.fault:
        raise RehearsalFailed(f"it loads, but it is not whole: {material.fault}")
    if findings.expected is not None and findings.expected != findings.tables:
        differ = f"the dump has {findings.expected} tables, the server {findings.tables} after it"
        if findings.tables < findings.expected and material.engine in ("postgresql", "sqlite"):
            raise RehearsalFailed(differ)
        # Extensions bring tables of their own; MySQL's dumps have stand-ins for views and system tables.
        findings.notes.append(differ)


@contextmanager
def _limited(confined: Confinement, seconds: float | None) -> Iterator[threading.Event]:
    """Ends everything when the time is over. The event says that it is."""
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


def _both(progress: ProgressFunction, over: threading.Event) -> ProgressFunction:
    def heard(count: int) -> None:
        if over.is_set():
            raise RehearsalFailed("out of time")
        progress(count)

    return heard
