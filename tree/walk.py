"""Walking a guest's directories: each once, however a hostile file system ties them together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple, Protocol

from holdfast.base.errors import HoldfastError, RepositoryError
from holdfast.base.target_folder import possible_name
from holdfast.formats.guests.values.values import Entry, GuestDamaged, GuestError, NodeType, WorkerFailed

DEPTH: Final = 500
"""Directories inside one another that are followed: Linux knows no path longer than 4096 bytes, and a restore
holds a descriptor for each."""
_NAMES: Final = 2_000_000
"""Names in one directory, which are in memory together (some 500 bytes each) to be put in order."""
_FAILURES: Final = 3
"""Directories on which the parser may fail before the walk ends: each can take as long as its time limit."""


class Lister(Protocol):
    """The part of GuestDisk's interface that a walk uses."""

    def list(self, volume: str, folder: int) -> Iterator[tuple[bytes, Entry]]: ...


class Found(NamedTuple):
    """A name in a guest. `path` has no leading slash."""

    path: bytes
    entry: Entry


@dataclass(frozen=True, slots=True)
class Unread:
    """A directory that could not be read, or a name that cannot be one."""

    path: bytes
    error: HoldfastError


class Listing(NamedTuple):
    """The names of a directory, in order of their bytes; and those that cannot be read, with the reason."""

    names: list[tuple[bytes, Entry]]
    refused: list[tuple[bytes, GuestDamaged]]


def listed(guest: Lister, volume: str, folder: int) -> Listing:
    """Everything in a directory. Raises GuestDamaged when that is more than memory should hold."""
    names = list(islice(guest.list(volume, folder), _NAMES + 1))
    if len(names) > _NAMES:
        raise GuestDamaged(f"folder {folder} holds more than {_NAMES:,} names")
    names.sort(key=lambda pair: pair[0])
    refused = [(name, why) for name, entry in names if (why := _fault(name, entry))]
    return Listing([pair for pair in names if not _fault(*pair)] if refused else names, refused)


def _fault(name: bytes, entry: Entry) -> GuestDamaged | None:
    if not possible_name(name):
        return GuestDamaged("no file can have that name")
    if entry.type is NodeType.DAMAGED:
        return GuestDamaged("its inode is damaged")
    return None


@dataclass(slots=True)
class DirectoryGuard:
    """Lets a walk enter each directory of a volume once: a loop has no end, and n directories that each have
    two parents make 2^n paths. Keeps a number for each directory. Counts failures of the parser."""

    _seen: set[int] = field(default_factory=set)
    _failures: int = 0

    def enter(self, folder: int, depth: int) -> None:
        """Raises GuestDamaged where the walk must not go on."""
        if folder in self._seen:
            raise GuestDamaged(f"folder {folder} stands in several places; it is followed in one")
        if depth > DEPTH:
            raise GuestDamaged(f"more than {DEPTH} folders inside one another")
        self._seen.add(folder)

    def failed(self, error: HoldfastError) -> None:
        """Raises the error again when the walk should end."""
        self._failures += isinstance(error, WorkerFailed)
        if self._failures >= _FAILURES:
            raise error


def walk(guest: Lister, volume: str, top: Entry) -> Iterator[Found | Unread]:
    """Walk a directory depth first, names in order; unreadable directories are reported and skipped.

    Raises GuestError or RepositoryError when the top cannot be read, and when the parser keeps failing.
    """
    guard = DirectoryGuard()
    guard.enter(top.inode, 0)
    stack = [told(listed(guest, volume, top.inode), b"")]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
            continue
        yield step
        if isinstance(step, Found) and step.entry.type is NodeType.FOLDER:
            below = step.path + b"/"
            try:
                guard.enter(step.entry.inode, len(stack))
                stack.append(told(listed(guest, volume, step.entry.inode), below))
            except (GuestError, RepositoryError) as error:
                guard.failed(error)
                yield Unread(step.path, error)


def told(listing: Listing, prefix: bytes) -> Iterator[Found | Unread]:
    """A directory's names with their paths; `prefix` is b"" or ends in a slash."""
    for name, why in listing.refused:
        yield Unread(prefix + name, why)
    for name, entry in listing.names:
        yield Found(prefix + name, entry)
