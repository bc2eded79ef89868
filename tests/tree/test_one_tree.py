"""Whatever a mount shows of a snapshot is listed, dumped, restored and found by the same name.

Of every kind of subject: machines with several disks and logical volumes, dumps of each engine and form, a
physical backup, a database file, a log archive, files, partial snapshots, names that do harm.
"""

from __future__ import annotations

import glob
import io
import json
import os
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from holdfast.repo.core.writer import Writer
from holdfast.repo.snapshots.snapshot import BadRange, ItemKind, Subject, SubjectKind
from holdfast.tree.search.pattern import Pattern
from support.basics import make_snapshot, put_item, random_bytes
from support.cli import Place
from support.cluster_tar import CLUSTER, member
from support.database import postgres_server
from support.fuse import Place as Mount
from support.fuse import need_fuse
from support.golden_story import SQLITE
from support.guest_images import blank, mounted, run
from support.guest_volumes import ext4_with, logical_volumes
from support.log import file_name, push_files
from support.scratch import open_folder

pytestmark = pytest.mark.fuse

MIB = 1 << 20
PARTIAL = 3
"""The exit code for what could not be read in part; what could is there."""
TABLES = r"""
CREATE TABLE orders (id serial PRIMARY KEY, what text);
INSERT INTO orders (what) SELECT md5(i::text) FROM generate_series(1, 3000) i;
CREATE SCHEMA "o.d/d";
CREATE TABLE "o.d/d"."na%me;--
" AS SELECT 1 AS one;
"""
MARIADB = b"""-- MariaDB dump 10.19  Distrib 10.11.3-MariaDB, for debian-linux-gnu (x86_64)
--
-- Host: localhost    Database: store
-- ------------------------------------------------------
-- Server version	10.11.3-MariaDB-1

--
-- Table structure for table `goods`
--

DROP TABLE IF EXISTS `goods`;
CREATE TABLE `goods` (
  `id` int(11) DEFAULT NULL
) ENGINE=InnoDB;

--
-- Dumping data for table `goods`
--

LOCK TABLES `goods` WRITE;
INSERT INTO `goods` VALUES
(1),
(2);
UNLOCK TABLES;
-- Dump completed on 2026-11-22  2:00:00
"""


@dataclass(frozen=True)
class Shown:
    """A repository with a snapshot of everything, mounted."""

    place: Place
    mountpoint: Path

    def top(self, subject: str) -> Path:
        return (self.mountpoint / subject / "latest").resolve()

    def id_of(self, subject: str) -> str:
        """The ID of the latest snapshot, told by its own document."""
        top = self.top(subject)
        name = next(name for name in ("vm.json", "snapshot.json") if (top / name).exists())
        return str(json.loads((top / name).read_text())["snapshot"])


def machine(place: Place) -> None:
    """Two disks: one with a partition table, swap and an odd tree, one that holds logical volumes."""
    first, top = blank(place.root / "sda.raw", 14 * MIB), place.root / "top"
    run("sfdisk", "-q", first, data=b"label: gpt\nsize=10MiB\nsize=2MiB\n")
    root, swap = blank(place.root / "root", 10 * MIB), blank(place.root / "swap", 2 * MIB)
    run("mkfs.ext4", "-q", "-F", root)
    run("mkswap", swap)
    with mounted(root, top) as guest:
        (guest / "etc").mkdir()
        (guest / "etc/passwd").write_text("root:x:0:0")
        (guest / "etc/hard").hardlink_to(guest / "etc/passwd")
        (guest / "etc/link").symlink_to("/etc/passwd")
        (guest / "big").write_bytes(random_bytes(MIB, 1))
        (guest / "[a]*?").write_text("a pattern")
        Path(os.fsdecode(os.fsencode(guest) + b"/\xff\x1b[31m\n")).write_text("strange")
        os.mkfifo(guest / "fifo")
    with first.open("r+b") as disk:
        disk.seek(MIB)
        disk.write(root.read_bytes())
        disk.seek(11 * MIB)
        disk.write(swap.read_bytes())
    second = blank(place.root / "sdb.raw", 16 * MIB)
    extents = logical_volumes([second], "vg", ("-n", "home", "-L", "8m"), ("-n", "none", "-L", "4m"))
    home = ext4_with(place.root / "home", 8 * MIB, "letter", b"Dear John").read_bytes()
    with second.open("r+b") as disk:
        for number, (_, extent) in enumerate(extents["home"]):
            disk.seek(MIB + extent * MIB)
            disk.write(home[number * MIB : (number + 1) * MIB])
    definition = place.write("web01.xml", "<domain/>")
    place.ok("backup", first, second, definition, "--kind", "vm", "--name", "web01")


