"""Checks a repository: its structure, the reachability of chunks, every byte."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum

from holdfast.base.errors import Damaged, StoreError, Unsupported
from holdfast.base.types import ChunkID, PackID, ProgressFunction
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.format.crypto import content_hash
from holdfast.repo.format.format import PACK_LIMIT
from holdfast.repo.packs.reader import open_record, read_directory
from holdfast.repo.snapshots.select import time_name
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.repo.store.interface import FileKind, StoredFile
from holdfast.repo.upkeep.check_pairs import check_pairs
from holdfast.repo.upkeep.findings import Finding
from holdfast.repo.upkeep.reachability import UnreadableNode, reachable_chunks


class Depth(IntEnum):
    """How much a check reads; each depth includes the one before."""

    STRUCTURE = 1
    """Both copies of configs, key slots, snapshots and proofs; every pack's head, directory and foot."""
    REACHABLE = 2
    """Every recipe node, and that every chunk of every recipe is in a pack."""
    READ_DATA = 3
    """Every byte of every pack: the pack's hash, every record, every chunk's ID."""


Subset = Callable[[Sequence[StoredFile]], Sequence[StoredFile]]
"""Chooses the packs whose data is read."""

_READERS = 2
"""Packs in memory at a time, 64 MiB each."""


@dataclass(slots=True)
class CheckReport:
    """What a check read and found. Counts are numbers of objects; `bytes_read` counts pack data."""

    findings: list[Finding] = field(default_factory=list)
    snapshots: int = 0
    packs: int = 0
    chunks: int = 0
    bytes_read: int = 0


_PACK_ADVICE = (
    "back the source up again now: what it still has of this is stored anew, and old snapshots heal with it"
)


def check(
    repository: Repository,
    depth: Depth,
    *,
    subset: Subset | None = None,
    progress: ProgressFunction = lambda count: None,
    announce: Callable[[int], None] = lambda total: None,
) -> CheckReport:
    """Look for damage. Reports damage, and StoreErrors of single packs; raises other StoreErrors.

    Rebuilds the index, so the result does not depend on it. Removes bad records from it, so that the next
    backup that reads those chunks stores them again. Calls `announce` once with the number of bytes to read
    and `progress` with the bytes just read.
    """
    report = CheckReport()
    report.findings += check_pairs(repository)
    snapshots = repository.snapshots().good
    report.snapshots = len(snapshots)
    packs = sorted(repository.store.listing(FileKind.PACK), key=lambda entry: entry.name)
    report.packs = len(packs)
    repository.drop_index()
    bad_packs = [
        Finding(e.where if isinstance(e, Damaged) else "pack", str(e), advice=_PACK_ADVICE)
        for e in repository.refresh().damaged
    ]
    bad: set[ChunkID] = set()
    if depth >= Depth.READ_DATA:
        chosen = subset(packs) if subset else packs
        announce(sum(entry.size for entry in chosen))
        report.bytes_read = sum(entry.size for entry in chosen)
        bad_packs = _read_packs(repository, chosen, bad, progress) + (bad_packs if subset else [])
    else:
        bad_packs = list(_check_directories(repository, packs))
    report.findings += bad_packs
    if depth >= Depth.REACHABLE:
        report.findings += _check_reachable(repository, snapshots, report)
    if bad:
        report.findings += _affected(repository, snapshots, bad)
    return report


def _check_directories(repository: Repository, packs: Sequence[StoredFile]) -> Iterator[Finding]:
    for entry in packs:
        pack = PackID(entry.name)
        where = repository.store.describe(FileKind.PACK, pack)
        try:
            read_directory(repository.store, repository.ciphers, pack, entry.size)
        except FileNotFoundError:
            continue  # a prune took it since
        except (Damaged, Unsupported) as error:
            yield Finding(where, str(error), advice=_PACK_ADVICE)


def _read_packs(
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
        return [Finding(where, str(error), advice=_PACK_ADVICE)], []
    findings: list[Finding] = []
    if content_hash(data) != pack:
        findings.append(Finding(where, "content does not match its name", advice=_PACK_ADVICE))
    try:
        entries = read_directory(repository.store, repository.ciphers, pack, len(data))
        cipher = repository.ciphers.get(pack)
    except (Damaged, Unsupported) as error:
        findings.append(Finding(where, str(error), advice=_PACK_ADVICE))
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


def _check_reachable(
    repository: Repository, snapshots: Sequence[StoredSnapshot], report: CheckReport
) -> Iterator[Finding]:
    """Chunks that recipes name and no listed pack has."""
    with repository.id_set("check") as seen:
        for stored, new in reachable_chunks(Reader(repository), snapshots, seen):
            name = (snapshot_name(stored),)
            if isinstance(new, UnreadableNode):
                yield Finding(f"recipe node {new.node.hex()}", str(new.error), name, _PACK_ADVICE)
                continue
            report.chunks += len(new)
            missing = sum(location is None for location in repository.index.lookup(new))
            if missing:
                yield Finding(f"{missing} chunk(s)", "are in no pack, or damaged there", name, _PACK_ADVICE)


def _affected(
    repository: Repository, snapshots: Sequence[StoredSnapshot], bad: set[ChunkID]
) -> Iterator[Finding]:
    """Items that need bad chunks of which no other pack has a copy."""
    reader = Reader(repository)
    for stored in snapshots:
        for item in stored.snapshot.items:
            hit = 0
            try:
                for content in (item, *((item.catalogue,) if item.catalogue else ())):
                    for extent in reader.recipe(content).extents():
                        if extent.id in bad and not repository.index.locations(extent.id):
                            hit += extent.length
            except Damaged:
                continue  # reported as unreachable already
            if hit:
                name = f"{snapshot_name(stored)}:{item.path}"
                yield Finding(name, f"{hit} bytes of it cannot be read", (name,), _PACK_ADVICE)


def snapshot_name(stored: StoredSnapshot) -> str:
    """A selector that finds the snapshot, for messages."""
    return f"{stored.snapshot.subject.name}@{time_name(stored.snapshot.time)}"


def parse_subset(text: str) -> Subset:
    """A subset of the packs: the n-th of t parts (`n/t`), or a random `p%` or size such as `10G`.

    Raises ValueError for another text.
    """
    if match := re.fullmatch(r"(\d+)/(\d+)", text):
        part, parts = int(match[1]), int(match[2])
        if 1 <= part <= parts:
            return lambda packs: packs[part - 1 :: parts]
    elif match := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
        share = float(match[1]) / 100
        if 0 < share <= 1:
            return lambda packs: random.SystemRandom().sample(packs, max(1, round(len(packs) * share)))
    elif match := re.fullmatch(r"(\d+)([KMGT]?)", text.upper()):
        limit = int(match[1]) << 10 * "_KMGT".index(match[2] or "_")
        return lambda packs: _up_to(packs, limit)
    raise ValueError(f"not a subset: {text!r}; give n/t such as 1/7, p% such as 10%, or a size such as 10G")


def _up_to(packs: Sequence[StoredFile], limit: int) -> list[StoredFile]:
    chosen: list[StoredFile] = []
    for entry in random.SystemRandom().sample(packs, len(packs)):
        chosen.append(entry)
        limit -= entry.size
        if limit <= 0:
            break
    return chosen
