"""What statements of a PostgreSQL dump do: told from their text, however they are named."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.dumps.core.catalogue import Catalogue
from holdfast.formats.dumps.core.scan import Scanner
from holdfast.formats.dumps.postgresql.plain.files import files
from holdfast.formats.dumps.postgresql.plain.scan import PostgresVisitor
from holdfast.formats.dumps.postgresql.plain.statement import ANY_EXTENSION, classify
from holdfast.formats.dumps.postgresql.plain.text import as_bytes, mentions, parts_of, qualified, quoted

T = ("s", "t")
HEAD = b"--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n"
END = b"--\n-- PostgreSQL database dump complete\n--\n\n"


@pytest.mark.parametrize(
    ("text", "type_", "schema", "name", "table"),
    [
        ("CREATE TABLE s.t (a int);", "TABLE", "s", "t", T),
        ("CREATE UNLOGGED TABLE S.T (a int);", "TABLE", "s", "t", T),
        ("CREATE FOREIGN TABLE s.t (a int) SERVER x;", "FOREIGN TABLE", "s", "t", T),
        ("CREATE UNIQUE INDEX \" ON x.y \" ON ONLY s.t USING btree (a);", "INDEX", "s", " ON x.y ", T),
        ("CREATE TRIGGER x BEFORE UPDATE OF a ON s.t EXECUTE FUNCTION s.f();", "TRIGGER", "s", "x", T),
        ("CREATE CONSTRAINT TRIGGER x AFTER INSERT ON s.t FROM s.u NOT DEFERRABLE", "TRIGGER", "s", "x", T),
        ("CREATE RULE \"TO\" AS ON DELETE TO s.t DO INSTEAD NOTHING;", "RULE", "s", "TO", T),
        ("CREATE POLICY p ON s.t FOR SELECT USING (true);", "POLICY", "s", "p", T),
        ("CREATE STATISTICS z.x ON (extract(year FROM d)), b FROM s.t;", "STATISTICS", "z", "x", T),
        ("ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY (a);", "CONSTRAINT", "s", "c", T),
        ("ALTER TABLE s.t ADD CONSTRAINT c CHECK (true) NOT VALID;", "CHECK CONSTRAINT", "s", "c", T),
        ("ALTER TABLE s.t ADD CONSTRAINT c NOT NULL a;", "CONSTRAINT", "s", "c", T),
        ("ALTER TABLE s.t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES s.u(b);", "FK CONSTRAINT", "s", "c", T),
        ("ALTER TABLE ONLY s.t ALTER COLUMN a SET DEFAULT 1;", "DEFAULT", "s", "a", T),
        ("ALTER TABLE s.t ALTER COLUMN a DROP DEFAULT;", "DROP", "s", "t", T),
        ("ALTER TABLE IF EXISTS ONLY s.t DROP CONSTRAINT c;", "DROP", "s", "t", T),
        ("ALTER TABLE ONLY s.p ATTACH PARTITION s.t DEFAULT;", "TABLE ATTACH", "s", "t", ("s", "p")),
        ("ALTER INDEX s.i ATTACH PARTITION s.j;", "INDEX ATTACH", "s", "j", None),
        ("ALTER TABLE s.t ALTER a ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME q", "SEQUENCE", "", "q", T),
        ("ALTER TABLE s.t ENABLE ROW LEVEL SECURITY;", "ROW SECURITY", "s", "t", T),
        ("ALTER TABLE ONLY s.t FORCE ROW LEVEL SECURITY;", "ROW SECURITY", "s", "t", T),
        ("ALTER TABLE s.t DISABLE TRIGGER ALL;", "TRIGGERS", "s", "t", T),
        ("ALTER TABLE s.t ENABLE ALWAYS TRIGGER \"ALL\";", "ALTER TABLE", "s", "t", T),
        ("ALTER TABLE ONLY s.t REPLICA IDENTITY FULL;", "ALTER TABLE", "s", "t", T),
        ("ALTER SEQUENCE s.q OWNED BY s.t.a;", "SEQUENCE OWNED BY", "s", "q", T),
        ("ALTER FUNCTION s.f(a int, VARIADIC b int[]) OWNER TO \"SET\";", "OWNER", "s", "f", None),
        ("COMMENT ON COLUMN s.t.\"a.b\" IS 'x';", "COMMENT", "s", "t", T),
        ("COMMENT ON CONSTRAINT c ON s.t IS 'x';", "COMMENT", "s", "c", T),
        ("COMMENT ON CONSTRAINT c ON DOMAIN s.d IS 'x';", "COMMENT", "s", "d", None),
        ("COMMENT ON LARGE OBJECT 5 IS 'x';", "LARGE OBJECT", "", "", None),
        ("GRANT SELECT(a),INSERT(b) ON TABLE s.t TO \"ON\";", "ACL", "s", "t", T),
        ("REVOKE ALL ON FUNCTION s.f(int) FROM PUBLIC;", "ACL", "s", "f", None),
        ("GRANT a TO b WITH ADMIN OPTION GRANTED BY c;", "ROLE MEMBERSHIP", "", "", None),
        ("SELECT pg_catalog.setval('s.\"it''s\"', 3, true);", "SEQUENCE SET", "s", "it's", None),
        ("SELECT pg_catalog.set_config('search_path', '', false);", "SET", "", "search_path", None),
        ("SELECT * FROM pg_catalog.pg_restore_relation_stats('schema');", "STATISTICS DATA", "", "", None),
        ("COPY s.t (a, \"b)\") FROM stdin;", "TABLE DATA", "s", "t", T),
        ("INSERT INTO s.t (a) OVERRIDING SYSTEM VALUE VALUES", "TABLE DATA", "s", "t", T),
        ("REFRESH MATERIALIZED VIEW s.t;", "MATERIALIZED VIEW DATA", "s", "t", T),
        ("CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\" WITH SCHEMA s;", "EXTENSION", "s", "uuid-ossp", None),
        ("CREATE OPERATOR s.<=> (FUNCTION = s.f);", "OPERATOR", "s", "<=>", None),
        ("CREATE OPERATOR CLASS s.o FOR TYPE s.t USING hash AS STORAGE x;", "OPERATOR CLASS", "s", "o", None),
        ("CREATE DEFAULT CONVERSION s.c FOR 'UTF8' TO 'LATIN1' FROM f;", "CONVERSION", "s", "c", None),
        ("CREATE TEXT SEARCH CONFIGURATION s.c (PARSER = x);", "TEXT SEARCH CONFIGURATION", "s", "c", None),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE a GRANT SELECT ON TABLES TO b;", "DEFAULT ACL", "", "", None),
        ("ALTER PUBLICATION p ADD TABLE ONLY s.t;", "PUBLICATION TABLE", "", "p", None),
        ("SECURITY LABEL ON TABLE s.t IS 'x';", "SECURITY LABEL", "", "", None),
        ("VACUUM;", "OTHER", "", "", None),
        ("", "OTHER", "", "", None),
    ],
)  # fmt: skip
def test_a_statement_s_text_tells_what_it_does(
    text: str, type_: str, schema: str, name: str, table: tuple[str, str] | None
) -> None:
    found = classify(text.encode())
    assert (found.type, found.schema, found.name, found.table) == (type_, schema, name, table)


def test_what_a_statement_needs_is_what_it_names_outside_of_literals() -> None:
    text = b"""CREATE TABLE s.t (a s."My.Type", b int DEFAULT nextval('z."q''q"'::regclass),
        c text DEFAULT 'x.y',
        d text DEFAULT e'\\'x.y', e int CHECK (e OPERATOR(ops.===) s.f(e)) -- x.y
        /* x.y */) INHERITS ("p""p".q);"""
    found = classify(text)
    assert found.needs == ('s."My.Type"', "z.q'q", "ops.===", "s.f", '"p""p".q')
    assert found.extra["columns"] == ["a", "b", "c", "d", "e"]
    assert found.extra["parents"] == [('p"p', "q")]


def test_bodies_of_functions_are_told_apart_from_their_heads() -> None:
    found = classify(
        b"CREATE FUNCTION s.f(a s.x) RETURNS int LANGUAGE plperl AS $_$ SELECT s.g(1), 'h.h' $_$;"
    )
    assert found.needs == ("s.x", "PROCEDURAL LANGUAGE plperl", ANY_EXTENSION)
    assert found.extra["body"] == ("s.g",)


def test_gist_indexes_may_need_an_extension_that_they_do_not_name() -> None:
    assert classify(b"CREATE INDEX i ON s.t USING gist (a);").needs == ("s.t", ANY_EXTENSION)
    assert classify(b"CREATE INDEX i ON s.t USING btree (a);").needs == ("s.t",)


def test_names_without_schema_are_in_the_search_path_of_old_dumps() -> None:
    assert classify(b"CREATE TABLE t (a mood);", "shop").table == ("shop", "t")
    assert "shop.mood" in classify(b"CREATE TABLE t (a mood);", "shop").needs


NAMES = st.text(st.sampled_from('ab.";$ \\\n-é/*') | st.characters(exclude_categories=["Cs"]), min_size=1)


@given(NAMES, NAMES)
def test_any_name_is_found_again(schema: str, name: str) -> None:
    relation = quoted(schema) + b"." + quoted(name)
    found = classify(b"CREATE TABLE " + relation + b" (a int);")
    assert found.table == (schema, name)
    assert parts_of(relation) == (schema, name)
    assert mentions(b"x " + relation + b" y")[0] in ((qualified(schema, name),), ())


@given(st.binary(max_size=200))
def test_no_bytes_are_an_error(text: bytes) -> None:
    for verb in (b"", b"CREATE TABLE ", b"ALTER TABLE ", b"COMMENT ON ", b"SELECT setval('", b"GRANT "):
        as_bytes(classify(verb + text).name)


@pytest.mark.parametrize(
    "text",
    [
        b" ",
        b"'",
        b'"',
        b"$a$b",
        b"a.",
        b"(",
        b"/*",
        b"--\n",
        b"e'\\'",
        b"a.b ",
        b"$$'$x$",
        b"'a''",
        b"+",
        b"::",
    ],
)
def test_a_hostile_megabyte_takes_no_more_than_seconds(text: bytes) -> None:
    start = time.process_time()
    for verb in (b"CREATE TABLE ", b"CREATE OPERATOR a.", b"CREATE FUNCTION f() AS ", b"ALTER TABLE a "):
        classify(verb + text * ((1 << 18) // len(text)))
    assert time.process_time() - start < 20


def scanned(dump: bytes) -> Catalogue:
    scanner = Scanner(PostgresVisitor())
    scanner.feed(dump)
    return scanner.finish()


def test_a_large_object_is_no_reason_for_a_larger_catalogue() -> None:
    pages = b"SELECT pg_catalog.lowrite(0, '\\x00');\n" * 5000
    dump = HEAD + b"BEGIN;\n\nSELECT pg_catalog.lo_open('1', 131072);\n" + pages + b"COMMIT;\n\n" + END
    found = scanned(dump)
    assert [s.type for s in found.sections] == ["SET", "LARGE OBJECT"]
    assert found.complete


def test_a_dump_that_another_one_follows_must_be_whole_too() -> None:
    table = b"CREATE TABLE public.t (a int);\n"
    assert scanned(HEAD + table + END + HEAD + table + END).complete
    assert "2 dumps of databases begin, 1 are complete" in scanned(HEAD + table + HEAD + table + END).fault


def test_a_database_is_named_as_psql_reads_it() -> None:
    hostile = b'\\connect -reuse-previous=on "dbname=\'it\\\'s ""x\'"'
    lines = [b"\\connect plain", b'\\connect "quo ted"', hostile]
    found = scanned(HEAD + b"\n".join(lines) + b"\n" + END)
    assert [s.name for s in found.sections if s.type == "CONNECT"] == ["plain", "quo ted", "it's \"x"]


def test_settings_of_an_old_dump_go_with_its_sections() -> None:
    dump = (
        HEAD
        + b"CREATE SCHEMA a;\nSET search_path = a, pg_catalog;\nCREATE TABLE t (x int);\n"
        + b"SET search_path = public, pg_catalog;\nCREATE TABLE t (y int);\n"
        + b"CREATE INDEX i ON t USING btree (y);\n"
        + b"SET search_path = a, pg_catalog;\nCOPY t (x) FROM stdin;\n1\n\\.\n"
        + END
    )
    made = files(scanned(dump), len(dump))
    found = b"".join(
        part.data or dump[part.disk : part.disk + part.length]
        for part in made["tables/a.t.sql"].parts(0, made["tables/a.t.sql"].size)
    )
    order = [b"search_path = a", b"CREATE TABLE t (x", b"search_path = a", b"COPY t (x)"]
    at = 0
    for text in order:
        at = found.index(text, at) + 1
    assert b"(y" not in found
    assert b'CREATE SCHEMA IF NOT EXISTS "a";' in found


def test_twenty_thousand_tables_are_a_matter_of_seconds() -> None:
    table = (
        "--\n-- Name: t{0}; Type: TABLE; Schema: public; Owner: postgres\n--\n\n"
        "CREATE TABLE public.t{0} (\n    id integer NOT NULL,\n    name text,\n"
        "\n    amount numeric(20,4) DEFAULT 0\n);\n\n"
        "ALTER TABLE public.t{0} OWNER TO postgres;\n\n"
        "CREATE SEQUENCE public.t{0}_id_seq\n    AS integer\n    START WITH 1;\n\n"
        "ALTER SEQUENCE public.t{0}_id_seq OWNED BY public.t{0}.id;\n\n"
        "ALTER TABLE ONLY public.t{0} ADD CONSTRAINT t{0}_pkey PRIMARY KEY (id);\n\n"
    )
    dump = HEAD + "".join(map(table.format, range(20_000))).encode() + END
    start = time.process_time()
    catalogue = scanned(dump)
    assert len(files(catalogue, len(dump))) == 20_001
    assert time.process_time() - start < 40  # measured: 3.5 s; 20,000 look-ups in a list would be minutes
