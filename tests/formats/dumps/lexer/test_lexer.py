"""The lexer of SQL dumps: equal to its plain Python twin whatever the stream and its feeds; cases by name."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.formats.dumps.lexer._lexer import (
    COMMAND,
    COMMENT,
    META,
    MYSQL,
    POSTGRESQL,
    ROWS_BEGIN,
    ROWS_END,
    SQLITE,
    STATEMENT,
    Lexer,
)
from support import lexer_twin

Event = tuple[int, int, int, bytes]
DIALECTS = [POSTGRESQL, MYSQL, SQLITE]


def lex(
    dialect: int, stream: bytes, limit: int = 1 << 20, cuts: Sequence[int] = ()
) -> tuple[list[Event], str]:
    lexer = Lexer(dialect, limit)
    events: list[Event] = []
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in pairwise(borders):
        events += lexer.feed(stream[start:end])
    return events + lexer.finish(), lexer.state


def pieces(dialect: int, stream: bytes) -> list[tuple[int, bytes]]:
    """Kinds and texts; of rows, their bytes. Checks that texts are the stream's."""
    events, state = lex(dialect, stream)
    if len(stream) < 1000:
        assert lex(dialect, stream, cuts=range(len(stream))) == (events, state)
    found = []
    for kind, start, end, text in events:
        if kind == ROWS_BEGIN:
            assert start == end
        elif kind == ROWS_END:
            assert stream[start:end].startswith(text)
            found.append((kind, stream[start:end]))
        elif kind == COMMAND:
            assert text == stream[start:end][:64]
        else:
            assert text == stream[start:end]
            found.append((kind, text))
    return found


# ---- the law -------------------------------------------------------------------------------------

ATOMS = [
    *b"'\"`[]$\\;-#/*()., \n\r\0\xff\xc3a1E=",
    *(b"''", b'""', b"--", b"-- ", b"/*", b"*/", b"/*!50003 ", b"/*M!", b"/*M!999999\\- x */", b"*/;;"),
    *(b"$$", b"$a$", b"$1", b"E'", b"\\'", b"\\.", b"\n\\.\n", b"\n\\.\r\n", b"\n", b"\r\n", b";\n", b";;"),
    *(b"COPY t ", b"FROM stdin", b" stdin;\n", b"COPY a.b (c) FROM stdin;\n", b"1\t\\N\n", b"\\connect a\n"),
    *(b"INSERT INTO ", b"INSERT", b"REPLACE INTO ", b"VALUES", b" VALUES (", b"VALUE ", b"SELECT ", b"t"),
    *(b"INSERT INTO t VALUES (1, 'a;b');\n", b"INSERT INTO t VALUES(2);", b'INSERT INTO "t" (a,b) VALUES '),
    *(b"INSERT INTO public.t DEFAULT VALUES;\n", b" OVERRIDING SYSTEM VALUE ", b"INTO", b"VALUESx", b"_x"),
    *(
        b"DELIMITER ;;\n",
        b"DELIMITER ;\n",
        b"delimiter $$\n",
        b"DELIMITER a1\n",
        b"DELIMITER '\n",
        b"DELIMITER ",
    ),
    *(
        b"CREATE ",
        b"TEMP ",
        b"TRIGGER x ",
        b"BEGIN ",
        b"END",
        b"END;",
        b"CASE ",
        b"OR REPLACE ",
        b"FUNCTION f() ",
    ),
    *(b"\n.shell x\n", b"\n#", b"\n.", b"\ngo\n", b" \\! touch x\n", b"\\N", b"stdin; \\! x\n"),
    *(
        b"PROCEDURE ",
        b"CREATE RULE r DO (a; b);",
        b"BEGIN ATOMIC ",
        b"\\restrict K\n",
        b"SET ",
        b"off;",
        b"on;",
    ),
    *(b"SET standard_conforming_strings = off;\n", b"SET standard_conforming_strings TO 'on';"),
    *(
        b"x" * 70,
        b"'" + b"y" * 66,
        b"z" * 64 + b"'",
        b"\\" * 65,
        b"1" * 66,
        b"(1,'abc',-2,NULL),",
        b"--\n-- c\n--\n",
    ),
]
atoms = st.sampled_from([bytes([a]) if isinstance(a, int) else a for a in ATOMS])
streams = st.one_of(
    st.lists(atoms, max_size=60).map(b"".join),
    st.lists(st.one_of(atoms, st.binary(max_size=5)), max_size=30).map(b"".join),
    st.builds(
        lambda lead, rows: lead + b"".join(rows),
        st.sampled_from([b"INSERT INTO t VALUES (", b"COPY t FROM stdin;\n"]),
        st.lists(atoms, max_size=60),
    ),
)


