"""What a rehearsal was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.formats.dumps.postgresql.recovery import Recovery
from holdfast.servers.postgresql.wal_relay import FetchLog


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for. `scratch` is where the private folder is made, `timeout` in seconds, None for none;
    `database` is that of the queries, "" for the only one; `superuser` that of a physical backup's cluster.
    With `recovery`, `fetch` brings archived log files."""

    scratch: Path
    queries: Sequence[str] = ()
    database: str = ""
    keep: bool = False
    timeout: float | None = None
    recovery: Recovery | None = None
    fetch: FetchLog | None = None
    superuser: str = "postgres"
