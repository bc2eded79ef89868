"""A table's rows as CSV: COPY's text and INSERT statements, however they are cut into pieces."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, Refused
from holdfast.base.types import Buffer
from holdfast.formats.dumps.rows.copy_to_csv import copy_to_csv
from holdfast.formats.dumps.rows.postgres_insert_to_csv import insert_to_csv

VALUES = st.none() | st.text(
    st.sampled_from("ab,\"'\\\n\r\t\b\f\v .Nx0171é\U0001f600;()") | st.characters(exclude_categories=["Cs"]),
    max_size=12,
).filter(lambda value: "\0" not in value)
TABLES = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(VALUES, min_size=width, max_size=width), max_size=8)
)
STEPS = st.integers(1, 40)
ESCAPES = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def copied(rows: list[list[str | None]]) -> bytes:
    """As COPY ... TO writes it."""
    text = ""
    for row in rows:
        fields = ["\\N" if value is None else "".join(ESCAPES.get(c, c) for c in value) for value in row]
        text += "\t".join(fields) + "\n"
    return text.encode() + b"\\.\n"


def expected(rows: list[list[str | None]]) -> bytes:
    """The other way: field by field, by the documentation of COPY."""
    lines = []
    for row in rows:
        fields = []
        for value in row:
            quotes = value == "" or (value is not None and (set(value) & set(',"\n\r') or row == ["\\."]))
            fields.append('"' + str(value).replace('"', '""') + '"' if quotes else value or "")
        lines.append(",".join(fields) + "\n")
    return "".join(lines).encode()


def pieces(data: bytes, step: int) -> Iterator[Buffer]:
    for at in range(0, len(data), step):
        yield memoryview(data)[at : at + step]


def convert(columns: list[str], data: Iterable[Buffer], **options: int) -> bytes:
    return b"".join(copy_to_csv(columns, data, **options))


@given(TABLES, STEPS)
def test_any_rows_become_csv_in_any_pieces(rows: list[list[str | None]], step: int) -> None:
    names = [f"c{at}" for at in range(len(rows[0]) if rows else 1)]
    head = ",".join(names).encode() + b"\n"
    assert convert(names, pieces(copied(rows), step)) == head + expected(rows)


@given(TABLES, st.integers(20, 300))
def test_small_blocks_make_no_difference(rows: list[list[str | None]], size: int) -> None:
    names = [f"c{at}" for at in range(len(rows[0]) if rows else 1)]
    found = convert(names, pieces(copied(rows), 1 << 20), block=size)
    assert found.partition(b"\n")[2] == expected(rows)


@given(TABLES)
def test_python_s_csv_reader_finds_the_same_values(rows: list[list[str | None]]) -> None:
    found = convert(["a"], [copied(rows)]).partition(b"\n")[2].decode()
    read = list(csv.reader(io.StringIO(found, newline="")))
    assert [row or [""] for row in read] == [[value or "" for value in row] for row in rows]


@given(TABLES, STEPS)
def test_inserts_become_the_same_csv(rows: list[list[str | None]], step: int) -> None:
    statements = ""
    for at, row in enumerate(rows):
        values = ["NULL" if value is None else "'" + value.replace("'", "''") + "'" for value in row]
        if at % 3:  # several rows in one statement
            statements = statements.removesuffix(";\n") + f",\n\t({', '.join(values)});\n"
        else:
            statements += f'INSERT INTO "we.i""rd".t VALUES\n\t({", ".join(values)});\n'
    names = [f"c{at}" for at in range(len(rows[0]) if rows else 1)]
    found = b"".join(insert_to_csv(names, pieces(statements.encode(), step)))
    assert found.partition(b"\n")[2] == expected(rows)


def test_every_escape_of_copy_is_understood() -> None:
    rows = rb"\b\f\n\r\t\v\\" + b"\t" + rb"\101\x42\x4g\7x\q\N" + b"\n"
    assert convert(["a", "b"], [rows, b"\\.\n"]) == b'a,b\n"\b\f\n\r\t\v\\",AB\x04g\x07xqN\n'


def test_null_is_a_whole_field_only() -> None:
    assert convert(["a", "b"], [b"\\N\t\\Nt\n\\Nx\t\\N\n\\\\N\t\\N\n\\.\n"]) == b"a,b\n,Nt\nNx,\n\\N,\n"


def test_a_header_is_quoted_as_values_are() -> None:
    names = ['a"b', "c,d", "e\nf", "g"]
    assert convert(names, [b"\\.\n"]) == b'"a""b","c,d","e\nf",g\n'
    assert convert(["\\."], [b"\\.\n"]) == b'"\\."\n'


def test_a_table_without_columns_has_empty_lines() -> None:
    assert convert([], [b"\n\n\\.\n"]) == b"\n\n\n"
    inserts = b"INSERT INTO public.t DEFAULT VALUES;\n" * 2
    assert b"".join(insert_to_csv([], [inserts])) == b"\n\n\n"


def test_what_follows_the_closing_line_is_not_looked_at() -> None:
    assert convert(["a"], [b"1\n\\.\n\n\n", b"2\n"]) == b"a\n1\n"
    assert convert(["a"], [b"1\r\n\\.\r\n"]) == b"a\n1\n"
    assert convert(["a"], [b"1\n\\."]) == b"a\n1\n"


@pytest.mark.parametrize(
    "data", [b"", b"1\n", b"1\n2", b"1\n\\", b"1\x002\n\\.\n", b"\\000\n\\.\n", b"a\rb\n\\.\n", b"a\\\n\\.\n"]
)
def test_rows_that_are_cut_or_impossible_are_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        convert(["a"], [data])


@pytest.mark.parametrize(
    "data",
    [
        b"INSERT INTO t VALUES (1",
        b"INSERT INTO t VALUES (1)",
        b"INSERT INTO t VALUES (1, 2);",
        b"INSERT INTO t VALUES ('a);",
        b"INSERT INTO t VALUES (f(1));",
        b"INSERT INTO t VALUES (1);\nDELETE FROM t;",
        b"INSERT INTO t SELECT 1;",
    ],
)
def test_other_inserts_than_pg_dump_s_are_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        b"".join(insert_to_csv(["a"], [data]))


def test_values_of_inserts_are_written_as_copy_writes_them() -> None:
    data = (
        b'INSERT INTO public."t(" ("a", b, c, d, e, f, g) OVERRIDING SYSTEM VALUE VALUES '
        b"(-1.5e10, true, FALSE, B'0101', E'x\\n\\'\\\\''', '\\x00'::bytea, '1'::numeric(4,2)) "
        b'ON CONFLICT DO NOTHING;\n-- Completed\nINSERT INTO public."t(" '
        b"VALUES (NaN, null, '', 'a\\b', 1, 2, 3);\n"
    )
    assert b"".join(insert_to_csv(list("abcdefg"), [data])) == (
        b'a,b,c,d,e,f,g\n-1.5e10,t,f,0101,"x\n\'\\\'",\\x00,1\nNaN,,"",a\\b,1,2,3\n'
    )


def test_generated_columns_are_left_out_of_inserts() -> None:
    data = b"INSERT INTO t VALUES (1, DEFAULT, 'x');\nINSERT INTO t VALUES (2, DEFAULT, 'y');\n"
    assert b"".join(insert_to_csv(["a", "b", "c"], [data])) == b"a,c\n1,x\n2,y\n"
    assert b"".join(insert_to_csv([], [data])) == b"column1,column3\n1,x\n2,y\n"


def test_rows_beyond_the_limit_are_refused() -> None:
    limit = 1 << 20
    long = b"x" * (2 << 20)
    with pytest.raises(Refused, match="take it as SQL"):
        convert(["a"], pieces(long + b"yy\n\\.\n", 1000), limit=limit)
    with pytest.raises(Refused, match="take it as SQL"):
        b"".join(insert_to_csv(["a"], pieces(b"INSERT INTO t VALUES ('" + long + b"');", 1000), limit=limit))
    short = long[: 1 << 19]
    assert convert(["a"], pieces(short + b"\n\\.\n", 1000), limit=limit) == b"a\n" + short + b"\n"


def test_plain_rows_are_converted_by_the_block() -> None:
    rows = b"12345\tsome words of text here\t2024-01-01 00:00:00\t3.25\tt\n" * 200_000
    start = time.process_time()
    size = sum(map(len, copy_to_csv(list("abcde"), [rows, b"\\.\n"])))
    assert size == len(rows) + 10
    took = time.process_time() - start
    start = time.process_time()
    assert len([b",".join(row.split(b"\t")) for row in rows.split(b"\n")]) == 200_001
    assert took < 3 * (time.process_time() - start), "row by row, the splitting alone; measured: as long"
