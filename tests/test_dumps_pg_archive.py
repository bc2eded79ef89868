"""Archives of a real pg_dump: taken apart, and put together again so that pg_restore cannot tell."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from database_support import PostgresServer, postgres_server
from holdfast.dumps.catalogue import Catalogue, decode, encode
from holdfast.dumps.composed import Composed
from holdfast.dumps.names import file_name
from holdfast.dumps.pg_archive_blocks import ArchiveUnpacker
from holdfast.dumps.pg_archive_files import files, table_rows
from holdfast.dumps.pg_archive_format import is_archive, is_tar_dump
from holdfast.dumps.postgres import PostgresVisitor
from holdfast.dumps.postgres_files import csv
from holdfast.dumps.postgres_files import files as plain_files
from holdfast.dumps.scan import BORDER_DISTANCE, Scanner
from holdfast.repo.errors import Refused, SourceError
from postgres_examples import HOSTILE_TABLES, ROLES, fill, identifier

RICH = "rich"
MORE = """
CREATE TABLE public.long (a int, b text);
INSERT INTO long SELECT n, md5(n::text) FROM generate_series(1, 4000) n;
CREATE TABLE public.nothing_in_it (a text);
CREATE TABLE public.no_columns ();
INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE public.blank (a text);
INSERT INTO blank SELECT '' FROM generate_series(1, 30);
CREATE TABLE public.again (LIKE long);
INSERT INTO again SELECT * FROM long;
SELECT lo_from_bytea(1001, 'abc'), lo_from_bytea(1002, ''),
  lo_from_bytea(3000000000, decode(repeat('00ff0a', 9000), 'hex'));
COMMENT ON LARGE OBJECT 1001 IS 'a large one';
GRANT SELECT ON LARGE OBJECT 1001 TO alice;
"""
OPTIONS = {
    "not compressed": ("-Z0",),
    "compressed": ("-Z6",),
    "inserts": ("--inserts", "-Z0"),
    "inserts with columns": ("--column-inserts", "--rows-per-insert=7"),
    "schema alone": ("--schema-only",),
    "data alone": ("--data-only",),
    "clean": ("--clean", "--create", "--no-owner", "--no-privileges"),
    "post-data": ("--section=post-data",),
    "by root": ("--load-via-partition-root", "--no-blobs"),
}
NOTE = b"-- The contents of 6 large objects are left out here; dump.pgdump has them.\n\n"
LARGE_OBJECTS = re.compile(rb"--\n-- Data for Name: BLOBS; .*\n--\n\n" + NOTE[:-2])


@dataclass(frozen=True)
class Place:
    server: PostgresServer
    folder: Path


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A server, and a folder for archives; where the server's own user may go, unlike pytest's folders."""
    folder = Path(tempfile.mkdtemp(prefix="hf-archive-"))
    folder.chmod(0o755)
    try:
        with postgres_server(folder / "s") as server:
            server.psql(ROLES)
            fill(server, RICH)
            server.psql(MORE, RICH)
            yield Place(server, folder)
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Stored:
    content: bytes
    catalogue: Catalogue
    borders: list[int]

    def file(self, composed: Composed) -> bytes:
        parts = composed.parts(0, composed.size)
        return b"".join(
            part.data if part.data is not None else self.content[part.disk : part.disk + part.length]
            for part in parts
        )

    def files(self) -> dict[str, bytes]:
        made = files(self.catalogue, len(self.content))
        return {path: self.file(composed) for path, composed in made.items()}


def unpack(archive: bytes, step: int = 1 << 20) -> Stored:
    unpacker = ArchiveUnpacker()
    content = bytearray()
    borders = []
    for at in range(0, len(archive), step):
        for piece in unpacker.feed(memoryview(archive)[at : at + step]):
            content += piece
        borders += unpacker.take_borders()
    found = unpacker.finish()
    catalogue = decode(encode(found), "catalogue", len(content))  # as it comes back from the repository
    return Stored(bytes(content), catalogue, borders)


def archive_of(place: Place, *options: str, database: str = RICH, pipe: bool = True) -> bytes:
    if pipe:
        return place.server.tool("pg_dump", "-Fc", *options, "-d", database)
    path = place.folder / "archive"
    place.server.tool("pg_dump", "-Fc", *options, "-f", str(path), "-d", database)
    return path.read_bytes()


