"""Physical backups for tests: taken from a real server, stored, restored and started again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from holdfast.formats.dumps.core.catalogue import Catalogue, decode
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.postgresql.physical.basebackup_tar import TarScanner
from holdfast.formats.dumps.postgresql.physical.required_wal import cluster_identity
from holdfast.ingest.backup.backup import BackupRequest, back_up
from holdfast.ingest.backup.plan import PlannedItem, plan_items
from holdfast.ingest.sources.image import BytesSource
from holdfast.ingest.sources.wrapped import innermost
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.base.secrets import Credentials
from holdfast.servers.postgresql.basebackup import PhysicalSource, prepare_physical
from holdfast.servers.postgresql.connection import access, parse_url
from support.database import PostgresServer, database_user, postgres_tool, run

NAME = "shopcluster"


@contextmanager
def prepared(server: PostgresServer, user: str = "postgres") -> Iterator[Prepared]:
    """A physical backup that has begun."""
    url = server.url("").replace("postgres@", f"{user}@")
    with access(parse_url(url), Credentials(None)) as found, ExitStack() as stack:
        yield prepare_physical(stack, found)


def inner(found: Prepared) -> PhysicalSource:
    """pg_basebackup's own source, beneath the scanner."""
    source = innermost(found.items[0].source)
    assert isinstance(source, PhysicalSource)
    return source


def read_all(source: PhysicalSource) -> tuple[bytes, list[int], Catalogue]:
    """The stream, where its chunks shall end, and what the scan found."""
    scanner, data, borders = TarScanner(), bytearray(), []
    buffer = bytearray(1 << 20)
    while count := source.read_into(memoryview(buffer), len(data)):
        borders += scanner.feed(memoryview(buffer)[:count])
        data += buffer[:count]
    return bytes(data), borders, scanner.finish()


def scan(data: bytes, step: int = 1 << 20) -> tuple[list[int], Catalogue]:
    scanner, borders = TarScanner(), []
    for start in range(0, len(data), step):
        borders += scanner.feed(data[start : start + step])
    return borders, scanner.finish()


def take(
    repository: Repository, server: PostgresServer, time: datetime | None = None
) -> tuple[StoredSnapshot, Catalogue]:
    """Back a cluster up."""
    with prepared(server) as found:
        stored = _back_up(repository, found.items, found.facts, time)
    return stored, catalogue_of(repository, stored)


def store(repository: Repository, data: bytes, time: datetime | None = None) -> StoredSnapshot:
    """Back up a tar that somebody handed in."""
    source = BytesSource(data, "base.tar", mtime=0)
    return _back_up(repository, plan_items([source], None), DumpFacts(physical=True), time)


def catalogue_of(repository: Repository, stored: StoredSnapshot) -> Catalogue:
    (item,) = stored.snapshot.items
    assert item.catalogue
    reader = Reader(repository)
    data = reader.read(reader.recipe(item.catalogue), 0, item.catalogue.size)
    return decode(data, "catalogue", item.size)


def _back_up(
    repository: Repository, parts: Sequence[PlannedItem], facts: DumpFacts, time: datetime | None
) -> StoredSnapshot:
    request = BackupRequest(
        parts,
        NAME,
        "test",
        "test",
        uuid=cluster_identity(facts.system_id) if facts.system_id else "",
        facts=facts,
        time=time or datetime.now(UTC),
    )
    return back_up(repository, request, progress=lambda count: None).stored


def hand_over(folder: Path) -> None:
    """Make a restored directory the server's user's own."""
    user = database_user("postgres")
    if user:
        run(["chown", "-R", user, str(folder)])


@contextmanager
def started(data: Path, env: Mapping[str, str] = {}) -> Iterator[PostgresServer]:
    """The server of a restored data directory. It keeps its settings but for its socket and archiving."""
    server = PostgresServer(data.parent, data, database_user("postgres"))
    more = " ".join([f"-c unix_socket_directories={data.parent}", "-c archive_mode=off"])
    log = data.parent / "restored.log"
    argv = [postgres_tool("pg_ctl"), "-D", str(data), "-w", "-l", str(log), "-o", more, "start"]
    done = subprocess.run(
        argv,
        user=server.user,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"LC_ALL": "C.UTF-8"} | dict(env),
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, log.read_text()[-2000:]
    try:
        yield server
    finally:
        server.stop("immediate")
