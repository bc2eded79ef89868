"""A PostgreSQL dump on its way into a throw-away server: what it takes for granted is made first.

A dump of one database names roles and tablespaces that the cluster had. They are recognised as they pass
and made just before: roles that cannot log in, tablespaces inside the data directory. Recognition is
generous: a role too many does no harm there. A statement that the dump makes itself (`CREATE ROLE`, from
pg_dumpall) is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Section
from holdfast.formats.dumps.postgresql.plain.quoting import quoted_identifier

_NAME: Final = rb'(?:"(?:[^"\0]|""){1,1000}"|[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]{0,200})'
_STATEMENT: Final = re.compile(
    rb"^(?:ALTER|GRANT|REVOKE|CREATE|SET SESSION AUTHORIZATION|SET default_tablespace)\b[^\n]*", re.MULTILINE
)
_MAKES: Final = re.compile(rb"CREATE (ROLE|USER|GROUP|TABLESPACE) (" + _NAME + rb")")
_ROLES: Final = re.compile(
    rb"\b(?:OWNER(?: TO)?|TO|FROM|FOR(?: ROLE| USER)?|GRANTED BY|AUTHORIZATION|IN ROLE|ALTER ROLE) ("
    + _NAME
    + rb"(?:, "
    + _NAME
    + rb")*)"
)
_GRANTED: Final = re.compile(rb"GRANT (" + _NAME + rb") TO ")
_TABLESPACE: Final = re.compile(
    rb"(?:SET default_tablespace = |TABLESPACE |SET TABLESPACE )(" + _NAME + rb")\s*[;)]"
)
_EACH: Final = re.compile(_NAME)
_NO_ROLES: Final = frozenset(
    b"public current_user session_user current_role select insert update delete all user mapping role "
    b"values".split()
)
_LOCATION: Final = re.compile(
    rb"^(CREATE TABLESPACE " + _NAME + rb"(?: OWNER " + _NAME + rb")?) LOCATION '(?:[^'\n]|'')*'",
    re.MULTILINE,
)
_DATA: Final = re.compile(rb"^(?:COPY |\\connect )", re.MULTILINE)
_BEGIN: Final = b"DO $holdfast_guard$ BEGIN "
_END: Final = b" EXCEPTION WHEN OTHERS THEN NULL; END $holdfast_guard$;\n"
_BLOCK: Final = 1 << 20
_LINE: Final = 1 << 20
"""A line longer than that is no statement about roles: it is passed on in pieces."""


class Needs:
    """The roles and tablespaces that a dump has named. `make(roles, tablespaces)` gets each name once."""

    def __init__(
        self,
        make: Callable[[list[bytes], list[bytes]], None],
        roles: Iterable[bytes],
        tablespaces: Iterable[bytes],
    ) -> None:
        """`roles` and `tablespaces` are there already."""
        self._make = make
        self._roles = set(roles)
        self._tablespaces = set(tablespaces)
        self._in_head = True

    def provided(self, parts: Iterable[Buffer]) -> Iterator[bytes]:
        """The script, each part of it after what it needs was made. Tablespaces that the script makes
        itself, at places of another machine, are made inside the data directory."""
        held = b""
        for part in parts:
            view = memoryview(part).cast("B")
            for start in range(0, len(view), _BLOCK):
                block = held + bytes(view[start : start + _BLOCK])
                end = block.rfind(b"\n") + 1
                if not end and len(block) > _LINE:
                    end = len(block)
                held = block[end:]
                if end:
                    yield self._prepare(block[:end])
        if held:
            yield self._prepare(held)

    def _prepare(self, block: bytes) -> bytes:
        roles: dict[bytes, None] = {}
        spaces: dict[bytes, None] = {}
        for found in _STATEMENT.finditer(block):
            line = found[0]
            made = _MAKES.match(line)
            if made and made[1] == b"TABLESPACE":
                self._tablespaces.add(_plain(made[2]))
            elif made:
                self._roles.add(_plain(made[2]))
                continue
            names = [name for match in _ROLES.finditer(line) for name in _EACH.findall(match[1])]
            for name in (*names, *_GRANTED.findall(line)):
                plain = _plain(name)
                if (
                    plain.lower() not in _NO_ROLES
                    and plain not in self._roles
                    and not plain.startswith(b"pg_")
                ):
                    self._roles.add(plain)
                    roles[plain] = None
            for name in _TABLESPACE.findall(line):
                plain = _plain(name)
                if plain and plain not in self._tablespaces:
                    self._tablespaces.add(plain)
                    spaces[plain] = None
        if roles or spaces:
            self._make([quoted_identifier(n) for n in roles], [quoted_identifier(n) for n in spaces])
        return self._relocated(block) if self._in_head else block

    def _relocated(self, block: bytes) -> bytes:
        """Tablespaces stand before all data; behind the first of it a line may look like anything."""
        data = _DATA.search(block)
        self._in_head = data is None
        head, rest = (block, b"") if data is None else (block[: data.start()], block[data.start() :])
        return _LOCATION.sub(rb"\1 LOCATION ''", head) + rest


def guarded(parts: Iterable[Buffer], drops: Iterable[Section]) -> Iterator[Buffer]:
    """The script with each of these sections made to fail in silence: a dump made with --clean drops what an
    empty database does not have. `drops` are in order."""
    at = 0
    edges = [edge for s in drops for edge in ((s.start, _BEGIN), (s.start + s.length, _END))]
    edges.reverse()
    for part in parts:
        view = memoryview(part).cast("B")
        while edges and edges[-1][0] <= at + len(view):
            offset, words = edges.pop()
            yield view[: offset - at]
            yield words
            view, at = view[offset - at :], offset
        yield view
        at += len(view)


def _plain(name: bytes) -> bytes:
    return name[1:-1].replace(b'""', b'"') if name.startswith(b'"') else name.lower()
