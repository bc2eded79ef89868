"""The results of a search: the versions of each path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.formats.guests.values.values import NodeType
from holdfast.repo.snapshots.snapshot import StoredSnapshot


class Match(NamedTuple):
    """A path of one snapshot that a pattern matches. Size in bytes; time in ns since 1970, None for
    directories that no source has. `table` is the name of the table whose rows a virtual file holds."""

    path: str
    type: NodeType
    size: int
    mtime: int | None
    table: str = ""


@dataclass(slots=True)
class Version:
    """A path as one or more snapshots have it: with the same type, size and time of change."""

    match: Match
    first: StoredSnapshot
    last: StoredSnapshot
    count: int = 1


@dataclass(frozen=True, slots=True)
class NotSearched:
    """A place in a snapshot that could not be searched, or not to its end."""

    snapshot: StoredSnapshot
    path: str
    reason: str


@dataclass(slots=True)
class SearchFindings:
    """Versions by path, each in the order of the first snapshot that has them."""

    paths: dict[str, dict[Match, Version]] = field(default_factory=dict)
    not_searched: list[NotSearched] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    """Volumes without a file system, and what they are."""

    def add(self, stored: StoredSnapshot, match: Match) -> None:
        versions = self.paths.setdefault(match.path, {})
        version = versions.get(match)
        if version is None:
            versions[match] = Version(match, stored, stored)
        elif version.last is not stored:
            version.last = stored
            version.count += 1
