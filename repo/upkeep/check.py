"""Checks a repository: its structure, the reachability of chunks, every byte."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from holdfast.base.errors import Damaged
from holdfast.base.types import ChunkID, ProgressFunction
from holdfast.repo.core.mirrored import mirrored_names
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.trashed import learn_trash
from holdfast.repo.index.idset import IdSet
from holdfast.repo.snapshots.select import time_name
from holdfast.repo.snapshots.snapshot import Item, StoredSnapshot, StoredStream
from holdfast.repo.store.interface import FileKind, StoredFile
from holdfast.repo.upkeep.check_packs import PACK_ADVICE, check_directories, check_noted, read_packs
from holdfast.repo.upkeep.check_pairs import check_pairs, confirmed
from holdfast.repo.upkeep.findings import Finding, Weight
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

_FROM_TRASH = "nothing is lost; a prune brings those packs back"
_NAMED = 100_000
"""Most missing chunks whose items are looked for."""
_STRANGERS = 20
"""Files of other programs that are named; of more the number is told."""


@dataclass(slots=True)
class CheckReport:
    """What a check read and found. Counts are numbers of objects; `bytes_read` counts pack data."""

    findings: list[Finding] = field(default_factory=list)
    snapshots: int = 0
    packs: int = 0
    chunks: int = 0
    bytes_read: int = 0


def check(
    repository: Repository,
    depth: Depth,
    *,
    subset: Subset | None = None,
    progress: ProgressFunction = lambda count: None,
    announce: Callable[[int], None] = lambda total: None,
) -> CheckReport:
    """Look for damage. Reports damage, and StoreErrors of single packs; raises other StoreErrors.

    Rebuilds the index, so the result does not depend on it. Notes bad records in the repository, so that the
    next backup that has those chunks stores them again, whoever makes it. Calls `announce` once with the
    number of bytes to read and `progress` with the bytes just read.
    """
    report = CheckReport()
    report.findings += _strangers(repository)
    pairs = list(check_pairs(repository))
    snapshots = repository.snapshots().good
    report.snapshots = len(snapshots)
    packs = sorted(repository.store.listing(FileKind.PACK), key=lambda entry: entry.name)
    report.packs = len(packs)
    repository.drop_index()
    repository.refresh()
    bad: set[ChunkID] = set()
    chosen: Sequence[StoredFile] = ()
    if depth >= Depth.READ_DATA:
        chosen = subset(packs) if subset else packs
        announce(sum(entry.size for entry in chosen))
        report.bytes_read = sum(entry.size for entry in chosen)
        report.findings += read_packs(repository, chosen, bad, progress)
    read = {entry.name for entry in chosen}
    report.findings += check_directories(repository, [entry for entry in packs if entry.name not in read])
    report.findings += confirmed(repository, pairs)
    if depth < Depth.REACHABLE:
        report.findings += check_noted(repository, None)
        return report
    with repository.id_set("check") as seen:
        report.findings += _check_reachable(repository, snapshots, seen, bad, report)
        report.findings += check_noted(repository, seen)
    if bad:
        report.findings += _affected(repository, snapshots, bad)
    return report


def _strangers(repository: Repository) -> Iterator[Finding]:
    """Findings for files that other programs left in the repository. Nothing reads those."""
    paths = sorted(repository.store.strangers())
    for path in paths[:_STRANGERS]:
        problem = "is no file of the repository; nothing reads it, and it can be removed"
        yield Finding(path, problem, weight=Weight.NOTE)
    if len(paths) > _STRANGERS:
        problem = f"{len(paths) - _STRANGERS} more files are none of the repository's"
        yield Finding(repository.store.describe(FileKind.CONFIG, ""), problem, weight=Weight.NOTE)


def _check_reachable(
    repository: Repository,
    snapshots: Sequence[StoredSnapshot],
    seen: IdSet,
    bad: set[ChunkID],
    report: CheckReport,
) -> Iterator[Finding]:
    """Chunks that recipes name and no listed pack has: they go into `bad`, as do nodes that do not open."""
    for stored, new in reachable_chunks(Reader(repository), snapshots, seen):
        name = (snapshot_name(stored),)
        if isinstance(new, UnreadableNode):
            if _is_in_use(repository, stored):
                yield Finding(f"recipe node {new.node.hex()}", str(new.error), name, PACK_ADVICE)
                bad.add(new.node)
            continue
        report.chunks += len(new)
        absent = _absent(repository, new)
        if absent:  # a prune may have moved them since the packs were listed, or taken the snapshot's
            repository.refresh()
            absent = _absent(repository, absent)
        if not absent or not _is_in_use(repository, stored):
            continue
        missing = [id_ for id_ in absent if not _is_in_trash(repository, id_)]
        if len(missing) < len(absent):
            where, problem = f"{len(absent) - len(missing)} chunk(s)", "are in packs in the trash only"
            yield Finding(where, problem, name, _FROM_TRASH, Weight.MEND)
        bad.update(missing[: max(0, _NAMED - len(bad))])
        if missing:
            problem = "are in no pack, or damaged there"
            yield Finding(f"{len(missing)} chunk(s)", problem, name, PACK_ADVICE)


def _absent(repository: Repository, ids: Sequence[ChunkID]) -> list[ChunkID]:
    found = repository.index.lookup(ids)
    return [id_ for id_, location in zip(ids, found, strict=True) if location is None]


def _is_in_use(repository: Repository, stored: StoredSnapshot) -> bool:
    """Whether the snapshot is still there: it may have been forgotten and pruned since it was listed."""
    return stored.id in mirrored_names(repository.store, FileKind.SNAPSHOT)


def _is_in_trash(repository: Repository, id_: ChunkID) -> bool:
    if not repository.index.trashed_locations(id_):
        learn_trash(repository)
    return bool(repository.index.trashed_locations(id_))


def _affected(
    repository: Repository, snapshots: Sequence[StoredSnapshot], bad: set[ChunkID]
) -> Iterator[Finding]:
    """Findings for items that lost chunks: no pack has a good copy of them."""
    reader = Reader(repository)
    for stored in snapshots:
        for item in stored.snapshot.items:
            problem = ""
            for content in (item, *((item.catalogue,) if item.catalogue else ())):
                problem = problem or _lost(repository, reader, content, bad)
            if problem:
                name = f"{snapshot_name(stored)}:{item.path}"
                yield Finding(name, problem, (name,), PACK_ADVICE)


def _lost(repository: Repository, reader: Reader, content: Item | StoredStream, bad: set[ChunkID]) -> str:
    """A sentence on the part of a stored file that cannot be read; "" when all of it can."""
    size, first, end = 0, -1, 0
    try:
        for extent in reader.recipe(content).extents():
            if extent.id in bad and not repository.index.locations(extent.id):
                size, end = size + extent.length, extent.start + extent.length
                first = extent.start if first < 0 else first
    except Damaged:
        return "part of the list of its chunks is lost: it can be read up to there only"
    if not size:
        return ""
    return f"{size} of its {content.size} bytes cannot be read: they lie between byte {first} and byte {end}"


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
