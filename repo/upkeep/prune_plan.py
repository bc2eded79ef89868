"""Planning a prune: what snapshots need, and which packs are worth touching. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from holdfast.base.errors import Damaged, MissingChunk, NeedsUnknown
from holdfast.base.types import PackID, ProgressFunction, SnapshotID
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.format import PACK_TARGET
from holdfast.repo.index.idset import IdSet
from holdfast.repo.index.locations import Location
from holdfast.repo.packs.reader import open_record
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.interface import FileKind
from holdfast.repo.upkeep.reachability import UnreadableNode, reachable_chunks

_SCAN = 4096
_LOOKS = 3
"""Times to look before chunks are called missing."""
_SMALL = 4
"""A pack of less than this part of a full one is small."""
_MANY = 16
"""So many small packs are made into few: they come to four full ones at most, so rewriting is rare."""


@dataclass(frozen=True, slots=True)
class PackUse:
    """A pack's size and how much of it snapshots need, in bytes."""

    pack: PackID
    size: int
    used: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a prune would do. A value: making it changes nothing.

    `missing` counts reachable chunks that are in no pack: with any, nothing may be removed.
    `snapshots` and `pending` are what it was made from. Packs in `repack` that are `optional` are only small:
    that one of them is damaged is no reason to stop.
    """

    keep: tuple[PackUse, ...]
    repack: tuple[PackUse, ...]
    remove: tuple[PackUse, ...]
    missing: int
    snapshots: frozenset[SnapshotID]
    pending: frozenset[SnapshotID]
    optional: frozenset[PackID] = frozenset()

    @property
    def freed(self) -> int:
        """Bytes by which the packs shrink."""
        return sum(p.size for p in self.remove) + sum(p.size - p.used for p in self.repack)

    def lines(self) -> Iterator[tuple[str, int, int]]:
        """(what, packs, bytes) of each part, for printing."""
        yield "keep as they are", len(self.keep), sum(p.size for p in self.keep)
        yield (
            "repack, because part of them is not needed or they are small",
            len(self.repack),
            sum(p.size for p in self.repack),
        )
        yield "remove, because nothing needs them", len(self.remove), sum(p.size for p in self.remove)


def make_plan(
    repository: Repository, *, max_unused: float = 0.05, progress: ProgressFunction = lambda count: None
) -> Plan:
    """Find what snapshots need and sort the packs by it.

    `max_unused` is the share of the packs that may stay unneeded to save rewriting. `progress` is told
    of chunks marked. Raises Refused when a snapshot cannot be read: what it needs is unknown.
    """
    for _ in range(_LOOKS):
        repository.refresh()
        committed, pending = protected_snapshots(repository)
        with IdSet(repository.scratch("prune")) as seen:
            missing = collect_reachable(repository, committed, seen, progress)
            # A backup that lost a chunk finds out by itself when it commits: it must not stop this for ever.
            collect_reachable(repository, pending, seen, progress)
            used = _use_of_packs(repository, seen)
        if not missing:
            break  # else a snapshot may have come after the packs were listed, as pushed log files do
    packs = [
        PackUse(PackID(e.name), e.size, used.get(PackID(e.name), 0))
        for e in repository.store.listing(FileKind.PACK)
        if repository.index.is_listed(PackID(e.name))
    ]
    keep, repack, small, remove = sort_packs(packs, max_unused)
    ids = frozenset(s.id for s in committed), frozenset(s.id for s in pending)
    optional = frozenset(p.pack for p in small)
    return Plan(tuple(keep), (*repack, *small), tuple(remove), missing, *ids, optional)


def sort_packs(
    packs: Iterable[PackUse], max_unused: float, *, target: int = PACK_TARGET
) -> tuple[list[PackUse], list[PackUse], list[PackUse], list[PackUse]]:
    """(keep, repack, small, remove): the emptiest packs are repacked until the rest wastes little enough.

    Small packs are repacked, too, when there are many: each push of a log file leaves one, and every listing
    walks them all. What comes of them is full packs of `target` bytes and one that is not, so the next plan
    lets them be.
    """
    remove = [p for p in packs if p.used == 0]
    partly = sorted((p for p in packs if p.used), key=lambda p: p.used / p.size)
    allowed = max_unused * sum(p.used for p in partly)
    # Head, directory and padding are no waste: a pack is full when 3 % is left.
    unused = [max(0, p.size - p.used - p.size * 3 // 100) for p in partly]
    total = sum(unused)
    repack: list[PackUse] = []
    for pack, waste in zip(partly, unused, strict=True):
        if total <= allowed or not waste:
            break
        repack.append(pack)
        total -= waste
    keep = partly[len(repack) :]
    small = [p for p in keep if p.size < target // _SMALL]
    if len(small) < _MANY:
        small = []
    chosen = {p.pack for p in small}
    return [p for p in keep if p.pack not in chosen], repack, small, remove


def protected_snapshots(repository: Repository) -> tuple[Sequence[StoredSnapshot], Sequence[StoredSnapshot]]:
    committed, pending = repository.snapshots(), repository.snapshots(pending=True)
    if committed.damaged:
        raise NeedsUnknown(
            f"{committed.damaged[0]}; what this snapshot needs is unknown, so nothing can be removed"
        )
    return committed.good, pending.good


def collect_reachable(
    repository: Repository, snapshots: Sequence[StoredSnapshot], seen: IdSet, progress: ProgressFunction
) -> int:
    """Enter everything reachable into `seen`; the number of reachable chunks that are in no pack."""
    missing = 0
    for _, new in reachable_chunks(Reader(repository), snapshots, seen):
        if isinstance(new, UnreadableNode):
            if not isinstance(new.error, MissingChunk):  # a missing one is counted with its ID
                missing += 1
            continue
        missing += sum(place is None for place in repository.index.lookup(new))
        progress(len(new))
    return missing


def _use_of_packs(repository: Repository, seen: IdSet) -> dict[PackID, int]:
    """Bytes needed of each pack. A chunk in several packs counts in one of them, the first that proves
    good when it is read: it may go from the others, and a copy that healed damage must not be the one.
    """
    used: dict[PackID, int] = {}
    for batch in _batches(repository.index.scan(), _SCAN):
        for (_, places), needed in zip(batch, seen.contains([key for key, _ in batch]), strict=True):
            if needed and places:
                place = places[0] if len(places) == 1 else _first_good(repository, places)
                used[place.pack] = used.get(place.pack, 0) + place.length
    return used


def _first_good(repository: Repository, places: Sequence[Location]) -> Location:
    return next((place for place in places if is_good(repository, place)), places[0])


def is_good(repository: Repository, place: Location) -> bool:
    """Whether the record there opens and its content matches its ID."""
    where = f"pack {place.pack}"
    try:
        data = repository.store.read(FileKind.PACK, place.pack, place.offset, place.length)
        header, plain = open_record(repository.ciphers.get(place.pack), place.offset, data, where)
    except (Damaged, FileNotFoundError):
        return False
    return repository.keys.chunk_id(header.type, plain) == header.id


def _batches(
    items: Iterator[tuple[bytes, list[Location]]], size: int
) -> Iterator[list[tuple[bytes, list[Location]]]]:
    batch: list[tuple[bytes, list[Location]]] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