@given(
    dialect=st.sampled_from(DIALECTS),
    stream=streams,
    limit=st.sampled_from([64, 65, 100, 1 << 20]),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
@example(dialect=POSTGRESQL, stream=b"INSERT INTO t VALUES " + b"1" * 90 + b"$$;$$;", limit=64, cuts=[30, 60])
@example(dialect=MYSQL, stream=b"INSERT INTO t VALUES ('" + b"\\" * 129 + b"';');", limit=64, cuts=[])
@example(dialect=MYSQL, stream=b"DELIMITER #\n-- a\n# b\n", limit=64, cuts=[])
@example(dialect=MYSQL, stream=b"INSERT INTO t VALUES ('" + b"\\\\');" + b" " * 99, limit=64, cuts=[])
def test_the_events_are_the_twins_whatever_the_feeds(
    dialect: int, stream: bytes, limit: int, cuts: list[int]
) -> None:
    wanted = lexer_twin.lex(dialect, stream, limit)
    assert lex(dialect, stream, limit) == wanted
    assert lex(dialect, stream, limit, cuts) == wanted
    assert lex(dialect, stream, limit, range(len(stream))) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS)
def test_long_random_streams_are_lexed_as_by_the_twin(dialect: int) -> None:
    rng = random.Random(dialect)
    choice = [bytes([a]) if isinstance(a, int) else a for a in ATOMS]
    for _ in range(1500):
        stream = b"".join(rng.choices(choice, k=rng.randrange(120)))
        if rng.random() < 0.4:
            stream = rng.choice([b"INSERT INTO t VALUES ", b"COPY t FROM stdin;\n"]) + stream
        limit = rng.choice([64, 80, 1 << 20])
        wanted = lexer_twin.lex(dialect, stream, limit)
        cuts = [rng.randrange(len(stream) + 1) for _ in range(rng.randrange(9))]
        assert lex(dialect, stream, limit, cuts) == wanted, stream


def test_pieces_are_in_order_and_leave_only_whitespace_out() -> None:
    insert = b" INSERT INTO t VALUES (1);\n"
    stream = b"-- a\n\n  SELECT 1 ;\tSELECT 2;\\x\n" + insert + insert + b"\r\n/* c */ "
    covered = bytearray(stream)
    last = 0
    for kind, start, end, _ in lex(POSTGRESQL, stream)[0]:
        if kind not in (ROWS_BEGIN, COMMAND):
            assert last <= start < end
            covered[start:end] = b" " * (end - start)
            last = end
    assert not covered.strip()


# ---- PostgreSQL ----------------------------------------------------------------------------------


def test_copy_data_ends_only_at_a_line_of_backslash_and_dot() -> None:
    copy = b"COPY public.t (a) FROM stdin;\n"
    data = b"\\.x\n x\\.\n\\N\n;'\"$$/*\n\\\\.\n\\.\n"
    assert pieces(POSTGRESQL, copy + data + b"SELECT 1;") == [
        (STATEMENT, copy.strip()),
        (ROWS_END, data),
        (STATEMENT, b"SELECT 1;"),
    ]
    crlf = (copy + data).replace(b"\n", b"\r\n")
    assert pieces(POSTGRESQL, crlf)[1] == (ROWS_END, data.replace(b"\n", b"\r\n"))


