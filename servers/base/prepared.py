"""What a database is about to give: sources that are being read, and what is known of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast.ingest.backup.plan import Part


@dataclass(frozen=True, slots=True)
class Prepared:
    """The parts of one snapshot of one database. `name` is the database's own, `origin` where it is from,
    without secrets; `facts` as in `Snapshot.facts`; `warnings` are sentences for the user."""

    parts: tuple[Part, ...]
    name: str
    engine: str
    origin: str
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
