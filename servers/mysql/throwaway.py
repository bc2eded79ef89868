"""A throw-away MariaDB or MySQL."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from holdfast.base.types import Buffer
from holdfast.formats.dumps.mysql.product import MYSQL, SYSTEM_DATABASES
from holdfast.servers.base.proof import QueryResult, TableCount
from holdfast.servers.confined.clients import ANSWER, QUERY_BYTES, QUERY_ROWS, ask, failure, feed
from holdfast.servers.confined.confined import Confinement
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.program import Program
from holdfast.servers.mysql.dump import NO_FILES
from holdfast.servers.mysql.programs import MysqlPrograms

DATA_FOLDER: Final = "data"
SOCKET: Final = "socket"
"""Names in the private directory."""
_PACKET: Final = "--max-allowed-packet=1073741824"
_START_SECONDS: Final = 120.0
_NAME_LIMIT: Final = 64
_TABLES: Final = b"""SELECT HEX(table_schema), HEX(table_name) FROM information_schema.tables
WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')
AND table_schema NOT IN ('information_schema', 'performance_schema', 'mysql', 'sys')
ORDER BY 1, 2;
"""


class ThrowawayMysql:
    """A server that answers. Made by `running`."""

    def __init__(self, confinement: Confinement, programs: MysqlPrograms, data: Path) -> None:
        self._confinement = confinement
        self._programs = programs
        self._data = data
        self._socket = confinement.folder / SOCKET
        self._process: Program | None = None
        self._filled: list[str] = []

    def start(self, *options: str) -> None:
        """Raises RehearsalFailed with the server's last words."""
        argv = [
            self._programs.server,
            "--no-defaults",
            f"--datadir={self._data}",
            f"--socket={self._socket}",
            f"--pid-file={self._confinement.folder / 'pid'}",
            f"--tmpdir={self._confinement.folder}",
            f"--secure-file-priv={self._confinement.folder}",
            "--skip-networking",
            "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
            "--innodb-buffer-pool-size=256M",
            "--event-scheduler=OFF",
            "--log-bin-trust-function-creators=1",
            "--local-infile=0",
            _PACKET,
        ]
        argv += ["--mysqlx=OFF"] if self._programs.product == MYSQL else ["--skip-symbolic-links"]
        self._process = self._confinement.start([*argv, *options])
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None:
                self._process.end()
                raise failure(self._process)
            if time.monotonic() >= deadline:
                raise RehearsalFailed(f"the server does not answer: {self._process.last_words()}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.end()

    def shut_down(self) -> None:
        """All that it holds in memory is in its files afterwards."""
        if self._process is not None:
            self._process.shut_down(signal.SIGTERM)

    def load(self, parts: Iterable[Buffer], database: str) -> None:
        """Run a script, beginning in `database`, which is made. Raises RehearsalFailed at its first error.

        When the script brought users of its own that shut us out, the server is started again without
        passwords.
        """
        self._ask(b"CREATE DATABASE IF NOT EXISTS %s;\n" % _quoted(database.encode()))
        feed(self._confinement, self._client("--binary-mode", f"--database={database}"), parts, env={})
        if not self._answers():
            self.shut_down()
            self.start("--skip-grant-tables")

    def count(self) -> list[TableCount]:
        answer = self._ask(_TABLES)
        lines = [line.split("\t") for line in answer.decode("ascii").splitlines()]
        names = [(bytes.fromhex(database), bytes.fromhex(name)) for database, name in lines]
        sql = b"".join(
            b"SELECT COUNT(*) FROM %s.%s;\n" % (_quoted(database), _quoted(name)) for database, name in names
        )
        rows = self._ask(sql).split()
        if len(rows) != len(names):
            raise RehearsalFailed("the server did not count every table")
        self._filled = list(dict.fromkeys(_text(database) for database, _ in names))
        return [
            TableCount(_text(database), "", _text(name), int(number))
            for (database, name), number in zip(names, rows, strict=True)
        ]

    def query(self, sql: str, database: str) -> QueryResult:
        """Without `database`, and with several that have tables, none is chosen: names say theirs then."""
        if not database and len(self._filled) == 1:
            database = self._filled[0]
        options = [f"--database={database}"] if database else []
        argv = [*self._client("--batch", "--column-names", "--quick", *options)]
        question = sql.encode(errors="surrogateescape") + b"\n;\n"
        answer, more = ask(self._confinement, argv, question, env={}, limit=QUERY_BYTES)
        lines = [line.split("\t") for line in _text(answer).split("\n")]
        lines = lines[:-1]  # the line that the limit cut off, or "" after the last line
        more = more or len(lines) > QUERY_ROWS + 1
        rows = tuple(tuple(map(_cell, line)) for line in lines[1 : QUERY_ROWS + 1])
        return QueryResult(sql, database, tuple(lines[0]) if lines else (), rows, more)

    def inspect(self) -> str:
        """A load builds everything anew: there is nothing more to check."""
        return ""

    def _ask(self, sql: bytes) -> bytes:
        argv = self._client("--batch", "--skip-column-names")
        answer, more = ask(self._confinement, argv, sql, env={})
        if more:
            raise RehearsalFailed(f"the list of tables is longer than {ANSWER >> 20} MiB, the limit")
        return answer

    def _answers(self) -> bool:
        program = self._confinement.start(self._client("-e", "SELECT 1"))
        return program.wait() == 0

    def _client(self, *options: str) -> list[str]:
        return [
            *(self._programs.client, "--no-defaults", "--user=root", f"--socket={self._socket}"),
            *("--default-character-set=utf8mb4", _PACKET, NO_FILES),
            *options,
        ]


@contextmanager
def running(confinement: Confinement, programs: MysqlPrograms) -> Iterator[ThrowawayMysql]:
    """A fresh server. Raises RehearsalFailed with its last words."""
    data = confinement.folder / DATA_FOLDER
    program = confinement.start(_install(programs, data, confinement))
    if program.wait():
        raise failure(program)
    server = ThrowawayMysql(confinement, programs, data)
    try:
        server.start()
        yield server
        if confinement.keep:
            server.shut_down()
    finally:
        server.stop()


def _install(programs: MysqlPrograms, data: Path, confinement: Confinement) -> Sequence[str]:
    if programs.product == MYSQL:
        return [programs.server, "--no-defaults", "--initialize-insecure", f"--datadir={data}"]
    return [
        programs.install,
        "--no-defaults",
        f"--datadir={data}",
        f"--tmpdir={confinement.folder}",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--skip-name-resolve",
    ]


def database_name(wanted: str) -> str:
    """A database for a dump that names none: of that name if it can be one."""
    usable = wanted and len(wanted) <= _NAME_LIMIT and wanted.isprintable() and not wanted.endswith(" ")
    return wanted if usable and wanted.lower() not in SYSTEM_DATABASES and "/" not in wanted else "rehearsal"


def _quoted(name: bytes) -> bytes:
    return b"`" + name.replace(b"`", b"``") + b"`"


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _cell(text: str) -> str | None:
    return None if text == "NULL" else text
