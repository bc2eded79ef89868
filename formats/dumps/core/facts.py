"""What a database or its dump says of itself: typed here, a mapping of texts where it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from holdfast.repo.snapshots.snapshot import Snapshot

_PHYSICAL: Final = "physical"
_YES: Final = "yes"
_OTHERS: Final = "others"
_COMMANDS: Final = "commands"
NOT_TAKEN_APART: Final = "not_taken_apart"
"""Name of the fact that says why single tables cannot be had from a dump."""


@dataclass(frozen=True, slots=True)
class DumpFacts:
    """Facts of one dump or backup; "" for what is not known. The fields' order is the stored one.

    `physical`: it holds the files of a whole server. `system_id` and `timeline` are of a PostgreSQL cluster,
    `server` is the server's version, `tool` what made the dump, with its version. A dump or physical backup
    begins at `lsn` in the write-ahead log; a physical one is consistent from `stop_lsn` and `stop_time` (ISO
    8601) on. `binlog` (FILE:POSITION) is the place in the server's own binary log, `source_binlog` in that of
    the server that it replicates from. `commands` are those for the client program, which no dump tool
    writes: how many, and the first. `others` are facts that only their engine knows.
    """

    physical: bool = False
    system_id: str = ""
    server: str = ""
    tool: str = ""
    lsn: str = ""
    timeline: str = ""
    stop_lsn: str = ""
    stop_time: str = ""
    binlog: str = ""
    source_binlog: str = ""
    gtid: str = ""
    commands: str = ""
    others: Mapping[str, str] = field(default_factory=dict)

    def stored(self) -> dict[str, str]:
        """The mapping that snapshots and catalogues hold."""
        texts = {name: getattr(self, name) for name in _TEXTS}
        physical = {_PHYSICAL: _YES} if self.physical else {}
        return {**physical, **{name: text for name, text in texts.items() if text}, **self.others}


_TEXTS: Final = tuple(each.name for each in fields(DumpFacts) if each.name not in (_PHYSICAL, _OTHERS))


def read_facts(stored: Mapping[str, str]) -> DumpFacts:
    """Inverse of `DumpFacts.stored`. Takes any mapping: unknown names are `others`."""
    known = {name: stored[name] for name in _TEXTS if name in stored}
    others = {name: text for name, text in stored.items() if name not in (_PHYSICAL, *_TEXTS)}
    return DumpFacts(physical=stored.get(_PHYSICAL) == _YES, others=others, **known)


def facts_of(snapshot: Snapshot) -> DumpFacts:
    """What is known of the database at the moment of a snapshot."""
    return read_facts(snapshot.facts)


def agreed_facts(parts: Iterable[Mapping[str, str]], known: DumpFacts) -> dict[str, str]:
    """The stored facts of a snapshot of these parts. `known` goes first; where two parts say different
    things, neither is true of the whole; but the commands of each part are the whole's."""
    agreed: dict[str, str] = {}
    torn: set[str] = set()
    commands: list[str] = []
    for facts in parts:
        torn |= {name for name, value in facts.items() if agreed.get(name, value) != value}
        agreed |= facts
        commands += [facts[_COMMANDS]] if _COMMANDS in facts else []
    whole = {name: value for name, value in agreed.items() if name not in torn} | known.stored()
    return whole | ({_COMMANDS: "; ".join(commands)} if commands else {})
