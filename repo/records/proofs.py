"""Proofs: what a rehearsal of a snapshot found. Sealed like snapshots, kept beside them.

A proof's body is two lines of JSON: the verdict, and the details. Its name is `<snapshot ID>.<time>.<BLAKE3
of the content>`, so that a listing tells which is a snapshot's newest and one file is read for each
snapshot, however many proofs there are. The name is a hint: what it says is compared with what is sealed.
Sealed means that nobody without a password of the repository can make or change one; whoever has it can.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, NamedTuple

from holdfast.base.errors import Damaged, NoSpace, NotFound, RepositoryError, Unsupported
from holdfast.base.types import SnapshotID
from holdfast.repo.core.mirrored import delete_pair, pair_names, put_pair, read_pair
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import content_hash, open_object, seal_object
from holdfast.repo.format.format import ObjectType
from holdfast.repo.store.interface import Kind, LockMode

_VERSION: Final = 1
_NAME: Final = re.compile(r"([0-9a-f]{64})\.(\d{8}T\d{12}Z)\.([0-9a-f]{64})")
_STAMP: Final = "%Y%m%dT%H%M%S%fZ"


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


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The newest verdict on each snapshot that has one, and what is wrong with those that cannot be read."""

    latest: Mapping[SnapshotID, Verdict]
    damaged: tuple[RepositoryError, ...]


def store_proof(repository: Repository, proof: Proof, *, lock_timeout: float = 60.0) -> str:
    """Seal and keep a proof; durable on return. Returns its name.

    The shared lock is held, so that no prune takes the snapshot meanwhile. Raises NotFound when it is gone.
    """
    verdict = proof.verdict
    with repository.store.lock(LockMode.SHARED, lock_timeout):
        try:
            repository.read_snapshot(Kind.SNAPSHOT, verdict.snapshot)
        except FileNotFoundError:
            raise NotFound(
                f"snapshot {verdict.snapshot[:8]} is not there any more; the proof was not stored"
            ) from None
        sealed = seal_object(repository.keys, ObjectType.PROOF, _encode(proof))
        name = f"{verdict.snapshot}.{_stamp(verdict.time)}.{content_hash(sealed)}"
        put_pair(repository.store, Kind.PROOF, name, sealed)
    return name


def latest_verdicts(repository: Repository) -> Verdicts:
    """One listing, and one file read for each snapshot.

    A snapshot whose newest proof cannot be read has no verdict here: an older one might say the opposite.
    """
    latest: dict[SnapshotID, Verdict] = {}
    damaged: list[RepositoryError] = []
    for snapshot, name in _newest(pair_names(repository.store, Kind.PROOF)).items():
        try:
            latest[snapshot] = read_pair(
                repository.store,
                Kind.PROOF,
                name,
                lambda data, where, name=name: _open(repository, data, where, name)[0],  # type: ignore[misc]
            )
        except (Damaged, Unsupported) as error:
            damaged.append(error)
        except FileNotFoundError:
            continue  # removed since it was listed
    return Verdicts(latest, tuple(damaged))


def latest_proof(repository: Repository, snapshot: SnapshotID) -> Proof | None:
    """The newest proof of a snapshot with its details. Raises Damaged or Unsupported."""
    names = [name for name in pair_names(repository.store, Kind.PROOF) if name.startswith(snapshot)]
    name = _newest(names).get(snapshot)
    if name is None:
        return None
    try:
        return read_pair(
            repository.store, Kind.PROOF, name, lambda data, where: parse_proof(repository, data, where, name)
        )
    except FileNotFoundError:
        return None


def parse_proof(repository: Repository, data: bytes, where: str, name: str) -> Proof:
    """A proof file's content. Raises Damaged (also when it is of another snapshot or time than its name says)
    or Unsupported."""
    verdict, details = _open(repository, data, where, name)
    try:
        d = json.loads(details)
        return Proof(
            verdict,
            tuple(TableCount(str(a), str(b), str(c), int(rows)) for a, b, c, rows in d["tables"]),
            tuple(_decode_query(query) for query in d["queries"]),
            tuple(map(str, d["notes"])),
        )
    except _NOT_JSON as error:
        raise Damaged(where, f"not a proof: {error}") from None


def remove_orphans(repository: Repository, *, before: float) -> int:
    """Delete proofs, not younger than `before`, of snapshots that are neither in use nor in the trash.

    Under the exclusive lock. Returns how many.
    """
    store = repository.store
    alive = pair_names(store, Kind.SNAPSHOT).keys() | pair_names(store, Kind.SNAPSHOT, trashed=True).keys()
    old = {entry.name for entry in store.listing(Kind.PROOF) if entry.modified <= before}
    doomed = [
        name
        for name in pair_names(store, Kind.PROOF)
        if (match := _NAME.fullmatch(name)) and match[1] not in alive and name in old
    ]
    for name in doomed:
        delete_pair(store, Kind.PROOF, name)
    return len(doomed)


def mend_proofs(repository: Repository) -> None:
    """Make proofs whole of which a crash left one copy. Under the exclusive lock."""
    for name, count in pair_names(repository.store, Kind.PROOF).items():
        if count < 2:

            def proven(data: bytes, where: str, name: str = name) -> bytes:
                _open(repository, data, where, name)
                return data

            try:
                data = read_pair(repository.store, Kind.PROOF, name, proven)
                put_pair(repository.store, Kind.PROOF, name, data)
            except (Damaged, Unsupported, NoSpace):
                continue  # `check` tells; one copy is enough for now


def unfinished_proofs(repository: Repository) -> frozenset[str]:
    """Names of proofs whose first copy is missing: being written now, or a crash left them so."""
    files = {entry.name for entry in repository.store.listing(Kind.PROOF)}
    return frozenset(name for name in pair_names(repository.store, Kind.PROOF) if name not in files)


def _newest(names: Collection[str]) -> dict[SnapshotID, str]:
    newest: dict[SnapshotID, str] = {}
    for name in sorted(names):  # of one snapshot by time
        if match := _NAME.fullmatch(name):
            newest[SnapshotID(match[1])] = name
    return newest


def _open(repository: Repository, data: bytes, where: str, name: str) -> tuple[Verdict, bytes]:
    """(verdict, the details as JSON)."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise Damaged(where, "is not named like a proof")
    if content_hash(data) != match[3]:
        raise Damaged(where, "content does not match its name")
    head, _, details = open_object(repository.keys, ObjectType.PROOF, data, where).partition(b"\n")
    verdict = _decode_verdict(head, where)
    if verdict.snapshot != match[1] or _stamp(verdict.time) != match[2]:
        raise Damaged(where, "is a proof of another snapshot or time than its name says")
    return verdict, details


# ---- JSON ---------------------------------------------------------------------------------------------

_NOT_JSON: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime(_STAMP)


def _encode(proof: Proof) -> bytes:
    v = proof.verdict
    head = {
        "version": _VERSION,
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
    return json.dumps(head, sort_keys=True).encode() + b"\n" + json.dumps(details, sort_keys=True).encode()


def _decode_verdict(data: bytes, where: str) -> Verdict:
    try:
        d: dict[str, Any] = json.loads(data)
        if d["version"] != _VERSION:
            raise Unsupported(f"{where}: proof version {d['version']}; this program reads {_VERSION}")
        time = datetime.fromisoformat(d["time"])
        if time.tzinfo is None:
            raise ValueError("time without a zone")
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
