"""Physical backups of a real PostgreSQL under load: taken, verified, taken apart, restored and started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from holdfast.base.errors import Damaged, Refused, StreamFailed, TargetError
from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.postgresql.physical.basebackup_tar import files, is_physical_backup
from holdfast.ingest.backup.backup import BackupRequest, back_up
from holdfast.ingest.backup.recognise import OTHER_DUMP
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import Consistency, StoredSnapshot
from holdfast.repo.store.interface import FileKind
from holdfast.repo.store.memory import MemoryStore
from holdfast.servers.postgresql.data_directory import Changes, restore_data_directory
from support.basics import ignore, new_repository, read_item
from support.database import PostgresServer, postgres_server, postgres_tool, run
from support.physical import (
    catalogue_of,
    hand_over,
    inner,
    prepared,
    read_all,
    scan,
    started,
    store,
    take,
)
from support.scratch import open_folder


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with open_folder() as folder, postgres_server(folder / "s") as started_:
        started_.tool("pgbench", "-i", "-s", "3", "-q")
        yield started_


@contextmanager
def load(server: PostgresServer) -> Iterator[None]:
    """pgbench, until the block ends."""
    argv = [postgres_tool("pgbench"), "-c", "2", "-n", "-T", "60"]
    with subprocess.Popen(
        argv, env=os.environ | server.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            while not int(server.psql("SELECT count(*) FROM pgbench_history")):
                assert process.poll() is None
            yield
        finally:
            process.kill()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with new_repository(MemoryStore(), tmp_path_factory.mktemp("cache")) as made:
        yield made


@pytest.fixture(scope="module")
def backed_up(server: PostgresServer, repository: Repository) -> tuple[StoredSnapshot, Catalogue]:
    """Taken while pgbench writes."""
    with load(server):
        return take(repository, server)


@pytest.fixture
def target() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder / "r" / "data"


def restore(
    repository: Repository,
    stored: tuple[StoredSnapshot, Catalogue],
    target: Path,
    changes: Changes | None = None,
) -> None:
    snapshot, catalogue = stored
    target.parent.mkdir(exist_ok=True)
    restore_data_directory(
        repository,
        snapshot.snapshot.items[0],
        catalogue,
        target,
        changes=changes or Changes(),
        progress=ignore,
    )


def test_a_backup_under_load_says_where_and_when_it_is_consistent(
    server: PostgresServer, backed_up: tuple[StoredSnapshot, Catalogue]
) -> None:
    facts = backed_up[0].snapshot.facts
    control = run([postgres_tool("pg_controldata"), str(server.data)]).decode()
    assert f"Database system identifier:           {facts['system_id']}\n" in control
    with prepared(server) as found:
        assert is_physical_backup(found.items[0].source.head)
    assert facts["server"].startswith("PostgreSQL ")
    assert facts["tool"].startswith("pg_basebackup")
    assert (facts["physical"], facts["timeline"]) == ("yes", "1")
    lsns = [server.psql(f"SELECT '{facts[name]}'::pg_lsn - '0/0'").strip() for name in ("lsn", "stop_lsn")]
    assert int(lsns[0]) < int(lsns[1])
    stopped = datetime.fromisoformat(facts["stop_time"])
    assert abs((datetime.now(UTC) - stopped).total_seconds()) < 120
    assert backed_up[0].snapshot.subject.uuid == f"postgresql-{facts['system_id']}"


def test_a_restored_cluster_passes_the_servers_own_verification_and_is_consistent(
    repository: Repository, backed_up: tuple[StoredSnapshot, Catalogue], target: Path
) -> None:
    restore(repository, backed_up, target)
    assert target.stat().st_mode & 0o777 == 0o700
    assert not list((target / "pg_notify").iterdir())
    hand_over(target.parent)
    verify = [postgres_tool("pg_verifybackup"), str(target)]
    assert b"successfully verified" in run(verify, user=server_user(target))
    with started(target) as restored:
        sums = restored.psql(
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts),"
            " (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers),"
            " (SELECT sum(delta) FROM pgbench_history)"
        ).strip()
        assert len(set(sums.split("|"))) == 1
        restored.psql("CREATE EXTENSION amcheck")
        restored.tool("pg_amcheck", "--all", "--heapallindexed")


def server_user(folder: Path) -> str | None:
    return folder.owner() if not os.geteuid() else None


def test_one_file_of_a_relation_is_the_servers_bytes(
    server: PostgresServer, repository: Repository, target: Path
) -> None:
    server.psql("CREATE TABLE quiet AS SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n")
    server.psql("VACUUM FREEZE quiet; CHECKPOINT")
    path = server.psql("SELECT pg_relation_filepath('quiet')").strip()
    stored, catalogue = take(repository, server)
    item = stored.snapshot.items[0]
    file = files(catalogue, item.size)[f"data/{path}"]
    (piece,) = file.pieces
    whole = read_item(repository, item)
    assert whole[piece.start : piece.start + piece.length] == (server.data / path).read_bytes()
    assert file.mode == 0o600


def test_a_second_backup_costs_what_changed(server: PostgresServer, repository: Repository) -> None:
    take(repository, server)
    server.psql("UPDATE pgbench_branches SET bbalance = bbalance")
    stored, _ = take(repository, server)
    assert stored.snapshot.stats.read > 60_000_000
    assert stored.snapshot.stats.new < 2_000_000, stored.snapshot.stats


def test_a_killed_tool_is_never_a_backup(server: PostgresServer) -> None:
    with prepared(server) as found:
        source = inner(found)
        source.read_into(memoryview(bytearray(5 << 20)), 0)
        source._process.kill()
        _, _, catalogue = read_all(source)
        assert catalogue.fault
        with pytest.raises(StreamFailed, match="was killed by signal 9"):
            source.finish()
        with pytest.raises(StreamFailed, match="not whole"):
            source.judge(catalogue.fault, DumpFacts())


def test_a_cut_stream_is_a_fault_even_if_the_tool_says_nothing(server: PostgresServer) -> None:
    with prepared(server) as found:
        source = inner(found)
        data, _, catalogue = read_all(source)
        assert not catalogue.fault
        with pytest.raises(StreamFailed, match="of the cluster with system identifier 1, not"):
            source.judge("", DumpFacts(system_id="1"))
    for length in (len(data) - 2048, len(data) - 200_000, len(data) // 2):
        assert scan(data[:length])[1].fault


def test_a_flipped_byte_names_the_file_and_is_not_restored(
    server: PostgresServer, repository: Repository, target: Path
) -> None:
    with prepared(server) as found:
        data, _, catalogue = read_all(inner(found))
    section = max((s for s in catalogue.sections if s.name.startswith("base/")), key=lambda s: s.length)
    bad = bytearray(data)
    bad[section.start + section.length // 2] ^= 4
    stored = store(repository, bytes(bad))
    flawed = catalogue_of(repository, stored)
    assert flawed.fault == f"{section.name} is not what the manifest says: its checksum differs"
    assert stored.snapshot.partial
    assert (stored.snapshot.consistency, stored.snapshot.evidence) == (
        Consistency.UNKNOWN,
        "the dump is not whole",
    )
    (item,) = stored.snapshot.items
    assert [(b.start, b.length, b.reason) for b in item.bad] == [(len(data), 0, flawed.fault)]
    assert read_item(repository, item) == bad
    with pytest.raises(Refused, match="is not whole"):
        restore(repository, (stored, flawed), target)
    assert not target.exists()


def test_a_whole_tar_that_somebody_hands_in_is_application_consistent(
    server: PostgresServer, repository: Repository
) -> None:
    with prepared(server) as found:
        data, _, _ = read_all(inner(found))
    stored = store(repository, data)
    assert (stored.snapshot.partial, stored.snapshot.consistency) == (False, Consistency.APPLICATION)
    assert stored.snapshot.evidence == "the dump's manifest is right"


def test_a_stream_that_is_not_looked_through_is_never_a_backup(
    server: PostgresServer, repository: Repository
) -> None:
    """Whatever pg_basebackup printed, and though it exited with 0."""
    with prepared(server) as found:
        (part,) = found.items
        unseen = replace(part, source=inner(found), source_type=OTHER_DUMP)
        request = BackupRequest([unseen], "x", "test", "test")
        with pytest.raises(StreamFailed, match="not whole: it does not begin like one; nothing was"):
            back_up(repository, request, progress=ignore)


def test_tablespaces_are_refused_with_the_next_best_way() -> None:
    with open_folder() as folder, postgres_server(folder / "s") as server:
        folder.chmod(0o777)
        place = folder / "space"
        run(["mkdir", "-m", "700", str(place)], user=server.user)
        server.psql(f"CREATE TABLESPACE space LOCATION '{place}'")
        with prepared(server) as found:
            source = inner(found)
            read_all(source)
            with pytest.raises(Refused, match="has tablespaces"):
                source.finish()


def test_who_may_not_replicate_is_told_so(server: PostgresServer) -> None:
    server.psql("CREATE ROLE reader LOGIN")
    with pytest.raises(StreamFailed, match="nothing was stored"), prepared(server, user="reader") as _:
        pass


@pytest.mark.parametrize("there", ["file", "folder with something"])
def test_nothing_is_written_over(
    repository: Repository, backed_up: tuple[StoredSnapshot, Catalogue], target: Path, there: str
) -> None:
    target.parent.mkdir()
    if there == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "postmaster.pid").write_text("mine")
    with pytest.raises(Refused, match="nothing was written"):
        restore(repository, backed_up, target)
    kept = target if there == "file" else target / "postmaster.pid"
    assert kept.read_text() == "mine"


def test_damage_in_the_repository_leaves_nothing_behind(
    server: PostgresServer, tmp_path: Path, target: Path
) -> None:
    memory = MemoryStore()
    with new_repository(memory, tmp_path / "cache") as repository:
        stored = take(repository, server)
        names = [name for kind, name in memory.files if kind is FileKind.PACK]
        pack = bytearray(memory.files[FileKind.PACK, names[-1]])
        for at in range(len(pack) // 2, len(pack) - 65536, 4096):
            pack[at] ^= 1
        memory.files[FileKind.PACK, names[-1]] = bytes(pack)
        with pytest.raises(Damaged):
            restore(repository, stored, target)
        assert not target.exists()
        target.mkdir()
        with pytest.raises(Damaged):
            restore(repository, stored, target)
        assert not list(target.iterdir())


def test_two_restores_into_one_folder_do_not_take_each_others_files(
    repository: Repository, backed_up: tuple[StoredSnapshot, Catalogue], target: Path
) -> None:
    others: list[str] = []

    def at_once(_: int) -> None:
        if not others:
            with (
                patch.object(Path, "iterdir", lambda path: iter(())),
                pytest.raises(Refused) as refused,
            ):
                restore(repository, backed_up, target)
            others.append(str(refused.value))

    snapshot, catalogue = backed_up
    target.parent.mkdir()
    item = snapshot.snapshot.items[0]
    restore_data_directory(repository, item, catalogue, target, changes=Changes(), progress=at_once)
    assert "into already" in others[0]
    assert not list(target.glob(".holdfast*"))
    with (
        patch.object(Path, "iterdir", lambda path: iter(())),
        pytest.raises(Refused, match="any more"),
    ):
        restore(repository, backed_up, target)
    assert (target / "global/pg_control").exists()
    assert not list(target.glob(".holdfast*"))


def test_a_parent_that_may_not_be_read_fails_no_restore(
    repository: Repository,
    backed_up: tuple[StoredSnapshot, Catalogue],
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target.mkdir(parents=True)
    real = os.open

    def guarded(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if path == target.parent:  # what root does not meet
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", guarded)
    restore(repository, backed_up, target)
    assert (target / "global/pg_control").exists()


def test_until_all_is_durable_there_is_no_control_file(
    repository: Repository,
    backed_up: tuple[StoredSnapshot, Catalogue],
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a power cut at the last moment before would leave is no cluster."""
    syncs: list[bool] = []
    real = os.fsync

    def spy(fd: int) -> None:
        syncs.append((target / "global/pg_control").exists())
        real(fd)

    monkeypatch.setattr(os, "fsync", spy)
    restore(repository, backed_up, target)
    assert (target / "global/pg_control").exists()
    first = syncs.index(True)
    assert first > len(list(target.rglob("*"))) - 2, "all else is synced before"
    assert all(syncs[first:])


def test_a_full_disk_is_told_and_leaves_nothing(
    repository: Repository,
    backed_up: tuple[StoredSnapshot, Catalogue],
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = [20]
    real = os.fsync

    def full(fd: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetError, match="No space left"):
        restore(repository, backed_up, target)
    assert not target.exists()
