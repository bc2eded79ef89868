"""Plain SQL of pg_dump, made by a real server: every table's file alone makes that table again."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from holdfast.base.errors import Refused
from holdfast.formats.dumps.core.catalogue import Catalogue, decode, encode
from holdfast.formats.dumps.core.names import file_name
from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.postgresql.plain.files import csv, files, table_rows
from holdfast.formats.dumps.postgresql.plain.scan import PostgresVisitor
from support.database import PostgresServer
from support.pgdump_real import (
    RICH,
    SHOP,
    check_file,
    cluster,
    content,
    dump_of,
    tables_of,
)
from support.postgres_examples import HOSTILE_TABLES, ROLES, fill, identifier

OPTIONS = {
    "inserts": ("--inserts", "--on-conflict-do-nothing"),
    "verbose": ("--column-inserts", "--verbose", "--use-set-session-authorization"),
    "rows per insert": ("--rows-per-insert=7", "--no-owner", "--quote-all-identifiers"),
    "clean": ("--clean", "--if-exists", "--create"),
    "triggers": (
        "--disable-triggers",
        "--no-privileges",
        "--quote-all-identifiers",
        "--no-unlogged-table-data",
    ),
}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with cluster() as one:
        one.psql(ROLES)
        fill(one, RICH)
        yield one


@pytest.fixture(scope="module")
def other() -> Iterator[PostgresServer]:
    """A cluster that has none of the roles."""
    with cluster() as one:
        yield one


def scan(dump: bytes, step: int = 1 << 20) -> Catalogue:
    scanner = Scanner(PostgresVisitor())
    for at in range(0, len(dump), step):
        scanner.feed(dump[at : at + step])
    found = scanner.finish()
    return decode(encode(found), "catalogue", len(dump))  # as it comes back from the repository


def table_file(catalogue: Catalogue, dump: bytes, table: tuple[str, str]) -> bytes:
    return content(files(catalogue, len(dump))[f"tables/{file_name(*table)}.sql"], dump)


def test_every_table_loads_by_itself_with_all_that_is_its_own(
    server: PostgresServer, other: PostgresServer
) -> None:
    dump = dump_of(server)
    catalogue = scan(dump)
    assert catalogue.complete
    assert not [s for s in catalogue.sections if s.type == "OTHER"]
    made = files(catalogue, len(dump))
    tables = tables_of(catalogue)
    assert len(tables) == len(HOSTILE_TABLES) + 19
    for table in tables:
        check_file(server, other, content(made[f"tables/{file_name(*table)}.sql"], dump), table)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tables_load_whatever_the_options_of_the_dump(
    server: PostgresServer, other: PostgresServer, options: tuple[str, ...]
) -> None:
    dump = dump_of(server, *options)
    catalogue = scan(dump)
    assert catalogue.complete
    for table in [*SHOP, *(("we", name) for name in HOSTILE_TABLES[:6:2])]:
        check_file(server, other, table_file(catalogue, dump, table), table)


def test_what_pg_restore_writes_is_such_a_dump(server: PostgresServer, other: PostgresServer) -> None:
    dump = server.tool("pg_restore", "-f", "-", stdin=dump_of(server, "-Fc"))
    catalogue = scan(dump)
    assert catalogue.complete
    check_file(server, other, table_file(catalogue, dump, ("shop", "orders")), ("shop", "orders"))


def test_a_table_s_file_tells_what_is_left_out(server: PostgresServer) -> None:
    dump = dump_of(server)
    catalogue = scan(dump)
    head = table_file(catalogue, dump, ("shop", "orders")).split(b"\n")[0].decode()
    assert head.endswith("foreign keys to other tables, grants, owner, policies for roles.")
    orders = table_file(catalogue, dump, ("shop", "orders"))
    assert b"orders_customer_fkey" not in orders
    assert b"only_alice" not in orders
    assert b"alice" not in orders.partition(b"\n")[2].replace(b"Owner: alice", b"")
    assert b"orders_parent_fkey" in orders


def test_a_dump_of_data_alone_gives_rows_alone(server: PostgresServer) -> None:
    dump = dump_of(server, "--data-only", "-t", "shop.one")
    catalogue = scan(dump)
    assert catalogue.complete
    found = table_file(catalogue, dump, ("shop", "one"))
    assert found.startswith(b"-- One table's rows; the dump does not hold its definition.\n")
    assert b"COPY shop.one (a) FROM stdin;\n" in found
    assert found.rstrip().endswith(b"\n\\.")


@pytest.mark.parametrize("section", ["pre-data", "data", "post-data"])
def test_the_parts_of_a_dump_are_whole(server: PostgresServer, section: str) -> None:
    dump = dump_of(server, f"--section={section}")
    catalogue = scan(dump)
    assert catalogue.complete
    assert "schema.sql" in files(catalogue, len(dump))


def test_schema_sql_is_the_dump_without_its_data(server: PostgresServer) -> None:
    def bare(dump: bytes) -> list[bytes]:
        lines = dump.split(b"\n")
        return [line for line in lines if line.strip() and b"restrict" not in line and line != b"--"]

    dump = dump_of(server, "--no-blobs", "--no-comments")
    schema = content(files(scan(dump), len(dump))["schema.sql"], dump)
    assert bare(schema) == bare(dump_of(server, "--schema-only", "--no-comments"))
    dump = dump_of(server)
    server.psql("CREATE DATABASE again")
    schema = content(files(scan(dump), len(dump))["schema.sql"], dump)
    server.tool("psql", "-Xq", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", "again", stdin=schema)
    server.psql("DROP DATABASE again")


def test_pg_dumpall_is_split_into_databases(server: PostgresServer, other: PostgresServer) -> None:
    server.psql("CREATE DATABASE plain")
    server.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", "plain")
    dump = server.tool("pg_dumpall", "--clean", "--if-exists")
    catalogue = scan(dump)
    assert catalogue.complete
    assert catalogue.extra["cluster"]
    made = files(catalogue, len(dump))
    names = ["template1", "postgres", RICH, "plain"]
    assert {path for path in made if "/" not in path} == {
        "globals.sql",
        *(f"{file_name(name)}.schema.sql" for name in names),
    }
    roles = content(made["globals.sql"], dump)
    assert b'CREATE ROLE "bob the ""great""";' in roles
    assert b"DATABASE" not in roles
    orders = content(made[f"tables/{file_name(RICH)}/{file_name('shop', 'orders')}.sql"], dump)
    check_file(server, other, orders, ("shop", "orders"))
    schema = content(made["plain.schema.sql"], dump)
    other.tool("psql", "-Xq", "-o", "/dev/null", "-d", "postgres", stdin=schema)
    assert other.psql("SELECT count(*) FROM t", "plain") == "0\n"
    other.psql("DROP DATABASE plain")
    server.psql("DROP DATABASE plain")