def test_copy_without_rows_has_only_its_closing_line() -> None:
    assert lex(POSTGRESQL, b"COPY t FROM stdin;\n\\.\n") == (
        [
            (STATEMENT, 0, 18, b"COPY t FROM stdin;"),
            (ROWS_BEGIN, 19, 19, b""),
            (ROWS_END, 19, 22, b""),
        ],
        "",
    )


@pytest.mark.parametrize("end", [b"", b"1\n", b"1\n\\", b"1\n\\.", b"1\n\\.\r", b"1"])
def test_a_stream_that_ends_within_copy_data_is_unfinished_rows(end: bytes) -> None:
    stream = b"COPY t FROM stdin;\n" + end
    events, state = lex(POSTGRESQL, stream)
    assert events[-1] == (ROWS_END, 19, len(stream), b"")
    assert state == "rows"


def test_a_backslash_dot_line_within_quotes_ends_nothing() -> None:
    stream = b"SELECT '\n\\.\n;', $x$\n\\.\n;$x$;"
    assert pieces(POSTGRESQL, stream) == [(STATEMENT, stream)]


@pytest.mark.parametrize(
    "statement",
    [
        b"SELECT 'it''s; a -- \\';",
        b"SELECT E'it\\'s; a' || e'''\\\\';",
        b"SELECT $$;$$, $a$ $$ ; $b$ $a$, $1, a$b$;",
        b'SELECT ";""-- ";',
        b"SELECT 1 /* ; /* ; */ ; */ -- ;\n;",
        b"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);",
        b"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;",
        b"create or replace procedure p() begin atomic select 1; end;",
        b"COPY t TO stdout;",
        b"COPY (SELECT 1 FROM stdin) TO stdout;",
        b"INSERT INTO t SELECT * FROM u;",
        b"INSERT INTO t (VALUES (1));",
        b"INSERT INTO t /* x */ VALUES (1);",
        b"WITH a AS (SELECT 1) INSERT INTO t VALUES (1);",
        b"SELECT '\xff\0;\r';",
    ],
)
def test_postgresql_statement_is_one_piece(statement: bytes) -> None:
    assert pieces(POSTGRESQL, statement + b"\nSELECT 1;") == [
        (STATEMENT, statement),
        (STATEMENT, b"SELECT 1;"),
    ]


def test_a_dollar_quote_has_a_tag_of_at_most_1024_bytes() -> None:
    for tag, pieces_found in ((b"$" + b"t" * 1022 + b"$", 1), (b"$" + b"t" * 1023 + b"$", 2)):
        stream = b"SELECT " + tag + b";" + tag + b";"
        assert len(pieces(POSTGRESQL, stream)) == pieces_found
        assert lex(POSTGRESQL, stream, cuts=range(0, 3000, 7)) == lexer_twin.lex(POSTGRESQL, stream)


def test_strings_have_escapes_while_standard_conforming_strings_is_off() -> None:
    off, on = b"SET standard_conforming_strings = off;", b"set session STANDARD_CONFORMING_STRINGS to 'on';"
    assert [text for _, text in pieces(POSTGRESQL, off + b"SELECT '\\';';" + on + b"SELECT '\\';")] == [
        off,
        b"SELECT '\\';';",
        on,
        b"SELECT '\\';",
    ]


def test_lines_for_psql_are_pieces_without_their_newline() -> None:
    assert pieces(POSTGRESQL, b'\\restrict KEY\r\n\\connect "we""ird;\'"\nSELECT 1;') == [
        (META, b"\\restrict KEY"),
        (META, b'\\connect "we""ird;\'"'),
        (STATEMENT, b"SELECT 1;"),
    ]


