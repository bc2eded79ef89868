"""What of a snapshot can be rehearsed, and its bytes in the order that a server's client wants them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from holdfast.base.errors import Refused
from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.facts import facts_of, read_facts
from holdfast.formats.dumps.registry import files, whole_name
from holdfast.formats.dumps.virtual_files import load_catalogue, stream
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item, ItemKind, StoredSnapshot
from holdfast.servers.confined.errors import RehearsalFailed

PHYSICAL: Final = "tar"
GLOBALS: Final = "globals.sql"
_FORMS: Final = {".sql": "sql", ".pgdump": "pgdump", ".sqlite": "sqlite"}
_ENGINES: Final = ("postgresql", "mariadb", "mysql", "sqlite")
_TAIL: Final = 4096
_CHUNKS: Final = 16 << 20
"""Bytes of decoded chunks that are kept, for stretches that share one."""
_TRAILERS: Final = {
    "postgresql": re.compile(rb"^-- PostgreSQL database (?:cluster )?dump complete\s*$", re.MULTILINE),
    "mariadb": re.compile(rb"^-- Dump completed", re.MULTILINE),
    "mysql": re.compile(rb"^-- Dump completed", re.MULTILINE),
    "sqlite": re.compile(rb"^COMMIT;", re.MULTILINE),
}


@dataclass(frozen=True, slots=True)
class Material:
    """The item to load, of the database `name`. `form` as in `Catalogue`; `server` is the version that it
    was dumped from, "" when that is not known; `roles` is the item with roles and tablespaces that stands
    beside a dump, None without one. `alone`: there is no other dump in the snapshot, of which this would
    prove nothing. `fault` says why it is not whole, "" when nothing is known against it."""

    engine: str
    form: str
    name: str
    server: str
    item: Item
    catalogue: Catalogue | None
    roles: Item | None
    alone: bool
    fault: str

    @property
    def major(self) -> int | None:
        """The major release of PostgreSQL that the dump is from."""
        match = re.match(r"(?:PostgreSQL )?(\d+)", self.server)
        return int(match[1]) if match else None

    @property
    def expected(self) -> int | None:
        """Tables that the dump makes; None when that is not known."""
        if self.catalogue is None or self.form not in ("sql", "pgdump"):
            return None
        sections = self.catalogue.sections
        return len({(s.database, s.schema, s.name) for s in sections if s.type == "TABLE"})


def find_material(repository: Repository, stored: StoredSnapshot, path: str = "") -> Material:
    """What a rehearsal of the snapshot loads, the item at `path` if there are several. Raises Refused,
    Damaged."""
    snapshot = stored.snapshot
    dumps = [i for i in snapshot.items if i.kind is ItemKind.DUMP and path in ("", i.path)]
    if len(dumps) > 1:  # a database file proves more than its text beside it
        dumps = [i for i in dumps if i.path.endswith(".sqlite")] or dumps
    if len(dumps) != 1:
        there = ", ".join(item.path for item in dumps[:5])
        raise Refused(
            f"snapshot {stored.id[:8]} holds several dumps ({there}); put :PATH behind it"
            if dumps
            else f"snapshot {stored.id[:8]} holds no database that a server could be started from"
        )
    item = dumps[0]
    catalogue = load_catalogue(Reader(repository), item) if item.catalogue else None
    engine = catalogue.engine if catalogue else snapshot.subject.engine
    form = catalogue.form if catalogue else _FORMS.get(f".{item.path.rpartition('.')[2]}", "")
    if engine not in _ENGINES or not form:
        raise Refused(
            f"how to rehearse {item.path} of snapshot {stored.id[:8]} is not known: only backups of "
            "PostgreSQL, MariaDB, MySQL and SQLite can be"
        )
    bad = next((bad for one in snapshot.items for bad in one.bad), None)
    fault = f"{bad.length} bytes could not be read when it was backed up" if bad else ""
    fault = (catalogue.fault if catalogue else "") or fault
    roles = next((i for i in snapshot.items if i.path == GLOBALS and i is not item), None)
    text = item.path.removesuffix(".sqlite") + ".sql" if engine == "sqlite" else ""  # made of the file itself
    alone = all(
        other is item or other is roles or other.path == text
        for other in snapshot.items
        if other.kind is ItemKind.DUMP
    )
    server = facts_of(snapshot).server or (read_facts(catalogue.facts).server if catalogue else "")
    return Material(engine, form, snapshot.subject.name, server, item, catalogue, roles, alone, fault)


def stored_bytes(repository: Repository, item: Item, catalogue: Catalogue | None = None) -> Iterator[Buffer]:
    """An item's bytes in order, as its engine's tools want them: put together again where `catalogue` says
    that they are stored taken apart. Raises Refused for what this program cannot put together."""
    reader = Reader(repository, chunk_cache=_CHUNKS)
    restorer = Restorer(repository, reader)
    recipe = reader.recipe(item)
    name = whole_name(catalogue) if catalogue is not None else ""
    if catalogue is None or not name:
        return restorer.in_order(recipe)
    whole = files(catalogue, item.size).get(name)
    if whole is None:
        raise Refused(f"{item.path} is stored in parts that this program cannot put together")
    return stream(whole, recipe, reader, restorer)


def to_trailer(parts: Iterable[Buffer], engine: str) -> Iterator[Buffer]:
    """The same parts; RehearsalFailed at the end unless a whole dump of the engine ends like that.

    For dumps without a catalogue: clients take the end of a stream for the end of a dump.
    """
    tail = b""
    for part in parts:
        tail = (tail + bytes(memoryview(part)[-_TAIL:]))[-_TAIL:]
        yield part
    if not _TRAILERS[engine].search(tail):
        raise RehearsalFailed("the dump ends before its last line, which says that it is complete")
