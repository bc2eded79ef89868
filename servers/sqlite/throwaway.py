"""A throw-away SQLite database, through the program `sqlite3` in its safe mode."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from holdfast.base.types import Buffer
from holdfast.servers.base.proof import QueryResult, TableCount
from holdfast.servers.confined.clients import ANSWER, QUERY_BYTES, ask, feed, parse_csv
from holdfast.servers.confined.confined import Confinement
from holdfast.servers.confined.errors import RehearsalFailed

DATABASE: Final = "database.sqlite"
"""The file's name in the private directory."""
_TABLES: Final = b"""SELECT hex(name) FROM sqlite_schema
WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1;
"""


class ThrowawaySqlite:
    """One database file in the private folder."""

    def __init__(self, confinement: Confinement, program: str) -> None:
        self._confinement = confinement
        self._program = program
        self._path: Path = confinement.folder / DATABASE

    def load(self, parts: Iterable[Buffer]) -> None:
        """Run a script. Raises RehearsalFailed at its first error."""
        feed(self._confinement, [self._program, *_OPTIONS, str(self._path)], parts, env={})

    def put(self, parts: Iterable[Buffer]) -> None:
        """Take a database file as it is."""
        with self._path.open("xb") as file:
            for part in parts:
                file.write(part)
        if os.geteuid() == 0:
            os.chown(self._path, self._confinement.user.uid, self._confinement.user.gid)

    def inspect(self) -> str:
        """Let SQLite check the file; returns what was done, for a note. Raises RehearsalFailed."""
        said = self._ask(b"PRAGMA integrity_check(20);\n").decode(errors="replace").strip()
        if said != "ok":
            raise RehearsalFailed(f"sqlite3: integrity_check: {said[:2000]}")
        # Rows without their parent are no fault of the backup: SQLite only enforces foreign keys for
        # connections that ask for it.
        try:
            orphans = self._ask(b"SELECT count(*) FROM pragma_foreign_key_check;\n").decode().strip()
        except RehearsalFailed as error:
            return f"integrity_check found nothing wrong; foreign keys could not be checked: {error}"
        lost = "" if orphans == "0" else f"; {orphans} rows refer to rows that are not there"
        return f"integrity_check found nothing wrong{lost}"

    def count(self) -> list[TableCount]:
        names = [bytes.fromhex(line) for line in self._ask(_TABLES).decode("ascii").split()]
        sql = b"".join(b'SELECT count(*) FROM "%s";\n' % name.replace(b'"', b'""') for name in names)
        rows = self._ask(sql).split() if names else []
        if len(rows) != len(names):
            raise RehearsalFailed("sqlite3 did not count every table")
        return [
            TableCount("main", "", name.decode(errors="backslashreplace"), int(number))
            for name, number in zip(names, rows, strict=True)
        ]

    def query(self, sql: str, database: str) -> QueryResult:
        null = secrets.token_hex(8)
        argv = [self._program, *_OPTIONS, "-csv", "-header", "-nullvalue", null, "-readonly", str(self._path)]
        question = sql.encode(errors="surrogateescape") + b"\n;\n"
        answer, more = ask(self._confinement, argv, question, env={}, limit=4 * QUERY_BYTES)
        table = parse_csv(answer, more=more, null=null)
        return QueryResult(sql, database or "main", table.columns, table.rows, table.more)

    def _ask(self, sql: bytes) -> bytes:
        argv = [self._program, *_OPTIONS, str(self._path)]
        answer, more = ask(self._confinement, argv, sql, env={})
        if more:
            raise RehearsalFailed(f"the list of tables is longer than {ANSWER >> 20} MiB, the limit")
        return answer


_OPTIONS: Final = ("-batch", "-bail", "-safe", "-init", "/dev/null")
