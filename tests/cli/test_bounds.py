"""What hostile dumps and databases make commands take: bounded memory, whatever few bytes ask for."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from support.cli import HOLDFAST, PG_HEAD, PG_TAIL, Place
from support.fault import LONG

LIMIT = 512 << 20
"""Bytes of memory of any command on hostile input."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


_WAIT = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A parent that is small itself: what a process takes is counted from its parent's memory on."""


def measured(place: Place, *args: str | Path) -> tuple[int, str]:
    """(exit code, what it said) of a command that may take no more memory than the limit."""
    note = place.root / "memory"
    argv = [sys.executable, "-c", _WAIT, str(note), str(HOLDFAST), *map(str, args)]
    done = subprocess.run(argv, env=os.environ | place.environment, capture_output=True, check=False)
    taken = int(note.read_text()) << 10
    assert taken < LIMIT, f"{args[0]} took {taken >> 20} MiB"
    return done.returncode, done.stderr.decode()


def packed(path: Path, parts: Iterator[bytes]) -> Path:
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    with path.open("wb") as file:
        for part in parts:
            file.write(compressor.compress(part))
        file.write(compressor.flush())
    return path


def views() -> Iterator[bytes]:
    """What 24 KB of zstd hold: views that mention many names each."""
    names = b", ".join(b"a.b%d" % n for n in range(10_000))
    yield PG_HEAD
    for number in range(400):
        yield b"CREATE VIEW v%d AS SELECT %b;\n" % (number, names)
    yield PG_TAIL


def test_a_dump_that_mentions_millions_of_names_is_stored_whole(place: Place) -> None:
    dump = packed(place.root / "n.sql.zst", views())
    assert dump.stat().st_size < 30_000
    code, said = measured(place, "backup", dump, "--name", "n")
    assert code == 0
    assert "would take more than 160 MiB of memory" in said
    assert "it was stored whole" in said
    for arguments in (("ls", "n"), ("info", "n"), ("dump", "n", "--table", "x"), ("find", "n")):
        measured(place, *arguments)
    assert "not taken apart  what stands where in it would take more" in place.ok("info", "n")
    info = json.loads(place.ok("info", "n", "--json"))
    assert not info["partial"]
    size = info["items"][0]["size"]
    assert size == sum(map(len, views()))
    place.ok("restore", "n", "--target", place.root / "out")
    assert next((place.root / "out").rglob("dump.sql")).stat().st_size == size


@pytest.mark.slow
@pytest.mark.parametrize("statement", [b"CREATE TABLE public.t%d (a int);\n", *([b";"] if LONG else [])])
def test_a_dump_of_millions_of_statements_is_stored_whole(place: Place, statement: bytes) -> None:
    texts = [statement % n for n in range(600_000)] if b"%d" in statement else [statement * 8_000_000]
    dump = packed(place.root / "n.sql.zst", iter([PG_HEAD, *texts, PG_TAIL]))
    code, said = measured(place, "backup", dump, "--name", "n")
    assert (code, "it was stored whole" in said) == (0, True)
    measured(place, "ls", "n")


@pytest.mark.slow
def test_a_dump_just_below_the_limit_can_be_used(place: Place) -> None:
    tables = (b"CREATE TABLE public.t%d (a int);\n" % n for n in range(190_000))
    dump = packed(place.root / "n.sql.zst", iter([PG_HEAD, *tables, PG_TAIL]))
    code, said = measured(place, "backup", dump, "--name", "n")
    assert (code, "stored whole" in said) == (0, False)
    assert measured(place, "dump", "n", "--table", "t7")[0] == 0


@pytest.mark.parametrize(
    "expression", ["hex(zeroblob(400000000))", "replace(hex(zeroblob(9000)), '0', hex(zeroblob(90000)))"]
)
def test_an_expression_in_a_database_file_takes_no_memory(place: Place, expression: str) -> None:
    path = place.root / "x.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a)")
    connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(50)])
    connection.execute("PRAGMA writable_schema = ON")
    sql = f"CREATE TABLE t (a, b AS ({expression}) NOT NULL, CHECK (length({expression}) > 0))"
    connection.execute("UPDATE sqlite_schema SET sql = ?", (sql,))
    connection.commit()
    connection.close()
    code, said = measured(place, "backup", f"sqlite:{path}", "--name", "x")
    assert code == 0
    assert "it was stored as it is" in said
    assert place.ok("dump", "x:dump.sqlite", "--force")


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2"])
def test_a_compressed_bomb_is_stored_as_what_it_holds(place: Place, suffix: str) -> None:
    data = PG_HEAD + bytes(200 << 20)
    path = place.root / f"x.sql.{suffix}"
    path.write_bytes({"gz": gzip, "xz": lzma, "bz2": bz2}[suffix].compress(data))
    code, _ = measured(place, "backup", path, "--name", "x")
    assert code == 3
    assert json.loads(place.ok("info", "x", "--json"))["items"][0]["size"] == len(data)
