"""The programs of MySQL and MariaDB."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from holdfast.base.errors import Refused
from holdfast.formats.dumps.mysql.product import MARIADB, MYSQL, product_in
from holdfast.servers.base.programs import ask_version, find_program, look_up

_SERVERS: Final = (("mariadbd", "mariadb", "mariadb-install-db"), ("mysqld", "mysql", "mysql_install_db"))
_DUMPS: Final = ("mariadb-dump", "mysqldump")


@dataclass(frozen=True, slots=True)
class MysqlPrograms:
    """A server (`product` says of which of the two) and its client. `install` is "" where the server does
    that."""

    product: str
    version: str
    server: str
    client: str
    install: str


def find_server(product: str) -> MysqlPrograms:
    """A server of that product, else of its relative. Raises Refused."""
    found: dict[str, MysqlPrograms] = {}
    for names in _SERVERS:
        server, client, install = (look_up(name) for name in names)
        if server and client:
            said = ask_version(server)
            match = re.search(r"Ver (\S+)", said)
            kind = product_in(said)
            version = match[1].partition("-")[0] if match else ""
            if kind == MYSQL:
                found.setdefault(kind, MysqlPrograms(kind, version, server, client, ""))
            elif install:
                found.setdefault(kind, MysqlPrograms(kind, version, server, client, install))
    if found:
        return found.get(product) or next(iter(found.values()))
    raise Refused(
        "a rehearsal of this snapshot needs the server of MariaDB or MySQL; install it "
        "(Debian: mariadb-server)"
    )


def find_client() -> str:
    """The client program. Raises NotFound."""
    return find_program("mariadb", "mysql")


def find_dump_program(product: str) -> str:
    """The dump program that fits the server: each may fail with the other's. Raises NotFound."""
    return find_program(*(_DUMPS if product == MARIADB else _DUMPS[::-1]))