def restored_text(place: Place, archive: bytes) -> bytes:
    """What `pg_restore -f -` prints, without its random keys."""
    text = place.server.tool("pg_restore", "-f", "-", stdin=archive)
    return re.sub(rb"^\\(un)?restrict .*\n\n", b"", text, flags=re.M)


@pytest.mark.parametrize("pipe", [True, False], ids=["pipe", "file"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_pg_restore_makes_the_same_of_the_archive_put_together_again(
    place: Place, options: tuple[str, ...], pipe: bool
) -> None:
    archive = archive_of(place, *options, pipe=pipe)
    assert is_archive(archive)
    stored = unpack(archive)
    assert stored.catalogue.complete
    made = stored.files()
    want = restored_text(place, archive)
    assert restored_text(place, made["dump.pgdump"]) == want
    (place.folder / "again").write_bytes(made["dump.pgdump"])
    listed = place.server.tool("pg_restore", "-l", str(place.folder / "again"))
    without_size = re.compile(rb";     Compression: .*\n")
    assert without_size.sub(b"", listed) == without_size.sub(
        b"", place.server.tool("pg_restore", "-l", stdin=archive)
    )
    contents = re.compile(rb"BEGIN;\n\nSELECT pg_catalog\.lo_open.*?\nCOMMIT;\n\n", re.S)
    assert made["dump.sql"] == contents.sub(NOTE, want)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tables_and_schema_are_those_of_the_plain_dump(place: Place, options: tuple[str, ...]) -> None:
    stored = unpack(archive_of(place, *options))
    made = stored.files()
    plain = made["dump.sql"]
    scanner = Scanner(PostgresVisitor())
    scanner.feed(plain)
    want = plain_files(scanner.finish(), len(plain))
    assert {*want} == {*made} - {"dump.pgdump", "dump.sql"}
    for path, composed in want.items():
        parts = composed.parts(0, composed.size)
        text = b"".join(
            part.data if part.data is not None else plain[part.disk : part.disk + part.length]
            for part in parts
        )
        # The scanner of plain dumps takes the comment on large objects for a part of the schema.
        assert made[path] == LARGE_OBJECTS.sub(b"", text), path


def test_each_table_s_file_loads_alone(place: Place) -> None:
    made = unpack(archive_of(place)).files()
    tables = [path for path in made if path.startswith("tables/")]
    assert len(tables) > len(HOSTILE_TABLES) + 19
    for path in tables:
        place.server.psql("DROP DATABASE IF EXISTS single; CREATE DATABASE single TEMPLATE template0;")
        arguments = ("-Xq", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", "single", "-f", "-")
        place.server.tool("psql", *arguments, stdin=made[path])
    place.server.psql("DROP DATABASE single")


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_database_restored_from_it_is_the_one_that_was_dumped(place: Place, jobs: int) -> None:
    path = place.folder / "again"
    path.write_bytes(unpack(archive_of(place, "-Z6")).files()["dump.pgdump"])
    place.server.psql("CREATE DATABASE again TEMPLATE template0")
    place.server.tool("pg_restore", "-e", "-j", str(jobs), "-d", "again", str(path))
    keys = re.compile(rb"^\\(un)?restrict .*\n", re.M)
    dumps = [keys.sub(b"", place.server.tool("pg_dump", "-d", name)) for name in (RICH, "again")]
    assert dumps[0] == dumps[1]
    place.server.psql("DROP DATABASE again")


def test_one_table_can_be_taken_out_of_it(place: Place) -> None:
    archive = archive_of(place, "-Z6")
    again = unpack(archive).files()["dump.pgdump"]
    arguments = ("pg_restore", "-f", "-", "-t", "long")
    without_keys = re.compile(rb"^\\(un)?restrict .*\n", re.M)
    found = [without_keys.sub(b"", place.server.tool(*arguments, stdin=stdin)) for stdin in (archive, again)]
    assert found[0] == found[1]
    assert found[0].count(b"\n") > 4000


@pytest.mark.parametrize("options", [(), ("--column-inserts",)])
def test_rows_are_stored_as_a_plain_dump_has_them(place: Place, options: tuple[str, ...]) -> None:
    stored = unpack(archive_of(place, "-t", "public.long", *options))
    plain = place.server.tool("pg_dump", "-t", "public.long", *options, "-d", RICH)
    scanner = Scanner(PostgresVisitor())
    scanner.feed(plain)
    rows = [s.extra["data"] for s in scanner.finish().sections if s.type == "TABLE DATA"]
    data = [s for s in stored.catalogue.sections if s.type == "TABLE DATA"]
    assert [stored.content[s.start : s.start + s.length] for s in data] == [
        plain[start : start + length] for start, length in rows
    ]
    assert stored.borders[-1] == len(stored.content) == data[0].start + data[0].length
    assert data[0].table == ("public", "long")
    assert data[0].extra["columns"] == ["a", "b"]


def test_what_is_stored_does_not_depend_on_compression_or_on_a_pipe(place: Place) -> None:
    def body(archive: bytes) -> tuple[int, bytes]:
        stored = unpack(archive)
        start = stored.catalogue.sections[0].length
        return start, stored.content[start:]

    kinds = [archive_of(place, z, pipe=pipe) for z in ("-Z0", "-Z6") for pipe in (True, False)]
    assert len({body(archive) for archive in kinds}) == 1


def test_a_csv_is_what_the_server_s_own_copy_writes(place: Place) -> None:
    for options in ((), ("--inserts",), ("--rows-per-insert=3", "--column-inserts")):
        stored = unpack(archive_of(place, *options))
        found = table_rows(stored.catalogue)
        tables = {s.table for s in stored.catalogue.sections if s.table}
        assert len(tables) > len(HOSTILE_TABLES) + 10
        for schema, name in sorted(tables):
            relation = f"{identifier(schema)}.{identifier(name)}"
            want = place.server.psql(f"COPY {relation} TO STDOUT (FORMAT csv, HEADER)", RICH)
            rows = found[f"tables/{file_name(schema, name)}"]
            got = b"".join(csv(rows, lambda at, length: [stored.content[at : at + length]]))  # noqa: B023
            assert got.decode() == want, (relation, options)


def test_borders_are_where_blocks_begin_and_end(place: Place) -> None:
    stored = unpack(archive_of(place))
    edges = {edge for s in stored.catalogue.sections for edge in (s.start, s.start + s.length)}
    assert set(stored.borders) <= edges
    assert all(b - a >= BORDER_DISTANCE for a, b in zip([0, *stored.borders], stored.borders, strict=False))
    long = next(s for s in stored.catalogue.sections if s.name == "long")
    assert long.start + long.length in stored.borders


@pytest.mark.parametrize("step", [1, 7, 4099])
@pytest.mark.parametrize("options", [("-Z0",), ("-Z6", "--inserts")])
def test_nothing_depends_on_how_the_archive_comes_in(
    place: Place, options: tuple[str, ...], step: int
) -> None:
    archive = archive_of(place, "-t", "public.blank", "-t", "public.again", "-b", *options, pipe=False)
    assert unpack(archive, step) == unpack(archive)


@pytest.mark.parametrize("compression", ["-Z0", "-Z6"])
@pytest.mark.parametrize("pipe", [True, False])
def test_an_archive_that_was_cut_is_never_whole(place: Place, compression: str, pipe: bool) -> None:
    archive = archive_of(place, compression, "-t", "public.*", "-b", pipe=pipe)
    assert unpack(archive).catalogue.complete
    chance = random.Random(5)
    end = len(archive)
    cuts = {chance.randrange(end) for _ in range(150)} | set(range(60)) | set(range(end - 300, end))
    for cut in cuts:
        try:
            stored = unpack(archive[:cut])
        except (SourceError, Refused):
            continue
        assert stored.catalogue.fault, cut
        files(stored.catalogue, len(stored.content))


def test_tar_archives_are_known(place: Place) -> None:
    head = place.server.tool("pg_dump", "-Ft", "-d", RICH)[:512]
    assert is_tar_dump(head)
    assert not is_archive(head)
    assert not is_tar_dump(archive_of(place)[:512])