def databases(place: Place) -> None:
    with open_folder() as folder, postgres_server(folder / "pg") as server:
        server.psql(TABLES)
        plain = place.write("shop.sql", server.tool("pg_dump", "postgres"))
        place.ok("backup", plain, "--name", "shop")
        custom = place.write("custom.pgdump", server.tool("pg_dump", "-Fc", "postgres"))
        place.ok("backup", custom, "--name", "custom")
        place.ok("backup", place.write("all.sql", server.tool("pg_dumpall")), "--name", "all")
        place.ok("backup", plain, custom, "--name", "several", "--kind", "database")
    place.ok("backup", place.write("store.sql", MARIADB), "--name", "store")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in CLUSTER.items():
            archive.addfile(member(name, data), io.BytesIO(data))
        archive.addfile(member("pg_notify", kind=tarfile.DIRTYPE))
    result = place.run("backup", place.write("base.tar", buffer.getvalue()), "--name", "cluster")
    assert result.exit_code == PARTIAL, "there is no manifest in it"
    with sqlite3.connect(place.root / "app.db") as connection:
        connection.execute("CREATE TABLE things (id integer, name text)")
        connection.execute("INSERT INTO things VALUES (1, 'one')")
    connection.close()
    place.ok("backup", place.root / "app.db", "--name", "app")
    place.ok("backup", place.write("things.sql", SQLITE), "--name", "things")
    cut_off = plain.read_bytes()[:-2000]
    assert place.run("backup", place.write("cut.sql", cut_off), "--name", "cut").exit_code == PARTIAL


def files(place: Place, mount: Mount) -> None:
    place.ok("backup", "--kind", "files", "--name", "etc", place.write("motd", "hello"), place.write("e", ""))
    with mount.opened() as repository:
        push_files(repository, place.root / "wal", file_name(1), file_name(2), "00000002.history")
        with Writer(repository) as writer:
            paths = ("a", "a/b", "a/b/c", "odd\nname/x", "gpj.\u202eexe", "[a]*", "files/x", "latest")
            items = [put_item(writer, repository, [path.encode()], path) for path in paths]
            writer.commit(replace(make_snapshot(*items), subject=Subject(SubjectKind.FILES, "../evil\x1b")))
        with Writer(repository) as writer:
            disk = put_item(writer, repository, [random_bytes(1 << 18, n) for n in range(4)], "disks/hda.raw")
            unread = replace(disk, kind=ItemKind.DISK, bad=(BadRange(512 << 10, 4096, "I/O error"),))
            twin = replace(disk, kind=ItemKind.DISK, path="more/hda.raw")
            writer.commit(replace(make_snapshot(unread, twin), subject=Subject(SubjectKind.VM, "old")))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    need_fuse()
    place = Place.make(tmp_path_factory.mktemp("one"))
    mount = Mount(place.repository, place.root / "mnt", place.root / "state")
    mount.mountpoint.mkdir()
    machine(place)
    databases(place)
    files(place, mount)
    with mount.mounted() as mountpoint:
        yield Shown(place, mountpoint)


SUBJECTS = {
    "vms/web01": {
        "disks/sdb.vdi",
        "files/sda/p1/etc/hard",
        "files/sda/p2.txt",
        "files/sdb/lvm/vg/home/letter",
    },
    "vms/old": {"disks/hda.raw", "more/hda.vmdk", "files/hda/p0.txt", "vm.json"},
    "databases/postgresql/shop": {"schema.sql", "tables/public.orders.sql"},
    "databases/postgresql/custom": {"dump.pgdump", "dump.sql", "tables/o%2Ed%2Fd.na%25me;--%0A.sql"},
    "databases/postgresql/all": {"globals.sql", "tables/postgres/public.orders.sql"},
    "databases/postgresql/several": {"shop/schema.sql", "custom/tables/public.orders.sql"},
    "databases/postgresql/cluster": {"data/base/5/2619", "data/pg_notify"},
    "databases/postgresql/cut": {"tables/public.orders.sql"},
    "databases/mariadb/store": {"tables/store.goods.sql"},
    "databases/sqlite/app": {"dump.sqlite", "snapshot.json"},
    "databases/sqlite/things": {"dump.sql", "tables/main.things.sql"},
    "files/etc": {"motd", "snapshot.json"},
    "files/.._evil_": {"files/x", "latest", "odd\nname/x"},
}
"""Every snapshot that is mounted, and some of what must be in it."""


