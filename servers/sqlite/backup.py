"""SQLite files through SQLite's own online backup, while writers go on.

The copy is made page by page into a private file, so the layout of the original is kept, which is what
deduplicates. The original is opened for reading only. What a writer that died left beside it (a rollback
journal) can only be undone by writing, so then the file and its journal are copied first, under the lock
that keeps every other process from doing the same meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from holdfast.base.errors import SourceError, StreamFailed
from holdfast.base.types import ProgressFunction
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.sqlite.scan import NAME as ENGINE
from holdfast.ingest.backup.plan import plan_dump
from holdfast.ingest.sources.source import FileSource, origin_of
from holdfast.repo.snapshots.snapshot import Consistency
from holdfast.servers.base.prepared import Prepared
from holdfast.servers.sqlite.limits import limit
from holdfast.servers.sqlite.text import NAME, SqlText

_PAGES: Final = 4096
"""Pages a step: 16 MiB of usual ones; writers get in between steps."""
_RESTARTS: Final = 5
"""Each write of another process begins the copy anew; after so many, writers are held back instead."""
_LOCKED: Final = 30.0
"""Seconds to wait for a writer that has locked the database."""
_SPARE: Final = 64 << 20
_PENDING: Final = 0x40000000
"""SQLite's lock bytes: pending at 1 GiB, then reserved, then 510 that readers share."""
_SHARED: Final = (_PENDING + 2, 510)


class DatabaseFile(FileSource):
    """A finished copy. `grade` and `evidence` say what SQLite's own check of it found."""

    def __init__(self, path: Path, grade: Consistency, evidence: str) -> None:
        super().__init__(path)
        self.grade = grade
        self.evidence = evidence


def prepare_database(
    stack: ExitStack,
    path: Path,
    progress: ProgressFunction,
    *,
    as_sql: bool = True,
    patience: float = _LOCKED,
    pages: int = _PAGES,
) -> Prepared:
    """Copy the database at `path` into a temporary folder that `stack` removes, and check the copy.

    `as_sql`: its text comes too, which is what single tables can be had from; not of a damaged one.
    `progress` counts bytes copied, `pages` pages at a time. Raises SourceError without a file there,
    StreamFailed when the file is locked for longer than `patience` seconds or cannot be read.
    """
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file; nothing was stored")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-sqlite-")))
    _check_room(path, folder)
    copy = folder / "dump.sqlite"
    copy.touch(mode=0o600)
    try:
        _copy(path, copy, folder, progress, patience=patience, pages=pages)
        grade, evidence, facts, warnings = _check(copy)
    except sqlite3.Error as error:
        raise StreamFailed(f"{path}: {_reason(error, patience)}; nothing was stored") from None
    source = stack.enter_context(DatabaseFile(copy, grade, evidence))
    source.mtime = path.stat().st_mtime_ns
    items = [plan_dump(source, source.name)]
    if as_sql and grade is Consistency.APPLICATION:
        items.append(plan_dump(stack.enter_context(SqlText(copy)), NAME))
    name = path.name if path.name.startswith(".") else path.name.rsplit(".", 1)[0]
    where = origin_of(path)
    return Prepared(tuple(items), name, ENGINE, str(path), facts, warnings, where=where)


def _copy(
    path: Path, copy: Path, folder: Path, progress: ProgressFunction, *, patience: float, pages: int
) -> None:
    try:
        with _opened(path, "ro", patience) as source:
            _back_up(source, copy, progress, patience=patience, pages=pages)
    except sqlite3.OperationalError:
        if not _needs_rollback(path):
            raise
        _recover(path, folder / "recovered.sqlite", patience)
        with _opened(folder / "recovered.sqlite", "rw", patience) as source:
            _back_up(source, copy, progress, patience=patience, pages=pages)


def _back_up(
    source: sqlite3.Connection, copy: Path, progress: ProgressFunction, *, patience: float, pages: int
) -> None:
    """Copy in one read transaction when that does not block writers (a write-ahead log). Otherwise copy step
    by step; after `_RESTARTS` restarts, in one read transaction all the same."""
    mode = source.execute("PRAGMA journal_mode").fetchone()[0]
    page = source.execute("PRAGMA page_size").fetchone()[0]
    with closing(sqlite3.connect(copy, isolation_level=None)) as target:
        target.execute("PRAGMA synchronous=OFF")
        if mode != "wal":
            try:
                source.backup(target, pages=pages, progress=_Watch(progress, page, patience), sleep=0.02)
                return
            except _Restarted:
                pass
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        watch = _Watch(progress, page, patience)
        source.backup(target, pages=pages, progress=watch, sleep=0.02)
        source.execute("COMMIT")


