"""Tables, clusters and dumps in the mount, as the kernel shows them."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from holdfast.base.types import ChunkID
from holdfast.formats.dumps.core.catalogue import Catalogue, Section, encode
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import Item, ItemKind, Snapshot, StoredStream
from support.basics import put_item
from support.cli import Place, flip_byte
from support.cluster_tar import CLUSTER, member
from support.database import PostgresServer, postgres_server, postgres_tool, run
from support.fuse import Place as Mount
from support.fuse import names, need_fuse
from support.scratch import open_folder

pytestmark = pytest.mark.fuse

OLD, NEW = "2026-11-24_02-00-00", "2026-11-25_02-00-00"
ORDERS = "tables/public.orders.sql"
ITEMS = "tables/public.items.sql"
_MAKE = """
CREATE TABLE orders (id serial PRIMARY KEY, customer text NOT NULL, amount numeric CHECK (amount > 0));
CREATE TABLE items (id int PRIMARY KEY, of int REFERENCES orders, what text);
CREATE INDEX ON orders (customer);
INSERT INTO orders (customer, amount)
    SELECT E'c\\\\' || i || repeat(md5(i::text), 2), i * 1.5 FROM generate_series(1, 20000) i;
INSERT INTO items SELECT i, i, 'needle ' || i FROM generate_series(1, 5000) i;
CREATE SCHEMA "o.d/d";
CREATE TABLE "o.d/d"."na%me;--\n" (x text);
INSERT INTO "o.d/d"."na%me;--\n" VALUES ('hay'), (NULL), (E'\\\\.');
"""
HOSTILE = "tables/o%2Ed%2Fd.na%25me;--%0A.sql"


@dataclass(frozen=True)
class Shop:
    """A server, and a repository that is mounted: `old` and `new` are the dumps in it, byte by byte."""

    server: PostgresServer
    place: Place
    old: bytes
    new: bytes

    @property
    def mnt(self) -> Path:
        return self.place.root / "mnt"

    def folder(self, name: str, time: str = "latest") -> Path:
        return self.mnt / "databases/postgresql" / name / time


def mount_of(place: Place) -> Mount:
    mount = Mount(place.repository, place.root / "mnt", place.root / "state")
    mount.mountpoint.mkdir(exist_ok=True)
    return mount


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    need_fuse()
    place = Place.make(tmp_path_factory.mktemp("shop"))
    with open_folder() as folder, postgres_server(folder / "pg") as server:
        server.psql(_MAKE)
        old = server.tool("pg_dump", "postgres")
        place.ok("backup", place.write("shop.sql", old), "--name", "shop", "--time", OLD)
        server.psql(
            "UPDATE orders SET amount = 7 WHERE id % 100 = 0; INSERT INTO orders VALUES (0, 'new', 1)"
        )
        new = server.tool("pg_dump", "postgres")
        place.ok("backup", place.write("shop.sql", new), "--name", "shop", "--time", NEW)
        server.psql("CREATE DATABASE other")
        server.psql("CREATE TABLE orders AS SELECT 1 AS one", "other")
        place.ok("backup", place.write("all.sql", server.tool("pg_dumpall")), "--name", "all")
        both = [place.write("web.sql", old), place.write("other.sql", server.tool("pg_dump", "other"))]
        place.ok("backup", *both, "--name", "both")
        server.psql("CHECKPOINT")
        place.ok("backup", server.url(""), "--physical", "--name", "cluster")
        with mount_of(place).mounted():
            yield Shop(server, place, old, new)


def load(server: PostgresServer, sql: Path, database: str) -> None:
    """Into a new database, by psql; any error fails the test."""
    server.psql(f"CREATE DATABASE {database}")
    argv = [postgres_tool("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", str(sql)]
    run(argv, env=server.environment)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_table_loads_into_an_empty_database_as_it_was_at_each_time(shop: Shop) -> None:
    query = "SELECT * FROM orders ORDER BY id"
    load(shop.server, shop.folder("shop") / ORDERS, "from_new")
    assert shop.server.psql(query, "from_new") == shop.server.psql(query)
    assert shop.server.psql("SELECT nextval('orders_id_seq')", "from_new") == "20001\n"
    load(shop.server, shop.folder("shop", OLD) / ORDERS, "from_old")
    assert shop.server.psql("SELECT count(*), sum(amount) FROM orders", "from_old") == "20000|300015000.0\n"
    load(shop.server, shop.folder("shop") / HOSTILE, "hostile")
    query = 'SELECT * FROM "o.d/d"."na%me;--\n"'
    assert shop.server.psql(query, "hostile") == shop.server.psql(query)


def test_the_stored_dump_stands_there_as_it_was_with_the_tables_beside_it(shop: Shop) -> None:
    folder = shop.folder("shop")
    assert (folder / "dump.sql").read_bytes() == shop.new
    assert (shop.folder("shop", OLD) / "dump.sql").read_bytes() == shop.old
    made = ["dump.sql", "schema.sql", "snapshot.json", HOSTILE, ITEMS, ORDERS]
    assert files_below(folder) == sorted(made)
    assert b"COPY" not in (folder / "schema.sql").read_bytes()
    assert b"CREATE INDEX" in (folder / "schema.sql").read_bytes()


@pytest.mark.parametrize("name", ["shop", "all", "both"])
def test_the_mount_dump_and_restore_give_the_same_bytes(shop: Shop, name: str, tmp_path: Path) -> None:
    listed = {item["path"]: item for item in shop.place.json("ls", name)["items"]}
    folder = shop.folder(name)
    assert set(files_below(folder)) == {*listed, "snapshot.json"}
    for at, (path, item) in enumerate(listed.items()):
        whole = (folder / path).read_bytes()
        assert len(whole) == (folder / path).stat().st_size == item["size"]
        assert shop.place.run("dump", f"{name}:{path}").stdout_bytes == whole
        shop.place.ok("restore", f"{name}:{path}", "--target", tmp_path / str(at), "--verify")
        assert (tmp_path / str(at)).read_bytes() == whole
        if "tables/" in path:
            shown = path.replace("tables/", "").removesuffix(".sql")
            assert shop.place.run("dump", name, "--table", shown).stdout_bytes == whole


def test_any_range_of_a_table_is_what_the_whole_has_there(shop: Shop) -> None:
    """Past the page cache, so that the ranges are asked for as they are."""
    seeds = random.Random(4)
    for path in (shop.folder("shop", OLD) / ORDERS, shop.folder("both") / "web" / ITEMS):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            size = os.fstat(fd).st_size
            ranges = [(start, 3) for start in range(2000)]
            ranges += [(seeds.randrange(size), seeds.randrange(1, 300_000)) for _ in range(60)]
            ranges += [(seeds.randrange(size), seeds.randrange(1, 50)) for _ in range(200)]
            ranges += [(size - 1, 10), (size, 10), (size + 5, 1)]
            found = [os.pread(fd, length, start) for start, length in ranges]
        finally:
            os.close(fd)
        whole = path.read_bytes()
        for (start, length), data in zip(ranges, found, strict=True):
            assert data == whole[start : start + length], (start, length)


def test_grep_finds_a_row_in_its_table(shop: Shop) -> None:
    argv = ["grep", "-rl", "needle 4711", str(shop.folder("shop") / "tables")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(shop.folder("shop") / ITEMS)]


def test_each_database_of_a_server_has_its_folder_of_tables(shop: Shop) -> None:
    folder = shop.folder("all")
    assert names(folder / "tables") == ["other", "postgres"]
    assert names(folder / "tables/other") == ["public.orders.sql"]
    assert b"CREATE ROLE postgres" in (folder / "globals.sql").read_bytes()
    load(shop.server, folder / "tables/postgres/public.items.sql", "from_all")
    query = "SELECT * FROM items ORDER BY id"
    assert shop.server.psql(query, "from_all") == shop.server.psql(query)


def unkeyed(path: Path) -> bytes:
    """A file of SQL with the key of another repository in it."""
    return re.sub(rb"(?<=restrict )[0-9a-f]{64}\n", b"KEY\n", path.read_bytes())


def test_each_of_several_dumps_has_its_folder(shop: Shop) -> None:
    folder = shop.folder("both")
    assert names(folder) == ["other", "other.sql", "snapshot.json", "web", "web.sql"]
    assert names(folder / "other") == ["schema.sql", "tables"]
    assert unkeyed(folder / "web" / ITEMS) == unkeyed(shop.folder("shop") / ITEMS)


def test_a_cluster_is_shown_file_by_file(shop: Shop) -> None:
    data = shop.folder("cluster") / "data"
    relation = shop.server.psql("SELECT pg_relation_filepath('items')").strip()
    assert (data / relation).read_bytes() == (shop.server.data / relation).read_bytes()
    assert (data / "PG_VERSION").read_bytes() == (shop.server.data / "PG_VERSION").read_bytes()
    assert names(data / "pg_notify") == []
    folders = {path.name for path in shop.server.data.iterdir() if path.is_dir()}
    assert folders <= {path.name for path in data.iterdir() if path.is_dir()}
    stored = (shop.folder("cluster") / "base.tar").open("rb")
    with stored, tarfile.open(fileobj=stored) as archive:
        for member in archive:
            assert (data / member.name).is_dir() == member.isdir()
            assert member.isdir() or (data / member.name).stat().st_size == member.size


def test_a_link_of_a_cluster_is_shown_as_one(tmp_path: Path) -> None:
    """Where its tablespace was on the server; nothing of this machine is read for it."""
    need_fuse()
    place, buffer = Place.make(tmp_path), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in CLUSTER.items():
            archive.addfile(member(name, data), io.BytesIO(data))
        archive.addfile(member("pg_tblspc/16385", kind=tarfile.SYMTYPE, linkname="/etc"))
    assert place.run("backup", place.write("base.tar", buffer.getvalue()), "--name", "odd").exit_code == 3
    with mount_of(place).mounted() as mnt:
        data_folder = mnt / "databases/postgresql/odd/latest/data"
        link = data_folder / "pg_tblspc/16385"
        assert link.is_symlink()
        assert str(link.readlink()) == "/etc"
        assert link.lstat().st_size == len("/etc")
        walked = [Path(top) for top, _, _ in os.walk(data_folder)]
        assert all(folder.is_relative_to(data_folder) for folder in walked)
        assert (data_folder / "base/5/2619").read_bytes() == CLUSTER["base/5/2619"]
    mount_of(place).clean_up()


# ---- what is not whole ----------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, shop: Shop) -> Iterator[Place]:
    """A repository with the newer dump, not mounted."""
    place = Place.make(tmp_path)
    place.ok("backup", place.write("shop.sql", shop.new), "--name", "shop", "--time", NEW)
    yield place
    mount_of(place).clean_up()


def test_a_dump_that_ended_early_is_shown_and_never_as_complete(shop: Shop, place: Place) -> None:
    cut = place.write("cut.sql", shop.new[: shop.new.index(b"-- Name: orders_id_seq; Type: SEQUENCE SET")])
    result = place.run("backup", cut, "--name", "cut")
    assert result.exit_code == 3, result.stderr
    (document,) = place.json("snapshots", "--name", "cut")["snapshots"]
    assert document["partial"] is True
    assert "partial" in place.ok("snapshots", "--name", "cut")
    assert "not whole  the dump does not end with" in place.ok("info", "cut")
    with mount_of(place).mounted() as mnt:
        folder = mnt / "databases/postgresql/cut/latest"
        document = json.loads((folder / "snapshot.json").read_bytes())
        table = (folder / ITEMS).read_bytes()
    assert document["partial"] is True
    assert document["items"][0]["unreadable"][0]["reason"]
    result = place.run("dump", "cut", "--table", "items")
    assert result.stdout_bytes == table
    assert result.exit_code == 3
    assert "not whole" in result.stderr


def snapshot_of(repository: Repository, name: str) -> Snapshot:
    return next(s.snapshot for s in repository.snapshots().good if s.snapshot.subject.name == name)


def commit_with(place: Place, catalogue: bytes | None, path: str, stored: bytes = b"") -> None:
    """The snapshot "shop" once more, called "odd": its dump (or these bytes) at `path`, with this catalogue,
    None for one that is lost."""
    with mount_of(place).opened() as repository, Writer(repository) as writer:
        snapshot = snapshot_of(repository, "shop")
        content = StoredStream(ChunkID(bytes(32)), 100)
        if catalogue is not None:
            put = put_item(writer, repository, [catalogue])
            content = StoredStream(put.recipe, put.size)
        item = put_item(writer, repository, [stored]) if stored else snapshot.items[0]
        item = replace(item, path=path, kind=ItemKind.DUMP, catalogue=content)
        subject = replace(snapshot.subject, name="odd")
        writer.commit(replace(snapshot, items=(item,), subject=subject, parent=None))


NEWER = encode(Catalogue("postgresql", "sql", ())).replace(b'"version":1', b'"version":99')
ELSEWHERE = encode(Catalogue("postgresql", "sql", (Section(0, 1 << 40, "TABLE"),)))
SENSELESS = encode(Catalogue("postgresql", "sql", (Section(0, 9, "INDEX ATTACH"),)))


@pytest.mark.parametrize(
    "catalogue",
    [None, b"{}", NEWER, ELSEWHERE, SENSELESS],
    ids=["lost", "none", "newer", "of more than there is", "of missing facts"],
)
def test_without_its_catalogue_a_dump_is_there_as_it_is_stored(
    shop: Shop, place: Place, catalogue: bytes | None
) -> None:
    commit_with(place, catalogue, "dump.sql")
    mount = mount_of(place)
    with mount.mounted() as mnt:
        folder = mnt / "databases/postgresql/odd/latest"
        assert names(folder) == ["dump.sql", "snapshot.json"]
        assert (folder / "dump.sql").read_bytes() == shop.new
        assert (mnt / "databases/postgresql/shop/latest" / ITEMS).read_bytes()
    assert "only what was stored as a file is shown" in mount.log.read_text()
    code = 1 if catalogue is NEWER else 21
    for arguments in (("ls", "odd"), ("ls", "odd:tables"), ("dump", "odd", "--table", "items")):
        assert place.run(*arguments).exit_code == code
    assert place.run("restore", "odd:tables", "--target", place.root / "out").exit_code == code
    assert place.run("dump", "odd:dump.sql").stdout_bytes == shop.new
    place.ok("restore", "odd", "--target", place.root / "out")
    assert (place.root / "out/dump.sql").read_bytes() == shop.new


def test_what_is_stored_taken_apart_is_never_given_out_so(shop: Shop, place: Place) -> None:
    """Whether it is known by its name, by what it begins with, or by a catalogue that makes nothing of it."""
    empty = encode(Catalogue("postgresql", "pgdump", ()))
    for catalogue, path, content in (
        (None, "dump.pgdump", b""),
        (b"{}", "web.dump", b"PGDMP and so on"),
        (empty, "web.dump", b""),
    ):
        commit_with(place, catalogue, path, content)
        assert place.run("dump", "odd").exit_code != 0
        assert not place.run("dump", f"odd:{path}").stdout_bytes
        assert place.run("restore", "odd", "--target", place.root / "out").exit_code != 0
        assert not (place.root / "out").exists()
    with mount_of(place).mounted() as mnt:
        for folder in (mnt / "databases/postgresql/odd").iterdir():
            assert names(folder) == ["snapshot.json"]


def chunk_at(place: Place, content: StoredStream | Item, offset: int) -> tuple[Path, int]:
    """The pack with the chunk that holds this byte, and where in it."""
    with mount_of(place).opened() as repository:
        (extent,) = Reader(repository).recipe(content).extents(offset, offset + 1)
        assert extent.id is not None
        location = repository.index.locations(extent.id)[0]
    pack = place.repository / "packs" / location.pack[:2] / location.pack
    return pack, location.offset + location.length // 2


def test_a_damaged_chunk_of_the_catalogue_takes_the_tables_and_nothing_else(shop: Shop, place: Place) -> None:
    with mount_of(place).opened() as repository:
        catalogue = snapshot_of(repository, "shop").items[0].catalogue
    assert catalogue
    flip_byte(*chunk_at(place, catalogue, 0))
    mount = mount_of(place)
    with mount.mounted() as mnt:
        folder = mnt / "databases/postgresql/shop/latest"
        assert names(folder) == ["dump.sql", "snapshot.json"]
        assert (folder / "dump.sql").read_bytes() == shop.new
    assert "only what was stored as a file is shown" in mount.log.read_text()
    result = place.run("dump", "shop", "--table", "items")
    assert result.exit_code == 21
    assert not result.stdout_bytes
    assert "chunk" in result.stderr
    assert place.run("check", "--read-data").exit_code == 21


def test_a_damaged_chunk_of_rows_is_an_error_of_their_table_only(shop: Shop, place: Place) -> None:
    with mount_of(place).opened() as repository:
        item = snapshot_of(repository, "shop").items[0]
    flip_byte(*chunk_at(place, item, shop.new.index(b"needle 2500")))
    with mount_of(place).mounted() as mnt:
        folder = mnt / "databases/postgresql/shop/latest"
        for path in (ITEMS, "dump.sql"):
            with pytest.raises(OSError, match="Input/output") as caught:
                (folder / path).read_bytes()
            assert caught.value.errno == errno.EIO
        for path in (ORDERS, HOSTILE, "schema.sql"):
            assert unkeyed(folder / path) == unkeyed(shop.folder("shop") / path)
    for arguments in (("dump", "shop", "--table", "items"), ("dump", "shop:dump.sql")):
        assert place.run(*arguments).exit_code == 21
    assert place.run("dump", "shop", "--table", "orders").exit_code == 0
    place.root.joinpath("out").mkdir()
    assert place.run("restore", f"shop:{ITEMS}", "--target", place.root / "out/items.sql").exit_code == 21
    assert names(place.root / "out") == []


def test_a_dump_called_like_a_made_file_is_not_hidden_by_it(shop: Shop, place: Place) -> None:
    place.write("notes.txt", b"notes\n")
    arguments = (place.write("schema.sql", shop.new), place.root / "notes.txt", "--kind", "database")
    place.ok("backup", *arguments, "--name", "odd")
    with mount_of(place).mounted() as mnt:
        assert (mnt / "databases/postgresql/odd/latest/schema.sql").read_bytes() == shop.new
    assert place.run("dump", "odd:schema.sql").stdout_bytes == shop.new


def test_many_ask_for_the_tables_at_once(place: Place) -> None:
    with mount_of(place).mounted() as mnt, ThreadPoolExecutor(16) as pool:
        folder = mnt / "databases/postgresql/shop/latest"
        sizes = list(pool.map(lambda n: (folder / (ITEMS if n % 2 else ORDERS)).stat().st_size, range(64)))
    assert len(set(sizes)) == 2
