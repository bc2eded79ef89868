"""Secrets on their way to the databases' own programs: in memory, by a descriptor, and nowhere else.

A file made by memfd_create has no name in any file system and is gone with the last process that holds it,
however that ends. Programs open it as /proc/self/fd/N; its mode is 0600, which libpq insists on.
Arguments and environments can be read by others or end up in logs; neither ever holds a secret of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from holdfast.base.errors import Refused
from holdfast.servers.base.client_programs import program_environment
from holdfast.servers.base.connection import Connection

_GLOBAL_FILES: Final = ("/etc/my.cnf", "/etc/mysql/my.cnf")
_HIDDEN: Final = "***"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What was given besides the URL. `password` None: the tools find it in their own files, if they need
    one. `defaults_file` replaces every option file of MySQL's programs."""

    password: str | None = field(default=None, repr=False)
    defaults_file: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """What a program must be started with to reach a server: `environment`, `descriptors` that it inherits
    and, for MySQL's, `first`: arguments that have to stand before all others."""

    connection: Connection
    environment: Mapping[str, str]
    descriptors: tuple[int, ...] = ()
    first: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)

    def scrub(self, text: str) -> str:
        """The text without the password, as far as a program repeated it or the line of its file."""
        if not self.secret:
            return text
        written = {self.secret, _pgpass_word(self.secret), _option_word(self.secret)}
        for form in sorted(written, key=len, reverse=True):
            text = text.replace(form, _HIDDEN)
        return text


@contextmanager
def access(
    connection: Connection, credentials: Credentials, environ: Mapping[str, str] | None = None
) -> Iterator[Access]:
    """Hold what programs need to reach the server; the descriptors are closed at the end of the block.

    A password in PGPASSWORD or MYSQL_PWD goes the same way as one that was given. Raises Refused for a
    password that the tools' files cannot hold.
    """
    found = dict(os.environ if environ is None else environ)
    environment = program_environment(found)
    variable = "PGPASSWORD" if connection.is_postgresql else "MYSQL_PWD"
    password = credentials.password if credentials.password is not None else found.get(variable)
    if password and set(password) & set("\0\r\n"):
        raise Refused("the database's password has a line break in it: no program could read it from a file")
    if connection.is_postgresql:
        if credentials.defaults_file:
            raise Refused("--db-defaults-file is MySQL's; PostgreSQL's own file is named by PGPASSFILE")
        if not password:
            yield Access(connection, environment)
            return
        with _memory_file(f"*:*:*:*:{_pgpass_word(password)}\n") as fd:
            environment["PGPASSFILE"] = _path(fd)
            yield Access(_without_passfile(connection), environment, (fd,), secret=password)
        return
    if credentials.defaults_file:
        if credentials.password is not None:
            raise Refused("--db-defaults-file holds the password: give that or a password, not both")
        first = (f"--defaults-file={Path(credentials.defaults_file).absolute()}",)
        yield Access(connection, environment, first=first)
    elif not password:
        yield Access(connection, environment)
    else:
        with _memory_file(_option_file(password, environment.get("HOME", ""))) as fd:
            # Not --defaults-extra-file: the password in ~/.my.cnf is read after that and would win.
            yield Access(connection, environment, (fd,), (f"--defaults-file={_path(fd)}",), secret=password)


def _option_file(password: str, home: str) -> str:
    """An option file that reads the usual ones first, and says the password last."""
    usual = [*_GLOBAL_FILES, *([f"{home}/.my.cnf"] if home else [])]
    included = [f"!include {path}" for path in usual if os.access(path, os.R_OK)]
    return "\n".join([*included, "[client]", f'password="{_option_word(password)}"', ""])


def _pgpass_word(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _option_word(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _without_passfile(connection: Connection) -> Connection:
    """In a connection string it would go before PGPASSFILE."""
    kept = tuple(pair for pair in connection.parameters if pair[0] != "passfile")
    return connection.with_parameters(kept)


def _path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


@contextmanager
def _memory_file(content: str) -> Iterator[int]:
    fd = os.memfd_create("holdfast", os.MFD_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        with open(fd, "wb", buffering=0, closefd=False) as file:
            file.write(content.encode(errors="surrogateescape"))
        yield fd
    finally:
        os.close(fd)
