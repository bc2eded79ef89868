"""Selectors of snapshots: `ID`, `latest`, `NAME`, `NAME@latest`, `NAME@TIME`; each may have a `:path`. Before
a name may stand what sets it apart: `db1/shop`, `vm/web01` (see `subjects`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from holdfast.base.errors import Ambiguous, NoSnapshots, NoSuchSnapshot, OnlyLogs
from holdfast.repo.snapshots.snapshot import StoredSnapshot, Subject, SubjectKind
from holdfast.repo.snapshots.subjects import Subjects

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
    there = Subjects(snapshots)
    name, at, when = selector.rpartition("@")
    if not at or there.named(selector):  # names may have an @ too
        name, when = selector, "latest"
    subjects = there.named(name)
    if not subjects:
        by_id = _by_id(everything, selector)
        if by_id is not None:
            return by_id
        raise NoSuchSnapshot(f"no snapshot {selector!r}")
    if len(subjects) > 1:
        raise Ambiguous(_several(name, subjects, there))
    named = [s for s in snapshots if s.snapshot.subject.identity == subjects[0].identity]
    if when == "latest":
        return named[-1]
    return _by_time(named, name, when)


def select_subject(snapshots: Sequence[StoredSnapshot], name: str) -> Subject:
    """The subject that `NAME` or `QUALIFIER/NAME` means. Raises NoSuchSnapshot or Ambiguous."""
    there = Subjects(snapshots)
    found = there.named(name)
    if not found:
        raise NoSuchSnapshot(f"no subject {name!r}")
    if len(found) > 1:
        raise Ambiguous(_several(name, found, there))
    return found[0]


def _several(name: str, named: Sequence[Subject], there: Subjects) -> str:
    """The message for a name of several subjects: a line for each, with its newest snapshot."""
    lines = sorted(
        f"{there.label(each)}: {f'{each.engine} {each.kind.value}'.lstrip()}, "
        f"newest snapshot {there.newest[each.identity].id[:8]}"
        for each in named
    )
    return "\n".join([f"{name!r} names {len(lines)} subjects; one of these means one:", *lines])


def _is_log_of(stored: StoredSnapshot, names: Collection[str]) -> bool:
    return stored.snapshot.subject.kind is _LOGS and stored.snapshot.subject.name in names


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

    A name means all subjects of that name. Snapshots of log archives are included only if `kinds` names their
    kind.
    """
    there = Subjects(snapshots)
    meant = {subject.identity for name in names for subject in there.named(name)}
    return [
        s
        for s in snapshots
        if (not names or s.snapshot.subject.identity in meant or _is_log_of(s, names))
        and set(tags) <= set(s.snapshot.tags)
        and (s.snapshot.subject.kind in kinds if kinds else s.snapshot.subject.kind is not _LOGS)
    ]
