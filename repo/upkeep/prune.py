"""Carries out a prune plan: removes packs that no snapshot needs, in an order that makes crashes harmless."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from holdfast.base.errors import (
    Damaged,
    NeedsUnknown,
    NoSpace,
    Refused,
    RepositoryError,
    StoreError,
    Unsupported,
)
from holdfast.base.types import PackID, ProgressFunction, SnapshotID
from holdfast.repo.core.key_changes import mend_keys
from holdfast.repo.core.mirrored import (
    delete_mirrored,
    first_name,
    mirrored_names,
    restore_missing_copies,
    untrash_mirrored,
)
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.subject_records import open_subject_change
from holdfast.repo.records.forgotten import fold_forgotten, read_forgotten, restore_missing_forgotten_copies
from holdfast.repo.records.high_water import refuse_vanished
from holdfast.repo.records.proofs import remove_orphans, restore_missing_proof_copies
from holdfast.repo.records.quarantine import read_times, write_times
from holdfast.repo.snapshots.heads import named
from holdfast.repo.store.interface import FileKind, LockMode, StoredFile
from holdfast.repo.upkeep.needs import Needs
from holdfast.repo.upkeep.prune_plan import PackUse, Plan, collect_reachable, protected_snapshots
from holdfast.repo.upkeep.reachability import UnreadableNode, reachable_chunks
from holdfast.repo.upkeep.repack import repack

_BATCH = 4 << 20
"""Bytes of records that are copied together."""
_REMEMBERED = timedelta(days=400).total_seconds()
"""For how long it is remembered that a snapshot was forgotten: a cache that has not been used for longer than
that, and had seen the snapshot, raises a false alarm."""
_SURE = timedelta(days=1)
"""The shortest quarantine where the lock may not keep out everybody."""
_UNEXPLAINED = timedelta(days=7)
"""Quarantine of packs when there is no snapshot at all, not even a forgotten one, and of claims."""


@dataclass(slots=True)
class PruneResult:
    """Result of a prune: numbers and bytes of packs moved to the trash and of packs deleted from it."""

    trashed: int = 0
    trashed_bytes: int = 0
    deleted: int = 0
    freed_bytes: int = 0
    repacked_bytes: int = 0
    damaged: list[RepositoryError] = field(default_factory=list)
    """Errors of packs that could not be read whole, which were kept."""
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
    2. under the exclusive lock, what snapshots made since then need is added, and packs stay whose own
       directory has a needed chunk that was found in no other pack;
    3. the other dead and repacked packs are *moved* to the trash, the moves made durable;
    4. snapshots and pending ones are looked at again, and what they claim is moved back;
    5. only what has been in the trash for `quarantine` is deleted (`repo.records.quarantine`).

    Works on a full disk: when there is no room to repack, the rest is done all the same. Raises
    NeedsUnknown when reachable chunks are missing, SnapshotsVanished when snapshots
    are, Locked when a backup runs past `lock_timeout`.
    """
    refuse_vanished(repository)
    result = PruneResult()
    if plan.missing:
        with repository.store.lock(LockMode.EXCLUSIVE, lock_timeout):
            if not _bring_trash_back(repository):
                raise NeedsUnknown(
                    f"{plan.missing} chunks that snapshots need are in no pack: pruning could remove what is "
                    "left to repair them with"
                )
        result.notes.append(
            "packs that snapshots need were brought back from the trash; the next prune goes on"
        )
        return result
    result.damaged += [
        Damaged(f"pack {pack}", f"{number} chunk(s) that snapshots need are damaged in it and nowhere whole")
        for pack, number in sorted(plan.damaged.items())
    ]
    with repository.id_set("needed") as needed, repository.id_set("copied") as copied:
        needs = Needs(repository, needed, copied)
        known: frozenset[SnapshotID] = frozenset()
        repacked: list[PackUse] = []
        if plan.repack:
            known = _add_needs(repository, needs, known)
            with repository.store.lock(LockMode.SHARED, lock_timeout):
                repacked = _repack(repository, plan, needs, result, progress=progress, batch=batch)
        with repository.store.lock(LockMode.EXCLUSIVE, lock_timeout):
            _refuse_doubts(repository, quarantine)
            repository.refresh()
            if plan.remove or repacked or any(repository.store.listing(FileKind.PACK, trashed=True)):
                _add_needs(repository, needs, known)
            _take_out_of_use(repository, [*plan.remove, *repacked], needs, result)
            _mend_pairs(repository)
            if not plan.snapshots and not any(repository.store.listing(FileKind.SNAPSHOT, trashed=True)):
                # No snapshot and no trace of one: perhaps their directory is missing. Time to notice.
                quarantine = max(quarantine, _UNEXPLAINED)
            _delete_expired(repository, now(), quarantine.total_seconds(), needs, result)
            repository.store.sync()
            _fold_notes(repository)
            _refresh_at_end(repository, needs, result)
    return result


