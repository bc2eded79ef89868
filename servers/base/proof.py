"""The result of a rehearsal: the verdict and the details, and the JSON of both in a sealed proof."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

import msgspec

from holdfast.base.errors import Damaged
from holdfast.base.stored_json import read_json
from holdfast.base.types import SnapshotID
from holdfast.repo.core.repository import Repository
from holdfast.repo.records.proofs import (
    PROOF_VERSION,
    NewestProofs,
    SealedProof,
    newest_proof,
    newest_proofs,
    store_proof,
)


class Outcome(Enum):
    PROVEN = "proven"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a rehearsal ended. `time` is when it began, UTC; `server` is the program that loaded the
    snapshot, with its version; `tables` and `rows` are how many there were in all; `error` is the server's
    last word, "" when the snapshot was proven. `path` is the one item that it is about, "" when that is all
    that the snapshot has to prove."""

    snapshot: SnapshotID
    time: datetime
    outcome: Outcome
    engine: str
    server: str
    host: str
    program: str
    seconds: float
    databases: int
    schemas: int
    tables: int
    rows: int
    error: str
    path: str = ""


class TableCount(NamedTuple):
    """Rows of a table, counted one by one. `schema` is "" where the engine has none."""

    database: str
    schema: str
    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The result of a query: the first rows as text (None for NULL). `more`: there were further rows."""

    sql: str
    database: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """A verdict with its details; `notes` are sentences on how it was reached and what was left out."""

    verdict: Verdict
    tables: tuple[TableCount, ...] = ()
    queries: tuple[QueryResult, ...] = ()
    notes: tuple[str, ...] = ()


Verdicts = NewestProofs[Verdict]
"""The newest verdict on each snapshot that has one."""


def keep_proof(repository: Repository, proof: Proof) -> str:
    """Seal the proof and store it beside its snapshot; returns its name. Raises NotFound without one."""
    return store_proof(repository, seal(proof))


def latest_verdicts(repository: Repository) -> Verdicts:
    """The newest verdict on each snapshot, and the errors of proofs that cannot be read."""
    return newest_proofs(repository, decode_verdict)


def latest_proof(repository: Repository, snapshot: SnapshotID) -> Proof | None:
    """The newest proof of a snapshot with its details. Raises Damaged or Unsupported."""
    return newest_proof(repository, snapshot, decode_proof)


# ---- JSON ---------------------------------------------------------------------------------------------


def seal(proof: Proof) -> SealedProof:
    """The proof as the repository stores it."""
    v = proof.verdict
    head = {
        "version": PROOF_VERSION,
        "snapshot": v.snapshot,
        "time": v.time.astimezone(UTC).isoformat(),
        "outcome": v.outcome.value,
        "engine": v.engine,
        "server": v.server,
        "host": v.host,
        "program": v.program,
        "seconds": round(v.seconds, 3),
        "databases": v.databases,
        "schemas": v.schemas,
        "tables": v.tables,
        "rows": v.rows,
        "error": v.error,
        **({"path": v.path} if v.path else {}),
    }
    details = {
        "tables": [list(table) for table in proof.tables],
        "queries": [
            {"sql": q.sql, "database": q.database, "columns": q.columns, "rows": q.rows, "more": q.more}
            for q in proof.queries
        ],
        "notes": list(proof.notes),
    }
    return SealedProof(
        v.snapshot,
        v.time,
        json.dumps(head, sort_keys=True).encode(),
        json.dumps(details, sort_keys=True).encode(),
    )


class _DetailsJson(msgspec.Struct):
    """The second line of a proof; the first one is a Verdict."""

    tables: tuple[TableCount, ...]
    queries: tuple[QueryResult, ...]
    notes: tuple[str, ...]


def decode_proof(sealed: SealedProof, where: str) -> Proof:
    """Inverse of `seal`. Raises Damaged."""
    verdict = decode_verdict(sealed.head, where)
    try:
        details = read_json(sealed.details, _DetailsJson)
    except ValueError as error:
        raise Damaged(where, f"not a proof: {error}") from None
    return Proof(verdict, details.tables, details.queries, details.notes)


def decode_verdict(data: bytes, where: str) -> Verdict:
    """The verdict in a proof's head. Raises Damaged."""
    try:
        verdict = read_json(data, Verdict)
        return replace(verdict, time=verdict.time.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise Damaged(where, f"not a proof: {error}") from None
