"""Finds the part of a snapshot that a rehearsal loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from holdfast.base.errors import Refused
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.engine import DumpFormat, DumpKind, Engine
from holdfast.formats.dumps.core.facts import facts_of, read_facts
from holdfast.formats.dumps.engines import ENGINES
from holdfast.formats.dumps.virtual_files import load_catalogue
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import Item, ItemKind, StoredSnapshot
from holdfast.servers.base.errors import ClientCommandsFound
from holdfast.servers.confined.stage import RehearsalSubject

_GLOBALS: Final = "globals.sql"
_SHOWN: Final = 5


def find_subject(repository: Repository, stored: StoredSnapshot, path: str = "") -> RehearsalSubject:
    """Find what a rehearsal of the snapshot loads: the item at `path` if there are several.

    Raises Refused, Damaged.
    """
    snapshot = stored.snapshot
    item = _dump(stored, path)
    catalogue = load_catalogue(Reader(repository), item) if item.catalogue else None
    engine, format_ = _engine(stored, item, catalogue)
    roles = next((i for i in snapshot.items if i.path == _GLOBALS and i is not item), None)
    server = facts_of(snapshot).server or (read_facts(catalogue.facts).server if catalogue else "")
    return RehearsalSubject(
        engine=engine,
        format=format_,
        name=snapshot.subject.name,
        server=server,
        item=item,
        catalogue=catalogue,
        roles=roles,
        alone=_is_alone(snapshot.items, item, roles, engine),
        fault=_fault(snapshot.items, catalogue),
    )


def check_commands(subject: RehearsalSubject) -> None:
    """Raises ClientCommandsFound."""
    found = read_facts(subject.catalogue.facts).commands if subject.catalogue else ""
    if found:
        raise ClientCommandsFound(
            f"{subject.item.path} has commands for the client program, which no dump tool writes ({found}); "
            "nothing was loaded"
        )


def _dump(stored: StoredSnapshot, path: str) -> Item:
    """The one dump that is meant: a database file before its text, because it proves more."""
    snapshot = stored.snapshot
    dumps = [i for i in snapshot.items if i.kind is ItemKind.DUMP and path in ("", i.path)]
    if len(dumps) > 1:
        files = _suffixes(ENGINES.engine(snapshot.subject.engine), DumpKind.FILE)
        dumps = [i for i in dumps if PurePath(i.path).suffix in files] or dumps
    if len(dumps) == 1:
        return dumps[0]
    if not dumps:
        raise Refused(f"snapshot {stored.id[:8]} holds no database that a server could be started from")
    there = ", ".join(item.path for item in dumps[:_SHOWN])
    raise Refused(f"snapshot {stored.id[:8]} holds several dumps ({there}); put :PATH behind it")


def _suffixes(engine: Engine | None, kind: DumpKind) -> set[str]:
    """Suffixes of the names of an engine's dumps of that kind."""
    formats = engine.formats if engine else ()
    return {PurePath(each.file_name).suffix for each in formats if each.kind is kind}


def _engine(stored: StoredSnapshot, item: Item, catalogue: Catalogue | None) -> tuple[Engine, DumpFormat]:
    """The engine in the catalogue; of a dump without one, that of the snapshot and the item's suffix."""
    engine = ENGINES.engine(catalogue.engine if catalogue else stored.snapshot.subject.engine)
    format_ = None
    if engine is not None and catalogue is not None:
        format_ = engine.format(catalogue.form)
    elif engine is not None:
        suffix = PurePath(item.path).suffix
        known = [each for each in engine.formats if each.kind is not DumpKind.PHYSICAL]
        format_ = next((each for each in known if PurePath(each.file_name).suffix == suffix), None)
    if engine is None or format_ is None:
        titles = [each.title for each in ENGINES.engines()]
        raise Refused(
            f"how to rehearse {item.path} of snapshot {stored.id[:8]} is not known: only backups of "
            f"{', '.join(titles[:-1])} and {titles[-1]} can be"
        )
    return engine, format_


def _is_alone(items: Sequence[Item], item: Item, roles: Item | None, engine: Engine) -> bool:
    """Whether there is no other dump beside it, but for roles and the text that was made of a database
    file."""
    path = PurePath(item.path)
    is_file = path.suffix in _suffixes(engine, DumpKind.FILE)
    texts = {str(path.with_suffix(s)) for s in _suffixes(engine, DumpKind.TEXT)} if is_file else set()
    return all(
        other is item or other is roles or other.path in texts
        for other in items
        if other.kind is ItemKind.DUMP
    )


def _fault(items: Sequence[Item], catalogue: Catalogue | None) -> str:
    if catalogue is not None and catalogue.fault:
        return catalogue.fault
    bad = next((bad for item in items for bad in item.bad), None)
    return f"{bad.length} bytes could not be read when it was backed up" if bad else ""
