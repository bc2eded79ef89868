"""How long each file has been in the trash, by a clock that only prunes move.

The system's clock can jump: with a clock a month ahead, a prune would empty the trash, and a file that was
moved there while the clock was behind would seem years old. So each prune adds the time since the last prune,
but no more than half of the quarantine, and a file's days count from the prune that first saw it in the
trash. A forgotten snapshot is first seen by the prune that moves its packs there, so it stays as long as they
do. These times are in a sealed file; without it the days begin anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from holdfast.base.errors import Damaged, NoSpace, Unsupported
from holdfast.base.stored_json import VersionedJson, read_versioned
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import content_hash, open_object, seal_object
from holdfast.repo.format.format import OBJECT_LIMIT, ObjectType
from holdfast.repo.store.interface import FileKind

QUARANTINE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class TrashTimes:
    """`clock` in seconds; by name, what it showed when a prune first saw each file in the trash, and the time
    of moving that the file had; the system's time of the last prune. Both of those in seconds since 1970."""

    clock: float
    entered: Mapping[str, tuple[float, float]]
    last: float

    def advanced(self, now: float, quarantine: float, present: Mapping[str, float]) -> TrashTimes:
        """As of a prune at the system's time `now` that sees these files in the trash, with their times of
        moving: who came back and was forgotten again has another one."""
        clock = self.clock + min(max(now - self.last, 0.0), quarantine / 2)
        new = {name: (clock, moved) for name, moved in present.items()}
        known = {name: self.entered[name] for name in new.keys() & self.entered.keys()}
        return TrashTimes(clock, new | {n: seen for n, seen in known.items() if seen[1] == new[n][1]}, now)

    def over(self, quarantine: float) -> set[str]:
        """The files whose quarantine is over."""
        return {name for name, (since, _) in self.entered.items() if self.clock - since >= quarantine}


class _QuarantineJson(VersionedJson):
    clock: float
    last: float
    entered: dict[str, tuple[float, float]]


def read_times(repository: Repository) -> TrashTimes:
    """Read the times that the last prune wrote. A crash can leave several files: the latest clock counts."""
    found = [TrashTimes(0.0, {}, 0.0)]
    for name in _names(repository):
        where = repository.store.describe(FileKind.QUARANTINE, name)
        with suppress(FileNotFoundError, Damaged, Unsupported):  # then the days begin anew
            data = repository.store.read(FileKind.QUARANTINE, name, 0, OBJECT_LIMIT)
            body = open_object(repository.keys, ObjectType.QUARANTINE, data, where)
            read = read_versioned(
                body, _QuarantineJson, kind="quarantine", version=QUARANTINE_VERSION, where=where
            )
            found.append(TrashTimes(read.clock, read.entered, read.last))
    return max(found, key=lambda times: times.clock)


def write_times(repository: Repository, times: TrashTimes) -> None:
    """Write these times and delete older files of times. The caller holds the exclusive lock."""
    store = repository.store
    before = _names(repository)
    if not before and not times.entered:
        return
    body = {"clock": times.clock, "last": times.last, "entered": dict(times.entered)}
    text = json.dumps(body | {"version": QUARANTINE_VERSION}, sort_keys=True)
    sealed = seal_object(repository.keys, ObjectType.QUARANTINE, text.encode())
    with suppress(NoSpace):  # the next prune counts from the last one that could write
        store.put(FileKind.QUARANTINE, content_hash(sealed), sealed)
        store.sync()
        for name in before:
            store.delete(FileKind.QUARANTINE, name)


def _names(repository: Repository) -> list[str]:
    return [entry.name for entry in repository.store.listing(FileKind.QUARANTINE)]
