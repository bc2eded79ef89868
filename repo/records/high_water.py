"""Notices a repository that is older than it was, or another one: what this user saw before is still there.

Two witnesses say which snapshots must be there: the others, which name the heads that they knew
(`repo.snapshots.heads`), and a sealed file in this user's cache with the IDs of the last listing. What they
name is in use, or a record says that it was forgotten (`repo.records.forgotten`). Neither witness sees a
snapshot that was made and removed by others in between; a removed record is an alarm, no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.base.durable_files import durable_file, write_all
from holdfast.base.errors import Damaged, RepositoryError, Unsupported
from holdfast.base.types import SnapshotID
from holdfast.repo.core.mirrored import mirrored_names
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import content_hash, open_object, seal_object
from holdfast.repo.format.format import ObjectType
from holdfast.repo.records.forgotten import read_forgotten, record_forgotten
from holdfast.repo.snapshots.heads import lasting, named
from holdfast.repo.snapshots.listed import Snapshots
from holdfast.repo.store.interface import FileKind

_ID: Final = 32
_LARGEST: Final = 64 << 20
"""Bytes of the file in the cache that are read: two million IDs."""


class SnapshotsVanished(RepositoryError):
    """Snapshots that were there are gone, and no record says that they were forgotten."""

    def __init__(self, vanished: Vanished) -> None:
        super().__init__(f"{vanished}; nothing was changed")
        self.vanished = vanished


class OtherRepository(RepositoryError):
    """At a path is another repository than this user found there before."""

    def __init__(self, path: Path, found: str, known: Iterable[str]) -> None:
        before = ", ".join(id_[:8] for id_ in known)
        super().__init__(
            f"{path} holds the repository {found[:8]}, and held {before} before; nothing was done"
        )
        self.path = path


@dataclass(frozen=True, slots=True)
class Vanished:
    """Snapshots that no record says were forgotten: those that are gone, and those that are in the trash."""

    gone: tuple[SnapshotID, ...]
    trashed: tuple[SnapshotID, ...]

    def __bool__(self) -> bool:
        return bool(self.gone or self.trashed)

    def __str__(self) -> str:
        told = []
        if self.gone:
            told.append(f"{_ids(self.gone)} {_were(self.gone)} here and {_are(self.gone)} gone")
        if self.trashed:
            told.append(f"{_ids(self.trashed)} {_are(self.trashed)} in the trash")
        return f"snapshots vanished that nobody forgot: {'; '.join(told)}"


def find_vanished(repository: Repository, listed: Snapshots) -> Vanished:
    """Compare a listing of committed snapshots with the witnesses; remember it when nothing is missed."""
    known = lasting(listed.good)
    there = {stored.id for stored in known}
    seen = _read_seen(repository)
    missed = (seen | named(known)) - there
    if missed:  # in this order, a snapshot that moves between trash and use meanwhile is found in one of them
        trashed = set(mirrored_names(repository.store, FileKind.SNAPSHOT, trashed=True))
        missed -= read_forgotten(repository).times.keys()
        unread = missed & mirrored_names(repository.store, FileKind.SNAPSHOT).keys()
        missed -= unread
        there |= unread
        vanished = Vanished(tuple(sorted(missed - trashed)), tuple(sorted(missed & trashed)))
        if vanished:
            return vanished
    if there != seen:
        _write_seen(repository, there)
    return Vanished((), ())


def refuse_vanished(repository: Repository) -> None:
    """Raises SnapshotsVanished when a snapshot is gone that nobody forgot: nothing more must go then."""
    if vanished := find_vanished(repository, repository.snapshots()):
        raise SnapshotsVanished(vanished)


def accept_vanished(repository: Repository, vanished: Vanished, now: float) -> None:
    """Take the present state as right: what vanished counts as forgotten, for all users."""
    record_forgotten(repository, [*vanished.gone, *vanished.trashed], now)


def remember_snapshot(repository: Repository, id_: SnapshotID) -> None:
    """Remember a snapshot that was just made: from now on its absence is reported."""
    _write_seen(repository, _read_seen(repository) | {id_})


def check_place(repository: Repository, path: Path, cache: Path) -> None:
    """Raises OtherRepository when `path` held other repositories whenever this user looked before."""
    here = repository.config.hex_id
    known = _known_places(cache, path)
    if known and here not in known:
        raise OtherRepository(path, here, known)
    if not known:
        accept_place(repository, path, cache)


def accept_place(repository: Repository, path: Path, cache: Path) -> None:
    """From now on this repository may be at `path`, beside those that were there before."""
    known = _known_places(cache, path)
    file = _place(cache, path)
    with suppress(OSError):  # a cache that cannot be written remembers nothing
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with durable_file(file) as fd:
            write_all(fd, "".join(f"{id_}\n" for id_ in sorted({*known, repository.config.hex_id})).encode())


def _known_places(cache: Path, path: Path) -> list[str]:
    try:
        return _read(_place(cache, path)).decode("ascii", "replace").split()
    except OSError:
        return []


def _place(cache: Path, path: Path) -> Path:
    return cache / "places" / content_hash(bytes(path))


def _seen_file(repository: Repository) -> Path:
    return repository.cache_folder / "seen"


def _read_seen(repository: Repository) -> set[SnapshotID]:
    """The IDs of the last listing; none when there is no file, or none that was sealed by this repository."""
    file = _seen_file(repository)
    try:
        body = open_object(repository.keys, ObjectType.SEEN, _read(file), str(file))
    except (OSError, Damaged, Unsupported):
        return set()
    return {SnapshotID(body[at : at + _ID].hex()) for at in range(0, len(body), _ID)}


def _write_seen(repository: Repository, ids: set[SnapshotID]) -> None:
    file = _seen_file(repository)
    body = b"".join(bytes.fromhex(id_) for id_ in sorted(ids))
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with durable_file(file) as fd:
            write_all(fd, seal_object(repository.keys, ObjectType.SEEN, body))


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_LARGEST)


def _ids(ids: tuple[SnapshotID, ...]) -> str:
    shown = ", ".join(id_[:8] for id_ in ids[:5])
    return shown if len(ids) <= 5 else f"{shown} and {len(ids) - 5} more"


def _were(ids: tuple[SnapshotID, ...]) -> str:
    return "was" if len(ids) == 1 else "were"


def _are(ids: tuple[SnapshotID, ...]) -> str:
    return "is" if len(ids) == 1 else "are"
