"""Which tables of a dump changed between two snapshots: their rows, or only their definition."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.repo.chunks.recipe import Extent
from holdfast.repo.core.reader import Reader
from support.cli import Place
from support.database import PostgresServer, postgres_server
from support.scratch import open_folder

MAKE = """
CREATE TABLE same AS SELECT i, md5(i::text) AS what FROM generate_series(1, 20000) i;
CREATE TABLE rows (id serial PRIMARY KEY, what text);
INSERT INTO rows (what) SELECT md5(i::text) FROM generate_series(1, 20000) i;
CREATE TABLE defined (id int, what text);
INSERT INTO defined VALUES (1, 'one');
CREATE TABLE twice (id int);
CREATE TABLE gone (id int);
CREATE TABLE a_first (id int);
"""
CHANGE = """
UPDATE rows SET what = 'changed' WHERE id = 10000;
CREATE INDEX ON defined (what);
ALTER TABLE twice ADD COLUMN more text;
INSERT INTO twice VALUES (1, 'x');
DROP TABLE gone;
CREATE TABLE came (id int);
INSERT INTO a_first SELECT * FROM generate_series(1, 5000);
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Dumps of one database in three forms: before CHANGE, after it, and once more after nothing."""
    place = Place.make(tmp_path_factory.mktemp("tables"))
    with open_folder() as folder, postgres_server(folder / "pg") as server:
        server.psql(MAKE)
        back_up(place, server)
        server.psql(CHANGE)
        back_up(place, server)
        back_up(place, server)
        yield place


def back_up(place: Place, server: PostgresServer) -> None:
    for name, options in (("plain", ()), ("custom", ("-Fc",)), ("inserts", ("--inserts",))):
        dump = place.write(f"{name}.dump", server.tool("pg_dump", *options, "postgres"))
        place.ok("backup", dump, "--name", name, "--kind", "database")


def changes(place: Place, *args: str | Path) -> dict[str, tuple[str, ...]]:
    lines = [json.loads(line) for line in place.ok("diff", *args, "--json").splitlines()]
    return {
        line["path"]: (line["change"], *line.get("what", ()))
        for line in lines
        if line["message_type"] == "change"
    }


def ids(place: Place, name: str) -> list[str]:
    found = place.json("snapshots", "--name", name)["snapshots"]
    return [stored["id"] for stored in found]


@pytest.mark.parametrize("name", ["plain", "custom", "inserts"])
def test_diff_says_which_tables_changed_and_what_of_them(place: Place, name: str) -> None:
    first, second, _ = ids(place, name)
    file = next(path for path in changes(place, first, second) if path.startswith("dump."))
    found = changes(place, first, second)
    del found[file]
    found.pop("dump.sql", None)  # of an archive, as SQL
    assert found == {
        "schema.sql": ("modified", "content"),
        "tables/public.a_first.sql": ("modified", "rows"),
        "tables/public.came.sql": ("added",),
        "tables/public.defined.sql": ("modified", "definition"),
        "tables/public.gone.sql": ("removed",),
        "tables/public.rows.sql": ("modified", "rows"),
        "tables/public.twice.sql": ("modified", "rows", "definition"),
    }
    told = place.ok("diff", first, second)
    for line in (
        "M tables/public.rows.sql  (rows changed)",
        "M tables/public.defined.sql  (only definition)",
        "M tables/public.twice.sql  (rows changed, definition too)",
        "+ tables/public.came.sql",
        "- tables/public.gone.sql",
    ):
        assert f"{line}\n" in told


@pytest.mark.parametrize("name", ["plain", "custom", "inserts"])
def test_of_a_database_that_did_not_change_no_table_is_told(place: Place, name: str) -> None:
    assert {path for path in changes(place, name) if not path.startswith("dump.")} == set()


def test_one_table_can_be_compared_by_itself(place: Place) -> None:
    first, second, _ = ids(place, "plain")
    path = "tables/public.rows.sql"
    assert changes(place, first, second, path) == {path: ("modified", "rows")}
    assert set(changes(place, first, second, "tables")) == {
        f"tables/public.{table}.sql" for table in ("a_first", "came", "defined", "gone", "rows", "twice")
    }


def test_the_rows_of_tables_that_only_moved_are_not_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 20,000 rows of `same` stand elsewhere in the second dump, in the same chunks but for two."""
    first, second, _ = ids(place, "plain")
    read: list[int] = []
    original = Reader.slice

    def counted(self: Reader, extent: Extent, start: int, end: int) -> bytes | memoryview:
        found = original(self, extent, start, end)
        read.append(len(found))
        return found

    size = place.json("ls", f"{first}:tables/public.same.sql")["items"][0]["size"]
    monkeypatch.setattr(Reader, "slice", counted)
    assert changes(place, first, second, "tables/public.same.sql") == {}
    assert size > 700_000
    assert sum(read) < size
