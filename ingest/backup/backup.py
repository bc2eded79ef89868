"""Backs up several sources of one subject as one snapshot."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from holdfast.base.errors import Damaged, HoldfastError
from holdfast.base.types import ProgressFunction
from holdfast.formats.dumps.core.catalogue import Catalogue, encode
from holdfast.formats.dumps.core.facts import DumpFacts, agreed_facts, read_facts
from holdfast.ingest.backup.consistency import grade_consistency
from holdfast.ingest.backup.plan import PlannedItem
from holdfast.ingest.backup.related import refuse_other_content
from holdfast.ingest.freeze.hooks import Frozen
from holdfast.ingest.nbd.source import NbdSource
from holdfast.ingest.pipeline.changes import ingest_changes
from holdfast.ingest.pipeline.changes_plan import find_bitmap_parent
from holdfast.ingest.pipeline.parent_chunks import ParentRecipe
from holdfast.ingest.pipeline.pipeline import IngestResult, Pipeline
from holdfast.ingest.sources.image import BytesSource
from holdfast.ingest.sources.source import ContentJudge, Source
from holdfast.ingest.sources.wrapped import SectionedSource, innermost
from holdfast.repo.chunks.chunker import DUMP, ChunkerKind
from holdfast.repo.chunks.recipe import Recipe
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.subject_records import record_subject_change
from holdfast.repo.core.writer import Writer
from holdfast.repo.records.high_water import Vanished, find_vanished, remember_snapshot
from holdfast.repo.snapshots.heads import heads_of
from holdfast.repo.snapshots.histories import Claim, HistoryChoice, find_history
from holdfast.repo.snapshots.snapshot import (
    BadRange,
    Consistency,
    Identity,
    Item,
    ItemKind,
    Origin,
    Snapshot,
    Stats,
    StoredSnapshot,
    StoredStream,
    Subject,
    SubjectKind,
)
from holdfast.repo.snapshots.subject_changes import SubjectChange


class LessConsistent(HoldfastError):
    """The backup is less consistent than required; nothing was committed."""


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What to back up and the labels of the snapshot.

    `kind` None means that of the first item. `uuid` is the subject's own identity, "" if it has none.
    `origin` names the common source of all items (an export); "" means the names of the sources. `where` is
    what tells the subject apart without a UUID, `named`, `movable` and `choice` are as in `Claim`. `held` are
    the freezes in effect: they end when all is read, after `close` has closed the sources, because an open
    snapshot volume cannot be removed. `warnings` are sentences from the preparation. `engine` and `facts`
    (see Snapshot) take precedence over those of the items.
    """

    items: Sequence[PlannedItem]
    name: str
    host: str
    program: str
    kind: SubjectKind | None = None
    uuid: str = ""
    origin: str = ""
    where: Origin = field(default_factory=Origin)
    named: bool = False
    movable: bool = True
    choice: HistoryChoice = HistoryChoice.BY_FACTS
    held: Frozen | None = None
    close: Callable[[], None] = lambda: None
    warnings: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    required: Consistency = Consistency.UNKNOWN
    engine: str = ""
    facts: DumpFacts = field(default_factory=DumpFacts)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """A finished backup; `warnings` are sentences for the user."""

    stored: StoredSnapshot
    warnings: tuple[str, ...]
    vanished: Vanished
    left_behind: bool
    """Whether a command that was to thaw or tidy up failed."""
    """Snapshots that were there before this backup and that nobody forgot."""


@dataclass(frozen=True, slots=True)
class _FinishedItem:
    item: Item
    consistency: Consistency
    evidence: str
    warnings: tuple[str, ...]
    facts: Mapping[str, str] = field(default_factory=dict)