@pytest.mark.parametrize("tool", ["pg_dump", "pg_dumpall"])
def test_a_dump_that_was_cut_is_never_whole(server: PostgresServer, other: PostgresServer, tool: str) -> None:
    tables = ("-t", "shop.one", "-t", "shop.orders")
    whole = other.tool("pg_dumpall") if tool == "pg_dumpall" else dump_of(server, *tables)
    end = len(whole.rstrip())
    chance = random.Random(5)
    cuts = {chance.randrange(end) for _ in range(30)} | set(range(end - 80, end))
    marks = [at for at in range(end) if whole.startswith(b"dump complete", at)]
    cuts |= {mark + more for mark in marks[-3:] for more in range(11, 20) if mark + more < end}
    for cut in cuts:
        assert scan(whole[:cut]).fault, whole[:cut][-100:]
    assert not scan(whole).fault
    assert not scan(whole, step=977).fault
    assert scan(whole[: end // 2] + whole[: end // 2]).fault
    assert scan(whole + b"SELECT 1;\n").fault


def test_the_catalogue_does_not_depend_on_how_the_dump_comes_in(server: PostgresServer) -> None:
    dump = dump_of(server, "--inserts")
    assert scan(dump, 1 << 20) == scan(dump, 333)


def test_a_csv_is_what_the_server_s_own_copy_writes(server: PostgresServer) -> None:
    for options in ((), ("--inserts",), ("--rows-per-insert=3", "--column-inserts")):
        dump = dump_of(server, *options)
        catalogue = scan(dump)
        found = table_rows(catalogue)
        for schema, name in tables_of(catalogue):
            if name in ("hosts", "parts", "parts_eu"):
                continue  # a foreign table, and those without rows of their own
            relation = f"{identifier(schema)}.{identifier(name)}"
            want = server.psql(f"COPY {relation} TO STDOUT (FORMAT csv, HEADER)", RICH)
            rows = found[f"tables/{file_name(schema, name)}"]
            got = b"".join(csv(rows, lambda start, length: [dump[start : start + length]]))  # noqa: B023
            assert got.decode() == want, (relation, options)


def test_a_partitioned_table_s_csv_needs_one_order_of_columns(server: PostgresServer) -> None:
    dump = dump_of(server)
    found = table_rows(scan(dump))
    with pytest.raises(Refused, match="different orders"):
        b"".join(csv(found[f"tables/{file_name('shop', 'parts')}"], lambda start, length: []))
    server.psql("CREATE DATABASE many")
    server.psql(
        "CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);"
        "CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2); INSERT INTO p VALUES (1), (2)",
        "many",
    )
    dump = dump_of(server, database="many")
    rows = table_rows(scan(dump))[f"tables/{file_name('public', 'p')}"]
    assert b"".join(csv(rows, lambda start, length: [dump[start : start + length]])) == b"a\n1\n2\n"
    server.psql("DROP DATABASE many")
