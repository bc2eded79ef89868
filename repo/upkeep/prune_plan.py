"""Plans a prune: which bytes of which packs snapshots need, and which packs to rewrite. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.base.errors import Damaged, MissingChunk, NeedsUnknown, StoreError
from holdfast.base.types import ChunkID, PackID, ProgressFunction, SnapshotID
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.format import PACK_TARGET
from holdfast.repo.index.idset import IdSet
from holdfast.repo.index.locations import Location
from holdfast.repo.packs.reader import open_record
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.interface import FileKind
from holdfast.repo.upkeep.epochs import earlier_packs
from holdfast.repo.upkeep.reachability import UnreadableNode, reachable_chunks

_SCAN = 4096
_LOOKS = 3
"""Attempts before chunks count as missing."""
_SMALL = 4
"""A pack smaller than a full pack's size divided by this is small."""
_MANY = 16
"""Number of small packs from which on they are repacked. They fill at most four packs, so this is rare."""


@dataclass(frozen=True, slots=True)
class PackUse:
    """A pack's size, and the sizes of its records that snapshots need and do not need, in bytes.

    The rest of a pack is its head, directory and padding.
    """

    pack: PackID
    size: int
    used: int
    unused: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The packs that a prune would keep, repack and remove.

    `missing` counts reachable chunks that are in no pack: if there are any, nothing may be removed.
    `snapshots` and `pending` are the IDs that the plan protects. Packs in `reseal` are repacked only
    because they are of an earlier key epoch. `damaged` packs stay: the numbers of chunks that are needed and
    have no good copy anywhere.
    """

    keep: tuple[PackUse, ...]
    repack: tuple[PackUse, ...]
    remove: tuple[PackUse, ...]
    missing: int
    snapshots: frozenset[SnapshotID]
    pending: frozenset[SnapshotID]
    reseal: frozenset[PackID] = frozenset()
    damaged: Mapping[PackID, int] = field(default_factory=dict)

    @property
    def freed(self) -> int:
        """Bytes that the plan frees."""
        return sum(p.size for p in self.remove) + sum(p.size - p.used for p in self.repack)

    def lines(self) -> Iterator[tuple[str, int, int]]:
        """(action, number of packs, bytes) of each part of the plan, for display."""
        yield "keep as they are", len(self.keep), sum(p.size for p in self.keep)
        repack = [p for p in self.repack if p.pack not in self.reseal]
        yield (
            "repack, because part of them is not needed or they are small",
            len(repack),
            sum(p.size for p in repack),
        )
        if self.reseal:
            reseal = [p for p in self.repack if p.pack in self.reseal]
            yield "seal anew, because their key epoch is over", len(reseal), sum(p.size for p in reseal)
        yield "remove, because nothing needs them", len(self.remove), sum(p.size for p in self.remove)


def make_plan(
    repository: Repository,
    *,
    max_unused: float = 0.05,
    reseal_all: bool = False,
    progress: ProgressFunction = lambda count: None,
) -> Plan:
    """Find the chunks that snapshots need and decide which packs to keep, repack and remove.

    `max_unused` is the share of unneeded bytes that may stay to save rewriting. Of the packs of earlier key
    epochs that share of all needed bytes is sealed anew, the oldest first; with `reseal_all` every one. Calls
    `progress` with the number of chunks just found. Raises Refused when a snapshot cannot be read: its chunks
    are unknown.
    """
    for look in range(_LOOKS):
        if look == _LOOKS - 1:
            repository.drop_index()  # perhaps it is what is wrong: it is a cache
        repository.refresh()
        committed, pending = protected_snapshots(repository)
        with repository.id_set("prune") as seen:
            missing = collect_reachable(repository, committed, seen, progress)
            # Missing chunks of pending backups do not count: the backup notices when it commits.
            collect_reachable(repository, pending, seen, progress)
            uses = _use_of_packs(repository, seen)
            damaged = _damaged_packs(repository, seen)
        if not missing:
            break  # else a snapshot, such as pushed log files, may be newer than the listing of packs
    packs = [
        PackUse(PackID(e.name), e.size, *uses.get(PackID(e.name), (0, 0)))
        for e in repository.store.listing(FileKind.PACK)
        if repository.index.is_listed(PackID(e.name))
    ]
    stay = [p for p in packs if damaged.get(p.pack)]
    keep, repack, small, remove = sort_packs([p for p in packs if not damaged.get(p.pack)], max_unused)
    healed = [p for p in (*keep, *small) if p.pack in damaged]
    keep, small = [[p for p in some if p not in healed] for some in (keep, small)]
    repack += healed
    ids = frozenset(s.id for s in committed), frozenset(s.id for s in pending)
    earlier = sorted(earlier_packs(repository, [p.pack for p in keep]))
    limit = None if reseal_all else int(max_unused * sum(p.used for p in packs))
    reseal = choose_reseal(keep, [pack for _, pack in earlier], limit)
    sealed_anew = frozenset(p.pack for p in reseal)
    keep = [p for p in keep if p.pack not in sealed_anew]
    lost = {pack: number for pack, number in damaged.items() if number}
    return Plan((*keep, *stay), (*repack, *small, *reseal), tuple(remove), missing, *ids, sealed_anew, lost)


def choose_reseal(packs: Iterable[PackUse], oldest: Sequence[PackID], limit: int | None) -> list[PackUse]:
    """Choose packs of `oldest` in order: one, and more while their needed bytes are within `limit`."""
    uses = {p.pack: p for p in packs}
    chosen: list[PackUse] = []
    total = 0
    for pack in oldest:
        total += uses[pack].used
        if limit is not None and chosen and total > limit:
            break
        chosen.append(uses[pack])
    return chosen


def sort_packs(
    packs: Iterable[PackUse], max_unused: float, *, target: int = PACK_TARGET
) -> tuple[list[PackUse], list[PackUse], list[PackUse], list[PackUse]]:
    """(keep, repack, small, remove). Repacks the emptiest packs until the rest wastes at most `max_unused`.

    Repacks small packs too when there are many: each push of a log file leaves one, and every listing reads
    them all. Repacking them gives full packs of `target` bytes and one smaller pack.
    """
    remove = [p for p in packs if p.used == 0]
    partly = sorted((p for p in packs if p.used), key=lambda p: p.used / (p.used + p.unused))
    allowed = max_unused * sum(p.used for p in partly)
    total = sum(p.unused for p in partly)
    repack: list[PackUse] = []
    for pack in partly:
        if total <= allowed or not pack.unused:
            break
        repack.append(pack)
        total -= pack.unused
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
    """Add all reachable IDs to `seen`. Returns the number of reachable chunks that are in no pack, not even
    damaged."""
    missing = 0
    for _, new in reachable_chunks(Reader(repository), snapshots, seen):
        if isinstance(new, UnreadableNode):
            if not isinstance(new.error, MissingChunk):  # a missing one is counted with its ID
                missing += 1
            continue
        absent = [id_ for id_, found in zip(new, repository.index.lookup(new), strict=True) if found is None]
        if absent:  # of a damaged one there may be another copy some day: its pack stays for that long
            damaged = repository.damage.by_chunk()
            absent = [id_ for id_ in absent if not any(map(repository.index.is_listed, damaged.get(id_, ())))]
        missing += len(absent)
        progress(len(new))
    return missing


def _use_of_packs(repository: Repository, seen: IdSet) -> dict[PackID, tuple[int, int]]:
    """(bytes needed, bytes not needed) of each pack's records, as the index says.

    A chunk in several packs is needed in the first one that has a good copy. The prune may remove the other
    copies, so a damaged copy must not count.
    """
    used: dict[PackID, int] = {}
    held: dict[PackID, int] = {}
    for batch in _batches(repository.index.scan(), _SCAN):
        for (key, locations), needed in zip(
            batch, seen.contains_keys([key for key, _ in batch]), strict=True
        ):
            for location in locations:
                held[location.pack] = held.get(location.pack, 0) + location.length
            if needed and locations:
                location = locations[0] if len(locations) == 1 else _first_good(repository, key, locations)
                used[location.pack] = used.get(location.pack, 0) + location.length
    return {pack: (used.get(pack, 0), size - used.get(pack, 0)) for pack, size in held.items()}


def _damaged_packs(repository: Repository, seen: IdSet) -> dict[PackID, int]:
    """By pack with noted damage: the number of its damaged chunks that are needed and in no other pack."""
    found: dict[PackID, int] = {}
    for pack, ids in repository.damage.packs().items():
        wanted = [id_ for id_, needed in zip(ids, seen.contains(list(ids)), strict=True) if needed]
        found[pack] = sum(location is None for location in repository.index.lookup(wanted))
    return found


def _first_good(repository: Repository, key: bytes, locations: Sequence[Location]) -> Location:
    """The first location that has the chunk of that key in the index's table."""
    for location in locations:
        found = record_at(repository, location)
        if found is not None and repository.index.hidden.table_key(found) == key:
            return location
    return locations[0]


def record_at(repository: Repository, location: Location) -> ChunkID | None:
    """The ID of the record there; None when it cannot be read or opened, or its content has another ID."""
    where = f"pack {location.pack}"
    try:
        data = repository.store.read(FileKind.PACK, location.pack, location.offset, location.length)
        header, plain = open_record(repository.ciphers.get(location.pack), location.offset, data, where)
    except (Damaged, FileNotFoundError, StoreError):
        return None
    return header.id if repository.keys.chunk_id(header.type, plain) == header.id else None


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