def back_up(
    repository: Repository,
    request: BackupRequest,
    *,
    progress: ProgressFunction,
    clock: Callable[[], float] = time.monotonic,
    lock_timeout: float = 60.0,
) -> BackupOutcome:
    """Read all sources and commit one snapshot.

    Raises StreamFailed, LessConsistent, Refused or a RepositoryError; then nothing is committed. Bytes that
    cannot be read make the snapshot `partial` and raise nothing. Waits at most `lock_timeout` seconds for a
    running prune.
    """
    began = clock()
    with Writer(repository, lock_timeout=lock_timeout) as writer:
        listed = repository.snapshots()
        claim = Claim(_subject(request), request.named, request.movable, request.choice)
        history = find_history(listed.good, listed.changes, claim)
        subject, parent = history.subject, history.parent
        done = _ingest_all(repository, request, Pipeline(writer, repository.keys, progress), parent)
        request.close()
        if request.held:
            request.held.thaw()
        consistency, evidence = _grade(done, request.held)
        if not consistency.satisfies(request.required):
            raise LessConsistent(
                f"this backup is {_in_words(consistency)}{_because(evidence, done)}, "
                f"{request.required.value} was required; nothing was committed"
            )
        snapshot = Snapshot(
            subject=replace(subject, name=request.name),  # what it is called now is said in records
            time=request.time,
            host=request.host,
            source=request.origin or ", ".join(item.source.name for item in request.items),
            consistency=consistency,
            evidence=evidence,
            items=tuple(d.item for d in done),
            program=request.program,
            parent=parent.id if parent else None,
            tags=request.tags,
            facts=agreed_facts((each.facts for each in done), request.facts),
            heads=heads_of(listed.good),
        )

        def finish(snapshot: Snapshot, stored: int) -> Snapshot:
            if parent and history.alike:
                refuse_other_content(repository, snapshot, parent)
            if history.join:  # before the snapshot, which would be another subject's without it
                _record_join(repository, history.join, subject)
            w = writer.written
            read = sum(item.size for item in snapshot.items)
            stats = Stats(read, w.chunks, w.new_chunks, w.new, stored, clock() - began)
            return replace(snapshot, stats=stats)

        vanished = find_vanished(repository, listed)
        stored = writer.commit(snapshot, finish=finish)
        remember_snapshot(repository, stored.id)
        stored = replace(stored, snapshot=replace(stored.snapshot, subject=subject))
    thawed = request.held.warnings if request.held else ()
    noted = (history.note,) if history.note else ()
    warnings = (*noted, *request.warnings, *thawed, *(w for d in done for w in d.warnings))
    left_behind = request.held is not None and request.held.failed
    return BackupOutcome(stored, warnings, vanished, left_behind)


def _ingest_all(
    repository: Repository, request: BackupRequest, pipeline: Pipeline, parent: StoredSnapshot | None
) -> list[_FinishedItem]:
    reader = Reader(repository)
    present = parent is not None and repository.index.is_known_complete(parent.id)
    done: list[_FinishedItem] = []
    for number, part in enumerate(request.items):
        changes, why_all = _changes(part, parent, reader, present=present)
        if changes is not None:
            result = ingest_changes(pipeline, part.source, part.source_type.chunker, *changes)
        else:
            old = _parent_item(parent, number, part)
            followed = (
                ParentRecipe(reader.recipe(old), present) if old and _following_parent_pays(part) else None
            )
            result = pipeline.ingest(part.source, part.source_type.chunker, followed)
        done.append(_finish(pipeline, part, result, why_all))
    return done


def _changes(
    part: PlannedItem, parent: StoredSnapshot | None, reader: Reader, *, present: bool
) -> tuple[tuple[Recipe, Iterator[tuple[int, int]]] | None, str]:
    """(parent's recipe and changed ranges, "") if a dirty bitmap has them; else (None, why all is read)."""
    source = part.source
    if not part.bitmap or not isinstance(source, NbdSource):
        return None, ""
    tied = find_bitmap_parent(
        parent, part.path, part.bitmap, source.size or 0, present, spec=part.source_type.chunker
    )
    if tied.item is None:
        return None, f"{source.name}: {tied.reason}"
    recipe = reader.recipe(tied.item)
    try:
        deque(recipe.leaves(0, recipe.size), maxlen=0)
    except Damaged as error:
        return None, f"{source.name}: the parent's recipe cannot be read ({error}): reading all of it"
    return (recipe, source.dirty_extents()), ""


def _in_words(grade: Consistency) -> str:
    return "of unknown consistency" if grade is Consistency.UNKNOWN else f"{grade.value}-consistent"


def _grade(done: Sequence[_FinishedItem], held: Frozen | None) -> tuple[Consistency, str]:
    """The worst consistency of the items, and all evidence.

    If there are disks, only they count and not the VM's definition. A freeze improves disks that are
    crash-consistent without it.
    """
    disks = [d for d in done if d.item.kind is ItemKind.DISK]
    judged = disks or done
    worst = max((d.consistency for d in judged), key=list(Consistency).index)
    evidence = [d.evidence for d in judged]
    if held is not None and held.ended:
        if worst is Consistency.CRASH:
            worst = held.grade
        evidence.append(held.evidence)
    return worst, "; ".join(dict.fromkeys(text for text in evidence if text))


