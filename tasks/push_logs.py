"""Pushing closed log files of a database server into its archive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from holdfast.base.errors import Refused, SourceError
from holdfast.base.types import Buffer, ChunkID
from holdfast.formats.dumps.core.facts import facts_of
from holdfast.formats.dumps.mysql import binlog, required_binlogs
from holdfast.formats.dumps.postgresql.physical import required_wal, wal
from holdfast.ingest.pipeline.pipeline import Pipeline
from holdfast.ingest.sources.source import FileSource
from holdfast.repo.chunks.chunker import STREAM
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.format.crypto import Keys
from holdfast.repo.records.log_archive import LogArchive, LogReading, add, make_listing_durable, refusal, same
from holdfast.repo.snapshots.snapshot import (
    Consistency,
    Item,
    ItemKind,
    Snapshot,
    Stats,
    StoredSnapshot,
    Subject,
)
from holdfast.tasks.source_errors import LogInUse


@dataclass(frozen=True, slots=True)
class Pusher:
    """Who pushes: recorded with the files."""

    host: str
    program: str


@dataclass(frozen=True, slots=True)
class Pushed:
    """The pushed files by outcome, by name. `there`: those in the archive already, byte for byte."""

    subject: Subject
    new: tuple[str, ...]
    there: tuple[str, ...]


def push(
    repository: Repository,
    reading: LogReading,
    subject: Subject,
    sources: Sequence[FileSource],
    pusher: Pusher,
    *,
    lock_timeout: float = 60.0,
) -> Pushed:
    """Put whole files into the archive of `subject`. When this returns they are durable.

    A file that is there already is compared byte by byte (by its chunk IDs): equal, it is passed over;
    else Refused is raised and nothing is changed. Raises SourceError when a file cannot be read or changes
    meanwhile, or a RepositoryError: then nothing was committed.
    """
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise Refused("two of the files have the same name; nothing was stored")
    with Writer(repository, lock_timeout=lock_timeout) as writer:
        archive = reading.archive(subject.identity)
        there = [s.name for s in sources if archive and _is_there(repository, archive, s)]
        wanted = [source for source in sources if source.name not in there]
        pipeline = Pipeline(writer, repository.keys, lambda count: None)
        items = [_ingest(pipeline, source) for source in wanted]
        if items:
            record = partial(_record, subject, writer, pusher, f"{sources[0].path.parent}")
            add(repository, writer, reading, items, record)
        else:
            make_listing_durable(repository)
    return Pushed(subject, tuple(source.name for source in wanted), tuple(there))


def _record(
    subject: Subject, writer: Writer, pusher: Pusher, source: str, items: tuple[Item, ...]
) -> Snapshot:
    w = writer.written
    return Snapshot(
        subject=subject,
        time=datetime.now(UTC),
        host=pusher.host,
        source=source,
        consistency=Consistency.APPLICATION,
        evidence="log files that the server had finished",
        items=items,
        program=pusher.program,
        stats=Stats(sum(i.size for i in items), w.chunks, w.new_chunks, w.new, writer.stored),
    )


def _ingest(pipeline: Pipeline, source: FileSource) -> Item:
    found = pipeline.ingest(source, STREAM, None)
    _check_read(source)
    return Item(source.name, ItemKind.LOG, found.size, found.allocated, source.mtime, STREAM, found.recipe)


def _check_read(source: FileSource) -> None:
    if source.bad:
        bad = source.bad[0]
        raise SourceError(
            f"{source.path}: {bad.length} bytes at offset {bad.start} cannot be read ({bad.reason}); "
            "nothing was stored"
        )
    note = source.finish()
    if note:
        raise SourceError(f"{note}: it is not finished yet; nothing was stored")


def _is_there(repository: Repository, archive: LogArchive, source: FileSource) -> bool:
    """Whether the archive holds this file, whole. False also when chunks of it were lost: then it is stored
    again. Raises Refused when it holds another one of this name."""
    if source.name in archive.conflicts:
        raise refusal(archive, source.name)
    stored = archive.files.get(source.name)
    if stored is None:
        return False
    mine, ids = _fingerprint(repository.keys, source)
    if not same(mine, stored):
        raise refusal(archive, source.name)
    return None not in repository.index.lookup(ids)


class _IdsOnly:
    """A sink for chunks that notes their IDs and stores nothing. Any thread."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.ids: list[ChunkID] = []

    def put(self, chunks: Sequence[Buffer], ids: Sequence[ChunkID]) -> None:
        self.ids.extend(ids)

    def put_node(self, node: bytes) -> ChunkID:
        self.ids.append(self._keys.node_chunk_id(node))
        return self.ids[-1]


def _fingerprint(keys: Keys, source: FileSource) -> tuple[Item, list[ChunkID]]:
    """The item that `_ingest` would return, and the IDs of its chunks and nodes; stores nothing."""
    sink = _IdsOnly(keys)
    return _ingest(Pipeline(sink, keys, lambda count: None), source), sink.ids


def wal_subject(snapshots: Iterable[StoredSnapshot], system_id: str, name: str = "") -> Subject:
    """The archive of a cluster. Its name: the one given, else that of the archive so far, else that of the
    cluster's newest backup, else one made of the system identifier."""
    subject = required_wal.archive_subject(system_id, name)
    if name:
        return subject
    backup = ""
    for stored in snapshots:
        other = stored.snapshot.subject
        if other.identity == subject.identity:
            name = other.name
        elif other.engine == subject.engine and facts_of(stored.snapshot).system_id == system_id:
            backup = other.name
    return replace(subject, name=name or backup or subject.uuid)


def push_wal(
    repository: Repository,
    reading: LogReading,
    source: FileSource,
    pusher: Pusher,
    *,
    system_id: str,
    name: str = "",
) -> Pushed:
    """archive_command: one file of the write-ahead log, checked to be what its name says. See `push`."""
    wal.check_file(source.name, source.size or 0, source.head[: wal.HEADER_SIZE], system_id)
    subject = wal_subject(reading.snapshots(), system_id, name)
    return push(repository, reading, subject, [source], pusher)


def push_binlogs(
    repository: Repository,
    reading: LogReading,
    sources: Sequence[FileSource],
    pusher: Pusher,
    *,
    name: str,
    current: bool = False,
) -> Pushed:
    """Closed binary logs of one server, all or none. With `current` one that the server never closed is
    taken as it is. See `push`."""
    products = {_check_binlog(source, current=current) for source in sources}
    if len(products) > 1:
        raise Refused("these binary logs are of MySQL and of MariaDB servers; nothing was stored")
    return push(repository, reading, required_binlogs.archive_subject(name, products.pop()), sources, pusher)


def _check_binlog(source: FileSource, *, current: bool) -> str:
    if binlog.parse_name(source.name) is None:
        raise Refused(f"{source.path}: binary logs are called NAME.000123; nothing was stored")
    try:
        head = binlog.parse_head(source.head[: binlog.HEAD_SIZE])
    except Refused as error:
        raise Refused(f"{source.path} {error}") from None
    if head.in_use and not current:
        raise LogInUse(source.path)
    return head.engine