def _refuse_doubts(repository: Repository, quarantine: timedelta) -> None:
    """Raises Refused when a backup may run in spite of the lock and would lose its packs at once."""
    doubts = repository.store.doubts()
    if doubts and quarantine < _SURE:
        raise Refused(
            f"{doubts[0]}. A backup that runs unseen would lose its data without a quarantine of at least "
            f"{_SURE.days} day; nothing was moved"
        )


def _add_needs(repository: Repository, needs: Needs, known: Collection[SnapshotID]) -> frozenset[SnapshotID]:
    """Add what committed and pending snapshots need that are not `known`. Returns the IDs of all.

    Raises NeedsUnknown when a recipe of a committed one cannot be read.
    """
    committed, pending = protected_snapshots(repository)
    new = [stored for stored in committed if stored.id not in known]
    for _, found in reachable_chunks(Reader(repository), new, needs.needed):
        if isinstance(found, UnreadableNode):
            raise NeedsUnknown(f"{found.error}; what snapshots need is unknown, so nothing was deleted")
    collect_reachable(repository, pending, needs.needed, lambda count: None)
    needs.is_complete = True
    return frozenset(stored.id for stored in (*committed, *pending))


def _repack(
    repository: Repository,
    plan: Plan,
    needs: Needs,
    result: PruneResult,
    *,
    progress: ProgressFunction,
    batch: int,
) -> list[PackUse]:
    """Repack as planned. Returns the packs that nothing needs afterwards; none when the disk is full."""
    repository.follow_keyring()  # no rotation comes in between from here on
    repacked = repack(repository, plan, needs, progress, batch)
    if repacked.no_space:
        result.notes.append("no room to repack; packs that nothing needs were removed all the same")
    result.repacked_bytes = repacked.written
    result.damaged += repacked.damaged.values()
    return repacked.done


def _take_out_of_use(
    repository: Repository, uses: Sequence[PackUse], needs: Needs, result: PruneResult
) -> None:
    """Move packs to the trash, but for those whose own directory says that they are needed."""
    doomed = {use.pack: use.size for use in uses}
    for pack, size in list(doomed.items()):
        if not _may_go(needs, pack, size, doomed, result):
            del doomed[pack]
    for pack in doomed:
        _trash(repository, pack, result)
    repository.store.sync()
    repository.refresh()
    if not _untrash_needed_packs(repository):
        result.trashed, result.trashed_bytes = len(doomed), sum(doomed.values())


def _may_go(needs: Needs, pack: PackID, size: int, going: Collection[PackID], result: PruneResult) -> bool:
    try:
        return needs.may_go(pack, size, going=going)
    except (Damaged, StoreError) as error:
        result.damaged.append(error)
        return False


def _mend_pairs(repository: Repository) -> None:
    """Complete what crashes left half of: of files with two copies one."""
    _restore_missing_copies(repository)
    restore_missing_proof_copies(repository)
    mend_keys(repository)
    restore_missing_forgotten_copies(repository)


def _fold_notes(repository: Repository) -> None:
    """Drop notes of damage in packs that are gone, and make few of many."""
    repository.damage.refresh(repository.store, repository.keys)
    known = repository.damage.packs()
    there = {
        entry.name
        for trashed in (False, True)
        for entry in repository.store.listing(FileKind.PACK, trashed=trashed)
    }
    wanted = {pack: ids for pack, ids in known.items() if pack in there}
    if wanted != known or not repository.damage.is_folded():
        repository.keep_damage(wanted)


def _refresh_at_end(repository: Repository, needs: Needs, result: PruneResult) -> None:
    if needs.wrong_index:
        result.notes.append(
            "the index did not agree with the packs; it was made anew, and the next prune goes on with that"
        )
        repository.drop_index()
    repository.refresh()