def _because(evidence: str, done: Sequence[_FinishedItem]) -> str:
    lost = [_bad_sentence(d.item.path, d.item.bad[0]) for d in done if d.item.bad]
    reasons = [text for text in (evidence, *lost[:1]) if text]
    return f" ({'; '.join(reasons)})" if reasons else ""


def _record_join(repository: Repository, source: Identity, subject: Subject) -> None:
    change = SubjectChange(datetime.now(UTC), joined={source: subject.identity[1]})
    record_subject_change(repository.store, repository.keys, change)


def _subject(request: BackupRequest) -> Subject:
    source_type = request.items[0].source_type
    kind = request.kind or source_type.subject
    engine = (request.engine or source_type.engine) if kind is SubjectKind.DATABASE else ""
    where = request.where if request.where.host else replace(request.where, host=request.host)
    return Subject(kind, request.name, uuid=request.uuid, engine=engine, origin=where)


def _parent_item(parent: StoredSnapshot | None, number: int, part: PlannedItem) -> Item | None:
    """The parent's item at the same path, else at the same index, if it has the same chunker.

    The index helps for exports, whose file names may change with every export.
    """
    items = parent.snapshot.items if parent else ()
    old = next((item for item in items if item.path == part.path), None)
    if old is None and number < len(items) and items[number].kind is part.source_type.item:
        old = items[number]
    return old if old and old.chunker == part.source_type.chunker else None


def _following_parent_pays(part: PlannedItem) -> bool:
    """Whether comparing with the parent's chunks saves time.

    Not for disks: chunking at 30 GB/s is faster than following the parent (0.2 s of 1.2 s for 2 GB of data).
    Not for scanned dumps: their cuts depend on more than a chunk's own bytes.
    """
    return part.source_type.chunker.kind is ChunkerKind.GEAR and not isinstance(part.source, SectionedSource)


def _finish(pipeline: Pipeline, part: PlannedItem, result: IngestResult, warning: str) -> _FinishedItem:
    """The item of a source that was read, and its consistency. Raises what the source's `finish` raises."""
    source, source_type = part.source, part.source_type
    note = source.finish()
    catalogue, content = _catalogue(pipeline, source)
    item = Item(
        path=part.path,
        kind=source_type.item,
        size=result.size,
        allocated=result.allocated,
        mtime=source.mtime,
        chunker=source_type.chunker,
        recipe=result.recipe,
        bad=(*source.bad, *_early_end(catalogue, result)),
        source_format=part.source_format,
        checkpoint=part.checkpoint,
        catalogue=content,
    )
    uncompared = str(catalogue.extra.get("uncompared", "")) if catalogue else ""
    consistency, evidence, warnings = grade_consistency(source, source_type, item, note, uncompared)
    warnings += [warning] if warning else []
    warnings += [_bad_sentence(source.name, bad) for bad in item.bad]
    warnings += (
        [f"{source.name}: {catalogue.extra['bound']}"] if catalogue and "bound" in catalogue.extra else []
    )
    facts = catalogue.facts if catalogue else {}
    if commands := read_facts(facts).commands:
        warnings.append(
            f"{source.name}: it has commands for the client program, which no dump tool writes ({commands}); "
            "whoever loads it runs them"
        )
    return _FinishedItem(item, consistency, evidence, tuple(warnings), facts)


def _catalogue(pipeline: Pipeline, source: Source) -> tuple[Catalogue | None, StoredStream | None]:
    """The catalogue of a scanned dump, and the stored stream that holds it; (None, None) for others."""
    inner = innermost(source)
    if not isinstance(source, SectionedSource):
        if isinstance(inner, ContentJudge):
            inner.judge("it does not begin like one", DumpFacts())
        return None, None
    catalogue = source.catalogue()
    if isinstance(inner, ContentJudge):
        inner.judge(catalogue.fault, read_facts(catalogue.facts))
    data = BytesSource(encode(catalogue), f"{source.name}: what stands where", mtime=source.mtime)
    stored = pipeline.ingest(data, DUMP, None)
    return catalogue, StoredStream(stored.recipe, stored.size)


def _early_end(catalogue: Catalogue | None, result: IngestResult) -> tuple[BadRange, ...]:
    """A bad range of length 0 at the end of a faulty dump: it is unknown how many bytes are missing."""
    return (BadRange(result.size, 0, catalogue.fault),) if catalogue and catalogue.fault else ()


def _bad_sentence(name: str, bad: BadRange) -> str:
    if not bad.length:
        return f"{name}: {bad.reason}"
    return f"{name}: {bad.length} bytes at offset {bad.start}: {bad.reason}"
