"""Which database server a URL means, and how its own tools are told so. No I/O; no secrets are held here."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from holdfast.base.errors import Refused

_SCHEMES: Final = {
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mariadb",
}
_URL: Final = re.compile(r"(postgres|postgresql|mysql|mariadb)://", re.IGNORECASE)
_SQLITE: Final = "sqlite:"
_LIMIT: Final = 8 << 10
"""Characters of a URL."""

_EXPOSED: Final = (
    "a password in a URL can be read by everybody on this machine; nothing was done. Take it out, and give "
    "it by --db-password-file or --db-password-fd, or in {file}"
)
_FILES: Final = {
    "postgresql": "~/.pgpass (PGPASSFILE)",
    "mysql": "~/.my.cnf (--db-defaults-file)",
    "mariadb": "~/.my.cnf (--db-defaults-file)",
}
_SECRETS: Final = frozenset({"password", "sslpassword", "passwd", "pwd", "ssl-passphrase"}) | {
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
}

_LIBPQ: Final = re.compile(r"[a-z_]{2,40}")
_NOT_LIBPQ: Final = frozenset({"dbname", "host", "port", "user", "replication", "client_encoding"})
"""Said elsewhere in the URL, or ours to say."""

_MYSQL: Final = frozenset(
    {"ssl-ca", "ssl-capath", "ssl-cert", "ssl-key", "ssl-cipher", "ssl-mode", "ssl-verify-server-cert"}
    | {"ssl", "skip-ssl", "protocol", "default-auth", "plugin-dir", "compress", "tls-version"}
    | {"get-server-public-key", "server-public-key-path", "connect-timeout", "bind-address"}
)
_FLAGS: Final = frozenset({"ssl", "skip-ssl", "ssl-verify-server-cert", "compress", "get-server-public-key"})


@dataclass(frozen=True, slots=True)
class Connection:
    """A server and a database on it. What is "" or None is left to the tools' own defaults.

    `scheme` is "postgresql", "mysql" or "mariadb". `host` may be several for PostgreSQL ("a,b"), or the
    directory of its socket; `port` then is several too ("5432,5433"). `socket` is MySQL's. `parameters` are
    the tools' own, in order.
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
    def is_postgresql(self) -> bool:
        return self.scheme == "postgresql"

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

    def conninfo(self, **more: str) -> str:
        """libpq's connection string, for `--dbname=`. `more` are further parameters, which come last."""
        pairs = [("host", self.host), ("port", self.port), ("user", self.user), ("dbname", self.database)]
        pairs = [pair for pair in pairs if pair[1]] + [*self.parameters, *more.items()]
        return " ".join(f"{name}='{_escape(value)}'" for name, value in pairs)

    def mysql_options(self) -> list[str]:
        """The options of MySQL's and MariaDB's programs that lead to the server. No database among them."""
        told = {"host": self.host, "port": self.port, "user": self.user, "socket": self.socket}
        options = [f"--{name}={value}" for name, value in told.items() if value]
        for name, value in self.parameters:
            options.append(f"--{name}" if name in _FLAGS and value in ("", "1") else f"--{name}={value}")
        return options


def is_database_url(text: str) -> bool:
    """Whether this means a database server or an SQLite file, and no path."""
    return _URL.match(text) is not None or text.startswith(_SQLITE)


def sqlite_path(text: str) -> str | None:
    """The path in `sqlite:PATH`, as it stands there; None for what is none. Raises Refused without a path."""
    if not text.startswith(_SQLITE):
        return None
    path = text.removeprefix(_SQLITE)
    if not path or "\0" in path:
        raise Refused("which SQLite database? Write sqlite:PATH")
    return path


def parse_url(text: str) -> Connection:
    """What `postgres://[user@][host][:port][/database][?parameters]` and its like mean.

    Everything may be percent-encoded. Raises Refused for a password, for what the tools do not know
    and for what is no URL; the URL is not quoted then: there may be a secret in it.
    """
    start = _URL.match(text)
    if start is None or len(text) > _LIMIT:
        raise Refused("not the URL of a database server; write postgres://user@host/database")
    scheme = _SCHEMES[start[1].lower()]
    rest, _, query = text[start.end() :].partition("?")
    authority, _, path = rest.partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    if ":" in userinfo:
        raise Refused(_EXPOSED.format(file=_FILES[scheme]))
    if "/" in path:
        raise Refused("a database URL has one name behind the host; a / in it is written %2F")
    host, port = _hosts(hosts, several=scheme == "postgresql")
    told = _Told(scheme, _decode(host), port, _decode(userinfo) if at else "", _decode(path))
    parameters = []
    for name, value in _pairs(query):
        if name.lower() in _SECRETS:
            raise Refused(_EXPOSED.format(file=_FILES[scheme]))
        if not told.take(name, value):
            parameters.append((name, value))
    check = _check_libpq if scheme == "postgresql" else _check_mysql
    for name, _value in parameters:
        check(name)
    return Connection(
        scheme, told.host, told.port, told.user, told.database, told.socket, parameters=tuple(parameters)
    )


@dataclass(slots=True)
class _Told:
    """What a URL says of the server, in its path or in its parameters, but not in both."""

    scheme: str
    host: str
    port: str
    user: str
    database: str
    socket: str = ""

    def take(self, name: str, value: str) -> bool:
        """Whether this parameter is one of ours. MySQL's host may stand beside its socket."""
        field = {"dbname": "database"}.get(name, name)
        if field not in ("host", "port", "user", "database", "socket"):
            return False
        if field == "socket" and self.scheme == "postgresql":
            raise Refused("socket: PostgreSQL's is named by its directory, ?host=/run/postgresql")
        if getattr(self, field):
            raise Refused(f"the URL says the {field} twice")
        if field == "port":
            _check_ports(value)
        setattr(self, field, value)
        return True


def _check_libpq(name: str) -> None:
    if _LIBPQ.fullmatch(name) is None or name in _NOT_LIBPQ:
        raise Refused(f"the URL's parameter {name[:40]!r} is none that a backup can pass on to libpq")


def _check_mysql(name: str) -> None:
    if name not in _MYSQL:
        known = ", ".join(sorted(_MYSQL | {"socket"}))
        raise Refused(f"the URL's parameter {name[:40]!r} is not known; known are {known}")


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in query.split("&") if part]
    found = [(_decode(name), _decode(value)) for name, _, value in pairs]
    if len({name for name, _ in found}) < len(found):
        raise Refused("a parameter stands twice in the URL")
    return found


def _hosts(text: str, *, several: bool) -> tuple[str, str]:
    """(hosts, ports), separated by commas when there are several."""
    if "," in text and not several:
        raise Refused("only PostgreSQL can be given several hosts")
    hosts, ports = [], []
    for part in text.split(","):
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]*))(?::([0-9]*))?", part)
        if found is None:
            raise Refused("the host in the URL cannot be understood; an IPv6 address stands in [brackets]")
        hosts.append(found[1] or found[2])
        ports.append(found[3] or "")
    port = ",".join(ports).strip(",") and ",".join(ports)
    _check_ports(port)
    return ",".join(hosts), port


def _check_ports(text: str) -> None:
    for port in text.split(","):
        if port and not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
            raise Refused("the port in the URL is none")


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


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