class _Restarted(sqlite3.OperationalError):
    """The copy was restarted too often, because writers keep changing the database."""


class _Watch:
    """Follows a copy: reports its progress, and ends a copy that makes none."""

    def __init__(self, progress: ProgressFunction, page: int, patience: float) -> None:
        self._progress = progress
        self._page = page
        self._patience = patience
        self._done = 0
        self._restarts = 0
        self._moved = time.monotonic()

    def __call__(self, status: int, remaining: int, total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            if time.monotonic() - self._moved > self._patience:
                raise sqlite3.OperationalError("database is locked")
            return
        self._moved = time.monotonic()
        done = total - remaining
        if done <= self._done and remaining:
            self._restarts += 1
            if self._restarts > _RESTARTS:
                raise _Restarted("writers keep changing it")
        else:
            self._progress((done - self._done) * self._page)
        self._done = done


@contextmanager
def _opened(path: Path, mode: str, patience: float) -> Iterator[sqlite3.Connection]:
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    with closing(sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield connection


def _check(copy: Path) -> tuple[Consistency, str, DumpFacts, tuple[str, ...]]:
    """(grade, evidence, facts, warnings) of a copy."""
    uri = f"file:{quote(str(copy))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        limit(connection, copy)

        def pragma(name: str) -> str:
            return str(connection.execute(f"PRAGMA {name}").fetchone()[0])

        fault = ""
        try:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            fault = "" if found == "ok" else found
        except (sqlite3.DatabaseError, MemoryError) as error:
            fault = str(error) or "its check takes too much memory"
        facts = DumpFacts(
            server=f"SQLite {sqlite3.sqlite_version}",
            others={name: pragma(name) for name in ("page_size", "user_version")},
        )
    if fault:
        fault = " ".join(fault.split())[:200]
        told = f"SQLite's own check finds the database damaged: {fault}"
        return Consistency.UNKNOWN, told, facts, (f"{told}; it was stored as it is",)
    evidence = "copied by SQLite's online backup, and its quick_check of the copy said ok"
    return Consistency.APPLICATION, evidence, facts, ()


def _check_room(path: Path, folder: Path) -> None:
    needed = sum(each.stat().st_size for each in (path, _beside(path, "-wal")) if each.exists())
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise SourceError(
            f"{path}: a copy of {needed} bytes does not fit into {folder.parent} ({free} free); "
            "set TMPDIR to a folder with more room; nothing was stored"
        )


# ---- what a writer that died left -----------------------------------------------------------------------


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _needs_rollback(path: Path) -> bool:
    """Whether there is a journal that has something in it."""
    try:
        return _beside(path, "-journal").stat().st_size > 0
    except OSError:
        return False


def _recover(path: Path, copy: Path, patience: float) -> None:
    """Copy the file and its journal together. SQLite undoes what the dead writer did when it opens the copy.

    The shared lock is SQLite's own, taken in SQLite's order: nobody can roll back or write while it is held.
    """
    with path.open("rb") as file:
        deadline = time.monotonic() + patience
        while not _lock_shared(file.fileno()):
            if time.monotonic() > deadline:
                raise sqlite3.OperationalError("database is locked")
            time.sleep(0.05)
        with copy.open("wb") as target:
            shutil.copyfileobj(file, target, 1 << 20)
        shutil.copyfile(_beside(path, "-journal"), _beside(copy, "-journal"))


def _lock_shared(fd: int) -> bool:
    """A reader's lock, as SQLite takes it: through the pending byte, which a waiting writer holds."""
    try:
        _lock(fd, fcntl.F_RDLCK, _PENDING, 1)
        try:
            _lock(fd, fcntl.F_RDLCK, *_SHARED)
        finally:
            _lock(fd, fcntl.F_UNLCK, _PENDING, 1)
    except OSError:
        return False
    return True


def _lock(fd: int, kind: int, start: int, length: int) -> None:
    """Lock this open file description, not the process: closing another descriptor must not release it."""
    flock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, flock)


def _reason(error: sqlite3.Error, patience: float) -> str:
    text = str(error)
    if "locked" in text:
        return f"a program has locked the database, and did not let go within {patience:g} s"
    return f"SQLite cannot read it: {text}"