def paths_below(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def test_every_subject_is_looked_at(shown: Shown) -> None:
    there = {
        str(path.parent.relative_to(shown.mountpoint))
        for path in shown.mountpoint.glob("*/**/latest")
        if path.is_symlink()
    }
    assert there == set(SUBJECTS)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_the_mount_shows_has_one_name_everywhere(shown: Shown, subject: str, tmp_path: Path) -> None:
    top, id_ = shown.top(subject), shown.id_of(subject)
    paths = paths_below(top)
    assert set(paths) >= SUBJECTS[subject]
    found = found_in(shown, id_, "*")
    assert set(paths) <= found, "find knows every path"
    for number, path in enumerate(paths):
        agree(shown, f"{id_}:{path}", top / path, tmp_path / str(number))
        assert Pattern(glob.escape(path.rpartition("/")[2])).matches(path.split("/"), 0)


def agree(shown: Shown, selector: str, path: Path, out: Path) -> None:
    """ls, info, dump and restore give what the mount gives."""
    fine = (0, PARTIAL)
    listed = shown.place.run("ls", selector)
    assert listed.exit_code in fine, (selector, listed.stderr)
    described = shown.place.run("info", selector)
    assert described.exit_code == 0, (selector, described.stderr)
    restored = shown.place.run("restore", selector, "--target", out, "--no-progress")
    assert restored.exit_code in fine, (selector, restored.stderr)
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        content = path.read_bytes()
        dumped = shown.place.run("dump", selector)
        assert dumped.exit_code in fine, (selector, dumped.stderr)
        assert dumped.stdout_bytes == content, selector
        assert out.read_bytes() == content, selector
    elif stat.S_ISLNK(mode):
        assert out.readlink() == path.readlink()
    elif stat.S_ISDIR(mode):
        assert out.is_dir(), selector
        assert shown.place.run("dump", selector).exit_code == 1


def found_in(shown: Shown, id_: str, *patterns: str) -> set[str]:
    result = shown.place.run("find", *patterns, "--snapshot", id_, "--json")
    assert result.exit_code in (0, PARTIAL), result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line["path"] for line in lines if line["message_type"] == "match"}


def test_names_are_found_one_by_one(shown: Shown) -> None:
    id_ = shown.id_of("vms/web01")
    for name, path in (
        ("[[]a]*", "files/sda/p1/[a]*?"),
        ("p2.txt", "files/sda/p2.txt"),
        ("lvm", "files/sdb/lvm"),
        ("sdb", "files/sdb"),
        ("vm.json", "vm.json"),
        ("sda.vhdx", "disks/sda.vhdx"),
        ("web01.xml", "definition/web01.xml"),
    ):
        assert path in found_in(shown, id_, name), name
    assert found_in(shown, shown.id_of("databases/postgresql/shop"), "orders") == {"tables/public.orders.sql"}


def test_files_of_a_log_archive_are_had_by_their_names(shown: Shown, tmp_path: Path) -> None:
    (logs,) = shown.mountpoint.glob("databases/*/*/logs")
    assert len(list(logs.iterdir())) == 3
    for path in logs.iterdir():
        told = shown.place.run("find", path.name, "--json").stdout.splitlines()
        (match,) = [line for line in map(json.loads, told) if line["message_type"] == "match"]
        assert match["path"] == path.name
        agree(shown, f"{match['versions'][0]['first']['id']}:{path.name}", path, tmp_path / path.name)


def test_escaped_names_are_taken_as_they_were_shown(shown: Shown) -> None:
    shown_path = "files/sda/p1/\\udcff\\x1b[31m\\x0a"
    assert shown.place.ok("dump", f"web01:{shown_path}") == "strange"
    assert shown.place.ok("dump", f"{shown.id_of('files/.._evil_')}:odd\\x0aname/x") == "odd\nname/x"
