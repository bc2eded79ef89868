"""The engines that this program knows, one line each. An engine's modules are imported when it is first used.

An entry names the engine's two sides by the notation of entry points, `module:object`: a
`core.engine.Engine` and a `servers.confined.engine_server.EngineServer`. Only the first is imported here:
what reads bytes must not import what starts programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from holdfast.base.errors import Refused
from holdfast.formats.dumps.core.engine import DumpFormat, DumpKind, Engine

_D: Final = "holdfast.formats.dumps."
_S: Final = "holdfast.servers."
_LONGEST_PREFIX: Final = 40


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """`prefixes` are those of URLs that mean a server or file of the engine, in lower case."""

    name: str
    prefixes: tuple[str, ...]
    formats: str
    server: str


class EngineRegistry:
    """Entries by name, in the order in which dumps are recognised."""

    def __init__(self, *entries: EngineEntry) -> None:
        self._entries: Final = {entry.name: entry for entry in entries}

    @contextmanager
    def added(self, entry: EngineEntry) -> Iterator[None]:
        """Know one more engine while the block runs."""
        if entry.name in self._entries:
            raise ValueError(f"there is an engine called {entry.name}")
        self._entries[entry.name] = entry
        try:
            yield
        finally:
            del self._entries[entry.name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def entry(self, name: str) -> EngineEntry | None:
        return self._entries.get(name)

    def entry_for_url(self, text: str) -> EngineEntry | None:
        """The engine that the URL belongs to; None when no engine has its prefix."""
        start = text[:_LONGEST_PREFIX].lower()
        return next((e for e in self._entries.values() if start.startswith(e.prefixes)), None)

    def engine(self, name: str) -> Engine | None:
        """None for an engine that this program does not know."""
        entry = self._entries.get(name)
        return None if entry is None else _loaded(entry)

    def engines(self) -> list[Engine]:
        """All, imported."""
        return [_loaded(entry) for entry in self._entries.values()]


def _loaded(entry: EngineEntry) -> Engine:
    engine = load_object(entry.formats)
    assert isinstance(engine, Engine)
    return engine


def load_object(reference: str) -> Any:
    """What `module:object` names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


_LIBPQ: Final = ("postgresql://", "postgres://")
ENGINES: Final = EngineRegistry(
    EngineEntry("postgresql", _LIBPQ, _D + "postgresql.engine:ENGINE", _S + "postgresql.engine:SERVER"),
    EngineEntry("mariadb", ("mariadb://",), _D + "mysql.engine:MARIADB", _S + "mysql.engine:MARIADB"),
    EngineEntry("mysql", ("mysql://",), _D + "mysql.engine:MYSQL", _S + "mysql.engine:MYSQL"),
    EngineEntry("sqlite", ("sqlite:",), _D + "sqlite.engine:ENGINE", _S + "sqlite.engine:SERVER"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RecognisedDump:
    """A dump by its first bytes."""

    engine: Engine
    format: DumpFormat


def recognise_dump(head: bytes) -> RecognisedDump | None:
    """Which dump begins with these bytes; None for what is none."""
    for engine in ENGINES.engines():
        for each in engine.formats:
            if each.begins(head):
                return RecognisedDump(engine, each)
    return None


def refusal(head: bytes) -> str:
    """Why a stream with these first bytes cannot be backed up as a dump, "" if it can or is none."""
    return next((reason for engine in ENGINES.engines() if (reason := engine.refuses(head))), "")


def dump_format(engine: str, name: str) -> DumpFormat | None:
    """The format of a catalogue's `engine` and `form`; None when this program does not know it."""
    known = ENGINES.engine(engine)
    return known.format(name) if known else None


def formats_stored_apart() -> list[DumpFormat]:
    """Formats whose stored bytes are not the file that was backed up."""
    return [each for engine in ENGINES.engines() for each in engine.formats if each.kind is DumpKind.APART]


def text_format(engine: str) -> RecognisedDump:
    """What somebody says is SQL text of that engine. Raises Refused for an engine that has none."""
    known = ENGINES.engine(engine)
    if known is None or known.text is None:
        raise Refused(f"dumps of {engine} as SQL text are not known")
    return RecognisedDump(known, known.text)
