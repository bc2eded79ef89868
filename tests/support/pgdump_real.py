"""Dumps of a real PostgreSQL: which tables they have, and that each loads by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.virtual_file import VirtualFile
from support.database import PostgresServer, postgres_server
from support.postgres_examples import identifier, literal
from support.scratch import open_folder

RICH = 'rich "data" base'


SHOP = [
    ("shop", name)
    for name in (
        "orders",
        "customers",
        "child",
        "parts",
        "parts_eu_25",
        "uses_free",
        "needs_view",
        "nothing",
        "one",
    )
]


@contextmanager
def cluster() -> Iterator[PostgresServer]:
    """Where the server's own user may go, unlike pytest's folders."""
    with open_folder() as folder, postgres_server(folder / "s") as one:
        yield one


def content(file: VirtualFile, dump: bytes) -> bytes:
    parts = file.parts(0, file.size)
    return b"".join(
        part.data if part.data is not None else dump[part.disk : part.disk + part.length] for part in parts
    )


DESCRIBE = """
SELECT 'column', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
  pg_get_expr(d.adbin, d.adrelid), a.attstorage, a.attstattarget, col_description(a.attrelid, a.attnum)
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attrelid = {0} AND a.attnum > 0 AND NOT a.attisdropped;
SELECT 'index', pg_get_indexdef(indexrelid), indisclustered, indisreplident, obj_description(indexrelid)
  FROM pg_index WHERE indrelid = {0};
SELECT 'constraint', conname, pg_get_constraintdef(oid), convalidated, obj_description(oid) FROM pg_constraint
  WHERE conrelid = {0} AND (contype <> 'f' OR confrelid = conrelid);
SELECT 'trigger', pg_get_triggerdef(oid), tgenabled, obj_description(oid) FROM pg_trigger
  WHERE tgrelid = {0} AND NOT tgisinternal;
SELECT 'rule', pg_get_ruledef(oid) FROM pg_rewrite WHERE ev_class = {0};
SELECT 'policy', polname, pg_get_expr(polqual, polrelid) FROM pg_policy
  WHERE polrelid = {0} AND polroles = '{{0}}';
SELECT 'statistics', pg_get_statisticsobjdef(oid), stxstattarget, obj_description(oid) FROM pg_statistic_ext
  WHERE stxrelid = {0};
SELECT 'table', relpersistence, relreplident, relrowsecurity, obj_description(oid, 'pg_class') FROM pg_class
  WHERE oid = {0};
"""


SEQUENCES = """
SELECT DISTINCT format(
    'SELECT ''sequence'', %L, last_value, is_called, obj_description(%s, ''pg_class'') FROM %s',
    d.refobjid::regclass, d.refobjid::oid, d.refobjid::regclass)
  FROM pg_depend d JOIN pg_class c ON c.oid = d.refobjid AND c.relkind = 'S'
  WHERE d.classid = 'pg_attrdef'::regclass AND d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = {0})
UNION SELECT format('SELECT ''identity'', %L, last_value, is_called FROM %s',
    d.objid::regclass, d.objid::regclass)
  FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
  WHERE d.deptype = 'i' AND d.refobjid = {0} \\gexec
"""


ROWS = """
SELECT format('COPY (SELECT t FROM %s %s t ORDER BY t::text) TO STDOUT',
    CASE relkind WHEN 'r' THEN 'ONLY' END, oid::regclass)
  FROM pg_class WHERE oid = {0} AND relkind <> 'f' \\gexec
"""


def describe(server: PostgresServer, database: str, schema: str, name: str) -> list[str]:
    """Everything that a table's file must bring back, its rows included."""
    relation = f"{identifier(schema)}.{identifier(name)}"
    oid = f"{literal(relation)}::regclass"
    ask = "SET search_path = ''; SET client_min_messages = error; SET row_security = off;\n"
    found = server.psql(ask + (DESCRIBE + SEQUENCES + ROWS).format(oid), database)
    return sorted(found.split("\n"))


def check_file(server: PostgresServer, other: PostgresServer, sql: bytes, table: tuple[str, str]) -> None:
    """Load a table's file into an empty database, and compare with the original."""
    load(other, sql)
    if table not in ORIGINALS:
        ORIGINALS[table] = describe(server, RICH, *table)
    assert describe(other, "single", *table) == ORIGINALS[table], table


ORIGINALS: dict[tuple[str, str], list[str]] = {}


def load(server: PostgresServer, sql: bytes) -> None:
    """Into an empty database of its own, called "single"."""
    server.psql("DROP DATABASE IF EXISTS single; CREATE DATABASE single TEMPLATE template0;")
    server.tool(
        "psql", "-Xq", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", "single", "-f", "-", stdin=sql
    )


def tables_of(catalogue: Catalogue) -> list[tuple[str, str]]:
    return [s.table for s in catalogue.sections if s.table and s.type in ("TABLE", "FOREIGN TABLE")]


def dump_of(server: PostgresServer, *options: str, database: str = RICH) -> bytes:
    name = database.replace("\\", "\\\\").replace("'", "\\'")
    return server.tool("pg_dump", *options, "-d", f"dbname='{name}'")
