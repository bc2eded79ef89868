"""Rows of INSERT statements as CSV: for any values, cut anywhere, of MariaDB's and SQLite's own tools."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, Refused
from holdfast.formats.dumps.lexer import _lexer
from holdfast.formats.dumps.mysql.files import table_rows
from holdfast.formats.dumps.mysql.scan import MysqlVisitor
from holdfast.formats.dumps.rows.insert_to_csv import Rows, csv, insert_to_csv
from holdfast.formats.dumps.sqlite.files import table_rows as sqlite_table_rows
from holdfast.formats.dumps.sqlite.scan import SqliteVisitor
from support.basics import need, random_bytes
from support.database import MariaServer, maria_server, run
from support.mysql_examples import ALL_BYTES, LOOKS_LIKE, parse_csv, scan
from support.scratch import open_folder

Value: TypeAlias = str | bytes | int | None
ESCAPES = {0: b"\\0", 10: b"\\n", 13: b"\\r", 26: b"\\Z", 34: b'\\"', 39: b"\\'", 92: b"\\\\"}
LEAD = b"INSERT INTO `t; ),(''x` (`a`,`VALUES`) VALUES"


def escaped(value: bytes) -> bytes:
    return b"'" + b"".join(ESCAPES.get(byte, bytes((byte,))) for byte in value) + b"'"


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


def hexadecimal(value: bytes | None) -> bytes | None:
    return None if value is None else b"\\x" + value.hex().encode()


VALUES = st.none() | st.integers(-(10**12), 10**12) | st.binary(max_size=40) | st.sampled_from(LOOKS_LIKE)


@given(
    st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20),
    st.lists(st.integers(0, 5000), max_size=10),
    st.sampled_from([1, 3, 100]),
    st.sampled_from([7, 64, 1 << 19]),
    st.booleans(),
)
def test_any_values_come_back_however_the_statements_are_cut(
    rows: list[tuple[Value, Value]], cuts: list[int], per_statement: int, block: int, binary: bool
) -> None:
    def literal(value: Value) -> bytes:
        if value is None or isinstance(value, int):
            return b"NULL" if value is None else b"%d" % value
        return escaped(value.encode() if isinstance(value, str) else value)

    lines = [b"(%b,%b)" % (literal(a), literal(b)) for a, b in rows]
    data = b"".join(
        LEAD + b"\n" + b",\n".join(lines[at : at + per_statement]) + b";\n"
        for at in range(0, len(lines), per_statement)
    )

    def expected(value: Value, *, as_bytes: bool) -> bytes | None:
        if value is None or isinstance(value, int):
            return None if value is None else b"%d" % value
        raw = value.encode() if isinstance(value, str) else value
        return hexadecimal(raw) if as_bytes else raw

    indices = [1] if binary else []
    block = max(block, 64)
    found = parse_csv(
        insert_to_csv(_lexer.MYSQL, ["a", "b"], pieces(data, cuts), binary=indices, block=block)
    )
    assert found[0] == [b"a", b"b"]
    assert found[1:] == [[expected(a, as_bytes=False), expected(b, as_bytes=binary)] for a, b in rows]


@pytest.mark.parametrize(
    ("literal", "field"),
    [
        (b"NULL", b""),
        (b"''", b'""'),
        (b"-1.50e-7", b"-1.50e-7"),
        (b"0x00fF", b'"\\x00ff"'),
        (b"X'00fF'", b'"\\x00ff"'),
        (b"x''", b'"\\x"'),
        (b"b'100000001'", b'"\\x0101"'),
        (b"_binary 'a\\0\"'", b'"\\x610022"'),
        (b"_utf8mb4 'a\"'", b'"a"""'),
        (b"'it''s'", b'"it\'s"'),
        (b"'\\%\\_\\q\\\\n\\b\\t'", b'"\\%\\_q\\n\b\t"'),
        (b"'\x1a\\\\\\Z'", b'"\x1a\\\x1a"'),
    ],
)
def test_every_form_of_a_value_of_mysql(literal: bytes, field: bytes) -> None:
    data = b"INSERT  IGNORE INTO `t` VALUES (" + literal + b"), ( 1 ),\n(" + literal + b");\n"
    made = b"".join(insert_to_csv(_lexer.MYSQL, ["a"], [data]))
    assert made == b"a\n" + field + b"\n1\n" + field + b"\n"


@pytest.mark.parametrize(
    ("literal", "field"),
    [
        (b"NULL", b""),
        (b"''", b'""'),
        (b"1e999", b"1e999"),
        (b"-Inf", b"-Inf"),
        (b"X'00fF'", b'"\\x00ff"'),
        (b"'it''s \\n'", b'"it\'s \\n"'),
        (b"replace('a\\n''b','\\n',char(10))", b'"a\n\'b"'),
        (b"replace(replace('\\r\\n\"','\\r',char(13)),'\\n',char(10))", b'"\r\n"""'),
        (b"unistr('a\\u000a\\\\\\+01f600''')", b'"a\n\\\xf0\x9f\x98\x80\'"'),
        (b"'replace(''x'',''x'',char(10))'", b"\"replace('x','x',char(10))\""),
    ],
)
def test_every_form_of_a_value_of_sqlite(literal: bytes, field: bytes) -> None:
    statement = b'INSERT INTO "t;\'" VALUES(' + literal + b",1);\n"
    for cut in range(1, len(statement)):
        data = [statement[:cut], statement[cut:] + statement]
        made = b"".join(insert_to_csv(_lexer.SQLITE, ["a", "b"], data))
        assert made == b"a,b\n" + (field + b",1\n") * 2


