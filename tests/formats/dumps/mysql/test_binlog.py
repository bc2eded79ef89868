"""Binary logs of MySQL and MariaDB: their heads, their gaps, and those of a real server in an archive."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.base.errors import Refused
from holdfast.formats.dumps.mysql.binlog import (
    HEAD_SIZE,
    BinlogName,
    Gap,
    archive_findings,
    gaps,
    is_before,
    parse_head,
    parse_name,
    parse_position,
)
from support.cli import Place
from support.database import MariaServer, maria_server
from support.scratch import open_folder


def head(*, server: bytes = b"8.0.36", flags: int = 0, version: int = 4, kind: int = 15) -> bytes:
    event = struct.pack("<IBIIIH", 1_700_000_000, kind, 7, 122, 126, flags)
    return b"\xfebin" + event + struct.pack("<H50sIB", version, server, 0, 19) + bytes(100)


def test_a_head_says_which_server_wrote_it_and_whether_it_still_does() -> None:
    mysql = parse_head(head())
    assert (mysql.engine, mysql.server, mysql.server_id, mysql.in_use) == ("mysql", "8.0.36", 7, False)
    assert parse_head(head(flags=1)).in_use
    assert parse_head(head(server=b"10.11.6-MariaDB-log")).engine == "mariadb"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a binary log"),
        (b"\xfdbin" + bytes(200), "encrypted"),
        (head()[: HEAD_SIZE - 1], "cut short"),
        (head(version=3), "format description"),
        (head(kind=2), "format description"),
    ],
)
def test_what_is_no_binary_log_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse_head(data)


def test_names_are_a_base_and_a_number() -> None:
    assert parse_name("shop-bin.000042") == BinlogName("shop-bin", 42)
    assert parse_name("a.b.1000000") == BinlogName("a.b", 1_000_000)
    assert [parse_name(name) for name in ("shop-bin.index", ".000001", "x.00001", "a/b.000001")] == [None] * 4
    assert parse_position("shop-bin.000042:345") == (BinlogName("shop-bin", 42), 345)
    assert parse_position("shop-bin.000042") is None


def test_gaps_are_found_by_number_within_a_series() -> None:
    names = ["a.000001", "a.000002", "a.000005", "b.000009", "b.000011", "junk"]
    assert gaps(names) == [Gap("a", 3, 4), Gap("b", 10, 10)]
    assert archive_findings(names, []) == [
        "binary logs are missing: a.000003 to .000004",
        "binary logs are missing: b.000010",
    ]


def test_a_dump_whose_log_is_not_archived_while_later_ones_are_cannot_be_rolled_forward() -> None:
    names = ["a.000005", "a.000006"]
    assert archive_findings(names, [("dump 1", "a.000005:4"), ("dump 2", "a.000007:4")]) == []
    assert archive_findings(names, [("dump 1", "a.000004:4")]) == [
        "dump 1 cannot be rolled forward: a.000004 is not archived"
    ]


def test_only_files_of_the_same_series_are_before_a_position() -> None:
    oldest = BinlogName("a", 5)
    assert [is_before(n, oldest) for n in ("a.000004", "a.000005", "b.000001")] == [True, False, False]


@pytest.fixture(scope="module")
def server() -> Iterator[MariaServer]:
    with (
        open_folder() as folder,
        maria_server(folder / "m", ["--log-bin=shop-bin", "--server-id=7"]) as running,
    ):
        yield running


def logs_of(server: MariaServer) -> list[Path]:
    return [server.data / line.split("\t")[0] for line in server.sql("SHOW BINARY LOGS").splitlines()]


def test_closed_logs_of_a_real_server_are_archived_once_and_come_back_equal(
    server: MariaServer, tmp_path: Path
) -> None:
    place = Place.make(tmp_path)
    server.sql(
        "CREATE DATABASE shop; CREATE TABLE shop.t (i INT); FLUSH BINARY LOGS; INSERT shop.t VALUES (1);"
    )
    *closed, current = logs_of(server)
    refused = place.run("binlog-push", "--name", "shop", *closed, current)
    assert refused.exit_code == 1
    assert "is still being written" in refused.stderr
    assert place.json("logs")["archives"] == []

    assert place.json("binlog-push", "--name", "shop", *closed)["new"] == [path.name for path in closed]
    server.sql("FLUSH BINARY LOGS")
    assert place.json("binlog-push", "--name", "shop", *closed, current)["new"] == [current.name]

    place.ok("logs", "shop", "--target", str(tmp_path / "back"))
    for path in [*closed, current]:
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
    listed = place.json("logs")
    assert listed["archives"][0]["engine"] == "mariadb"
    assert listed["problems"] == []


def test_a_log_that_was_never_closed_is_taken_when_told_so_and_another_one_of_its_name_is_refused(
    server: MariaServer, tmp_path: Path
) -> None:
    place = Place.make(tmp_path)
    copy = tmp_path / "copy.000009"
    copy.write_bytes(logs_of(server)[-1].read_bytes())
    place.ok("binlog-push", "--name", "gone", "--current", copy)
    with copy.open("ab") as file:
        file.write(b"more")
    refused = place.run("binlog-push", "--name", "gone", "--current", copy)
    assert refused.exit_code == 1
    assert "a different file of this name" in refused.stderr


def test_a_gap_in_the_archive_is_told(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    for number in (1, 2, 5):
        place.write(f"shop.{number:06}", head() + bytes([number]))
    place.ok("binlog-push", "--name", "shop", *(tmp_path / f"shop.{n:06}" for n in (1, 2, 5)))
    result = place.run("logs")
    assert "warning: shop: binary logs are missing: shop.000003 to .000004" in result.stderr
