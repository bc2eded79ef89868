"""Compares two directories of guests, or two files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.base.errors import HoldfastError, RepositoryError
from holdfast.formats.guests.client.open_disk import Guest
from holdfast.formats.guests.values.naming import to_text
from holdfast.formats.guests.values.values import Entry, GuestError, NodeType
from holdfast.tree.compare.difference import Change, Difference, entry_state, sided
from holdfast.tree.compare.same_content import SameContent
from holdfast.tree.nodes import GuestNode
from holdfast.tree.walk import DirectoryGuard, Unread, listed, walk


@dataclass(frozen=True, slots=True)
class Side:
    """A node of a guest, and what reads its file system."""

    node: GuestNode
    guest: Guest

    @property
    def volume(self) -> str:
        return self.node.volume.path


class _Pair(NamedTuple):
    """A name that is in either directory or in both."""

    path: str
    before: Entry | None
    after: Entry | None


class GuestComparison:
    """Compares the trees below two nodes of guests. Paths in the results begin with that of the second.

    Of a directory that is in both only mode and owner count: its times change with its entries, and those are
    reported themselves.
    """

    def __init__(self, one: Side, other: Side, content: SameContent) -> None:
        self._one = one
        self._other = other
        self._content = content
        self._guard = DirectoryGuard()
        self._peer_guard = DirectoryGuard()

    def run(self) -> Iterator[Difference]:
        """Depth first, names in order; one directory of each side is held for each level."""
        top = _Pair(self._other.node.path, self._one.node.entry, self._other.node.entry)
        yield from self._pair(top)
        stack = [self._directory(top, 0)] if _is_directory(top.before) and _is_directory(top.after) else []
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
            elif isinstance(step, Difference):
                yield step
            else:
                yield from self._pair(step)
                if _is_directory(step.before) and _is_directory(step.after):
                    stack.append(self._directory(step, len(stack)))

    def _directory(self, pair: _Pair, depth: int) -> Iterator[_Pair | Difference]:
        assert pair.before is not None
        assert pair.after is not None
        try:
            self._guard.enter(pair.before.inode, depth)
            self._peer_guard.enter(pair.after.inode, depth)
            before = listed(self._one.guest, self._one.volume, pair.before.inode)
            after = listed(self._other.guest, self._other.volume, pair.after.inode)
        except (GuestError, RepositoryError) as error:
            self._guard.failed(error)
            yield Difference(Change.UNREAD, pair.path, reason=str(error))
            return
        refused = dict(before.refused) | dict(after.refused)
        for name in sorted(refused):
            yield Difference(Change.UNREAD, f"{pair.path}/{to_text(name)}", reason=str(refused[name]))
        one, other = dict(before.names), dict(after.names)
        for name in sorted((one.keys() | other.keys()) - refused.keys()):
            yield _Pair(f"{pair.path}/{to_text(name)}", one.get(name), other.get(name))

    def _pair(self, pair: _Pair) -> Iterator[Difference]:
        path, before, after = pair
        if before is None or after is None or before.type is not after.type:
            if before is not None and after is not None:
                states = entry_state(before), entry_state(after)
                yield Difference(Change.MODIFIED, path, *states, what=("type",))
            else:
                entry, change = (before, Change.REMOVED) if before else (after, Change.ADDED)
                assert entry is not None
                yield sided(change, path, entry_state(entry))
            if before is not None and before.type is NodeType.FOLDER:
                yield from below(self._one, before, path, Change.REMOVED)
            if after is not None and after.type is NodeType.FOLDER:
                yield from below(self._other, after, path, Change.ADDED)
            return
        try:
            what = tuple(self._differing(before, after))
        except (GuestError, RepositoryError) as error:
            self._guard.failed(error)
            yield Difference(Change.UNREAD, path, entry_state(before), entry_state(after), reason=str(error))
            return
        if what:
            yield Difference(Change.MODIFIED, path, entry_state(before), entry_state(after), what=what)

    def _differing(self, before: Entry, after: Entry) -> Iterator[str]:
        """The names of the properties in which two entries of one type differ."""
        if before.type is NodeType.FILE and not self._content.same(
            self._one.volume, before, self._other.volume, after
        ):
            yield "content"
        if before.type is NodeType.LINK and self._target_differs(before, after):
            yield "target"
        if before.device != after.device:
            yield "device"
        if before.mode != after.mode:
            yield "mode"
        if (before.uid, before.gid) != (after.uid, after.gid):
            yield "owner"
        if before.mtime != after.mtime and before.type is not NodeType.FOLDER:
            yield "time"

    def _target_differs(self, before: Entry, after: Entry) -> bool:
        """Compare link targets, unless all numbers are the same: a link is never changed, only replaced."""
        if _numbers(before) == _numbers(after):
            return False
        one, other = self._one, self._other
        target = one.guest.readlink(one.volume, before.inode)
        return target != other.guest.readlink(other.volume, after.inode)


def below(side: Side, top: Entry, path: str, change: Change) -> Iterator[Difference]:
    """Everything below a directory that is in one of the two only."""
    try:
        for step in walk(side.guest, side.volume, top):
            inner = f"{path}/{to_text(step.path)}"
            if isinstance(step, Unread):
                yield Difference(Change.UNREAD, inner, reason=str(step.error))
            else:
                yield sided(change, inner, entry_state(step.entry))
    except HoldfastError as error:
        yield Difference(Change.UNREAD, path, reason=str(error))


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and entry.type is NodeType.FOLDER


def _numbers(entry: Entry) -> tuple[int, int, int, int]:
    return entry.inode, entry.size, entry.mtime, entry.ctime
