"""A ledger's server side: `ledger:PATH` is dumped by `cat`; the throw-away server counts lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from holdfast.ingest.backup.plan import plan_dump
from holdfast.ingest.sources.source import CommandSource
from holdfast.servers.base.database_source import BackupChoice, BackupChoices, CopyMeter, DumpJob, DumpJobs
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.base.proof import QueryResult, TableCount
from holdfast.servers.base.secrets import Credentials
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.findings import ThrowawayServer
from holdfast.servers.confined.stage import Stage


class LedgerSource:
    def __init__(self, path: str) -> None:
        self._path = path

    def one(self, choices: BackupChoices) -> DumpJob:
        def prepare(stack: ExitStack, meter: CopyMeter) -> Prepared:
            source = CommandSource(["cat", self._path], "dump.ledger")
            stack.callback(source.close)
            return Prepared((plan_dump(source, "dump.ledger"),), Path(self._path).stem, "ledger", self._path)

        return DumpJob(self._path, self._path, prepare)

    def all(self, choices: BackupChoices) -> DumpJobs:
        return DumpJobs((self.one(choices),))


class ThrowawayLedger:
    def __init__(self, data: bytes) -> None:
        self._rows: dict[str, int] = {}
        for line in data.decode().splitlines():
            if line.startswith("table "):
                self._rows[line.split(" ")[1]] = 0
            elif "\t" in line:
                self._rows[line.split("\t")[0]] += 1

    def count(self) -> list[TableCount]:
        return [TableCount("book", "", name, rows) for name, rows in self._rows.items()]

    def query(self, sql: str, database: str) -> QueryResult:
        if sql not in self._rows:
            raise RehearsalFailed(f"there is no table {sql}")
        return QueryResult(sql, database or "book", ("rows",), ((str(self._rows[sql]),),), False)

    def inspect(self) -> str:
        return "every line was counted"


class LedgerServers:
    choices: frozenset[BackupChoice] = frozenset()
    dump_formats = ("text",)
    users: tuple[str, ...] = ()
    loads_every_table = True

    @contextmanager
    def reach(self, url: str, credentials: Credentials) -> Iterator[LedgerSource]:
        yield LedgerSource(url.partition(":")[2])

    def load(self, stack: ExitStack, stage: Stage) -> ThrowawayServer:
        stage.findings.server = "Ledger 4.2"
        return ThrowawayLedger(b"".join(bytes(part) for part in stage.dump()))

    def start_command(self, folder: Path) -> list[str]:
        return ["true"]


SERVER = LedgerServers()
