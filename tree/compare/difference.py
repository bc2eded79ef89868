"""The results of a comparison, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from holdfast.formats.guests.values.values import Entry, NodeType


class Change(Enum):
    """How a path changed."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"
    UNREAD = "unread"
    """It could not be compared, or not to its end."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of a path. `type` is a NodeType's or ItemKind's value, "virtual" for a virtual file of a
    dump, or the file system of a volume; size in bytes; `entry` for a file or directory in a guest."""

    type: str
    size: int
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that is not the same in both. `what` names the differing properties of what is in both:
    content, mode, owner, time, type, target, device; of a table rows, definition. `differing`: bytes of a
    disk that may differ, an upper limit because whole chunks are counted."""

    change: Change
    path: str
    before: State | None = None
    after: State | None = None
    what: tuple[str, ...] = ()
    differing: int = 0
    reason: str = ""


def sided(change: Change, path: str, state: State) -> Difference:
    """Something that is in one of the two only."""
    before, after = (state, None) if change is Change.REMOVED else (None, state)
    return Difference(change, path, before, after)


def entry_state(entry: Entry) -> State:
    return State(entry.type.value, entry.size if entry.type is NodeType.FILE else 0, entry)