@pytest.mark.parametrize(
    ("dialect", "lead"),
    [
        (POSTGRESQL, b"INSERT INTO public.t VALUES"),
        (POSTGRESQL, b'INSERT INTO "a b"."c""d" (x, "values") OVERRIDING SYSTEM VALUE VALUES'),
        (POSTGRESQL, b"INSERT INTO public.t DEFAULT VALUES"),
        (POSTGRESQL, b"insert into public.t\n(a,b)\nvalues"),
        (MYSQL, b"INSERT IGNORE INTO `a;b``c` (`x`) VALUES"),
        (MYSQL, b"REPLACE INTO `t` VALUES"),
        (MYSQL, b"INSERT INTO t () VALUE"),
        (SQLITE, b"INSERT INTO [a;b] VALUES"),
        (SQLITE, b'INSERT OR REPLACE INTO "a" VALUES'),
    ],
)
def test_inserts_with_the_same_lead_are_one_run_of_rows(dialect: int, lead: bytes) -> None:
    rows = [b" (1, ';\n VALUES -- /* ''');\n", b"(2)\r\n,(3);", b"\n(-4, NULL);"]
    run = b"".join(lead + row for row in rows)
    events, state = lex(dialect, run + b"\nSELECT 1;")
    assert events[:2] == [(ROWS_BEGIN, 0, 0, lead), (ROWS_END, 0, len(run), lead)]
    assert [kind for kind, *_ in events[2:]] == [STATEMENT]
    assert state == ""


def test_another_lead_or_a_comment_between_ends_the_rows() -> None:
    a, b = b"INSERT INTO a VALUES (1);", b"INSERT INTO ab VALUES (1);"
    assert pieces(SQLITE, a + a + b + b"-- x\n" + b + b"INSERT INTO ab VALUESx;") == [
        (ROWS_END, a + a),
        (ROWS_END, b),
        (COMMENT, b"-- x"),
        (ROWS_END, b),
        (STATEMENT, b"INSERT INTO ab VALUESx;"),
    ]


def test_rows_begin_as_soon_as_the_lead_is_known() -> None:
    lexer = Lexer(POSTGRESQL)
    assert lexer.feed(b"INSERT INTO t VALUES") == []
    assert lexer.feed(b" ") == [(ROWS_BEGIN, 0, 0, b"INSERT INTO t VALUES")]
    assert lexer.state == "rows"
    assert lexer.feed(b"(1);") == []
    assert lexer.finish() == [(ROWS_END, 0, 25, b"INSERT INTO t VALUES")]
    assert lexer.state == ""


def test_an_insert_with_a_lead_of_more_than_64_kib_is_a_statement() -> None:
    for columns, kind in ((65_513, ROWS_END), (65_514, STATEMENT)):
        stream = b"INSERT INTO t (" + b"c" * columns + b") VALUES (1);"
        assert pieces(POSTGRESQL, stream) == [(kind, stream)]
        assert lex(POSTGRESQL, stream * 2, cuts=range(0, 140_000, 999)) == lexer_twin.lex(
            POSTGRESQL, stream * 2
        )


# ---- MySQL, SQLite -------------------------------------------------------------------------------


def test_mariadbs_first_line_is_a_comment_of_its_own() -> None:
    assert pieces(
        MYSQL, b"/*M!999999\\- enable the sandbox mode */ \n-- MariaDB\n--\n/*!40101 SET a='b;' */;"
    ) == [
        (COMMENT, b"/*M!999999\\- enable the sandbox mode */"),
        (COMMENT, b"-- MariaDB\n--"),
        (STATEMENT, b"/*!40101 SET a='b;' */;"),
    ]


def test_the_delimiter_in_force_ends_statements() -> None:
    trigger = b"/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TRIGGER x BEGIN a; /* ;; */ END */;;"
    assert pieces(
        MYSQL, b"DELIMITER ;;\n" + trigger + b"\nDELIMITER ;\nSELECT 1;delimiter $$\r\nx END$$"
    ) == [
        (META, b"DELIMITER ;;"),
        (STATEMENT, trigger),
        (META, b"DELIMITER ;"),
        (STATEMENT, b"SELECT 1;"),
        (META, b"delimiter $$"),
        (STATEMENT, b"x END$$"),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        b"SELECT 'a\\';', \"b\\\";\", 'c'';', `d\\`;",
        b"SELECT 5--1, '--;' -- ;\n# ;\n;",
        b"/*!50001 CREATE VIEW v */\n/*!50013 SQL SECURITY DEFINER */\n/*!50001 AS SELECT 1 */;",
        b"INSERT INTO t SET a = 'VALUES (1)';",
        b"INSERT INTO t SELECT 1;",
    ],
)
def test_mysql_statement_is_one_piece(statement: bytes) -> None:
    assert pieces(MYSQL, statement + b"\nSELECT 1;") == [(STATEMENT, statement), (STATEMENT, b"SELECT 1;")]


