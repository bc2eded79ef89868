"""What stands where in a stored dump: made while it streams in, kept beside it. Values and their JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from holdfast.base.errors import Damaged
from holdfast.base.stored_json import VersionedJson, collector_paused, read_versioned

_VERSION: Final = 1
LIMIT: Final = 128 << 20
"""Bytes of JSON that are read back, at most."""
_BATCH: Final = 4096


class Section(NamedTuple):
    """A range of the stored stream: a statement with the comments before it, a table's rows, or a file.

    `type` is the dump tool's own word ("TABLE", "TABLE DATA", "INDEX", "FK CONSTRAINT", ...); `database`
    is "" unless the dump holds several. `table` is (schema, name) of the table that it concerns, if it
    does; `needs` are qualified names ("schema.name") that its text mentions. `extra` belongs to the format.
    """

    start: int = 0
    length: int = 0
    type: str = ""
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
    """Serialise a catalogue as JSON. Bytes that are not UTF-8 become lone surrogates (surrogateescape)."""
    c = catalogue
    document = {
        "version": _VERSION,
        "engine": c.engine,
        "form": c.form,
        "fault": c.fault,
        "facts": dict(c.facts),
        "extra": dict(c.extra),
    }
    head = _json(document)[:-1] + b',"sections":['
    with collector_paused():
        rows = (
            map(_encode_section, c.sections[at : at + _BATCH]) for at in range(0, len(c.sections), _BATCH)
        )
        # Some at a time: as a document of Python's own they would take as much memory as the sections do.
        return head + b",".join(_json(list(some))[1:-1] for some in rows) + b"]}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()


def _encode_section(s: Section) -> list[Any]:
    row = [s.start, s.length, s.type, s.database, s.schema, s.name, s.table, s.needs, dict(s.extra)]
    while row and not row[-1]:
        row.pop()
    return row


class _CatalogueJson(VersionedJson):
    """The stored form. A section is an array without the values at its end that are empty."""

    engine: str
    form: str
    fault: str
    facts: dict[str, str]
    extra: dict[str, Any]
    sections: tuple[Section, ...]


def decode(data: bytes, where: str, size: int) -> Catalogue:
    """Inverse of `encode` for a stream of `size` bytes.

    Raises Damaged for what is no catalogue or points outside the stream, Unsupported for a newer one.
    """
    with collector_paused():
        d = read_versioned(data, _CatalogueJson, kind="catalogue", version=_VERSION, where=where)
        _check_places(d.sections, where, size)
    return Catalogue(d.engine, d.form, d.sections, d.fault, d.facts, d.extra)


def _check_places(sections: tuple[Section, ...], where: str, size: int) -> None:
    """Raises Damaged unless the sections lie one after the other in [0, size)."""
    end = 0
    for number, section in enumerate(sections):
        start, length = section[:2]
        if start < end or length < 0 or start + length > size:
            raise Damaged(
                where,
                f"not a catalogue: section {number} has {length} bytes at {start}; "
                f"the section before ends at {end}, the dump at {size}",
            )
        end = start + length
