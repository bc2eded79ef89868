"""Carries out a prune plan: removes packs that no snapshot needs, in an order that makes crashes harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from holdfast.base.errors import Damaged, NeedsUnknown, NoSpace
from holdfast.base.types import PackID, ProgressFunction, SnapshotID
from holdfast.repo.core.key_changes import mend_keys
from holdfast.repo.core.mirrored import (
    delete_mirrored,
    first_name,
    mirrored_names,
    put_mirrored,
    read_mirrored,
    untrash_mirrored,
)
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.format import PACK_LIMIT, RecordHeader
from holdfast.repo.index.idset import IdSet
from holdfast.repo.index.index import Directory
from holdfast.repo.packs.reader import open_payload, open_record, read_directory
from holdfast.repo.packs.writer import PackWriter, Record
from holdfast.repo.records.forgotten import fold_forgotten, read_forgotten, restore_missing_forgotten_copies
from holdfast.repo.records.high_water import refuse_vanished
from holdfast.repo.records.proofs import remove_orphans, restore_missing_proof_copies
from holdfast.repo.snapshots.heads import named
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.interface import FileKind, LockMode
from holdfast.repo.upkeep.prune_plan import PackUse, Plan, collect_reachable, is_good, protected_snapshots
from holdfast.repo.upkeep.reachability import UnreadableNode, reachable_chunks

_BATCH = 4 << 20
"""Bytes of records that are copied together."""


_REMEMBERED = timedelta(days=400).total_seconds()
"""For how long it is remembered that a snapshot was forgotten: a cache that has not been used for longer than
that, and had seen the snapshot, raises a false alarm."""
_UNEXPLAINED = timedelta(days=7)
"""Quarantine of packs when there is no snapshot at all, not even a forgotten one."""


@dataclass(slots=True)
class PruneResult:
    """Result of a prune: numbers and bytes of packs moved to the trash and of packs deleted from it."""

    trashed: int = 0
    trashed_bytes: int = 0
    deleted: int = 0
    freed_bytes: int = 0
    repacked_bytes: int = 0
    damaged: list[Damaged] = field(default_factory=list)
    """Errors of damaged packs, which were kept."""
    notes: list[str] = field(default_factory=list)


def execute(
    repository: Repository,
    plan: Plan,
    *,
    quarantine: timedelta,
    now: Callable[[], float],
    progress: ProgressFunction = lambda count: None,
    lock_timeout: float = 60.0,
    batch: int = _BATCH,
) -> PruneResult:
    """Carry out a plan. A crash at any point leaves every snapshot whole:

    1. under the shared lock, what is needed of half-empty packs is written into new packs, durably;
    2. under the exclusive lock, snapshots made since the plan are marked too, and packs they use are kept;
    3. dead and repacked packs are *moved* to the trash, the moves made durable;
    4. snapshots and pending ones are looked at again, and what they claim is moved back;
    5. only what lies in the trash for `quarantine` is deleted.

    Works on a full disk: when there is no room to repack, the rest is done all the same. Raises
    NeedsUnknown when reachable chunks are missing, SnapshotsVanished when snapshots
    are, Locked when a backup runs past `lock_timeout`.
    """
    if plan.missing:
        raise NeedsUnknown(
            f"{plan.missing} chunks that snapshots need are in no pack: pruning could remove what is left to "
            "repair them with"
        )
    refuse_vanished(repository)
    result = PruneResult()
    store = repository.store
    repacked: list[PackUse] = []
    if plan.repack:
        with store.lock(LockMode.SHARED, lock_timeout):
            repacked = _repack_planned(repository, plan, result, progress, batch)
    with store.lock(LockMode.EXCLUSIVE, lock_timeout):
        repository.refresh()
        doomed = {use.pack: use.size for use in [*plan.remove, *repacked]}
        _spare(repository, plan, doomed)
        for pack in doomed:
            _trash(repository, pack, result)
        store.sync()
        repository.refresh()
        if not _untrash_needed_packs(repository):
            result.trashed, result.trashed_bytes = len(doomed), sum(doomed.values())
        _restore_missing_copies(repository)
        restore_missing_proof_copies(repository)
        mend_keys(repository)
        restore_missing_forgotten_copies(repository)
        if not plan.snapshots and not any(store.listing(FileKind.SNAPSHOT, trashed=True)):
            # No snapshot and no trace of one: perhaps their folder is what is missing. Time to notice.
            quarantine = max(quarantine, _UNEXPLAINED)
        _delete_expired(repository, now() - quarantine.total_seconds(), result)
        store.sync()
        repository.refresh()
    return result


def _repack_planned(
    repository: Repository, plan: Plan, result: PruneResult, progress: ProgressFunction, batch: int
) -> list[PackUse]:
    """Write what is needed of half-empty packs into new ones. The caller holds the shared lock.

    Returns the packs that are no longer needed then: none when the disk is full.
    """
    repository.follow_keyring()  # no rotation comes in between from here on
    try:
        result.repacked_bytes, bad = _repack(repository, plan, progress, batch)
    except NoSpace:
        result.notes.append("no room to repack; packs that nothing needs were removed all the same")
        return []
    result.damaged += bad.values()
    return [use for use in plan.repack if use.pack not in bad]


def _delete_expired(repository: Repository, before: float, result: PruneResult) -> None:
    """Delete what lies in the trash since `before` or earlier, in seconds since 1970, and what crashes left.

    The caller holds the exclusive lock, so no backup runs: every pending snapshot is left over.
    """
    store = repository.store
    _empty_trash(repository, before, result)
    remove_orphans(repository, before=before)
    _fold_forgotten(repository, before - _REMEMBERED)
    store.clean()
    for name in mirrored_names(store, FileKind.PENDING):
        delete_mirrored(store, FileKind.PENDING, name)


def _repack(
    repository: Repository, plan: Plan, progress: ProgressFunction, batch: int
) -> tuple[int, dict[PackID, Damaged]]:
    """Write the needed records of the plan's half-empty and small packs into new packs.

    Returns (bytes written, errors by optional pack that must stay because of a damaged record). Raises
    Damaged for such a record in another pack.
    """
    store = repository.store
    new: list[tuple[PackID, int, Directory]] = []
    writer = PackWriter(
        store,
        repository.keys,
        lambda pack, size, directory: new.append((pack, size, directory)),
        target=repository.pack_target,
    )
    bad: dict[PackID, Damaged] = {}
    try:
        with repository.id_set("repack") as needed, repository.id_set("copied") as copied:
            committed, pending = protected_snapshots(repository)
            collect_reachable(repository, [*committed, *pending], needed, lambda count: None)
            doomed = {use.pack for use in [*plan.repack, *plan.remove]}
            for use in plan.repack:
                records = _needed_records(repository, use, doomed=doomed, needed=needed, copied=copied)
                try:
                    # Of an optional pack all or nothing: what two packs hold would be waste in one of them.
                    _copy(writer, list(records) if use.pack in plan.optional else records, copied, batch)
                except Damaged as error:
                    if use.pack not in plan.optional:
                        raise
                    bad[use.pack] = error
                    doomed.discard(use.pack)
                progress(use.size)
        writer.finish()
    finally:
        writer.abandon()
    repository.index.add(new)
    return writer.stored, bad


def _copy(writer: PackWriter, records: Iterable[Record], copied: IdSet, batch: int) -> None:
    """Write the records, `batch` bytes or a little more at a time."""
    waiting: list[Record] = []
    size = 0
    for record in records:
        waiting.append(record)
        copied.add([record[0].id])
        size += record[0].size
        if size >= batch:
            writer.add(waiting)
            waiting, size = [], 0
    if waiting:
        writer.add(waiting)


def _needed_records(
    repository: Repository, use: PackUse, *, doomed: set[PackID], needed: IdSet, copied: IdSet
) -> Iterator[Record]:
    """The needed records of a doomed pack of which no remaining pack has a good copy, each chunk once.

    Authenticates every record, and of an earlier key epoch compares its ID too: who was removed has the keys
    of that epoch, and what he sealed under an ID must not come into this one.

    Raises Damaged for a record that is damaged in all packs.
    """
    pack = use.pack
    where = f"pack {pack}"
    cipher = repository.ciphers.get(pack)
    data = memoryview(repository.store.read(FileKind.PACK, pack, 0, PACK_LIMIT))
    entries = read_directory(repository.store, repository.ciphers, pack, use.size)
    for (offset, header), wanted in zip(entries, needed.contains([h.id for _, h in entries]), strict=True):
        if not wanted or copied.contains([header.id])[0]:
            continue
        others = [each for each in repository.index.locations(header.id) if each.pack != pack]
        if any(is_good(repository, location) for location in others if location.pack not in doomed):
            continue
        try:
            sealed = data[offset : offset + header.size]
            record = open_payload(cipher, offset, sealed, where)
            if cipher.head.epoch != repository.keys.epoch:
                _compare_id(repository, open_record(cipher, offset, sealed, where), where, offset)
        except Damaged:
            if any(is_good(repository, location) for location in others):
                continue  # copied from there when its turn comes
            raise
        yield record


def _compare_id(repository: Repository, found: tuple[RecordHeader, bytes], where: str, offset: int) -> None:
    header, plain = found
    if repository.keys.chunk_id(header.type, plain) != header.id:
        raise Damaged(where, f"chunk {header.id.hex()} has other content than its ID says", offset=offset)


def _trash(repository: Repository, pack: PackID, result: PruneResult) -> None:
    try:
        repository.store.trash(FileKind.PACK, pack)
    except FileNotFoundError:
        return
    except NoSpace:
        # The disk is too full for another name in the trash directory. No snapshot needs the pack and the
        # exclusive lock is held, so it may be deleted, which frees space for the rest.
        repository.store.delete(FileKind.PACK, pack)
        result.notes.append(f"no room in the trash: pack {pack[:8]} was deleted at once")


def _spare(repository: Repository, plan: Plan, doomed: dict[PackID, int]) -> None:
    """Remove packs from `doomed` that snapshots newer than the plan need."""
    committed, pending = protected_snapshots(repository)
    newer = [s for s in committed if s.id not in plan.snapshots]
    newer += [s for s in pending if s.id not in plan.pending]
    if newer:
        for pack in _needed_packs(repository, newer, doomed):
            del doomed[pack]


def _needed_packs(
    repository: Repository, snapshots: Sequence[StoredSnapshot], doomed: dict[PackID, int]
) -> set[PackID]:
    """Doomed packs that have the only copies of a chunk that one of the snapshots needs."""
    needed: set[PackID] = set()
    with repository.id_set("spare") as seen:
        for _, new in reachable_chunks(Reader(repository), snapshots, seen):
            for id_ in [] if isinstance(new, UnreadableNode) else new:
                packs = {location.pack for location in repository.index.locations(id_)}
                if packs and packs <= doomed.keys():
                    needed |= packs
    return needed


def _untrash_needed_packs(repository: Repository) -> bool:
    """Move all packs back from the trash if a committed or pending snapshot lacks a chunk without them.

    Returns whether it did; the next prune plans anew.
    """
    committed, pending = protected_snapshots(repository)
    with repository.id_set("claims") as seen:
        if collect_reachable(repository, [*committed, *pending], seen, lambda count: None) == 0:
            return False
        trashed = list(repository.store.listing(FileKind.PACK, trashed=True))
    for entry in trashed:
        repository.store.untrash(FileKind.PACK, entry.name)
    repository.store.sync()
    repository.refresh()
    with repository.id_set("claims") as seen:
        if collect_reachable(repository, committed, seen, lambda count: None):
            raise NeedsUnknown("chunks that snapshots need are in no pack; nothing was deleted")
    return True


def _restore_missing_copies(repository: Repository) -> None:
    """Restore the second copy of snapshots of which a killed commit, forget or undelete left only one.

    The caller holds the exclusive lock. Must run before the trash is emptied, which may have the other copy.
    """
    store = repository.store
    trashed = mirrored_names(store, FileKind.SNAPSHOT, trashed=True)
    for name, count in mirrored_names(store, FileKind.SNAPSHOT).items():
        if name in trashed:
            untrash_mirrored(store, FileKind.SNAPSHOT, name)
        elif count < 2:

            def proven(data: bytes, where: str, name: str = name) -> bytes:
                repository.parse_snapshot(data, where, name)
                return data

            data = read_mirrored(store, FileKind.SNAPSHOT, name, proven)
            with suppress(NoSpace):  # one copy is enough for now
                put_mirrored(store, FileKind.SNAPSHOT, name, data)


def _fold_forgotten(repository: Repository, before: float) -> None:
    """Keep the records of forgotten snapshots few. Needed are those that others name or the trash holds."""
    needed = named(repository.snapshots().good) | named(repository.snapshots(trashed=True).good)
    in_trash = mirrored_names(repository.store, FileKind.SNAPSHOT, trashed=True)
    fold_forgotten(repository, needed={*needed, *map(SnapshotID, in_trash)}, before=before)


def _empty_trash(repository: Repository, before: float, result: PruneResult) -> None:
    store = repository.store
    for entry in list(store.listing(FileKind.PACK, trashed=True)):
        if entry.modified <= before:
            store.delete(FileKind.PACK, entry.name, trashed=True)
            result.deleted += 1
            result.freed_bytes += entry.size
    forgotten = read_forgotten(repository).times
    for entry in list(store.listing(FileKind.SNAPSHOT, trashed=True)):  # also what is half a pair
        if entry.modified <= before and first_name(entry.name) in forgotten:
            store.delete(FileKind.SNAPSHOT, entry.name, trashed=True)
