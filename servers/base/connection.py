"""Which database server a URL means. No I/O; no secrets are held here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from holdfast.base.errors import Refused
from holdfast.repo.snapshots.snapshot import Origin
from holdfast.servers.base.errors import PasswordInUrl

_LIMIT: Final = 8 << 10
"""Characters of a URL."""
_SECRETS: Final = frozenset({"password", "sslpassword", "passwd", "pwd", "ssl-passphrase"}) | {
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
}


@dataclass(frozen=True, slots=True)
class Connection:
    """A server and a database on it. The engine's programs fill in fields that are "".

    `scheme` is the engine's. `host` may be several, separated by commas, where the engine allows it, or the
    directory of a socket; `port` then is several too ("5432,5433"). `socket` is the path of a socket.
    `parameters` are the programs' own, in order.
    """

    scheme: str
    host: str = ""
    port: str = ""
    user: str = ""
    database: str = ""
    socket: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    def to(self, database: str) -> Connection:
        """The same server, another database."""
        return replace(self, database=database)

    def with_parameters(self, parameters: tuple[tuple[str, str], ...]) -> Connection:
        """The same with other parameters."""
        return replace(self, parameters=parameters)

    @property
    def origin(self) -> str:
        """Where the data comes from, for people: no parameters but the socket."""
        user = f"{quote(self.user)}@" if self.user else ""
        is_directory = self.host.startswith(("/", "@"))
        host = "" if is_directory else self.host
        if ":" in host and "," not in host:
            host = f"[{host}]"
        port = f":{self.port}" if self.port and "," not in self.port else ""
        socket = self.socket or (self.host if is_directory else "")
        where = f"?{'socket' if self.socket else 'host'}={quote(socket)}" if socket else ""
        return f"{self.scheme}://{user}{host}{port}/{quote(self.database)}{where}"


def place_of(connection: Connection, server: str) -> Origin:
    """The origin of a backup of the connection's database; without one, of the server's users or roles.

    `server` is the server's own name for itself, "" when it has none. A socket is on this machine.
    """
    host = connection.host.split(",")[0]
    local = not host or host.startswith(("/", "@"))
    what = f"database {connection.database}" if connection.database else "users and roles"
    reached = connection.socket or (connection.host if local else "") or connection.port
    return Origin("" if local else host, server, what if server or not reached else f"{what} at {reached}")


@dataclass(frozen=True, slots=True)
class UrlRules:
    """The rules of an engine's URLs. `scheme` is that of the connection, whichever alias the URL has.

    `password_file` names the files where the engine's programs find passwords. `check_parameter` raises
    Refused for a parameter that a backup cannot pass on. `socket_refusal` says why there is no `socket`, ""
    where there is.
    """

    scheme: str
    password_file: str
    check_parameter: Callable[[str], None]
    several_hosts: bool = False
    socket_refusal: str = ""


def parse_url(text: str, rules: UrlRules) -> Connection:
    """Parse `SCHEME://[user@][host][:port][/database][?parameters]`.

    Everything may be percent-encoded. Raises PasswordInUrl, and Refused for what the engine's programs do not
    know and for what is no URL; the URL is not quoted then: there may be a secret in it.
    """
    scheme, found, address = text.partition("://")
    if not found or not scheme.isalnum() or len(text) > _LIMIT:
        raise Refused("not the URL of a database server; write postgres://user@host/database")
    rest, _, query = address.partition("?")
    authority, _, path = rest.partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    if ":" in userinfo:
        raise PasswordInUrl(rules.password_file)
    if "/" in path:
        raise Refused("a database URL has one name behind the host; a / in it is written %2F")
    host, port = _hosts(hosts, several=rules.several_hosts)
    parts = _UrlParts(rules, _decode(host), port, _decode(userinfo) if at else "", _decode(path))
    parameters = []
    for name, value in _pairs(query):
        if name.lower() in _SECRETS:
            raise PasswordInUrl(rules.password_file)
        if not parts.take(name, value):
            parameters.append((name, value))
    for name, _value in parameters:
        rules.check_parameter(name)
    return Connection(
        rules.scheme,
        parts.host,
        parts.port,
        parts.user,
        parts.database,
        parts.socket,
        parameters=tuple(parameters),
    )


@dataclass(slots=True)
class _UrlParts:
    """The parts of a URL that name the server: each in its path or in its parameters, but not in both."""

    rules: UrlRules
    host: str
    port: str
    user: str
    database: str
    socket: str = ""

    def take(self, name: str, value: str) -> bool:
        """Whether this parameter is one of these fields. A URL may have a host and a socket."""
        field = {"dbname": "database"}.get(name, name)
        if field not in ("host", "port", "user", "database", "socket"):
            return False
        if field == "socket" and self.rules.socket_refusal:
            raise Refused(self.rules.socket_refusal)
        if getattr(self, field):
            raise Refused(f"the URL gives the {field} twice")
        if field == "port":
            _check_ports(value)
        setattr(self, field, value)
        return True


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in query.split("&") if part]
    found = [(_decode(name), _decode(value)) for name, _, value in pairs]
    if len({name for name, _ in found}) < len(found):
        raise Refused("the URL gives a parameter twice")
    return found


def _hosts(text: str, *, several: bool) -> tuple[str, str]:
    """(hosts, ports), separated by commas when there are several."""
    if "," in text and not several:
        raise Refused("the URL gives several hosts, which only PostgreSQL's programs understand")
    hosts, ports = [], []
    for part in text.split(","):
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]*))(?::([0-9]*))?", part)
        if found is None:
            raise Refused("the URL's host is invalid; write an IPv6 address in [brackets]")
        hosts.append(found[1] or found[2])
        ports.append(found[3] or "")
    port = ",".join(ports).strip(",") and ",".join(ports)
    _check_ports(port)
    return ",".join(hosts), port


def _check_ports(text: str) -> None:
    for port in text.split(","):
        if port and not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
            raise Refused(f"the URL's port {port[:20]!r} is invalid; ports are 1 to 65535")


def _decode(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise Refused("a % in a URL is written %25; nothing was done")
    data = unquote_to_bytes(text)
    try:
        found = data.decode()
    except UnicodeDecodeError:
        raise Refused("the URL is not UTF-8") from None
    if "\0" in found:
        raise Refused("a name in the URL has a NUL in it")
    return found
