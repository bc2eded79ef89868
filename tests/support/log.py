"""Log archives for tests: small files that are pushed, and what an archive must always be."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from holdfast.ingest.sources.source import FileSource
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.records.log_archive import LogArchive, LogReading
from holdfast.repo.snapshots.snapshot import Consistency, Snapshot, StoredSnapshot, Subject, SubjectKind
from holdfast.tasks.push_logs import Pushed, Pusher, push
from support.basics import NOW, random_bytes

SUBJECT = Subject(SubjectKind.LOGS, "shop", uuid="postgresql-77", engine="postgresql")
SEGMENT = 1 << 20
PUSHER = Pusher("host", "test")


def file_name(number: int, timeline: int = 1) -> str:
    """The file name of a WAL segment of 1 MiB."""
    log, low = divmod(number, 4096)
    return f"{timeline:08X}{log:08X}{low:08X}"


def content(name: str, seed: int = 0) -> bytes:
    """The same for the same name and seed. Segments have their size; most of each is zeros."""
    data = random_bytes(20_000, sum(name.encode()) * 1000 + seed)
    return data + bytes(SEGMENT - len(data)) if len(name) == 24 else data


def push_files(
    repository: Repository, folder: Path, *names: str, seed: int = 0, subject: Subject = SUBJECT
) -> Pushed:
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sources = []
        for name in names:
            (folder / name).write_bytes(content(name, seed))
            sources.append(stack.enter_context(FileSource(folder / name)))
        return push(repository, LogReading(repository), subject, sources, PUSHER)


def archive_of(repository: Repository, subject: Subject = SUBJECT) -> LogArchive:
    found = LogReading(repository).archive(subject.identity)
    assert found is not None
    return found


def bytes_of(repository: Repository, archive: LogArchive, name: str) -> bytes:
    item = archive.get(name)
    assert item is not None, name
    reader = Reader(repository)
    return reader.read(reader.recipe(item), 0, item.size)


def assert_holds(repository: Repository, *names: str, seed: int = 0) -> None:
    """These files are there, whole, and nothing contradicts anything."""
    archive = archive_of(repository)
    assert not archive.conflicts
    for name in names:
        assert bytes_of(repository, archive, name) == content(name, seed)


def physical_backup(
    repository: Repository, number: int, *, time: datetime = NOW, name: str = "shop", system_id: str = "77"
) -> StoredSnapshot:
    """A snapshot that says it is one, beginning in the WAL segment of that number."""
    facts = {
        "physical": "yes",
        "system_id": system_id,
        "timeline": "1",
        "lsn": f"0/{number * SEGMENT + 40:X}",
        "stop_lsn": f"0/{number * SEGMENT + 300:X}",
    }
    return _commit(repository, name, "postgresql", facts, time)


def binlog_dump(
    repository: Repository, position: str, *, time: datetime = NOW, name: str = "shop"
) -> StoredSnapshot:
    return _commit(repository, name, "mariadb", {"binlog": position}, time)


def _commit(
    repository: Repository, name: str, engine: str, facts: dict[str, str], time: datetime
) -> StoredSnapshot:
    with Writer(repository) as writer:
        return writer.commit(
            Snapshot(
                subject=Subject(SubjectKind.DATABASE, name, engine=engine),
                time=time,
                host="host",
                source="source",
                consistency=Consistency.APPLICATION,
                evidence="",
                items=(),
                program="test",
                facts=facts,
            )
        )
