"""Selectors of snapshots: `ID`, `latest`, `NAME`, `NAME@latest`, `NAME@TIME`; each may have a `:path`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from holdfast.base.errors import Ambiguous, NoSnapshots, NoSuchSnapshot, OnlyLogs
from holdfast.repo.snapshots.snapshot import StoredSnapshot, SubjectKind

TIME_FORMAT = "%Y-%m-%d_%H-%M-%S"
"""Format of times in paths and selectors: UTC, without colons."""

_LOGS = SubjectKind.LOGS
_SHORTEST_ID = 4
_HEX = re.compile(r"[0-9a-f]+")


def time_name(time: datetime) -> str:
    """A time in the format of paths and selectors."""
    return time.astimezone(UTC).strftime(TIME_FORMAT)


def split_selector(text: str) -> tuple[str, str]:
    """(selector, path inside the snapshot); the path is "" when there is none.

    The first colon separates them, unless it is part of a time such as 14:05:00 after an @.
    """
    match = re.match(
        r"([^:]*@\d{4}-\d{2}-\d{2}[T _]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|\+00:00)?)(?::(.*))?$", text
    )
    if match:
        return match[1], (match[2] or "").strip("/")
    selector, _, path = text.partition(":")
    return selector, path.strip("/")


def select_one(snapshots: Sequence[StoredSnapshot], selector: str) -> StoredSnapshot:
    """The snapshot that a selector names; `snapshots` are oldest first.

    A name means its newest snapshot. Snapshots of log archives are meant by their ID only: their files are
    had by their own names. Raises NoSnapshots, OnlyLogs, NoSuchSnapshot or Ambiguous.
    """
    everything, snapshots = snapshots, [s for s in snapshots if s.snapshot.subject.kind is not _LOGS]
    if not everything:
        raise NoSnapshots("there are no snapshots yet")
    if selector == "latest" and not snapshots:
        raise OnlyLogs("there are only log archives")
    if selector == "latest":
        return snapshots[-1]
    name, at, when = selector.rpartition("@")
    if not at or any(s.snapshot.subject.name == selector for s in snapshots):  # names may have an @ too
        name, when = selector, "latest"
    named = [s for s in snapshots if s.snapshot.subject.name == name]
    if not named:
        by_id = _by_id(everything, selector)
        if by_id is not None:
            return by_id
        raise NoSuchSnapshot(f"no snapshot {selector!r}")
    if len({s.snapshot.subject.identity for s in named}) > 1:
        raise Ambiguous(_several(name, named))
    if when == "latest":
        return named[-1]
    return _by_time(named, name, when)


def _several(name: str, named: Sequence[StoredSnapshot]) -> str:
    """The message for a name of several subjects: a line for each, with its newest snapshot."""
    newest = {s.snapshot.subject.identity: s for s in named}
    lines = sorted(
        f"{s.snapshot.subject.engine} {s.snapshot.subject.kind.value}, newest snapshot {s.id[:8]}".lstrip()
        for s in newest.values()
    )
    return "\n".join([f"{name!r} names {len(lines)} subjects; the ID of a snapshot means one:", *lines])


def _by_id(snapshots: Sequence[StoredSnapshot], text: str) -> StoredSnapshot | None:
    if len(text) < _SHORTEST_ID or not _HEX.fullmatch(text):
        return None
    found = [s for s in snapshots if s.id.startswith(text)]
    if len(found) > 1:
        raise Ambiguous(f"{text} is the start of {len(found)} snapshot IDs; give more digits")
    return found[0] if found else None


def _by_time(snapshots: Sequence[StoredSnapshot], name: str, when: str) -> StoredSnapshot:
    wanted = re.sub(r"[T ]", "_", when.removesuffix("Z").removesuffix("+00:00")).replace(":", "-")
    found = [s for s in snapshots if time_name(s.snapshot.time).startswith(wanted)]
    if not found or not wanted:
        raise NoSuchSnapshot(f"no snapshot of {name!r} at {when!r}")
    if len(found) > 1:
        raise Ambiguous(
            f"{len(found)} snapshots of {name!r} are from {when!r}; give more of the time, or an ID"
        )
    return found[0]


def filter_snapshots(
    snapshots: Sequence[StoredSnapshot],
    *,
    names: Collection[str] = (),
    tags: Collection[str] = (),
    kinds: Collection[SubjectKind] = (),
) -> list[StoredSnapshot]:
    """Snapshots with any of the names, all of the tags and any of the kinds. An empty filter accepts all.

    Snapshots of log archives are included only if `kinds` names their kind.
    """
    return [
        s
        for s in snapshots
        if (not names or s.snapshot.subject.name in names)
        and set(tags) <= set(s.snapshot.tags)
        and (s.snapshot.subject.kind in kinds if kinds else s.snapshot.subject.kind is not _LOGS)
    ]
