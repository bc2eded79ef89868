"""MySQL and MariaDB through mysqldump or mariadb-dump, in one transaction, with the place in the binlog.

Options that were chosen, and why: --single-transaction, so that writers go on; --hex-blob, because binary
values that were taken for text have been lost before; no date at the end, so that an unchanged database
gives unchanged bytes; statements that insert many rows, which load fast and deduplicate as well as single
ones; routines and events, which are not dumped unless asked for.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from holdfast.base.errors import StreamFailed
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.mysql.facts import END, DumpComments
from holdfast.formats.dumps.mysql.product import MARIADB, MYSQL, SYSTEM_DATABASES, TITLES, product_in
from holdfast.ingest.backup.plan import plan_dump
from holdfast.repo.snapshots.snapshot import Consistency
from holdfast.servers.base.connection import place_of
from holdfast.servers.base.errors import NoDatabase
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.base.secrets import Access
from holdfast.servers.base.tool_source import ToolSource, ask_program, tool_version
from holdfast.servers.mysql.connection import mysql_options
from holdfast.servers.mysql.programs import find_client, find_dump_program

_PACKET: Final = "--max-allowed-packet=1073741824"
"""Rows may have 1 GiB; the tools' own limit is 16 to 24 MiB, and a longer row ends the dump."""
NO_FILES: Final = "--local-infile=0"
"""No server gets a file of this machine by asking its client. The dump tools do not have the option."""
_NAMED: Final = 5
"""Tables that a sentence names."""

_SERVER: Final = """SELECT HEX(CONCAT_WS('\\n', VERSION(), IF(@@log_bin, 1, 0), COALESCE(DATABASE(), ''),
    @@version_comment))"""
_IDENTIFIER: Final = "SHOW GLOBAL VARIABLES WHERE variable_name IN ('server_uuid', 'server_uid')"
"""MySQL's UUID; MariaDB has its own identifier, in newer versions."""
_DATABASES: Final = "SELECT HEX(schema_name) FROM information_schema.schemata ORDER BY schema_name"
_NOT_TRANSACTIONAL: Final = """SELECT HEX(t.table_name) FROM information_schema.tables t
    LEFT JOIN information_schema.engines e ON e.engine = t.engine
    WHERE t.table_schema = DATABASE() AND t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')
    AND COALESCE(e.transactions, 'NO') <> 'YES' AND COALESCE(t.engine, '') <> 'BLACKHOLE'
    ORDER BY t.table_name"""
_POSITION: Final = {MARIADB: "SHOW MASTER STATUS", MYSQL: "SHOW BINARY LOG STATUS"}


@dataclass(frozen=True, slots=True)
class ServerDescription:
    """A server's facts about itself. `engine` is one of `PRODUCTS`; `identifier` is "" if it has none."""

    version: str
    engine: str
    database: str
    has_binlog: bool
    identifier: str


def describe(access: Access) -> ServerDescription:
    """Ask the server about itself. Raises StreamFailed."""
    answer = _ask(access, _SERVER)
    lines = answer[0].split("\n") if answer else []
    if len(lines) < 4:
        raise StreamFailed(f"{access.connection.origin}: the server's answer cannot be understood")
    version, binlog, database, comment = lines[:4]
    named = [line.split("\t") for line in _ask(access, _IDENTIFIER, hexadecimal=False)]
    identifier = next((value for _, value in (pair for pair in named if len(pair) == 2)), "")
    return ServerDescription(version, product_in(f"{version} {comment}"), database, binlog == "1", identifier)


def list_databases(access: Access) -> tuple[str, ...]:
    """Every database that this user sees, without the server's own. Raises StreamFailed."""
    return tuple(name for name in _ask(access, _DATABASES) if name.lower() not in SYSTEM_DATABASES)


def prepare_database(stack: ExitStack, access: Access, *, lock_all: bool = False) -> Prepared:
    """Start the dump of the connection's database. Tables of engines without transactions make the grade
    `unknown`, because they are read while they change, unless `lock_all` holds every writer back.

    Raises StreamFailed, NotFound, and NoDatabase when no database is named.
    """
    server = describe(access)
    if not server.database:
        raise NoDatabase("the URL names no database; write mysql://user@host/DATABASE")
    program = find_dump_program(server.engine)
    argv = [program, *access.first, *mysql_options(access.connection), *_OPTIONS, _PACKET]
    argv += ["--lock-all-tables"] if lock_all else ["--single-transaction"]
    warnings: list[str] = []
    if server.has_binlog:
        place, warning = _binlog_options(access, server, program, lock_all=lock_all)
        argv += place
        warnings += warning
    argv += ["--", server.database]
    grade, evidence, warning = _grade(access, program, lock_all=lock_all)
    source = ToolSource(access, argv, "dump.sql", end=END, grade=grade, evidence=evidence)
    stack.callback(source.close)
    facts = with_position(_facts(server, tool_version(access, program)), source.head)
    if server.engine == MARIADB and facts.binlog:
        facts = replace(facts, gtid=_gtid(access, facts.binlog) or facts.gtid)
    return Prepared(
        (plan_dump(source, "dump.sql"),),
        server.database,
        server.engine,
        access.connection.to(server.database).origin,
        facts,
        (*warnings, *warning),
        where=place_of(access.connection.to(server.database), server.identifier),
    )


