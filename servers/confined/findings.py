"""The interface of throw-away servers of all engines, and their findings, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from holdfast.servers.base.proof import QueryResult, TableCount

KEPT_TABLES: Final = 50_000
"""So many tables a proof names; all are counted."""


@dataclass(slots=True)
class Findings:
    """The findings so far: a rehearsal that fails keeps them. `expected` is the number of tables in the
    dump's catalogue, None when there is none."""

    engine: str
    server: str = ""
    databases: int = 0
    schemas: int = 0
    tables: int = 0
    rows: int = 0
    expected: int | None = None
    counted: list[TableCount] = field(default_factory=list)
    queries: list[QueryResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def enter(self, counts: list[TableCount]) -> None:
        """Record the numbers of rows of all tables."""
        self.tables, self.rows = len(counts), sum(table.rows for table in counts)
        self.databases = len({table.database for table in counts})
        self.schemas = len({(table.database, table.schema) for table in counts})
        self.counted = sorted(counts)[:KEPT_TABLES]
        if len(counts) > KEPT_TABLES:
            self.notes.append(f"only the first {KEPT_TABLES} of {len(counts)} tables are listed")


class ThrowawayServer(Protocol):
    """A throw-away server that runs, with the snapshot in it. All methods raise RehearsalFailed."""

    def count(self) -> list[TableCount]:
        """Count the rows of every table that is not the server's own."""
        ...

    def query(self, sql: str, database: str) -> QueryResult:
        """Ask a query. `database` "": the only one with tables; RehearsalFailed when there are several."""
        ...

    def inspect(self) -> str:
        """Let the engine check what it has; a note on what was done, "" for nothing."""
        ...