def test_sqlite_trigger_goes_to_its_end() -> None:
    trigger = (
        b"CREATE TEMP TRIGGER x BEFORE INSERT ON t BEGIN SELECT 'END;'; SELECT CASE 1 WHEN 1 THEN 2 END; END;"
    )
    assert pieces(SQLITE, trigger + b"SELECT 1;") == [(STATEMENT, trigger), (STATEMENT, b"SELECT 1;")]


# ---- the end of the stream, limits, misuse -------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "stream", "state"),
    [
        (POSTGRESQL, b"SELECT 1", "statement"),
        (POSTGRESQL, b"SELECT '1;", "string"),
        (POSTGRESQL, b'SELECT "1;', "quoted name"),
        (POSTGRESQL, b"SELECT $a$;$", "dollar quote"),
        (POSTGRESQL, b"SELECT /* /* */ ;", "comment"),
        (POSTGRESQL, b"/* /* */", "comment"),
        (POSTGRESQL, b"INSERT INTO t VALUES", "rows"),
        (MYSQL, b'SELECT "1;', "string"),
        (MYSQL, b"SELECT `1;", "quoted name"),
        (MYSQL, b"INSERT INTO t VALUES (1); INSERT INTO t VALUES ('", "rows"),
        (POSTGRESQL, b"-- x", ""),
        (POSTGRESQL, b"\\q", ""),
        (SQLITE, b"COMMIT;\n ", ""),
        (SQLITE, b"", ""),
    ],
)
def test_the_end_of_the_stream_tells_what_is_unfinished(dialect: int, stream: bytes, state: str) -> None:
    events, found = lex(dialect, stream)
    assert found == state
    if stream and state:
        assert events[-1][2] == len(stream)


def test_text_is_cut_at_the_limit_and_offsets_are_not() -> None:
    stream = b"SELECT '" + b"x" * 1000 + b"';"
    assert lex(POSTGRESQL, stream, 100, range(0, 1000, 7)) == ([(STATEMENT, 0, 1010, stream[:100])], "")


@pytest.mark.parametrize(
    "begin", [b"INSERT INTO t VALUES ('", b"SELECT '", b"COPY t FROM stdin;\n", b"-- ", b"$"]
)
def test_memory_does_not_grow_with_a_statement_without_end(begin: bytes) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:  # noqa: PTH123  one line
            return int(file.read().split()[1]) << 12

    lexer = Lexer(POSTGRESQL)
    block = b"abc" * (1 << 18)
    lexer.feed(begin)
    for _ in range(4):
        lexer.feed(block)
    before = resident()
    for _ in range(200):
        assert lexer.feed(block) == []
    assert resident() - before < 8 << 20


def test_bad_arguments_and_a_lexer_that_has_ended_are_refused() -> None:
    for dialect, limit in ((0, 64), (4, 64), (SQLITE, 63), (SQLITE, (1 << 30) + 1)):
        with pytest.raises(ValueError, match=r"dialect|text_limit"):
            Lexer(dialect, limit)
    lexer = Lexer(SQLITE)
    with pytest.raises(TypeError):
        lexer.feed("text")  # type: ignore[arg-type]  # on purpose
    assert lexer.feed(memoryview(b"SELECT")) == lexer.feed(bytearray(b" 1")) == []
    assert lexer.finish() == [(STATEMENT, 0, 8, b"SELECT 1")]
    for call in (lexer.finish, lambda: lexer.feed(b"")):
        with pytest.raises(ValueError, match="ended"):
            call()


def test_lexers_work_side_by_side_in_threads() -> None:
    stream = b"".join(b"INSERT INTO t%d VALUES (%d, 'x;y');\n" % (i // 100, i) for i in range(20_000))
    wanted = lex(MYSQL, stream)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == wanted for found in pool.map(lambda _: lex(MYSQL, stream), range(8)))