def writes_users(access: Access) -> bool:
    """Whether users and grants can be dumped: only MariaDB's tool writes them as statements."""
    server = describe(access)
    return (
        server.engine == MARIADB
        and product_in(tool_version(access, find_dump_program(server.engine))) == MARIADB
    )


def prepare_globals(stack: ExitStack, access: Access) -> Prepared:
    """Start the dump of users and grants, if `writes_users` says that the program can."""
    server = describe(access)
    program = find_dump_program(server.engine)
    argv = [program, *access.first, *mysql_options(access.connection.to("")), "--skip-dump-date"]
    argv += ["--system=users", "--insert-ignore"]
    source = ToolSource(access, argv, "dump.sql", end=END)
    stack.callback(source.close)
    part = plan_dump(source, "dump.sql")
    facts = _facts(server, tool_version(access, program))
    connection = access.connection.to("")
    where = place_of(connection, server.identifier)
    return Prepared((part,), "globals", server.engine, connection.origin, facts, where=where)


def with_position(facts: DumpFacts, head: bytes) -> DumpFacts:
    """The facts with the place in the binary log that a dump's first bytes name, if they do."""
    comments = DumpComments()
    comments.position(head)
    found = comments.facts()
    return replace(facts, binlog=found.binlog, gtid=found.gtid)


_OPTIONS: Final = (
    "--quick",
    "--routines",
    "--events",
    "--triggers",
    "--hex-blob",
    "--skip-dump-date",
    # Where a column's default is a MariaDB sequence, a dump with LOCK TABLES cannot be loaded (error 1100).
    "--skip-add-locks",
    "--no-tablespaces",
    "--default-character-set=utf8mb4",
)


def _binlog_options(
    access: Access, server: ServerDescription, program: str, *, lock_all: bool
) -> tuple[list[str], list[str]]:
    """(options that write the place in the binlog, warnings). Asked for without the right to, it would fail
    the dump; without MariaDB's help it needs a short global lock, which needs one more right."""
    try:
        try:
            _ask(access, _POSITION[server.engine], hexadecimal=False)
        except StreamFailed:
            _ask(access, "SHOW MASTER STATUS", hexadecimal=False)
        if server.engine == MYSQL or lock_all:
            grants = " ".join(_ask(access, "SHOW GRANTS", hexadecimal=False))
            if not re.search(r"\bRELOAD\b|\bALL PRIVILEGES ON \*\.\*", grants):
                raise StreamFailed("it lacks the privilege RELOAD")
    except StreamFailed:
        return [], ["the place in the binlog was not recorded: this user may not know it"]
    if product_in(tool_version(access, program)) == MARIADB:
        return ["--master-data=2", "--gtid"], []
    return ["--source-data=2"], []


def _gtid(access: Access, place: str) -> str:
    """MariaDB's dump says the GTID at its end only; the server knows which belongs to a place, or ""."""
    file, _, position = place.rpartition(":")
    if not re.fullmatch(r"[\w.-]{1,255}", file, re.ASCII):
        return ""
    try:
        found = _ask(access, f"SELECT HEX(BINLOG_GTID_POS('{file}', {int(position)}))")
    except StreamFailed:
        return ""
    return found[0] if found else ""


def _grade(access: Access, program: str, *, lock_all: bool) -> tuple[Consistency, str, list[str]]:
    tool = re.split("/", program)[-1]
    whole = f"{tool} exited with 0 and its end mark was seen"
    if lock_all:
        return Consistency.APPLICATION, f"{whole}; all tables were locked", []
    tables = _ask(access, _NOT_TRANSACTIONAL)
    if not tables:
        return Consistency.APPLICATION, f"{whole}; one transaction read all tables", []
    some = ", ".join(tables[:_NAMED]) + (f" and {len(tables) - _NAMED} more" if tables[_NAMED:] else "")
    text = f"tables without transactions were read while they could change: {some}"
    return Consistency.UNKNOWN, text, [f"{text}; locking all tables would make writers wait instead"]


def _ask(access: Access, sql: str, *, hexadecimal: bool = True) -> list[str]:
    """The one column of an answer. Names come in hexadecimal: they can have tabs and line ends in them."""
    connection = access.connection
    argv = [find_client(), *access.first, *mysql_options(connection), NO_FILES]
    argv += ["--batch", "--skip-column-names", "--default-character-set=utf8mb4", "--binary-as-hex=0"]
    argv += [f"--database={connection.database}"] if connection.database else []
    lines = ask_program(access, argv, stdin=f"{sql};\n").decode(errors="replace").splitlines()
    if not hexadecimal:
        return lines
    try:
        return [bytes.fromhex(line).decode(errors="surrogateescape") for line in lines]
    except ValueError:
        raise StreamFailed(f"{connection.origin}: the server's answer cannot be understood") from None


def _facts(server: ServerDescription, tool: str) -> DumpFacts:
    version = server.version.removeprefix("5.5.5-").split("-")[0]  # MariaDB's, put there for old clients
    return DumpFacts(server=f"{TITLES[server.engine]} {version}", tool=tool)
