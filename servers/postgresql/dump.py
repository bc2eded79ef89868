"""PostgreSQL through pg_dump and pg_dumpall, at a snapshot whose place in the write-ahead log is known.

Options that were chosen, and why: plain SQL, or the custom format without compression, because the
repository deduplicates and compresses better; no --serializable-deferrable, which differs only where
clients use SERIALIZABLE, cannot be had on a standby and may wait for ever; no --create, so that a dump loads
into a database of any name; roles and tablespaces beside it, because without them its grants fail.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, Any, Final

from holdfast.base.errors import StreamFailed
from holdfast.base.processes import last_words
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.postgresql.marks import CLUSTER_END, DATABASE_END
from holdfast.formats.dumps.postgresql.required_wal import NAME as ENGINE
from holdfast.ingest.backup.plan import Part, plan_dump
from holdfast.ingest.backup.recognise import Form
from holdfast.repo.chunks.chunker import DUMP
from holdfast.repo.snapshots.snapshot import ItemKind
from holdfast.servers.base.client_programs import find_program
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.base.secrets import Access
from holdfast.servers.base.tool_source import ToolSource, tool_version

_GLOBALS: Final = Form(ItemKind.FILE, DUMP, ENGINE, "globals.sql")
_ANSWER: Final = 64 << 20
_ANSWER_LIMIT: Final = 60.0
"""Seconds to wait for the answer to a question about catalogues."""

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


class Session:
    """A conversation with the server through psql, which reads our password's file as pg_dump does."""

    def __init__(self, access: Access, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._access = access
        self._process = process
        self._errors = errors
        self._unread = b""

    def run(self, sql: str) -> None:
        """Statements that answer nothing."""
        self._send(f"{sql};\n")

    def ask(self, expression: str) -> Any:
        """The value of an SQL expression of type json. Raises StreamFailed when the server gives none."""
        mark = secrets.token_hex(16)
        self._send(f"SELECT {expression};\nSELECT '{mark}';\n")
        answer = self._receive(mark.encode() + b"\0")
        try:
            return json.loads(answer.split(b"\0")[0])
        except (ValueError, RecursionError):
            raise StreamFailed(f"{self._where}: the server's answer cannot be understood") from None

    @property
    def _where(self) -> str:
        return self._access.connection.origin

    def _send(self, text: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()
        except OSError:
            raise self._failure() from None

    def _receive(self, end: bytes) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + _ANSWER_LIMIT
        while not self._unread.endswith(end):
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise StreamFailed(f"{self._where} did not answer psql within {_ANSWER_LIMIT:g} s")
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise self._failure()
            self._unread += data
            if len(self._unread) > _ANSWER:
                raise StreamFailed(f"{self._where}: an answer is longer than {_ANSWER} bytes")
        answer, self._unread = self._unread.removesuffix(end), b""
        return answer

    def _failure(self) -> StreamFailed:
        """psql is gone, or about to go: what it said."""
        self._process.kill()
        self._process.wait()
        said = self._access.scrub(last_words(self._errors))
        return StreamFailed(f"{self._where}: {said or 'the connection was lost'}; nothing was stored")


@contextmanager
def session(access: Access) -> Iterator[Session]:
    """A connection to `access.connection`, closed at the end of the block. Raises StreamFailed when the first
    question shows that there is none."""
    argv = [find_program("psql"), "-XqAtwz0", "-v", "ON_ERROR_STOP=1", "-f", "-"]
    argv.append(f"--dbname={access.connection.conninfo()}")
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=dict(access.environment),
            pass_fds=access.descriptors,
            process_group=0,  # a Ctrl-C is ours to handle
        )
        try:
            yield Session(access, process, errors)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            assert process.stdin is not None
            with suppress(OSError):  # what was not read any more
                process.stdin.close()


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself. `system_id` is "" for who may not know; `reads_roles` says whether roles
    can be dumped with their passwords."""

    version: str
    number: int
    database: str
    on_standby: bool
    reads_roles: bool
    system_id: str = ""


def describe(held: Session) -> Server:
    """Ask the server about itself. Raises StreamFailed."""
    found = held.ask(_SERVER)
    try:
        server = Server(
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
    program = find_program("pg_dump")
    argv = [program, "--no-password", f"--snapshot={found[0]}", f"--dbname={connection.conninfo()}"]
    argv += ["--format=custom", "--compress=0"] if custom else ["--format=plain"]
    name = "dump.pgdump" if custom else "dump.sql"
    source = ToolSource(access, argv, name, end=None if custom else DATABASE_END)
    stack.callback(source.close)
    parts = [plan_dump(source, name)]
    warnings: tuple[str, ...] = ()
    if with_globals:
        part, warnings = _globals(stack, access, server)
        parts.append(part)
    facts = replace(_facts(server, tool_version(access, program)), lsn=str(found[1] or ""))
    return Prepared(tuple(parts), server.database, ENGINE, connection.origin, facts, warnings)


def prepare_globals(stack: ExitStack, access: Access) -> Prepared:
    """Start pg_dumpall for what belongs to no database: roles, their memberships and tablespaces."""
    with session(access) as held:
        server = describe(held)
    part, warnings = _globals(stack, access, server)
    facts = _facts(server, tool_version(access, find_program("pg_dumpall")))
    return Prepared((part,), "globals", ENGINE, access.connection.to("").origin, facts, warnings)


def _globals(stack: ExitStack, access: Access, server: Server) -> tuple[Part, tuple[str, ...]]:
    connection = access.connection
    argv = [find_program("pg_dumpall"), "--globals-only", "--no-password"]
    argv += [f"--database={server.database}", f"--dbname={connection.to(server.database).conninfo()}"]
    warnings: tuple[str, ...] = ()
    if not server.reads_roles:
        argv.append("--no-role-passwords")
        warnings = ("globals.sql has the roles without their passwords: this user may not read those",)
    source = ToolSource(access, argv, "globals.sql", end=CLUSTER_END)
    stack.callback(source.close)
    return Part(source, _GLOBALS, "globals.sql"), warnings


def _facts(server: Server, tool: str) -> DumpFacts:
    return DumpFacts(server=f"PostgreSQL {server.version}", tool=tool, system_id=server.system_id)
