"""Conversations with PostgreSQL servers through psql, which reads a password's file as pg_dump does."""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Final

from holdfast.base.errors import StreamFailed
from holdfast.base.processes import last_words
from holdfast.servers.base.secrets import Access
from holdfast.servers.postgresql.connection import conninfo
from holdfast.servers.postgresql.programs import find_client

_ANSWER: Final = 64 << 20
_ANSWER_LIMIT: Final = 60.0
"""Seconds to wait for the answer to a question about catalogues."""
FIELDS: Final = ("-A", "-t", "-z", "-0")
"""Options for answers that are fields alone, each with a NUL behind it: names may hold anything else."""


def psql_arguments(program: str, database: str, *options: str) -> list[str]:
    """A psql that runs what comes on standard input, until the first error. `database` is a connection
    string; no file of the user's is read, no password asked for."""
    return [
        program,
        "-X",
        "-q",
        "--no-password",
        "-v",
        "ON_ERROR_STOP=1",
        *options,
        "-f",
        "-",
        f"--dbname={database}",
    ]


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
        """End psql, which is gone or about to go, and return its last words as an error."""
        self._process.kill()
        self._process.wait()
        said = self._access.scrub(last_words(self._errors))
        return StreamFailed(f"{self._where}: {said or 'the connection was lost'}; nothing was stored")


@contextmanager
def session(access: Access) -> Iterator[Session]:
    """A connection to `access.connection`, closed at the end of the block. Raises StreamFailed when the first
    question shows that there is none."""
    argv = psql_arguments(find_client("psql"), conninfo(access.connection), *FIELDS)
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