@pytest.mark.parametrize(
    "data",
    [
        b"INSERT INTO t VALUES (1,2",
        b"INSERT INTO t VALUES (1,'2);\n",
        b"INSERT INTO t VALUES (1,2)",
        b"INSERT INTO t VALUES (1);\n",
        b"INSERT INTO t VALUES (1,2,3);\n",
        b"INSERT INTO t VALUES (1,now());\n",
        b"INSERT INTO t VALUES (1,2); DROP TABLE t;\n",
        b'INSERT INTO t VALUES (1,"2");\n',
        b"INSERT INTO t VALUES (1,X'0');\n",
        b"INSERT INTO t SELECT 1,2;\n",
        b"INSERT INTO t VALUES (1,2);\nINSERT INTO u VALUES (1,2);\n",
    ],
)
def test_what_is_no_row_of_the_table_is_never_a_line(data: bytes) -> None:
    with pytest.raises(Damaged):
        b"".join(insert_to_csv(_lexer.MYSQL, ["a", "b"], [data]))


def test_a_row_without_end_is_refused_before_it_fills_the_memory() -> None:
    data = [b"INSERT INTO t VALUES ('", *[b"x" * 65536] * 40]
    with pytest.raises(Refused, match="1 MiB"):
        b"".join(insert_to_csv(_lexer.MYSQL, ["a"], data, limit=1 << 20))


def test_tables_that_cannot_be_one_list_say_why() -> None:
    assert "columns are called" in Rows.of(_lexer.MYSQL, []).refused
    with pytest.raises(Refused, match="columns are called"):
        b"".join(csv(Rows.of(_lexer.MYSQL, []), lambda start, length: []))
    assert list(csv(Rows.of(_lexer.MYSQL, [], ["a", 'b"']), lambda start, length: [])) == [b'a,"b"""\n']


# ---- the tools ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[MariaServer]:
    with open_folder() as folder, maria_server(folder / "s", ["--max-allowed-packet=64M"]) as running:
        yield running


@pytest.mark.parametrize(
    "options", [(), ("--hex-blob",), ("--complete-insert",), ("--skip-extended-insert",)]
)
def test_what_mariadb_dump_writes_is_read_as_what_was_stored(
    server: MariaServer, options: tuple[str, ...]
) -> None:
    texts = [*LOOKS_LIKE, "".join(LOOKS_LIKE) * 2000]
    blobs = [
        ALL_BYTES,
        b"",
        b"'",
        *(random_bytes(3000, seed) for seed in range(40)),
        random_bytes(2 << 20, 9),
    ]
    server.sql(
        "DROP DATABASE IF EXISTS stored; CREATE DATABASE stored; CREATE TABLE stored.t (a INT PRIMARY KEY,"
        " b LONGBLOB, c LONGTEXT CHARACTER SET utf8mb4, d DECIMAL(9,2), e BIT(9), f DATETIME)"
    )
    expected = []
    for at, blob in enumerate(blobs):
        text = texts[at % len(texts)].encode()
        server.sql(
            f"SET NAMES utf8mb4; INSERT INTO stored.t VALUES ({at}, X'{blob.hex()}',"
            f" CONVERT(X'{text.hex()}' USING utf8mb4), {at}.5, {at}, NULL),"
            f" ({at + 1000}, NULL, NULL, NULL, NULL, now())"
        )
        bits = at.to_bytes(2, "big")
        expected.append([b"%d" % at, hexadecimal(blob), text, b"%d.50" % at, hexadecimal(bits), None])
    dump = server.tool("mariadb-dump", "--max-allowed-packet=64M", *options, "stored")
    rows = table_rows(scan(MysqlVisitor(), dump))["tables/stored.t"]
    made = parse_csv(
        csv(rows, lambda start, length: pieces(dump[start : start + length], range(0, 1 << 23, 65537)))
    )
    assert made[0] == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert len(made) == 1 + 2 * len(blobs)
    # A BIT may come without its leading zero bytes.
    found = {row[0]: row for row in made[1:]}
    for row in expected:
        assert found[row[0]][:4] == row[:4]
        assert int(found[row[0]][4][2:] or b"0", 16) == int((row[4] or b"")[2:], 16)
        assert found[row[0]][5] is None


@settings(max_examples=20)
@given(
    st.lists(
        st.none() | st.integers() | st.text(max_size=20) | st.binary(max_size=20), min_size=1, max_size=20
    )
)
def test_what_sqlite3_dump_writes_is_read_as_what_was_stored(values: list[object]) -> None:
    sqlite = shutil.which("sqlite3")
    need(sqlite, "sqlite3")
    assert sqlite
    # Its shell ends text at a NUL.
    stored = [
        (value.replace("\0", "") if isinstance(value, str) else max(min(value, 2**63 - 1), -(2**63)))
        if isinstance(value, str | int)
        else value
        for value in values
    ]
    stored = [value for value in stored if not isinstance(value, str) or _encodes(value)] + LOOKS_LIKE
    with tempfile.TemporaryDirectory(prefix="hf-") as folder:
        path = Path(folder) / "a.db"
        connection = sqlite3.connect(path)
        connection.execute('CREATE TABLE t (a, "b ""c")')
        connection.executemany("INSERT INTO t VALUES (?, 1.5)", [(value,) for value in stored])
        connection.commit()
        connection.close()
        dump = run([sqlite, str(path), ".dump"])
    rows = sqlite_table_rows(scan(SqliteVisitor(), dump))["tables/main.t"]
    made = parse_csv(csv(rows, lambda start, length: [dump[start : start + length]]))
    assert made[0] == [b"a", b'b "c']
    assert [row[0] for row in made[1:]] == [
        hexadecimal(value) if isinstance(value, bytes) else None if value is None else str(value).encode()
        for value in stored
    ]


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
