"""What a rehearsal proved: the verdict and all that was found, and the JSON of both in a sealed proof."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, NamedTuple

from holdfast.base.errors import Damaged
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


@dataclass(frozen=True, slots=True)
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
    databases: int = 0
    schemas: int = 0
    tables: int = 0
    rows: int = 0
    error: str = ""
    path: str = ""


class TableCount(NamedTuple):
    """Rows of a table, counted one by one. `schema` is "" where the engine has none."""

    database: str
    schema: str
    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query gave: the first rows as text (None for NULL). `more` says that there were others."""

    sql: str
    database: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """A verdict with all that was found; `notes` are sentences on how it was done and what was not."""

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

_NOT_JSON: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


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


def decode_proof(sealed: SealedProof, where: str) -> Proof:
    """Inverse of `seal`. Raises Damaged."""
    verdict = decode_verdict(sealed.head, where)
    try:
        d = json.loads(sealed.details)
        return Proof(
            verdict,
            tuple(TableCount(str(a), str(b), str(c), int(rows)) for a, b, c, rows in d["tables"]),
            tuple(_decode_query(query) for query in d["queries"]),
            tuple(map(str, d["notes"])),
        )
    except _NOT_JSON as error:
        raise Damaged(where, f"not a proof: {error}") from None


def decode_verdict(data: bytes, where: str) -> Verdict:
    """The verdict in a proof's head. Raises Damaged."""
    try:
        d: dict[str, Any] = json.loads(data)
        time = datetime.fromisoformat(d["time"])
        return Verdict(
            snapshot=SnapshotID(str(d["snapshot"])),
            time=time.astimezone(UTC),
            outcome=Outcome(d["outcome"]),
            engine=str(d["engine"]),
            server=str(d["server"]),
            host=str(d["host"]),
            program=str(d["program"]),
            seconds=float(d["seconds"]),
            databases=int(d["databases"]),
            schemas=int(d["schemas"]),
            tables=int(d["tables"]),
            rows=int(d["rows"]),
            error=str(d["error"]),
            path=str(d.get("path", "")),
        )
    except _NOT_JSON as error:
        raise Damaged(where, f"not a proof: {error}") from None


def _decode_query(d: Mapping[str, Any]) -> QueryResult:
    return QueryResult(
        str(d["sql"]),
        str(d["database"]),
        tuple(map(str, d["columns"])),
        tuple(tuple(None if cell is None else str(cell) for cell in row) for row in d["rows"]),
        bool(d["more"]),
    )
