"""Checks packs: their ends, or every byte of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from holdfast.base.errors import Damaged, OtherKey, StoreError, Unsupported
from holdfast.base.types import ChunkID, PackID, ProgressFunction
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.trashed import size_of
from holdfast.repo.format.crypto import content_hash
from holdfast.repo.format.format import PACK_LIMIT
from holdfast.repo.index.idset import IdSet
from holdfast.repo.index.locations import Location
from holdfast.repo.packs.reader import open_record, read_directory
from holdfast.repo.store.interface import FileKind, StoredFile
from holdfast.repo.upkeep.findings import Finding, Weight
from holdfast.repo.upkeep.prune_plan import record_at

PACK_ADVICE = (
    "back the source up again now: what it still has of this is stored anew, and old snapshots heal with it"
)
_FREED = "nothing is lost; a prune frees the pack"
_READERS = 2
"""Packs in memory at a time, 64 MiB each."""


def check_directories(repository: Repository, packs: Sequence[StoredFile]) -> Iterator[Finding]:
    for entry in packs:
        pack = PackID(entry.name)
        where = repository.store.describe(FileKind.PACK, pack)
        try:
            read_directory(repository.store, repository.ciphers, pack, entry.size)
        except FileNotFoundError:
            continue  # a prune took it since
        except OtherKey as error:
            with suppress(FileNotFoundError):
                data = repository.store.read(FileKind.PACK, pack, 0, PACK_LIMIT + 1)
                yield _of_other_key(where, error, is_whole=content_hash(data) == pack)
        except (Damaged, Unsupported) as error:
            yield Finding(where, str(error), advice=PACK_ADVICE)


def _of_other_key(where: str, error: OtherKey, *, is_whole: bool) -> Finding:
    """A pack whose content is that of its name was made so: it is another repository's."""
    if is_whole:
        return Finding(where, "is a pack of another repository; nothing reads it", weight=Weight.NOTE)
    return Finding(where, str(error), advice=PACK_ADVICE)


def read_packs(
    repository: Repository, packs: Sequence[StoredFile], bad: set[ChunkID], progress: ProgressFunction
) -> list[Finding]:
    """Read whole packs, two at a time; IDs of chunks that do not open go into `bad`."""

    def read(entry: StoredFile) -> list[Finding]:
        found, chunks = _read_pack(repository, PackID(entry.name))
        bad.update(chunks)
        progress(entry.size)
        return found

    with ThreadPoolExecutor(_READERS, "holdfast-check") as pool:
        return [finding for findings in pool.map(read, packs) for finding in findings]


def _read_pack(repository: Repository, pack: PackID) -> tuple[list[Finding], list[ChunkID]]:
    where = repository.store.describe(FileKind.PACK, pack)
    try:
        data = memoryview(repository.store.read(FileKind.PACK, pack, 0, PACK_LIMIT + 1))
    except FileNotFoundError:
        return [], []
    except StoreError as error:
        return [Finding(where, str(error), advice=PACK_ADVICE)], _unreadable(repository, pack)
    findings: list[Finding] = []
    is_whole = content_hash(data) == pack
    if not is_whole:
        findings.append(Finding(where, "content does not match its name", advice=PACK_ADVICE))
    try:
        entries = read_directory(repository.store, repository.ciphers, pack, len(data))
        cipher = repository.ciphers.get(pack)
    except FileNotFoundError:
        return [], []  # a prune took it since
    except OtherKey as error:
        return [*findings, _of_other_key(where, error, is_whole=is_whole)], []
    except (Damaged, Unsupported) as error:
        findings.append(Finding(where, str(error), advice=PACK_ADVICE))
        return findings, []
    bad: list[ChunkID] = []
    for offset, header in entries:
        try:
            found, plain = open_record(cipher, offset, data[offset : offset + header.size], where)
            if found != header or repository.keys.chunk_id(header.type, plain) != header.id:
                raise Damaged(where, "record and directory, or content and ID, disagree", offset=offset)
        except Damaged as error:
            findings.append(
                Finding(where, f"chunk {header.id.hex()[:16]}: {error.reason} at offset {offset}")
            )
            bad.append(header.id)
    if bad:
        repository.note_damage(pack, bad)
    return findings, bad


def _unreadable(repository: Repository, pack: PackID) -> list[ChunkID]:
    """The chunks of a pack that the disk does not give: perhaps it gives the others."""
    try:
        entries = read_directory(repository.store, repository.ciphers, pack, size_of(repository, pack))
    except (FileNotFoundError, Damaged, StoreError):
        return []
    there = [(Location(pack, offset, header.size), header.id) for offset, header in entries]
    bad = [id_ for place, id_ in there if record_at(repository, place) != id_]
    repository.note_damage(pack, bad)
    return bad


def check_noted(repository: Repository, seen: IdSet | None) -> Iterator[Finding]:
    """Read all chunks again that are noted as damaged. Drops the notes of those that are good now.

    `seen` has the chunks that snapshots need, if they are known.
    """
    left: dict[PackID, set[ChunkID]] = {}
    for pack, ids in sorted(repository.damage.packs().items()):
        where = repository.store.describe(FileKind.PACK, pack)
        good = _good_records(repository, pack, ids)
        if good is None:
            continue  # the pack is gone
        left[pack] = ids - good
        lost = [id_ for id_ in left[pack] if not repository.index.locations(id_)]
        if seen is not None:
            lost = [id_ for id_, needed in zip(lost, seen.contains(lost), strict=True) if needed]
        if lost:
            yield Finding(where, f"{len(lost)} chunk(s) of it are known to be damaged", advice=PACK_ADVICE)
        elif left[pack]:
            problem = f"{len(left[pack])} damaged chunk(s) of it are whole elsewhere, or nothing needs them"
            yield Finding(where, problem, advice=_FREED, weight=Weight.MEND)
    if left != repository.damage.packs():
        repository.keep_damage(left)


def _good_records(repository: Repository, pack: PackID, ids: Collection[ChunkID]) -> set[ChunkID] | None:
    """Those of the chunks that open in the pack now. None when the pack is gone."""
    try:
        entries = read_directory(repository.store, repository.ciphers, pack, size_of(repository, pack))
    except FileNotFoundError:
        return None
    except (Damaged, StoreError):
        return set()
    places = [Location(pack, offset, header.size) for offset, header in entries if header.id in ids]
    return {found for place in places if (found := record_at(repository, place)) is not None} & set(ids)
