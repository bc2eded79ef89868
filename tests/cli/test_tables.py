"""Tables one by one by command: `ls`, `dump --table`, `restore`."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cli import PG_HEAD, PG_TAIL, Place
from support.cluster_tar import CLUSTER, member
from support.database import PostgresServer, postgres_server, postgres_tool, run
from support.scratch import open_folder

_MAKE = r"""
CREATE TABLE orders (id int PRIMARY KEY, "a ""b"" c" text, at timestamptz, raw bytea, list text[],
    n numeric);
INSERT INTO orders VALUES
    (1, 'plain', '2026-11-25 08:00Z', '\xdeadbeef', '{a,"b,c",NULL}', 1.50),
    (2, '', NULL, '', '{}', 'NaN'),
    (3, NULL, NULL, NULL, NULL, NULL),
    (4, E'a "quoted", \\ tab\t and\r\nline', '2026-11-25 08:00Z', '\x5c0a', ARRAY[E'\\', '"'], -0.001),
    (5, E'\\.', NULL, NULL, NULL, 1e100), (6, ' spaces ', NULL, NULL, NULL, 0),
    (7, 'größer ∞', NULL, NULL, NULL, 0);
CREATE TABLE empty (a int, b text);
CREATE TABLE one (it text);
INSERT INTO one VALUES (''), (NULL), (E'\\.'), ('x');
CREATE SCHEMA archive;
CREATE TABLE archive.orders AS SELECT 1 AS one;
CREATE TABLE archive."a.b/c%d" AS SELECT 2 AS two;
CREATE TABLE archive."$(reboot); --
" AS SELECT 3 AS three;
CREATE TABLE many AS SELECT i, md5(i::text) FROM generate_series(1, 30000) i;
"""
TABLES = {
    "archive.$(reboot); --%0A",
    "archive.a%2Eb%2Fc%25d",
    "archive.orders",
    "public.empty",
    "public.many",
    "public.one",
    "public.orders",
}


@dataclass(frozen=True)
class Shop:
    """A server and a repository with its database as "shop", by its URL, and as "inserts"."""

    server: PostgresServer
    place: Place


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    place = Place.make(tmp_path_factory.mktemp("shop"))
    with open_folder() as folder, postgres_server(folder / "pg") as server:
        server.psql(_MAKE)
        place.ok("backup", server.url(), "--name", "shop")
        inserts = server.tool("pg_dump", "--inserts", "postgres")
        place.ok("backup", place.write("shop.sql", inserts), "--name", "inserts")
        yield Shop(server, place)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)


# ---- dump ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ("public.orders", "tables/public.orders.sql"),
        ("many", "tables/public.many.sql"),
        ("archive.a%2Eb%2Fc%25d", "tables/archive.a%2Eb%2Fc%25d.sql"),
        ("a%2Eb%2Fc%25d", "tables/archive.a%2Eb%2Fc%25d.sql"),
        ("$(reboot); --%0A", "tables/archive.$(reboot); --%0A.sql"),
    ],
)
def test_a_table_is_meant_by_its_name_as_ls_shows_it(shop: Shop, wanted: str, path: str) -> None:
    result = shop.place.run("dump", "shop", "--table", wanted)
    assert result.exit_code == 0, result.stderr
    assert result.stdout_bytes == shop.place.run("dump", f"shop:{path}").stdout_bytes
    assert b"CREATE TABLE" in result.stdout_bytes


def test_the_command_itself_fills_an_empty_database(shop: Shop) -> None:
    shop.server.psql("CREATE DATABASE fresh")
    argv = [postgres_tool("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-d", "fresh", "-f", "-"]
    with shop.place.process("dump", "shop@latest", "--table", "public.many") as process:
        assert process.stdout
        run(argv, stdin=process.stdout.read(), env=shop.server.environment)
    assert process.returncode == 0
    query = "SELECT count(*), min(md5), max(md5) FROM many"
    assert shop.server.psql(query, "fresh") == shop.server.psql(query)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["shop", "--table", "orders"], 1, ["archive.orders", "public.orders"]),
        (["shop", "--table", "nothing"], 1, ["'nothing'", "archive.", "and 2 more"]),
        (["shop", "--table", ""], 1, ["no table"]),
        (["shop", "--table", "public."], 1, ["no table"]),
        (["shop", "--table", "../schema"], 1, ["no table"]),
        (["shop:dump.sql", "--table", "many"], 2, ["exclude each other"]),
        (["shop", "--table", "many", "--json"], 2, ["--json"]),
        (["shop", "--format", "csv"], 2, ["--table"]),
        (["shop", "--table", "many", "--format", "xml"], 2, ["xml"]),
        (["shop:tables/nothing.sql"], 1, ["nothing at"]),
    ],
)
def test_what_is_no_table_is_refused_in_words(
    shop: Shop, arguments: list[str], code: int, said: list[str]
) -> None:
    result = shop.place.run("dump", *arguments)
    assert result.exit_code == code
    assert not result.stdout_bytes
    assert all(words in result.stderr for words in said), result.stderr
    assert "internal" not in result.stderr


def test_a_snapshot_without_dumps_has_no_tables(place: Place) -> None:
    place.ok("backup", place.disk())
    result = place.run("dump", "web01", "--table", "orders")
    assert result.exit_code == 1
    assert "no dump in this snapshot" in result.stderr


@pytest.mark.parametrize("name", ["shop", "inserts"])
def test_csv_is_what_the_server_itself_writes(shop: Shop, name: str) -> None:
    for table in ("public.orders", "public.empty", "public.one", "public.many", "archive.orders"):
        result = shop.place.run("dump", name, "--table", table, "--format", "csv")
        assert result.exit_code == 0, result.stderr
        expected = shop.server.psql(f"COPY {table} TO STDOUT (FORMAT csv, HEADER)").encode()
        assert result.stdout_bytes == expected


# ---- ls ------------------------------------------------------------------------------------------------


def test_ls_shows_folders_then_tables(shop: Shop) -> None:
    top = shop.place.ok("ls", "shop")
    assert [line.split()[0] for line in top.splitlines()[1:]] == [
        *("dump", "file", "virtual", "document", "folder")
    ]
    assert "tables/" in top
    assert "7 files" in top
    tables = shop.place.ok("ls", "shop:tables").splitlines()[1:]
    assert len(tables) == len(TABLES)
    one = shop.place.ok("ls", "shop:tables/public.orders.sql").splitlines()[1:]
    assert [line.split()[0] for line in one] == ["virtual"]
    whole = shop.place.ok("ls", "shop", "-R")
    assert all(f"tables/{name}.sql" in whole for name in TABLES)
    assert "folder" not in whole


def test_ls_in_json_has_every_file_with_its_size(shop: Shop) -> None:
    items = shop.place.json("ls", "shop")["items"]
    assert [item["path"] for item in items if item["type"] == "virtual"] == sorted(
        ["schema.sql", *(f"tables/{name}.sql" for name in TABLES)]
    )
    for item in items:
        assert item["size"] == len(shop.place.run("dump", f"shop:{item['path']}").stdout_bytes)
        assert item.get("of", "dump.sql") == "dump.sql"
    below = [item for item in items if item["path"].startswith("tables/")]
    assert shop.place.json("ls", "shop:tables")["items"] == below


def test_ls_of_what_is_not_there(shop: Shop) -> None:
    for path in ("tables/x", "table", "tables/public.orders.sql/x"):
        result = shop.place.run("ls", f"shop:{path}")
        assert result.exit_code == 1
        assert "nothing at" in result.stderr


def test_disks_beside_a_dump_can_be_looked_into(place: Place) -> None:
    notes = place.write("notes.sql", PG_HEAD + PG_TAIL)
    place.ok("backup", place.disk(), notes, "--kind", "vm", "--name", "web")
    assert "disks/web01.raw" in place.ok("ls", "web")
    assert "holdfast ls web:files/web01" in place.run("ls", "web").stderr
    assert "files/web01/p0.txt" in place.ok("ls", "web:files/web01")


# ---- restore -------------------------------------------------------------------------------------------


def test_restored_tables_are_files_in_the_folder(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shop.place.ok("restore", "shop:tables", "--target", f"{out}/")
    assert {path.name for path in out.iterdir()} == {f"{name}.sql" for name in TABLES}
    for path in out.iterdir():
        assert path.read_bytes() == shop.place.run("dump", f"shop:tables/{path.name}").stdout_bytes


def test_what_is_there_is_kept_unless_told_otherwise(shop: Shop, tmp_path: Path) -> None:
    mine = tmp_path / "public.one.sql"
    mine.write_bytes(b"mine")
    for target in (tmp_path, mine):
        path = "shop:tables" if target is tmp_path else "shop:tables/public.one.sql"
        result = shop.place.run("restore", path, "--target", target)
        assert result.exit_code == 1
        assert "exists already" in result.stderr
        assert list(tmp_path.iterdir()) == [mine]
        assert mine.read_bytes() == b"mine"
    assert shop.place.run("restore", "shop:tables", "--target", mine).exit_code == 1
    shop.place.ok("restore", "shop:tables", "--target", tmp_path, "--overwrite")
    assert mine.read_bytes() == shop.place.run("dump", "shop", "--table", "one").stdout_bytes
    assert len(list(tmp_path.iterdir())) == len(TABLES)


def test_a_whole_snapshot_is_restored_as_it_is_stored(shop: Shop, tmp_path: Path) -> None:
    shop.place.ok("restore", "shop", "--target", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump.sql", "globals.sql"]
    shop.place.ok("restore", "shop:dump.sql", "--target", tmp_path / "one.sql", "--verify")
    dump = (tmp_path / "dump.sql").read_bytes()
    assert (tmp_path / "one.sql").read_bytes() == dump == shop.place.run("dump", "shop:dump.sql").stdout_bytes


def test_verify_notices_a_disk_that_gives_back_other_bytes(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("restore", "shop:tables/public.many.sql", "--target", tmp_path / "x", "--verify")
    pread = os.pread

    def forgets(fd: int, length: int, offset: int) -> bytes:
        is_target = Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(tmp_path)
        return bytes(length) if is_target else pread(fd, length, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", forgets)
        result = shop.place.run(*arguments)
    assert result.exit_code == 1
    assert "reads back differently" in result.stderr
    assert not list(tmp_path.iterdir())
    shop.place.ok(*arguments)


def test_a_table_is_no_disk(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "device").write_bytes(b"x" * 100)
    monkeypatch.setattr(stat, "S_ISBLK", lambda mode: True)
    result = shop.place.run("restore", "shop:schema.sql", "--target", tmp_path / "device", "--force")
    assert result.exit_code == 1
    assert "is no disk" in result.stderr
    result = shop.place.run("restore", "shop:schema.sql", "--target", tmp_path / "x", "--format", "qcow2")
    assert result.exit_code == 2


# ---- a cluster -----------------------------------------------------------------------------------------


def test_links_and_empty_folders_of_a_cluster_are_shown_and_not_followed(place: Place) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in CLUSTER.items():
            archive.addfile(member(name, data), io.BytesIO(data))
        archive.addfile(member("pg_notify", kind=tarfile.DIRTYPE))
        archive.addfile(member("pg_tblspc/16385", kind=tarfile.SYMTYPE, linkname="/etc"))
    result = place.run("backup", place.write("base.tar", buffer.getvalue()), "--name", "cluster")
    assert result.exit_code == 3, result.stderr  # no manifest in it
    assert "-> /etc" in place.ok("ls", "cluster:data/pg_tblspc")
    assert place.ok("ls", "cluster:data/pg_notify").count("\n") <= 1
    (link,) = place.json("ls", "cluster:data/pg_tblspc")["items"]
    assert (link["type"], link["target"]) == ("link", "/etc")
    for arguments in (
        ("dump", "cluster:data/pg_tblspc/16385"),
        ("restore", "cluster:data/pg_tblspc", "--target", place.root / "out"),
        ("restore", "cluster:data/pg_tblspc/16385", "--target", place.root / "out"),
    ):
        result = place.run(*arguments)
        assert result.exit_code == 1
        assert "symbolic link to /etc" in result.stderr
        assert not (place.root / "out").exists()
    result = place.run("restore", "cluster:data/base", "--target", place.root / "out")
    assert result.exit_code == 3
    assert (place.root / "out/5/2619").read_bytes() == CLUSTER["base/5/2619"]
