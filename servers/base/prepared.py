"""A backup of a database that is ready to be read: planned items, and facts of the server."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.ingest.backup.plan import PlannedItem
from holdfast.repo.snapshots.snapshot import Origin


@dataclass(frozen=True, slots=True)
class Prepared:
    """The planned items of one snapshot of one database.

    `name` is the database's own, `origin` where it is from, without secrets; `warnings` are sentences for the
    user; `uuid` is the subject's identity if it has one, `where` what tells it apart without one."""

    items: tuple[PlannedItem, ...]
    name: str
    engine: str
    origin: str
    facts: DumpFacts = field(default_factory=DumpFacts)
    warnings: tuple[str, ...] = ()
    uuid: str = ""
    where: Origin = field(default_factory=Origin)
