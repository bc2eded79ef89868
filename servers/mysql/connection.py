"""Servers of MySQL and MariaDB: URLs, options of their programs, and how these get a password."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from holdfast.base.errors import Refused
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

_PASSWORD: Final = "MYSQL_PWD"  # noqa: S105  the name of a variable
_GLOBAL_FILES: Final = ("/etc/my.cnf", "/etc/mysql/my.cnf")
_PARAMETERS: Final = frozenset(
    {"ssl-ca", "ssl-capath", "ssl-cert", "ssl-key", "ssl-cipher", "ssl-mode", "ssl-verify-server-cert"}
    | {"ssl", "skip-ssl", "protocol", "default-auth", "plugin-dir", "compress", "tls-version"}
    | {"get-server-public-key", "server-public-key-path", "connect-timeout", "bind-address"}
)
_FLAGS: Final = frozenset({"ssl", "skip-ssl", "ssl-verify-server-cert", "compress", "get-server-public-key"})


def _check_parameter(name: str) -> None:
    if name not in _PARAMETERS:
        known = ", ".join(sorted(_PARAMETERS | {"socket"}))
        raise Refused(f"the URL's parameter {name[:40]!r} is not known; known are {known}")


def parse_url(text: str) -> Connection:
    """Parse a `mysql://` or `mariadb://` URL. Raises as `servers.base.connection.parse_url`."""
    scheme = text.partition(":")[0].lower()
    rules = UrlRules(scheme, "~/.my.cnf", _check_parameter)
    return urls.parse_url(text, rules)


def mysql_options(connection: Connection) -> list[str]:
    """The options of programs that lead to the server. No database among them."""
    c = connection
    given = {"host": c.host, "port": c.port, "user": c.user, "socket": c.socket}
    options = [f"--{name}={value}" for name, value in given.items() if value]
    for name, value in c.parameters:
        options.append(f"--{name}" if name in _FLAGS and value in ("", "1") else f"--{name}={value}")
    return options


@contextmanager
def access(
    connection: Connection, credentials: Credentials, environ: Mapping[str, str] | None = None
) -> Iterator[Access]:
    """Hold what programs need to reach the server; descriptors are closed at the end of the block.

    A password in MYSQL_PWD goes the same way as one that was given. Raises Refused for a password that no
    file can hold.
    """
    found = os.environ if environ is None else environ
    environment = program_environment(found, "MYSQL_.*|MARIADB_.*", frozenset({_PASSWORD}))
    password = credentials.password if credentials.password is not None else found.get(_PASSWORD)
    check_password(password or "")
    if credentials.defaults_file:
        if credentials.password is not None:
            raise Refused("an option file holds the password: give that or a password, not both")
        first = (f"--defaults-file={Path(credentials.defaults_file).absolute()}",)
        yield Access(connection, environment, first=first)
    elif not password:
        yield Access(connection, environment)
    else:
        word = _option_word(password)
        with memory_file(_option_file(word, environment.get("HOME", ""))) as fd:
            # Not --defaults-extra-file: the password in ~/.my.cnf is read after that and would win.
            first = (f"--defaults-file={descriptor_path(fd)}",)
            yield Access(connection, environment, (fd,), first, secrets=(password, word))


def _option_file(word: str, home: str) -> str:
    """An option file that reads the usual ones first, and gives the password last."""
    usual = [*_GLOBAL_FILES, *([f"{home}/.my.cnf"] if home else [])]
    included = [f"!include {path}" for path in usual if os.access(path, os.R_OK)]
    return "\n".join([*included, "[client]", f'password="{word}"', ""])


def _option_word(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
