"""`holdfast backup sqlite:`: copies that are right while others write, after a crash, or not made at all."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from holdfast.base.errors import SourceError, StreamFailed
from holdfast.repo.snapshots.snapshot import Consistency
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.sqlite import backup as sqlite
from support.cli import Place

TOTAL = 1000


def ignore(count: int) -> None:
    """A progress function."""


def prepare(stack: ExitStack, path: Path, patience: float = 30.0, pages: int = 4096) -> Prepared:
    return sqlite.prepare_database(stack, path, ignore, patience=patience, pages=pages)


def source_of(prepared: Prepared) -> sqlite.DatabaseFile:
    source = prepared.items[0].source
    assert isinstance(source, sqlite.DatabaseFile)
    return source


@pytest.fixture(params=["wal", "delete"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two accounts whose sum is always the same, and 3 MB of ballast."""
    path = tmp_path / "bank.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode={request.param}")
        db.execute("PRAGMA user_version=7")
        db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, n INTEGER, pad TEXT)")
        db.executemany("INSERT INTO account VALUES (?, ?, ?)", [(1, TOTAL, ""), (2, 0, "")])
        db.executemany("INSERT INTO account VALUES (?, 0, ?)", [(n, "x" * 3000) for n in range(3, 1000)])
        db.commit()
    return path


def total(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(db.execute("SELECT sum(n) FROM account").fetchone()[0])


def test_a_file_comes_back_whole(database: Path, tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    summary = place.json("backup", f"sqlite:{database}")
    assert (summary["name"], summary["engine"]) == ("bank", "sqlite")
    assert summary["consistency"] == "application"
    assert "quick_check" in summary["evidence"]
    target = tmp_path / "out.db"
    place.ok("restore", "bank@latest:dump.sqlite", "--target", target)
    assert total(target) == TOTAL


def test_facts_are_what_the_file_says(database: Path) -> None:
    with ExitStack() as stack:
        prepared = prepare(stack, database)
        assert prepared.facts.stored() == {
            "server": f"SQLite {sqlite3.sqlite_version}",
            "page_size": "4096",
            "user_version": "7",
        }
        source = source_of(prepared)
        assert source.grade is Consistency.APPLICATION
        assert source.size
        left = {path.name for path in Path(source.path.parent).iterdir()}
        assert left == {"dump.sqlite"}
        folder = source.path.parent
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_copies_are_consistent_while_a_writer_goes_on(database: Path, tmp_path: Path) -> None:
    stop, wrote = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as db:
            while not stop.wait(0.001):  # a writer that never pauses starves every reader
                db.execute("UPDATE account SET n = n + CASE id WHEN 1 THEN -1 ELSE 1 END WHERE id < 3")
                wrote.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert wrote.wait(120)
        for n in range(3):
            with ExitStack() as stack:
                source = source_of(prepare(stack, database, pages=50))
                assert source.grade is Consistency.APPLICATION
                copy = tmp_path / f"copy{n}"
                shutil.copyfile(source.path, copy)
            assert total(copy) == TOTAL
    finally:
        stop.set()
        writer.join()


def test_a_writer_between_all_steps_is_held_back_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "busy.db"
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as db:
        db.execute("CREATE TABLE account (n INTEGER, pad TEXT)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO account VALUES (?, ?)", [(1, "x" * 3000)] * 500)
        db.execute("COMMIT")
        answers: list[str] = []

        def write(count: int) -> None:
            try:
                db.execute("UPDATE account SET n = n + 1")
            except sqlite3.OperationalError as error:
                answers.append(str(error))
            else:
                answers.append("written")

        with ExitStack() as stack:
            source = source_of(sqlite.prepare_database(stack, path, write, pages=50))
            copy = tmp_path / "copy"
            shutil.copyfile(source.path, copy)
    assert "written" in answers
    assert "database is locked" in answers
    assert total(copy) % 500 == 0


def test_what_is_in_the_write_ahead_log_is_in_the_copy(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=wal")
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("CREATE TABLE account (n INTEGER)")
        db.execute("INSERT INTO account VALUES (42)")
        with ExitStack() as stack:
            copy = tmp_path / "copy"
            shutil.copyfile(source_of(prepare(stack, path)).path, copy)
    assert total(copy) == 42


def test_a_transaction_that_died_is_undone_in_the_copy_and_the_original_is_left_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "crashed.db"
    script = f"""
import os, sqlite3
db = sqlite3.connect({str(path)!r}, isolation_level=None)
db.execute("CREATE TABLE account (n INTEGER, pad TEXT)")
db.execute("PRAGMA cache_size=1")
db.execute("PRAGMA cache_spill=1")
for sql in ("INSERT INTO account VALUES (1, ?)", "UPDATE account SET n = 0, pad = substr(?, 9)"):
    db.execute("BEGIN")
    if sql.startswith("INSERT"):
        db.executemany(sql, [("x" * 3000,)] * 500)
        db.execute("COMMIT")
    else:
        db.execute(sql, ("y" * 3000,))
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    journal = tmp_path / "crashed.db-journal"
    before = (path.read_bytes(), journal.read_bytes())
    assert before[0].count(b"y" * 2000) > 100  # the dead transaction is in the file
    with ExitStack() as stack:
        copy = tmp_path / "copy"
        shutil.copyfile(source_of(prepare(stack, path)).path, copy)
    assert total(copy) == 500
    assert (path.read_bytes(), journal.read_bytes()) == before


def test_a_locked_database_is_told_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE t (n)")
        db.execute("BEGIN EXCLUSIVE")
        with ExitStack() as stack, pytest.raises(StreamFailed, match=r"l\.db: a program has locked"):
            prepare(stack, path, patience=0.2)


def test_a_damaged_file_is_kept_with_the_grade_it_deserves(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA journal_mode=delete")
    with database.open("r+b") as file:
        file.seek(200 * 4096)
        file.write(os.urandom(64) * 64)
    place = Place.make(tmp_path)
    summary = place.json("backup", f"sqlite:{database}")
    assert summary["consistency"] == "unknown"
    assert "SQLite's own check finds the database damaged" in summary["warnings"][0]
    assert place.run("backup", f"sqlite:{database}", "--require", "application").exit_code == 20


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    path.write_bytes(b"not a database at all" * 1000)
    with ExitStack() as stack, pytest.raises(StreamFailed, match="file is not a database"):
        prepare(stack, path)
    with ExitStack() as stack, pytest.raises(SourceError, match=r"gone\.db: there is no such file"):
        prepare(stack, tmp_path / "gone.db")
    assert not (tmp_path / "gone.db").exists()


def test_nothing_is_left_beside_the_original(database: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        before = sorted(path.name for path in tmp_path.iterdir())
        assert source_of(prepare(stack, database)).grade is Consistency.APPLICATION
    assert [
        name
        for name in sorted(path.name for path in tmp_path.iterdir())
        if not name.endswith(("-shm", "-wal"))
    ] == before
