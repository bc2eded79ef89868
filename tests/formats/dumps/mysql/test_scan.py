"""Dumps of a real MariaDB: every table's file loads by itself and gives back the table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast.formats.dumps.core.names import file_name
from holdfast.formats.dumps.mysql.files import files
from holdfast.formats.dumps.mysql.scan import MysqlVisitor
from support.basics import random_bytes
from support.database import MariaServer, maria_server
from support.mysql_examples import LOOKS_LIKE, ODD, OTHER, SCHEMA, TABLES, content, quoted, rows, scan
from support.scratch import open_folder

OPTIONS = ("--max-allowed-packet=64M", "--log-bin=binlog", "--server-id=1")
CHANGES_DEFINITIONS = ("--skip-opt", "--compatible=ansi", "--no-create-info")


@pytest.fixture(scope="module")
def server() -> Iterator[MariaServer]:
    with open_folder() as folder, maria_server(folder / "s", OPTIONS) as running:
        running.sql(SCHEMA)
        running.sql(rows())
        yield running


def fresh(server: MariaServer) -> str:
    server.sql("DROP DATABASE IF EXISTS fresh; CREATE DATABASE fresh CHARACTER SET utf8mb4")
    return "fresh"


def load(server: MariaServer, database: str, sql: bytes) -> None:
    server.tool(
        "mariadb", "--max-allowed-packet=64M", "--default-character-set=utf8mb4", "-D", database, stdin=sql
    )


def state(server: MariaServer, database: str, table: str, *options: str) -> list[bytes]:
    """Definition, rows and triggers as the tool writes them, without the name of the database."""
    made = server.tool(
        "mariadb-dump",
        "--compact",
        "--hex-blob",
        "--order-by-primary",
        "--skip-extended-insert",
        "--max-allowed-packet=64M",
        *options,
        database,
        table,
    )
    for before in ("DEFAULT nextval(", "TRIGGER ", "ON "):
        for qualifier in (f"`{database}`.", f"{database}."):
            made = made.replace((before + qualifier).encode(), before.encode())
    return [line for line in made.splitlines() if not line.startswith(b"ALTER DATABASE")]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--skip-opt",),
        ("--skip-extended-insert",),
        ("--complete-insert",),
        ("--hex-blob",),
        ("--no-data",),
        ("--no-create-info", "--skip-triggers", "--skip-add-locks"),
        ("--routines", "--events", "--triggers"),
        ("--master-data=2",),
        ("--master-data=1", "--gtid", "--single-transaction"),
        ("--skip-tz-utc",),
        ("--skip-comments",),
        ("--skip-dump-date",),
        ("--order-by-primary", "--order-by-size"),
        ("--insert-ignore",),
        ("--replace",),
        ("--compact",),
        ("--no-autocommit",),
        ("--add-drop-trigger",),
        ("--skip-add-drop-table", "--skip-add-locks", "--skip-disable-keys"),
        ("--skip-set-charset",),
        ("--skip-triggers",),
        ("--databases",),
        ("--databases", "--add-drop-database", "--routines"),
    ],
    ids=" ".join,
)
def test_each_table_loads_by_itself_whatever_options_the_dump_was_made_with(
    server: MariaServer, options: tuple[str, ...]
) -> None:
    dump = server.tool("mariadb-dump", *options, "shop")
    catalogue = scan(MysqlVisitor(), dump)
    assert catalogue.engine == "mariadb"
    assert bool(catalogue.fault) == ("--skip-comments" in options or "--compact" in options), catalogue.fault
    made = files(catalogue, len(dump))
    # Without comments nothing says which database it was.
    schema = "" if catalogue.fault else "shop"
    paths = {table: f"tables/{file_name(schema, table)}.sql" for table in TABLES}
    if "--no-create-info" in options:
        paths.pop("empty_one") if paths["empty_one"] not in made else None
    assert {path for path in made if path.startswith("tables/")} == set(paths.values())
    same = [option for option in options if option in ("--no-data", "--no-create-info", "--skip-triggers")]
    if any(option in options for option in CHANGES_DEFINITIONS):
        same.append("--no-create-info")
    for table, path in paths.items():
        database = fresh(server)
        sql = content(made[path], dump)
        assert b"USE `" not in sql
        if "--no-create-info" in options:
            definition = server.tool("mariadb-dump", "--no-data", "--skip-triggers", "shop", "numbers", table)
            load(server, database, definition.replace(b"DEFAULT nextval(`shop`.", b"DEFAULT nextval("))
        load(server, database, sql)
        assert state(server, database, table, *same) == state(server, "shop", table, *same)
        sequences = table == "orders" or "--no-create-info" in options
        assert len(server.sql("SHOW TABLES", database).splitlines()) == 1 + sequences


def test_the_schema_loads_by_itself_and_has_everything_but_rows(server: MariaServer) -> None:
    dump = server.tool("mariadb-dump", "--routines", "--events", "--master-data=1", "shop")
    made = files(scan(MysqlVisitor(), dump), len(dump))
    schema = content(made["schema.sql"], dump)
    assert b"INSERT INTO" not in schema
    assert b"CHANGE MASTER" not in schema.replace(b"CHANGE-MASTER", b"")
    database = fresh(server)
    load(
        server,
        database,
        schema.replace(b"`shop`.", b"").replace(b"shop.", b"").replace(b"`shop`", b"`fresh`"),
    )
    for kind in ("TABLES", "TRIGGERS", "PROCEDURE STATUS WHERE Db = DATABASE()", "EVENTS"):
        names = [line.split("\t")[:2] for line in server.sql(f"SHOW {kind}", database).splitlines()]
        expected = [line.split("\t")[:2] for line in server.sql(f"SHOW {kind}", "shop").splitlines()]
        assert [name[-1] for name in names] == [name[-1] for name in expected]
    assert server.sql("SELECT count(*) FROM v0", database) == "0\n"


def test_all_databases_give_each_its_schema_and_tables_and_what_is_the_servers_to_globals(
    server: MariaServer,
) -> None:
    dump = server.tool("mariadb-dump", "--all-databases", "--master-data=1", "--flush-privileges")
    catalogue = scan(MysqlVisitor(), dump)
    assert not catalogue.fault
    made = files(catalogue, len(dump))
    assert {path for path in made if "/" not in path} == {
        "globals.sql",
        "shop.schema.sql",
        f"{file_name(OTHER)}.schema.sql",
    } | ({"fresh.schema.sql"} & set(made))
    everything = content(made["globals.sql"], dump)
    assert b"CREATE TABLE `global_priv`" in everything
    assert b"FLUSH PRIVILEGES" in everything
    assert b"CHANGE MASTER TO MASTER_LOG_FILE='binlog" not in everything
    assert catalogue.facts["binlog"].startswith("binlog.0000")
    for database, table in [*(("shop", table) for table in TABLES), (OTHER, ODD)]:
        to = fresh(server)
        load(server, to, content(made[f"tables/{file_name(database, table)}.sql"], dump))
        assert state(server, to, table) == state(server, database, table)


def test_accounts_are_in_globals_alone(server: MariaServer) -> None:
    dump = server.tool("mariadb-dump", "--system=users", "--databases", "shop")
    made = files(scan(MysqlVisitor(), dump), len(dump))
    assert b"CREATE USER `u`@`%`" in content(made["globals.sql"], dump)
    assert b"GRANT SELECT ON `shop`.* TO `u`@`%`" in content(made["globals.sql"], dump)
    others = [content(file, dump) for path, file in made.items() if path != "globals.sql"]
    assert len(others) == len(TABLES) + 1 + sum(path.startswith("tables/mysql.") for path in made)
    assert not any(b"`u`@`%`" in sql for sql in others)


def test_names_in_double_quotes_are_names(server: MariaServer) -> None:
    dump = server.tool("mariadb-dump", "--compatible=ansi", "shop", "parts", "customers")
    made = files(scan(MysqlVisitor(), dump), len(dump))
    for table in ("parts", "customers"):
        to = fresh(server)
        load(server, to, content(made[f"tables/shop.{table}.sql"], dump))
        ids = "SELECT count(*) FROM " + table
        assert server.sql(ids, to) == server.sql(ids, "shop")


def test_a_database_of_several_can_be_made_again_from_its_schema_and_tables(server: MariaServer) -> None:
    server.sql(
        "CREATE DATABASE one; CREATE TABLE one.t (a INT); INSERT INTO one.t VALUES (1); CREATE DATABASE two"
    )
    server.sql("CREATE VIEW two.v AS SELECT * FROM one.t")
    dump = server.tool("mariadb-dump", "--databases", "one", "two")
    made = files(scan(MysqlVisitor(), dump), len(dump))
    server.sql("DROP DATABASE one; DROP DATABASE two")
    server.tool("mariadb", stdin=content(made["one.schema.sql"], dump))
    server.tool("mariadb", stdin=content(made["two.schema.sql"], dump))
    load(server, "one", content(made["tables/one.t.sql"], dump))
    assert server.sql("SELECT * FROM two.v") == "1\n"
    server.sql("DROP DATABASE one; DROP DATABASE two")


def test_loading_one_table_leaves_its_namesakes_database_alone(server: MariaServer) -> None:
    before = state(server, "shop", "orders")
    collation = "SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = 'shop'"
    assert server.sql(collation) == "latin1_swedish_ci\n"
    dump = server.tool("mariadb-dump", "--databases", "shop")
    made = files(scan(MysqlVisitor(), dump), len(dump))
    numbers = server.sql("SELECT next_not_cached_value FROM numbers", "shop")
    database = fresh(server)
    sql = content(made["tables/shop.orders.sql"], dump)
    assert b"ALTER DATABASE" not in sql
    load(server, database, sql)
    assert server.sql(collation) == "latin1_swedish_ci\n"
    assert state(server, "shop", "orders") == before
    assert server.sql("SELECT next_not_cached_value FROM numbers", "shop") == numbers
    server.sql("INSERT INTO orders (id) VALUES (1000)", database)
    assert server.sql("SELECT n > 0, f FROM orders WHERE id = 1000", database) == "1\t3\n"
    assert server.sql("SELECT next_not_cached_value FROM numbers", "shop") == numbers


def test_a_row_of_20_mb_on_one_line_loads(server: MariaServer) -> None:
    database = "large"
    server.sql("CREATE DATABASE large; CREATE TABLE large.t (a INT PRIMARY KEY, b LONGBLOB, c INT)")
    blob = random_bytes(20 << 20, 1) + "".join(LOOKS_LIKE).encode()
    sql = b"INSERT INTO t VALUES (1, X'" + blob.hex().encode() + b"', 2), (2, 'x', 3);"
    server.tool(
        "mariadb", "--max-allowed-packet=64M", "--default-character-set=utf8mb4", "-D", database, stdin=sql
    )
    dump = server.tool("mariadb-dump", "--max-allowed-packet=64M", database)
    catalogue = scan(MysqlVisitor(), dump, step=300_001)
    assert not catalogue.fault
    to = fresh(server)
    load(server, to, content(files(catalogue, len(dump))["tables/large.t.sql"], dump))
    checksum = "SELECT a, MD5(b), LENGTH(b), c FROM t"
    assert server.sql(checksum, to) == server.sql(checksum, database)
    server.sql("DROP DATABASE large")


def test_history_of_versioned_tables_is_loaded_as_history(server: MariaServer) -> None:
    server.sql(
        "CREATE DATABASE past; USE past; CREATE TABLE t (a INT) WITH SYSTEM VERSIONING;"
        " INSERT INTO t VALUES (1); UPDATE t SET a = 2"
    )
    dump = server.tool("mariadb-dump", "--dump-history", "past")
    made = files(scan(MysqlVisitor(), dump), len(dump))
    to = fresh(server)
    load(server, to, content(made["tables/past.t.sql"], dump))
    assert server.sql("SELECT a FROM t FOR SYSTEM_TIME ALL ORDER BY a", to) == "1\n2\n"
    server.sql("DROP DATABASE past")


def test_borders_of_rows_are_told_so_that_unchanged_tables_cost_nothing(server: MariaServer) -> None:
    dump = server.tool("mariadb-dump", "shop")
    catalogue = scan(MysqlVisitor(), dump)
    data = [section for section in catalogue.sections if section.type == "TABLE DATA"]
    assert [section.name for section in data] == sorted(set(TABLES) - {"empty_one"})
    for section in data:
        found = dump[section.start : section.start + section.length]
        assert found.startswith(f"INSERT INTO {quoted(section.name)} VALUES".encode())
        assert found.rstrip().endswith(b");")
