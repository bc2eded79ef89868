"""PostgreSQL's servers: URLs, libpq's connection strings, and how its programs get a password."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from holdfast.base.errors import Refused
from holdfast.formats.dumps.postgresql.plain.marks import NAME
from holdfast.formats.dumps.postgresql.plain.quoting import conninfo_value
from holdfast.servers.base import connection as urls
from holdfast.servers.base.connection import Connection, UrlRules
from holdfast.servers.base.programs import program_environment
from holdfast.servers.base.secrets import (
    Access,
    Credentials,
    check_password,
    descriptor_path,
    memory_file,
)

_PASSWORD: Final = "PGPASSWORD"  # noqa: S105  the name of a variable
_LEFT_OUT: Final = frozenset({_PASSWORD, "PGCLIENTENCODING", "PGDATESTYLE"})
_PARAMETER: Final = re.compile(r"[a-z_]{2,40}")
_TAKEN: Final = frozenset({"dbname", "host", "port", "user", "replication", "client_encoding"})
"""Given elsewhere in the URL, or set by a backup."""


def _check_parameter(name: str) -> None:
    if _PARAMETER.fullmatch(name) is None or name in _TAKEN:
        raise Refused(f"the URL's parameter {name[:40]!r} is none that a backup can pass on to libpq")


_RULES: Final = UrlRules(
    scheme=NAME,
    password_file="~/.pgpass (PGPASSFILE)",  # noqa: S106
    check_parameter=_check_parameter,
    several_hosts=True,
    socket_refusal="socket: PostgreSQL's is named by its directory, ?host=/run/postgresql",
)


def parse_url(text: str) -> Connection:
    """Parse a `postgres://` URL. Raises as `servers.base.connection.parse_url`."""
    return urls.parse_url(text, _RULES)


def conninfo(connection: Connection, **more: str) -> str:
    """libpq's connection string, for `--dbname=`. `more` are further parameters, which come last."""
    c = connection
    pairs = [("host", c.host), ("port", c.port), ("user", c.user), ("dbname", c.database)]
    pairs = [pair for pair in pairs if pair[1]] + [*c.parameters, *more.items()]
    return " ".join(f"{name}={conninfo_value(value)}" for name, value in pairs)


@contextmanager
def access(
    connection: Connection, credentials: Credentials, environ: Mapping[str, str] | None = None
) -> Iterator[Access]:
    """Hold what libpq's programs need to reach the server; descriptors are closed at the end of the block.

    A password in PGPASSWORD goes the same way as one that was given. Raises Refused for a password that no
    file can hold.
    """
    found = os.environ if environ is None else environ
    environment = program_environment(found, "PG.*", _LEFT_OUT)
    password = credentials.password if credentials.password is not None else found.get(_PASSWORD)
    check_password(password or "")
    if credentials.defaults_file:
        raise Refused("an option file is MySQL's; PostgreSQL's own file is named by PGPASSFILE")
    if not password:
        yield Access(connection, environment)
        return
    word = _passfile_word(password)
    with memory_file(f"*:*:*:*:{word}\n") as fd:
        environment["PGPASSFILE"] = descriptor_path(fd)
        yield Access(_without_passfile(connection), environment, (fd,), secrets=(password, word))


def _passfile_word(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _without_passfile(connection: Connection) -> Connection:
    """Remove `passfile`: in a connection string it would take precedence over PGPASSFILE."""
    kept = tuple(pair for pair in connection.parameters if pair[0] != "passfile")
    return connection.with_parameters(kept)
