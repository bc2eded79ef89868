"""What is not certain is not called consistent."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from holdfast.ingest.backup.backup import BackupRequest, back_up
from holdfast.ingest.backup.plan import plan_items
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import Consistency, Snapshot, Subject, SubjectKind
from support.basics import MemorySource, ignore
from support.cli import PG_HEAD, PG_TAIL, Place, pg_dump

MARIA = (
    b"-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)\n--\n"
    b"-- Host: localhost    Database: shop\n"
    b"-- CHANGE MASTER TO MASTER_LOG_FILE='bin.%06d', MASTER_LOG_POS=4;\n"
    b"-- Dump completed on 2026-11-25  2:00:00\n"
)


def backed_up(repository: Repository, *sources: MemorySource) -> Snapshot:
    request = BackupRequest(plan_items(sources, None), "shop", "host", "test")
    return back_up(repository, request, progress=ignore).stored.snapshot


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def test_a_dump_that_was_written_to_meanwhile_proves_nothing(memory_repository: Repository) -> None:
    source = MemorySource(pg_dump(100), "shop.sql", note="it was written to")
    assert backed_up(memory_repository, source).consistency is Consistency.UNKNOWN


def test_two_dumps_positions_are_not_one_position(memory_repository: Repository) -> None:
    both = [MemorySource(MARIA % number, f"{number}.sql") for number in (3, 7)]
    assert "binlog" not in backed_up(memory_repository, *both).facts
    assert backed_up(memory_repository, both[0]).facts["binlog"] == "bin.000003:4"


def test_databases_of_one_name_on_two_engines_are_two() -> None:
    one, other = (Subject(SubjectKind.DATABASE, "shop", engine=e) for e in ("postgresql", "mariadb"))
    assert one.identity != other.identity


@pytest.mark.parametrize("content", [b"", gzip.compress(b"")], ids=["nothing", "gzip of nothing"])
def test_an_empty_pipe_is_no_backup(place: Place, content: bytes) -> None:
    result = place.run("backup", "--stdin", "--name", "shop", input=content)
    assert result.exit_code == 1
    assert "nothing came from the pipe" in result.stderr
    assert place.json("snapshots")["snapshots"] == []


def test_a_table_of_a_dump_that_ended_early_says_so_first(place: Place) -> None:
    copy = b"CREATE TABLE public.orders (a int);\nCOPY public.orders (a) FROM stdin;\n1\n\\.\n"
    assert place.run("backup", "--stdin", "--name", "shop", input=PG_HEAD + copy).exit_code == 3
    shown = place.run("dump", "shop", "--table", "orders")
    assert shown.exit_code == 3
    assert shown.stdout.startswith("-- INCOMPLETE: ")
    place.ok("backup", "--stdin", "--name", "shop", input=PG_HEAD + copy + PG_TAIL)
    assert "INCOMPLETE" not in place.ok("dump", "shop", "--table", "orders")


def test_policies_keep_the_last_whole_one(place: Place) -> None:
    whole = place.json("backup", "--stdin", "--name", "shop", input=pg_dump(10))["snapshot_id"]
    place.run("backup", "--stdin", "--name", "shop", input=pg_dump(10)[:-60])
    place.ok("forget", "--name", "shop", "--keep-last", "1")
    kept = {one["id"] for one in place.json("snapshots")["snapshots"]}
    assert whole in kept
    assert len(kept) == 2
