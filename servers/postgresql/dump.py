"""PostgreSQL through pg_dump and pg_dumpall, at a snapshot whose place in the write-ahead log is known.

Options that were chosen, and why: plain SQL, or the custom format without compression, because the
repository deduplicates and compresses better; no --serializable-deferrable, which differs only where
clients use SERIALIZABLE, cannot be had on a standby and may wait for ever; no --create, so that a dump loads
into a database of any name; roles and tablespaces beside it, because without them its grants fail.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from holdfast.base.errors import StreamFailed
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.postgresql.plain.marks import CLUSTER_END, DATABASE_END
from holdfast.formats.dumps.postgresql.plain.marks import NAME as ENGINE
from holdfast.ingest.backup.plan import PlannedItem, plan_dump
from holdfast.ingest.backup.recognise import SourceType
from holdfast.repo.chunks.chunker import DUMP
from holdfast.repo.snapshots.snapshot import ItemKind
from holdfast.servers.base.connection import place_of
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.base.secrets import Access
from holdfast.servers.base.tool_source import ToolSource, tool_version
from holdfast.servers.postgresql.connection import conninfo
from holdfast.servers.postgresql.programs import find_client
from holdfast.servers.postgresql.psql import Session, session

_GLOBALS: Final = SourceType(ItemKind.FILE, DUMP, ENGINE, "globals.sql")
_SERVER: Final = """json_build_object(
    'version', current_setting('server_version'),
    'number', current_setting('server_version_num')::int,
    'database', current_database(),
    'standby', pg_is_in_recovery(),
    'control', has_function_privilege('pg_control_system()', 'execute'),
    'roles', has_table_privilege('pg_authid', 'select'))"""
_DATABASES: Final = """(SELECT coalesce(json_agg(datname ORDER BY datname), '[]')
    FROM pg_database WHERE datallowconn AND NOT datistemplate)"""
_NO_TIMEOUTS: Final = """(SELECT count(set_config(name, '0', false)) FROM pg_settings
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout'))"""


@dataclass(frozen=True, slots=True)
class ServerDescription:
    """A server's facts about itself. `system_id` is "" when the user may not read it; `reads_roles` says
    whether roles can be dumped with their passwords."""

    version: str
    number: int
    database: str
    on_standby: bool
    reads_roles: bool
    system_id: str = ""


def describe(held: Session) -> ServerDescription:
    """Ask the server about itself. Raises StreamFailed."""
    found = held.ask(_SERVER)
    try:
        server = ServerDescription(
            str(found["version"]),
            int(found["number"]),
            str(found["database"]),
            bool(found["standby"]),
            bool(found["roles"]),
            str(held.ask("(SELECT to_json(system_identifier::text) FROM pg_control_system())"))
            if found["control"]
            else "",
        )
    except (KeyError, TypeError, ValueError):
        raise StreamFailed("the server's answer cannot be understood") from None
    return server


def list_databases(access: Access) -> tuple[str, ...]:
    """Every database that can be connected to and is no template. Raises StreamFailed."""
    with session(access) as held:
        found = held.ask(_DATABASES)
    if not isinstance(found, list):
        raise StreamFailed("the server's answer cannot be understood")
    return tuple(map(str, found))


def prepare_database(
    stack: ExitStack, access: Access, *, custom: bool = False, with_globals: bool = True
) -> Prepared:
    """Start pg_dump for the connection's database, and pg_dumpall for roles and tablespaces.

    A session in `stack` holds the transaction snapshot that pg_dump reads, so that its place in the
    write-ahead log is known: "lsn" is at or a little behind it, never before: what is in the dump was
    committed before that place. Raises StreamFailed, NotFound.
    """
    held = stack.enter_context(session(access))
    server = describe(held)
    held.ask(f"to_json({_NO_TIMEOUTS})")
    held.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    at = "pg_last_wal_replay_lsn" if server.on_standby else "pg_current_wal_lsn"
    found = held.ask(f"json_build_array(pg_export_snapshot(), {at}())")
    if not (isinstance(found, list) and len(found) == 2 and re.fullmatch(r"[0-9A-F-]+", str(found[0]))):
        raise StreamFailed("the server's answer cannot be understood")
    connection = access.connection.to(server.database)
    program = find_client("pg_dump")
    argv = [program, "--no-password", f"--snapshot={found[0]}", f"--dbname={conninfo(connection)}"]
    argv += ["--format=custom", "--compress=0"] if custom else ["--format=plain"]
    name = "dump.pgdump" if custom else "dump.sql"
    source = ToolSource(access, argv, name, end=None if custom else DATABASE_END)
    stack.callback(source.close)
    items = [plan_dump(source, name)]
    warnings: tuple[str, ...] = ()
    if with_globals:
        part, warnings = _globals(stack, access, server)
        items.append(part)
    facts = replace(_facts(server, tool_version(access, program)), lsn=str(found[1] or ""))
    where = place_of(connection, server.system_id)
    return Prepared(tuple(items), server.database, ENGINE, connection.origin, facts, warnings, where=where)


def prepare_globals(stack: ExitStack, access: Access) -> Prepared:
    """Start pg_dumpall for what belongs to no database: roles, their memberships and tablespaces."""
    with session(access) as held:
        server = describe(held)
    part, warnings = _globals(stack, access, server)
    facts = _facts(server, tool_version(access, find_client("pg_dumpall")))
    connection = access.connection.to("")
    where = place_of(connection, server.system_id)
    return Prepared((part,), "globals", ENGINE, connection.origin, facts, warnings, where=where)


def _globals(
    stack: ExitStack, access: Access, server: ServerDescription
) -> tuple[PlannedItem, tuple[str, ...]]:
    connection = access.connection
    argv = [find_client("pg_dumpall"), "--globals-only", "--no-password"]
    argv += [f"--database={server.database}", f"--dbname={conninfo(connection.to(server.database))}"]
    warnings: tuple[str, ...] = ()
    if not server.reads_roles:
        argv.append("--no-role-passwords")
        warnings = ("globals.sql has the roles without their passwords: this user may not read those",)
    source = ToolSource(access, argv, "globals.sql", end=CLUSTER_END)
    stack.callback(source.close)
    return PlannedItem(source, _GLOBALS, "globals.sql"), warnings


def _facts(server: ServerDescription, tool: str) -> DumpFacts:
    return DumpFacts(server=f"PostgreSQL {server.version}", tool=tool, system_id=server.system_id)