def _delete_expired(
    repository: Repository, now: float, quarantine: float, needs: Needs, result: PruneResult
) -> None:
    """Delete what has been in the trash for `quarantine` seconds, and what crashes left.

    The caller holds the exclusive lock, so no backup runs: every pending snapshot is left over.
    """
    store = repository.store
    trash = {
        first_name(entry.name): entry.modified
        for kind in (FileKind.PACK, FileKind.SNAPSHOT)
        for entry in sorted(store.listing(kind, trashed=True), key=lambda entry: entry.name)
    }
    pending = mirrored_names(store, FileKind.PENDING).keys()
    # Where the lock may not keep everybody out, what others claim is left over only when it is old.
    doubted = {*pending, *store.claims()} if store.doubts() else set()
    times = read_times(repository).advanced(now, quarantine, trash | dict.fromkeys(doubted, 0.0))
    # Without a quarantine all goes, whatever times say.
    _empty_trash(repository, times.over(quarantine) if quarantine else trash.keys(), needs, result)
    write_times(repository, times)
    remove_orphans(repository, before=now - quarantine)
    _fold_forgotten(repository, now - quarantine - _REMEMBERED)
    old = times.over(_UNEXPLAINED.total_seconds())
    for name in doubted & old - pending:
        store.remove_claim(name)
    for name in pending - (doubted - old):
        delete_mirrored(store, FileKind.PENDING, name)
    if not doubted:
        store.clean()


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


def _untrash_needed_packs(repository: Repository) -> bool:
    """Move all packs back from the trash if a committed or pending snapshot lacks a chunk without them.

    Returns whether it did; the next prune plans anew.
    """
    committed, pending = protected_snapshots(repository)
    with repository.id_set("claims") as seen:
        if collect_reachable(repository, [*committed, *pending], seen, lambda count: None) == 0:
            return False
    if not _bring_trash_back(repository):
        raise NeedsUnknown("chunks that snapshots need are in no pack; nothing was deleted")
    return True


def _bring_trash_back(repository: Repository) -> bool:
    """Move all packs back from the trash. Returns whether snapshots in use lack nothing then."""
    for entry in list(repository.store.listing(FileKind.PACK, trashed=True)):
        repository.store.untrash(FileKind.PACK, entry.name)
    repository.store.sync()
    repository.refresh()
    with repository.id_set("claims") as seen:
        committed, _ = protected_snapshots(repository)
        return collect_reachable(repository, committed, seen, lambda count: None) == 0


def _restore_missing_copies(repository: Repository) -> None:
    """Restore the second copy of snapshots of which a killed commit, forget or undelete left only one.

    The caller holds the exclusive lock. Must run before the trash is emptied, which may have the other copy.
    """
    store = repository.store
    trashed = mirrored_names(store, FileKind.SNAPSHOT, trashed=True)
    for name in mirrored_names(store, FileKind.SNAPSHOT):
        if name in trashed:
            untrash_mirrored(store, FileKind.SNAPSHOT, name)
    restore_missing_copies(store, FileKind.SNAPSHOT, repository.parse_snapshot)
    restore_missing_copies(
        store,
        FileKind.SUBJECTS,
        lambda data, where, name: open_subject_change(repository.keys, data, where, name),
    )


def _fold_forgotten(repository: Repository, before: float) -> None:
    """Merge records of forgotten snapshots. Keeps IDs that other snapshots name or that are in the trash."""
    needed = named(repository.snapshots().good) | named(repository.snapshots(trashed=True).good)
    in_trash = mirrored_names(repository.store, FileKind.SNAPSHOT, trashed=True)
    fold_forgotten(repository, needed={*needed, *map(SnapshotID, in_trash)}, before=before)


def _is_useless(needs: Needs, entry: StoredFile, result: PruneResult) -> bool:
    """Whether nothing in a pack in the trash is needed, or can be opened."""
    try:
        return needs.may_go(PackID(entry.name), entry.size, going=())
    except (Damaged, Unsupported):
        return True
    except StoreError as error:
        result.damaged.append(error)
        return False


def _empty_trash(repository: Repository, over: Collection[str], needs: Needs, result: PruneResult) -> None:
    """Delete the files whose quarantine is `over`. The packs first: a snapshot without them is of no use."""
    store = repository.store
    for entry in list(store.listing(FileKind.PACK, trashed=True)):
        if entry.name in over and _is_useless(needs, entry, result):
            store.delete(FileKind.PACK, entry.name, trashed=True)
            result.deleted += 1
            result.freed_bytes += entry.size
    forgotten = read_forgotten(repository).times
    for entry in list(store.listing(FileKind.SNAPSHOT, trashed=True)):  # also what is half a pair
        name = first_name(entry.name)
        if name in over and name in forgotten:
            store.delete(FileKind.SNAPSHOT, entry.name, trashed=True)
