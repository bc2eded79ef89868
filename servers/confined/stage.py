"""What a rehearsal loads, with which options, and where: values that every engine's server side takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.base.errors import Refused
from holdfast.base.types import Buffer, ProgressFunction
from holdfast.formats.dumps.contents import files, whole_name
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.end_mark import EndMark
from holdfast.formats.dumps.core.engine import DumpFormat, DumpKind, Engine
from holdfast.formats.dumps.postgresql.physical.recovery import Recovery
from holdfast.formats.dumps.virtual_files import stream
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item
from holdfast.servers.confined.clients import watched
from holdfast.servers.confined.confined import Confinement
from holdfast.servers.confined.errors import RehearsalFailed
from holdfast.servers.confined.findings import Findings

_CHUNKS: Final = 16 << 20
"""Bytes of decoded chunks that are kept, for ranges that share one."""

FetchLog = Callable[[str, Path], bool]
"""`fetch(name, path)` writes an archived log file to `path`; False when the archive does not hold it."""


@dataclass(frozen=True, slots=True)
class RehearsalSubject:
    """The item to load, of the database `name`. `server` is the version that it was dumped from, "" when that
    is not known; `roles` is the item with users or roles beside a dump, None without one. `alone`: there is
    no other dump in the snapshot, of which this would prove nothing. `fault` says why it is not whole, ""
    when nothing is known against it."""

    engine: Engine
    format: DumpFormat
    name: str
    server: str
    item: Item
    catalogue: Catalogue | None
    roles: Item | None
    alone: bool
    fault: str

    @property
    def is_physical(self) -> bool:
        return self.format.kind is DumpKind.PHYSICAL

    @property
    def expected(self) -> int | None:
        """Tables that the dump makes; None when that is not known."""
        if self.catalogue is None or self.format.kind not in (DumpKind.TEXT, DumpKind.APART):
            return None
        if "bound" in self.catalogue.extra:
            return None
        sections = self.catalogue.sections
        return len({(s.database, s.schema, s.name) for s in sections if s.type == "TABLE"})


@dataclass(frozen=True, slots=True)
class RehearsalOptions:
    """What was asked for. `scratch` is where the private directory is made, `timeout` in seconds;
    `database` is that of the queries, "" for the only one; `superuser` that of a physical backup's
    server. With `recovery`, `fetch` brings archived log files. `client_commands`: a dump may have some.
    `confined` is false at the user's own word only."""

    scratch: Path
    queries: Sequence[str] = ()
    database: str = ""
    keep: bool = False
    timeout: float = 3600.0
    recovery: Recovery | None = None
    fetch: FetchLog | None = None
    superuser: str = "postgres"
    client_commands: bool = False
    confined: bool = True


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a load happens, and with what. `findings` are filled on the way; `tell` hears of each step."""

    confinement: Confinement
    repository: Repository
    subject: RehearsalSubject
    options: RehearsalOptions
    findings: Findings
    progress: ProgressFunction
    tell: Callable[[str], None]

    def dump(self) -> Iterator[Buffer]:
        """The subject's bytes in order, as its engine's programs want them, counted.

        Raises RehearsalFailed at the end when a dump that nobody scanned has no end mark: clients take the
        end of a stream for the end of a dump.
        """
        subject = self.subject
        parts = watched(stored_bytes(self.repository, subject.item, subject.catalogue), self.progress)
        if subject.catalogue is None and subject.format.end is not None:
            return _to_the_end(parts, subject.format.end)
        return parts


def stored_bytes(repository: Repository, item: Item, catalogue: Catalogue | None = None) -> Iterator[Buffer]:
    """An item's bytes in order: put together again where `catalogue` says that they are stored taken apart.

    Raises Refused for what this program cannot put together.
    """
    reader = Reader(repository, chunk_cache=_CHUNKS)
    restorer = Restorer(repository, reader)
    recipe = reader.recipe(item)
    name = whole_name(catalogue) if catalogue is not None else ""
    if catalogue is None or not name:
        return restorer.in_order(recipe)
    whole = files(catalogue, item.size, _no_key).get(name)
    if whole is None:
        raise Refused(f"{item.path} is stored in parts that this program cannot put together")
    return stream(whole, recipe, reader, restorer)


def _no_key(path: str) -> str:
    """No file of SQL is taken."""
    return ""


def _to_the_end(parts: Iterable[Buffer], end: EndMark) -> Iterator[Buffer]:
    watch = end.watch()
    for part in parts:
        watch.feed(part)
        yield part
    if not watch.is_complete:
        raise RehearsalFailed("the dump ends before its last line, which says that it is complete")
