"""An engine is one folder and one line in the registry: a made-up one does all that the others do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.formats.dumps.engines import ENGINES
from support.cli import Place
from support.fourth_engine import ENTRY
from support.fuse import need_fuse
from support.rehearse import rehearse
from support.scratch import open_folder

MONDAY = b"%LEDGER 1\ntable fruit id,name\nfruit\t1,apple\nfruit\t2,plum\ntable nuts id\nnuts\t7\n%END\n"
TUESDAY = MONDAY.replace(b"nuts\t7\n", b"nuts\t7\nnuts\t8\n")
_MOUNT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from holdfast.cli.main import main
from holdfast.formats.dumps.engines import ENGINES
from support.fourth_engine import ENTRY
with ENGINES.added(ENTRY):
    main()
"""
FRUIT = b"%LEDGER 1\ntable fruit id,name\nfruit\t1,apple\nfruit\t2,plum\n%END\n"


@pytest.fixture(autouse=True)
def _the_line_in_the_registry() -> Iterator[None]:
    with ENGINES.added(ENTRY):
        yield


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A repository with two days of a ledger."""
    place = Place.make(tmp_path)
    for content in (MONDAY, TUESDAY):
        (tmp_path / "shop.txt").write_bytes(content)
        place.ok("backup", tmp_path / "shop.txt", "--name", "shop")
    return place


def test_a_dump_is_recognised_and_its_tables_are_files(place: Place) -> None:
    assert {(s["engine"], s["name"]) for s in place.json("snapshots")["snapshots"]} == {("ledger", "shop")}
    listed = place.ok("ls", "shop") + place.ok("ls", "shop:tables")
    for path in ("dump.ledger", "tables/book.fruit.sql", "tables/book.nuts.sql"):
        assert path in listed
    assert place.run("dump", "shop:dump.ledger").stdout_bytes == TUESDAY
    assert place.run("dump", "shop:tables/book.fruit.sql").stdout_bytes == FRUIT
    assert place.run("dump", "shop", "--table", "fruit").stdout_bytes == FRUIT
    assert place.ok("dump", "shop", "--table", "fruit", "--format", "csv") == "id,name\n1,apple\n2,plum\n"


def test_a_table_is_found_restored_and_compared(place: Place) -> None:
    assert "tables/book.nuts.sql" in place.ok("find", "nuts")
    target = place.root / "fruit.sql"
    place.ok("restore", "shop:tables/book.fruit.sql", "--target", target)
    assert target.read_bytes() == FRUIT
    first, second = (s["id"] for s in sorted(place.json("snapshots")["snapshots"], key=lambda s: s["time"]))
    changes = place.ok("diff", first, second)
    assert "book.nuts" in changes
    assert "rows changed" in changes
    assert "book.fruit" not in changes


def test_a_dump_that_ended_early_is_partial(place: Place) -> None:
    (place.root / "cut.txt").write_bytes(MONDAY[:-6])
    result = place.run("backup", place.root / "cut.txt", "--name", "cut")
    assert result.exit_code == 3
    assert "%END is missing" in result.stderr


def test_it_is_backed_up_by_its_url_and_rehearsed(place: Place) -> None:
    (place.root / "live.book").write_bytes(TUESDAY)
    place.ok("backup", f"ledger:{place.root / 'live.book'}")
    assert place.run("dump", "live:dump.ledger").stdout_bytes == TUESDAY
    with open_folder() as scratch:
        proof = rehearse(place, scratch, "live", "--query", "nuts")
    assert (proof["server"], proof["tables"], proof["rows"]) == ("Ledger 4.2", 2, 4)


@pytest.mark.fuse
def test_a_mount_shows_its_tables(place: Place) -> None:
    need_fuse()
    mountpoint = place.root / "m"
    mountpoint.mkdir()
    argv = [sys.executable, "-P", "-c", _MOUNT, "mount", "--foreground", str(mountpoint)]
    with subprocess.Popen(argv, env=os.environ | place.environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"mounted on ")
            tables = mountpoint / "databases" / "ledger" / "shop" / "latest" / "tables"
            assert (tables / "book.fruit.sql").read_bytes() == FRUIT
        finally:
            process.send_signal(signal.SIGINT)
    assert not mountpoint.is_mount()
