"""What this program knows of a database engine's bytes: the interface that every engine's folder fills.

An engine has formats of dumps and, if its server writes logs that a backup is rolled forward with, rules for
these. Nothing here starts a program: the server side of an engine is a `servers` module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from holdfast.base.types import Buffer
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.end_mark import EndMark
from holdfast.formats.dumps.core.log_rules import LogRules
from holdfast.formats.dumps.core.virtual_file import VirtualFile

ReadRange = Callable[[int, int], Iterable[Buffer]]
"""`read(start, length)` gives a range of the stored dump."""
KeyOf = Callable[[str], str]
"""`key(path)` is the key that guards a file: letters and digits that nobody who wrote the dump can know, and
always the same for a file, whose bytes must not change while it is read."""


class Scanning(Protocol):
    """Looks through a stream on its way in; the stream is stored as it is."""

    def feed(self, data: Buffer) -> list[int]:
        """Preferred chunk ends found in this piece, as ascending offsets in the stream."""
        ...

    def finish(self) -> Catalogue:
        """The catalogue of the whole stream, with a fault if it is not whole."""
        ...


class Unpacking(Protocol):
    """Takes an archive apart on its way in; what comes out is stored."""

    def feed(self, data: Buffer) -> Iterator[Buffer]:
        """What this piece of the archive becomes. Exhaust it before the next call."""
        ...

    def borders(self) -> list[int]:
        """New preferred chunk ends, as ascending offsets in the unpacked stream."""
        ...

    def finish(self) -> Catalogue:
        """The catalogue of the unpacked stream, with a fault if the archive is not whole."""
        ...


class DumpKind(Enum):
    """How a dump is stored."""

    TEXT = "SQL text, as it came"
    APART = "an archive, taken apart; it is put together again when it is read"
    PHYSICAL = "the files of a whole server, with the log that makes them consistent"
    FILE = "a database file, as it came"


def _unguarded(catalogue: Catalogue, files: dict[str, VirtualFile], key: KeyOf) -> dict[str, VirtualFile]:
    return files


def _no_files(catalogue: Catalogue, size: int) -> dict[str, VirtualFile]:
    return {}


@dataclass(frozen=True, slots=True)
class DumpFormat:
    """One format of an engine's dumps.

    `name` is `Catalogue.form`, `file_name` a dump's name in a snapshot when it is alone; `begins` says
    whether a stream with these first bytes is one. `scan` or `unpack` makes what looks through a stream on
    its way in; without either a dump is stored unseen. `files(catalogue, size)` gives the virtual files of a
    stored dump of `size` bytes by path; `guard(catalogue, files, key)` gives those that end in .sql again, so
    that their clients run no commands where that of the whole dump would not. `csv(catalogue, table, read)`
    the rows of one table with a header line, where `table` is the path of its file without the suffix. `end`
    is the last line of a whole dump, if there is one; `evidence` says what was seen of a dump that is whole.
    """

    name: str
    kind: DumpKind
    file_name: str
    begins: Callable[[bytes], bool]
    scan: Callable[[], Scanning] | None = None
    unpack: Callable[[], Unpacking] | None = None
    files: Callable[[Catalogue, int], dict[str, VirtualFile]] = _no_files
    guard: Callable[[Catalogue, dict[str, VirtualFile], KeyOf], dict[str, VirtualFile]] = _unguarded
    csv: Callable[[Catalogue, str, ReadRange], Iterator[bytes]] | None = None
    end: EndMark | None = None
    evidence: str = "end mark was seen"


def _takes_all(head: bytes) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Engine:
    """A database engine. `name` is the one in snapshots and catalogues, `title` the one for people.

    `refuses` says why a stream with these first bytes cannot be backed up as a dump, "" if it can.
    """

    name: str
    title: str
    formats: tuple[DumpFormat, ...]
    logs: LogRules | None = None
    refuses: Callable[[bytes], str] = _takes_all

    @property
    def text(self) -> DumpFormat | None:
        """The format of its SQL text."""
        return next((each for each in self.formats if each.kind is DumpKind.TEXT), None)

    def format(self, name: str) -> DumpFormat | None:
        """The format that catalogues call `name`."""
        return next((each for each in self.formats if each.name == name), None)
