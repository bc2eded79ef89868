"""What stands where in a stored dump: made while it streams in, kept beside it. Values and their JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from holdfast.base.errors import Damaged, Unsupported

_VERSION: Final = 1
LIMIT: Final = 1 << 30
"""Bytes of JSON that are read back, at most."""


class Section(NamedTuple):
    """A stretch of the stored stream: a statement with the comments before it, a table's rows, a file.

    `type` is the dump tool's own word ("TABLE", "TABLE DATA", "INDEX", "FK CONSTRAINT", ...); `database`
    is "" unless the dump holds several. `table` is (schema, name) of the table that it concerns, if it
    does; `needs` are qualified names ("schema.name") that its text mentions. `extra` belongs to the format.
    """

    start: int
    length: int
    type: str
    database: str = ""
    schema: str = ""
    name: str = ""
    table: tuple[str, str] | None = None
    needs: tuple[str, ...] = ()
    extra: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All sections of a stored dump, in order, not overlapping; gaps concern nobody.

    `engine` is "postgresql", "mariadb", "mysql" or "sqlite", `form` how the stream is to be read: "sql",
    "pgdump" (custom format, stored taken apart), "tar" (a physical backup), "sqlite" (a database file).
    `fault` says why the dump is not whole, "" when its end was seen. `facts` are what it says of itself
    (see Snapshot.facts for the names); `extra` belongs to the form.
    """

    engine: str
    form: str
    sections: tuple[Section, ...]
    fault: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.fault


def encode(catalogue: Catalogue) -> bytes:
    """The stored form. Text that is not UTF-8 stands in it as lone surrogates (surrogateescape)."""
    c = catalogue
    document = {
        "version": _VERSION,
        "engine": c.engine,
        "form": c.form,
        "fault": c.fault,
        "facts": dict(c.facts),
        "extra": dict(c.extra),
        "sections": [_encode_section(section) for section in c.sections],
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()


def _encode_section(s: Section) -> list[Any]:
    row = [s.start, s.length, s.type, s.database, s.schema, s.name, s.table, s.needs, dict(s.extra)]
    while row and not row[-1]:
        row.pop()
    return row


def decode(data: bytes, where: str, size: int) -> Catalogue:
    """Inverse of `encode` for a stream of `size` bytes.

    Raises Damaged for what is no catalogue or points outside the stream, Unsupported for a newer one.
    """
    try:
        d = json.loads(data)
        if d["version"] != _VERSION:
            raise Unsupported(f"{where}: catalogue version {d['version']}; this program reads {_VERSION}")
        return Catalogue(
            engine=str(d["engine"]),
            form=str(d["form"]),
            sections=tuple(_decode_sections(d["sections"], size)),
            fault=str(d["fault"]),
            facts={str(name): str(value) for name, value in d["facts"].items()},
            extra=dict(d["extra"]),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(where, f"not a catalogue: {error}") from None


def _decode_sections(rows: Iterable[list[Any]], size: int) -> Iterable[Section]:
    end = 0
    for row in rows:
        start, length, type_, database, schema, name, table, needs, extra = (row + _EMPTY[len(row) :])[:9]
        if type(start) is not int or type(length) is not int or start < end or length < 0:
            raise ValueError("sections overlap or run backwards")
        end = start + length
        if end > size:
            raise ValueError(f"a section ends at {end}, behind the end of the dump ({size})")
        yield Section(
            start,
            length,
            str(type_),
            str(database),
            str(schema),
            str(name),
            (str(table[0]), str(table[1])) if table else None,
            tuple(map(str, needs)),
            dict(extra),
        )


_EMPTY: Final[list[Any]] = [0, 0, "", "", "", "", None, (), {}]
