"""Finding names over many snapshots, and the versions that there were of what they name."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.base.errors import HoldfastError, NotFound, RepositoryError
from holdfast.base.types import ChunkID
from holdfast.formats.guests.values.naming import FILES, disk_name, is_note, to_text
from holdfast.formats.guests.values.values import GuestDamaged, GuestError, NodeType
from holdfast.repo.snapshots.snapshot import Item, StoredSnapshot
from holdfast.tree.paths import GuestNode, Inside, TextNode
from holdfast.tree.walk import Unread, walk

OpenInside = Callable[[StoredSnapshot], AbstractContextManager[Inside]]


class Pattern:
    """A glob for the end of a path: `passwd`, `*.conf`, `etc/*.conf`.

    Each part between slashes stands for one name; `*` crosses none. With a slash in front it is the whole
    path: that of the snapshot, or that inside a volume (`/etc/passwd`).
    """

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        flags = re.IGNORECASE if ignore_case else 0
        self._anchored = text.startswith("/")
        self._parts = [re.compile(fnmatch.translate(part), flags) for part in text.split("/") if part]

    def matches(self, names: Sequence[str], above: int) -> bool:
        """Whether a path matches; its first `above` names lead to the volume's root (0 outside of one)."""
        count = len(self._parts)
        if not 0 < count <= len(names) or (self._anchored and count not in (len(names), len(names) - above)):
            return False
        ends = zip(reversed(self._parts), reversed(names), strict=False)
        return all(part.match(name) for part, name in ends)


class Match(NamedTuple):
    """Something a pattern stands for, in one snapshot. Size in bytes, time in ns."""

    path: str
    type: NodeType
    size: int
    mtime: int


@dataclass(slots=True)
class Version:
    """What a path was in one or more snapshots: of the same type, size and time of change."""

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
class Findings:
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


class Search:
    """Looks for patterns in the snapshots of one subject, given oldest first.

    `prefix` limits it to what is below a path of the snapshot, or, with a slash in front, below a path of
    every volume. A disk with the same recipe as in the snapshot before is not walked again.
    """

    def __init__(self, patterns: Sequence[Pattern], open_inside: OpenInside, *, prefix: str = "") -> None:
        self._patterns = patterns
        self._open_inside = open_inside
        self._inner = prefix.startswith("/")
        self._prefix = prefix.strip("/")
        self._known: dict[str, tuple[ChunkID, list[Match]]] = {}
        self.findings = Findings()

    def walks(self, snapshots: Sequence[StoredSnapshot]) -> int:
        """How many disks `snapshot` will walk for these."""
        known: dict[str, ChunkID] = {}
        count = 0
        for stored in snapshots:
            for name, item in self._disks(stored):
                count += known.get(name) != item.recipe
                known[name] = item.recipe
        return count

    def snapshot(self, stored: StoredSnapshot, walked: Callable[[int], None]) -> None:
        """Search one snapshot; `walked` is called with 1 for each disk that was walked."""
        for item in stored.snapshot.items:
            self._item(stored, item)
        todo: list[str] = []
        for name, item in self._disks(stored):
            known = self._known.get(name)
            if known is None or known[0] != item.recipe:
                todo.append(name)
                continue
            for match in known[1]:
                self.findings.add(stored, match)
        if todo:
            with self._open_inside(stored) as inside:
                for name in todo:
                    self._disk(stored, inside, name)
                    walked(1)

    def _disks(self, stored: StoredSnapshot) -> Iterator[tuple[str, Item]]:
        top, *below = self._prefix.split("/") if self._prefix and not self._inner else [FILES]
        for item in stored.snapshot.items:
            name = disk_name(item)
            if name and top == FILES and (not below or below[0] == name):
                yield name, item

    def _item(self, stored: StoredSnapshot, item: Item) -> None:
        inside = not self._prefix or f"{item.path}/".startswith(self._prefix + "/")
        if inside and not self._inner and self._match(item.path.split("/"), 0):
            self.findings.add(stored, Match(item.path, NodeType.FILE, item.size, item.mtime))

    def _disk(self, stored: StoredSnapshot, inside: Inside, name: str) -> None:
        """A disk's matches; they are remembered for the next snapshot only if all of it could be read."""
        found: list[Match] = []
        before = len(self.findings.not_searched)
        try:
            for match in self._walk(stored, inside, name):
                found.append(match)
                self.findings.add(stored, match)
        except HoldfastError as error:
            self._fail(stored, f"{FILES}/{name}", error)
        finally:
            inside.close(name)
        if len(self.findings.not_searched) == before:
            self._known[name] = inside.disks[name].recipe, found
        else:
            self._known.pop(name, None)

    def _walk(self, stored: StoredSnapshot, inside: Inside, name: str) -> Iterator[Match]:
        places = inside.open(name).places
        for place in places:
            path = "/".join((FILES, name, *place))
            if is_note(place, places) or not (start := self._start(path)):
                continue
            try:
                yield from self._below(stored, inside, start, above=2 + len(place))
            except NotFound:
                continue
            except (GuestError, RepositoryError) as error:
                self._fail(stored, start, error)

    def _start(self, volume: str) -> str:
        """Where in a volume to begin; "" if the prefix leads elsewhere."""
        if self._inner:
            return f"{volume}/{self._prefix}"
        if self._prefix.startswith(volume + "/"):
            return self._prefix
        return volume if not self._prefix or f"{volume}/".startswith(self._prefix + "/") else ""

    def _below(self, stored: StoredSnapshot, inside: Inside, start: str, *, above: int) -> Iterator[Match]:
        node = inside.resolve(start)
        if isinstance(node, TextNode):
            if node.damaged:
                raise GuestDamaged(to_text(node.content).strip())
            self.findings.unknown.setdefault(node.path, to_text(node.content).strip())
            if self._match(node.path.split("/"), 0):
                yield Match(node.path, NodeType.FILE, len(node.content), 0)
            return
        assert isinstance(node, GuestNode)
        top = node.path.split("/")
        if len(top) > above and self._match(top, above):
            yield Match(node.path, node.entry.type, node.entry.size, node.entry.mtime)
        if node.entry.type is not NodeType.FOLDER:
            return
        for step in walk(node.disk.guest, node.volume, node.entry):
            if isinstance(step, Unread):
                self._fail(stored, f"{node.path}/{to_text(step.path)}", step.error)
                continue
            names = top + to_text(step.path).split("/")
            if self._match(names, above):
                yield Match("/".join(names), step.entry.type, step.entry.size, step.entry.mtime)

    def _match(self, names: Sequence[str], above: int) -> bool:
        return any(pattern.matches(names, above) for pattern in self._patterns)

    def _fail(self, stored: StoredSnapshot, path: str, error: HoldfastError) -> None:
        self.findings.not_searched.append(NotSearched(stored, path, str(error)))
