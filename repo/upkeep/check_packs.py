"""Checks packs: their ends, or every byte of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from holdfast.base.errors import Damaged, OtherKey, StoreError, Unsupported
from holdfast.base.types import ChunkID, PackID, ProgressFunction
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import content_hash
from holdfast.repo.format.format import PACK_LIMIT
from holdfast.repo.packs.reader import open_record, read_directory
from holdfast.repo.store.interface import FileKind, StoredFile
from holdfast.repo.upkeep.findings import Finding, Weight

PACK_ADVICE = (
    "back the source up again now: what it still has of this is stored anew, and old snapshots heal with it"
)
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
        return [Finding(where, str(error), advice=PACK_ADVICE)], []
    findings: list[Finding] = []
    is_whole = content_hash(data) == pack
    if not is_whole:
        findings.append(Finding(where, "content does not match its name", advice=PACK_ADVICE))
    try:
        entries = read_directory(repository.store, repository.ciphers, pack, len(data))
        cipher = repository.ciphers.get(pack)
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
            repository.index.discard(header.id, pack)
    return findings, bad
