"""Dumps of real PostgreSQL servers, rehearsed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.formats.dumps.core.catalogue import Catalogue, Section
from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.postgresql.plain.scan import PostgresVisitor
from support.cli import Place
from support.database import PostgresServer, postgres_server
from support.rehearse import counts, put_dump, rehearse
from support.scratch import open_folder

SHOP = """
create role shop; create role "Bob ""x"; create role "ann-marie" in role shop;
create schema stock;
create table orders (id int primary key, name text, made date default '2026-11-25');
create table stock.items (id int references orders);
insert into orders select g, 'name ' || g from generate_series(1, 1000) g;
insert into stock.items values (5), (6);
alter table orders owner to shop;
alter schema stock owner to "ann-marie";
grant select on orders to "Bob ""x", public;
alter default privileges for role shop in schema stock grant select on tables to "Bob ""x";
create policy mine on orders to "ann-marie" using (true);
set allow_in_place_tablespaces = on; create tablespace fast location '';
create table parted (a int) partition by list (a);
create table parted_1 partition of parted for values in (1) tablespace fast;
insert into parted values (1);
create view seen as select * from orders;
create materialized view kept as select count(*) from orders;
"""
ROWS = {"public.orders": 1000, "stock.items": 2, "public.parted": 0, "public.parted_1": 1}


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def server(scratch: Path) -> Iterator[PostgresServer]:
    with postgres_server(scratch / "pg") as server:
        server.psql("create database shop")
        server.psql(SHOP, "shop")
        server.psql("create database other")
        server.psql("create table b (a int); insert into b values (1), (2)", "other")
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


def store(place: Place, content: bytes, name: str = "shop.sql") -> None:
    place.ok("backup", place.write(name, content), "--name", "shop")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("shop.sql", ["pg_dump", "shop"]),
        ("shop.sql", ["pg_dump", "--inserts", "shop"]),
        ("shop.sql", ["pg_dump", "--clean", "--if-exists", "shop"]),
        ("shop.sql", ["pg_dump", "--create", "shop"]),
        ("shop.pgdump", ["pg_dump", "-Fc", "-Z0", "shop"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_dump_is_proven_with_all_its_rows(
    place: Place, scratch: Path, server: PostgresServer, name: str, arguments: list[str]
) -> None:
    store(place, server.tool(*arguments), name)
    proof = rehearse(place, scratch, "shop", "--query", "select max(id), null from orders")
    assert proof["outcome"] == "proven"
    assert counts(proof) == ROWS
    assert (proof["tables"], proof["rows"], proof["databases"]) == (4, 1003, 1)
    assert proof["queries"][0]["rows"] == [["1000", None]]
    assert proof["server"].startswith("PostgreSQL ")


def test_a_dump_of_a_whole_cluster_brings_its_databases_roles_and_tablespaces(
    place: Place, scratch: Path, server: PostgresServer
) -> None:
    store(place, server.tool("pg_dumpall"))
    proof = rehearse(place, scratch, "shop", "--database", "other", "--query", "table b")
    assert proof["databases"] == 2
    assert counts(proof) == ROWS | {"public.b": 2}
    assert proof["queries"][0]["rows"] == [["1"], ["2"]]


def test_a_query_that_could_be_meant_for_several_databases_is_refused_and_proves_nothing(
    place: Place, scratch: Path, server: PostgresServer
) -> None:
    store(place, server.tool("pg_dumpall"))
    rehearse(place, scratch, "shop", "--query", "table b", code=1)
    assert place.json("snapshots")["snapshots"][0]["proven"] is None


def test_roles_and_tablespaces_that_stand_beside_a_dump_come_first(
    place: Place, scratch: Path, server: PostgresServer
) -> None:
    place.write("dump.sql", server.tool("pg_dump", "shop"))
    place.write("globals.sql", server.tool("pg_dumpall", "--globals-only"))
    place.ok(
        "backup", "--name", "shop", "--kind", "database", place.root / "dump.sql", place.root / "globals.sql"
    )
    items = {item["path"]: item["type"] for item in place.json("info", "shop")["items"]}
    path = next(path for path in items if "dump" in path)
    proof = rehearse(place, scratch, f"shop:{path}")
    assert counts(proof) == ROWS
    assert "path" not in proof


def test_one_dump_of_several_is_proven_for_itself_alone(
    place: Place, scratch: Path, server: PostgresServer
) -> None:
    for name, database in (("a.sql", "shop"), ("b.sql", "other")):
        place.write(name, server.tool("pg_dump", database))
    place.ok("backup", "--name", "shop", "--kind", "database", place.root / "a.sql", place.root / "b.sql")
    path = next(i["path"] for i in place.json("info", "shop")["items"] if i["path"].endswith("a.sql"))
    proof = rehearse(place, scratch, f"shop:{path}")
    assert (proof["outcome"], proof["path"]) == ("proven", path)
    assert f"({path})" in place.ok("snapshots")
    assert f"{path}, 20" in place.ok("info", "shop")


def test_rows_that_break_a_constraint_fail_the_rehearsal_and_it_shows(
    place: Place, scratch: Path, server: PostgresServer
) -> None:
    dump = server.tool("pg_dump", "--inserts", "shop")
    store(place, dump.replace(b"stock.items VALUES (5)", b"stock.items VALUES (5000)"))
    proof = rehearse(place, scratch, "shop", code=1)
    assert proof["outcome"] == "failed"
    assert "items_id_fkey" in proof["error"]
    assert "failed 20" in place.ok("snapshots")
    assert "items_id_fkey" in place.ok("info", "shop")
    assert place.json("info", "shop")["proven"]["outcome"] == "failed"


@pytest.mark.parametrize("scanned", [False, True], ids=["without a catalogue", "with one"])
@pytest.mark.parametrize("cut", ["in the rows", "behind a table"])
def test_a_dump_that_ends_early_fails_the_rehearsal(
    place: Place, scratch: Path, server: PostgresServer, cut: str, scanned: bool
) -> None:
    """psql takes the end of its input for the end of the rows, and would be content."""
    dump = server.tool("pg_dump", "shop")
    dump = dump[: dump.index(b"\n900\t") + 1 if cut == "in the rows" else dump.index(b"\\.\n") + 3]
    put_dump(place, dump, "postgresql", catalogue=scan(dump) if scanned else None)
    proof = rehearse(place, scratch, "shop", code=3 if scanned else 1)
    assert proof["outcome"] == "failed"
    assert "complete" in proof["error"]


def test_a_dump_that_drops_what_is_not_there_loads(
    place: Place, scratch: Path, server: PostgresServer
) -> None:
    dump = server.tool("pg_dump", "--clean", "shop")
    put_dump(place, dump, "postgresql", catalogue=scan(dump))
    assert counts(rehearse(place, scratch, "shop")) == ROWS


def test_a_table_that_the_dump_has_and_the_server_has_not_fails_the_rehearsal(
    place: Place, scratch: Path, server: PostgresServer
) -> None:
    dump = server.tool("pg_dump", "shop")
    catalogue = scan(dump)
    more = Section(len(dump), 0, "TABLE", "", "public", "lost")
    put_dump(place, dump, "postgresql", catalogue=replace(catalogue, sections=(*catalogue.sections, more)))
    proof = rehearse(place, scratch, "shop", code=1)
    assert proof["error"] == "the dump has 5 tables, the server 4 after it"


def scan(dump: bytes) -> Catalogue:
    scanner = Scanner(PostgresVisitor())
    scanner.feed(dump)
    return scanner.finish()


def test_what_a_proof_says_is_shown_and_found_again(
    place: Place, scratch: Path, server: PostgresServer
) -> None:
    store(place, server.tool("pg_dump", "shop"))
    assert place.json("snapshots")["snapshots"][0]["proven"] is None
    proof = rehearse(place, scratch, "shop", "--query", "select 1 as one")
    day = proof["time"][:10]
    assert day in place.ok("snapshots").splitlines()[2][60:]
    listed = place.json("snapshots")["snapshots"][0]["proven"]
    assert (listed["outcome"], listed["rows"]) == ("proven", 1003)
    assert place.json("info", "shop")["proven"]["queries"] == proof["queries"]
    assert "select 1 as one: 1" in place.ok("info", "shop")
    assert place.ok("check")


def test_only_the_start_of_a_large_result_is_kept(
    place: Place, scratch: Path, server: PostgresServer
) -> None:
    store(place, server.tool("pg_dump", "shop"))
    many = "select g from generate_series(1, 3000000) g"
    wide = "select repeat('x', 100000), 2"
    first, second = rehearse(place, scratch, "shop", "--query", many, "--query", wide)["queries"]
    assert (len(first["rows"]), first["more"]) == (100, True)
    assert sum(len(cell) for row in second["rows"] for cell in row) <= 64 << 10


def test_a_query_that_fails_fails_the_rehearsal(place: Place, scratch: Path, server: PostgresServer) -> None:
    store(place, server.tool("pg_dump", "shop"))
    proof = rehearse(place, scratch, "shop", "--query", "select * from missing", code=1)
    assert 'relation "missing" does not exist' in proof["error"]
    assert proof["rows"] == 1003


def test_sql_in_a_dump_gets_no_network_and_no_root(
    place: Place, scratch: Path, server: PostgresServer
) -> None:
    dump = server.tool("pg_dump", "shop")
    look = b"create table public.seen_by (line text);\n"
    devices = b"/proc/net/dev /sys/class/net/*/uevent"
    look += b"copy public.seen_by from program 'id -u; cat %s 2>/dev/null; true';\n" % devices
    end = b"--\n-- PostgreSQL database dump complete"
    store(place, dump.replace(end, look + end))
    proof = rehearse(place, scratch, "shop", "--query", "table public.seen_by")
    lines = [row[0] for row in proof["queries"][0]["rows"]]
    assert lines[0] != "0"
    assert lines[1:] == []


def test_the_table_is_for_people(place: Place, scratch: Path, server: PostgresServer) -> None:
    store(place, server.tool("pg_dump", "shop"))
    out = place.ok("rehearse", "shop", "--scratch", scratch)
    assert re.search(r"public\.orders +1,000\n", out)
    assert "is proven: PostgreSQL" in out
    assert json.loads(place.ok("info", "shop", "--json"))["proven"]["counts"]
