"""Custom archives of every version and compression, damaged ones, and those that were made to do harm."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, Refused
from holdfast.formats.dumps.core.catalogue import Catalogue, decode, encode
from holdfast.formats.dumps.postgresql.custom.files import files, table_rows
from holdfast.formats.dumps.postgresql.custom.unpack import Unpacker
from holdfast.formats.dumps.postgresql.plain.files import csv
from support.database import postgres_tool, run
from support.pgdump_examples import GZIP, LZ4, NONE, ZSTD, Entry, Writer, shop, unpack
from support.pgdump_real import content

VERSIONS = [(1, minor) for minor in range(10, 17)]
ROWS = b"".join(b"%d\tname %d\n" % (at, at * 7) for at in range(4000))
PLAIN = Writer().archive(shop())


def compressions(version: tuple[int, int]) -> list[int]:
    return [NONE, GZIP, ZSTD] if version >= (1, 15) else [NONE, GZIP]


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_every_version_and_compression_is_stored_the_same_way(version: tuple[int, int]) -> None:
    entries = shop(ROWS)
    for integer, offset in ((4, 8), (8, 8), (4, 4)):
        found = set()
        for compression in compressions(version):
            for piece, seekable in ((4096, False), (7, True), (1 << 20, True)):
                writer = Writer(version, compression, integer, offset, piece, seekable)
                archive = writer.archive(entries)
                stored, catalogue = unpack(archive)
                assert not catalogue.fault
                found.add(stored)
                again = content(files(catalogue, len(stored))["dump.pgdump"], stored)
                whole = Writer(version, NONE, integer, offset, 8 << 20, seekable=True)
                assert whole.toc(entries, {}) == stored[: catalogue.extra["toc"]]
                assert len(again) == _size(whole, entries)
                assert unpack(again)[0] == stored
        assert len(found) == 1


def _size(writer: Writer, entries: list[Entry]) -> int:
    """Of the archive that we make: large objects are in pieces of 64 KiB."""
    pieces = Writer(writer.version, NONE, writer.integer, writer.offset, 64 << 10)
    blocks = [
        b"".join((pieces if entry.large else writer).block(entry)) for entry in entries if entry.has_data
    ]
    return len(writer.toc(entries, {})) + sum(map(len, blocks))


@pytest.mark.parametrize("version", VERSIONS[:5], ids=str)
def test_pg_restore_reads_what_is_made_of_archives_of_older_versions(
    version: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "archive"
    for compression in compressions(version):
        stored, catalogue = unpack(Writer(version, compression).archive(shop(ROWS)))
        path.write_bytes(content(files(catalogue, len(stored))["dump.pgdump"], stored))
        found = run([postgres_tool("pg_restore"), "-f", "-", "--data-only", "-t", "goods", str(path)])
        assert ROWS in found
        assert b"goods_id" in run([postgres_tool("pg_restore"), "-l", str(path)])


def test_sql_of_newer_versions_has_what_they_added() -> None:
    entries = [
        *shop(),
        Entry(20, "TABLE", "parts", "CREATE TABLE public.parts (a int) PARTITION BY LIST (a);\n",
              drop="DROP TABLE public.parts;\n", table_am="columnar", relkind="p"),
        Entry(21, "BLOB METADATA", "5..6", "5\n6\n", drop="x", namespace=None, owner="a b"),
        Entry(22, "ACL", "LARGE OBJECTS 5..6", "GRANT ALL ON LARGE OBJECT 5 TO x;\n", namespace=None),
        Entry(23, "STATISTICS DATA", "goods", "SELECT pg_restore_relation_stats(1);\n\n"),
    ]  # fmt: skip
    stored, catalogue = unpack(Writer((1, 16), ZSTD, tool="18.1").archive(entries))
    sql = content(files(catalogue, len(stored))["dump.sql"], stored)
    for part in (
        b"SET transaction_timeout = 0;\n",
        b"ALTER VIEW public.v OWNER TO postgres;\n",
        b"ALTER TABLE public.parts SET ACCESS METHOD columnar;\n",
        b"SELECT pg_catalog.lo_create('5');\nSELECT pg_catalog.lo_create('6');\n\n",
        b'ALTER LARGE OBJECT 6 OWNER TO "a b";\n',
        b"-- Left out: grants on large objects; dump.pgdump has them.\n",
        b"-- Statistics for Name: goods; Type: STATISTICS DATA; Schema: public; Owner: postgres\n",
    ):
        assert part in sql, part
    assert sql.count(b"SET default_table_access_method = heap;\n") == 1
    assert catalogue.facts == {"server": "18.1", "tool": "pg_dump 18.1"}
    assert unpack(Writer((1, 10)).archive(shop()[:2] + shop()[3:]))[1].complete  # no search path


def test_an_endless_list_of_large_objects_makes_no_endless_sql() -> None:
    listed = Entry(21, "BLOB METADATA", "1..9", "1\n" * (8 << 20), drop="x", namespace=None)
    stored, catalogue = unpack(Writer((1, 16)).archive([*shop(), listed]))
    assert files(catalogue, len(stored))["dump.sql"].size < 200_000


def test_a_table_without_a_search_path_in_the_archive_gets_its_schema_set() -> None:
    entries = [entry for entry in shop() if entry.desc != "SEARCHPATH"]
    stored, catalogue = unpack(Writer((1, 12), tool="9.6.1").archive(entries))
    found = files(catalogue, len(stored))
    assert content(found["dump.sql"], stored).count(b"SET search_path = public, pg_catalog;\n\n") == 1
    assert b"SET search_path = public" in content(found["tables/public.goods.sql"], stored)


@given(data=st.data())
def test_how_the_archive_comes_in_makes_no_difference(data: st.DataObject) -> None:
    compression = data.draw(st.sampled_from([NONE, GZIP, ZSTD]))
    piece = data.draw(st.sampled_from([3, 50, 4096]))
    archive = Writer((1, 16), compression, piece=piece).archive(shop(ROWS[:2000]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(archive)), max_size=12)))
    unpacker = Unpacker()
    stored, borders = [], []
    for start, end in zip([0, *cuts], [*cuts, len(archive)], strict=True):
        for one in unpacker.feed(memoryview(archive)[start:end]):
            assert one
            stored.append(bytes(one))
            borders += unpacker.borders()
    assert (b"".join(stored), decode(encode(unpacker.finish()), "", 1 << 30)) == unpack(archive)
    assert borders == sorted(set(borders))


def test_one_byte_at_a_time() -> None:
    for compression in (NONE, GZIP):
        archive = Writer((1, 14), compression, piece=20).archive(shop(ROWS[:300]))
        assert unpack(archive, 1) == unpack(archive)


def test_borders_are_where_blocks_begin_and_are_told_in_time() -> None:
    tables = [
        Entry(
            at, "TABLE DATA", f"t{at}", copy=f"COPY public.t{at} (a) FROM stdin;\n", data=data + b"\\.\n\n\n"
        )
        for at, data in enumerate((b"1\n" * 5000, b"", b"2\n", b"3\n" * 3000, b"4\n"), start=10)
    ]
    unpacker = Unpacker()
    given_out, told = 0, []
    for piece in unpacker.feed(Writer().archive([*shop()[:3], *tables, *shop()[3:]])):
        told += [(border, given_out) for border in unpacker.borders()]
        given_out += len(piece)
    catalogue = unpacker.finish()
    starts = {s.name: s.start for s in catalogue.sections if s.type in ("TABLE DATA", "BLOBS")}
    assert [border for border, _ in told] == [starts["t11"], starts["t14"], starts["BLOBS"]] or [
        border for border, _ in told
    ] == [starts["t11"], starts["t14"]]
    assert all(border >= known for border, known in told)


# ---- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (Writer((1, 16), LZ4).archive(shop()), "lz4.*-Z0.*pg_restore -f -"),
        (PLAIN[:5] + b"\1\x09" + PLAIN[7:], "version 1.9;"),
        (PLAIN[:5] + b"\1\x11" + PLAIN[7:], "version 1.17;"),
        (PLAIN[:10] + b"\3" + PLAIN[11:], "tar-format.*-Fc"),
        (PLAIN[:10] + b"\5" + PLAIN[11:], "directory-format.*-Fc"),
        (PLAIN[:8] + b"\x21" + PLAIN[9:], "integers of 33"),
        (b"PGDMQ" + PLAIN[5:], "not an archive"),
        (Writer().archive([*shop(), shop()[3]]), "two entries with ID 4"),
        (Writer().archive([Entry(0, "TABLE", "t")]), "ID 0"),
        (Writer().archive([Entry(1, "ENCODING", "ENCODING", "SET x = 'y'; DROP TABLE z;")]), "encoding"),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_cannot_be_read_is_refused_before_anything_is_given_out(archive: bytes, reason: str) -> None:
    unpacker = Unpacker()
    with pytest.raises(Refused, match=reason):
        next(unpacker.feed(archive))


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def test_an_archive_with_too_large_a_table_of_contents_is_stored_as_it_came() -> None:
    number = Writer().number
    head = PLAIN[: PLAIN.index(number(len(shop())), 60)]
    many = head + number(3_000_000) + bytes(5 << 20)
    large = head + number(50_000) + number(1) + number(0) + (number(40 << 20) + bytes(40 << 20)) * 3
    for archive in (many, large):
        unpacker = Unpacker()
        stored = b"".join(
            piece
            for at in range(0, len(archive), 1 << 20)
            for piece in unpacker.feed(archive[at : at + (1 << 20)])
        )
        assert stored == archive
        catalogue = unpacker.finish()
        assert "would take more than 320 MiB of memory: it was stored as it came" in catalogue.fault
        found = files(catalogue, len(stored))
        assert list(found) == ["dump.pgdump"]
        assert content(found["dump.pgdump"], stored) == archive


def test_impossible_lengths_take_no_memory() -> None:
    number = Writer().number
    head = PLAIN[: PLAIN.index(number(len(shop())), 60)]
    string = number(1) + number(0) + number((1 << 31) - 1)
    with memory_limit(4 << 20):
        for archive in (head + number((1 << 31) - 1), head + number(9) + string):
            with pytest.raises(Refused, match="is damaged"):
                list(Unpacker().feed(archive))
        assert list(Unpacker().feed(head + number(50_000) + number(1))) == []


@pytest.mark.parametrize("compression", [GZIP, ZSTD])
def test_a_bomb_fills_no_memory(compression: int) -> None:
    archive = Writer((1, 16), compression, piece=1 << 20).archive(shop(bytes(100 << 20) + b"\n"))
    assert len(archive) < 1 << 20
    unpacker = Unpacker()
    with memory_limit(48 << 20):
        assert sum(map(len, unpacker.feed(archive))) > 100 << 20
    assert unpacker.finish().complete


# ---- what is damaged ------------------------------------------------------------------------------------


def damaged(change: bytes, at: int, archive: bytes) -> Catalogue:
    return unpack(archive[:at] + change + archive[at + len(change) :])[1]


@dataclass
class Packed(Writer):
    """Stores `data` as it is, as if that were what the compression made."""

    data: bytes = b""

    def packed(self, content: bytes) -> bytes:
        return self.data


def test_damage_in_compressed_data_is_a_fault() -> None:
    for compression, at in ((GZIP, 500), (ZSTD, 11)):  # within a frame, zstd tells no damage
        writer = Writer((1, 16), compression)
        archive = writer.archive(shop(ROWS))
        start = len(writer.toc(shop(ROWS), {}))
        found = damaged(b"\xff\xff", start + at, archive).fault
        assert "compressed data of TABLE DATA public goods is damaged" in found
    packed = zlib.compress(b"1\ta\n\\.\n\n\n")
    for content_, reason in ((packed[:-3], "ends early"), (packed + b"x", "something follows")):
        writer = Packed((1, 14), GZIP, data=content_)
        assert reason in unpack(writer.archive(shop()))[1].fault


def test_blocks_that_do_not_fit_the_table_of_contents_are_faults() -> None:
    writer = Writer()
    entries = shop()
    rows = next(entry for entry in entries if entry.desc == "TABLE DATA")
    whole = writer.archive(entries)
    again = b"".join(writer.block(rows))
    swapped = writer.toc(entries, {}) + b"\3" + again[1:]
    negative = whole.replace(again, again[:6] + b"\1" + again[7:])
    unknown = writer.toc(entries, {}) + b"\1" + writer.number(99)
    for archive, reason in (
        (whole + again, "had it already"),
        (swapped, "is of type 3"),
        (negative, "negative length"),
        (unknown, "entry 99"),
        (writer.archive(shop(b"1\ta\n\\.x")), "do not end with a line"),
        (writer.toc(entries, {}) + again, "1 entries have no data, the first is BLOBS"),
    ):
        assert reason in unpack(archive)[1].fault


@pytest.mark.parametrize("compression", [NONE, GZIP, ZSTD])
def test_an_archive_is_whole_at_its_end_and_nowhere_else(compression: int) -> None:
    entries = [entry for entry in shop() if entry.desc != "BLOBS"]
    entries.append(Entry(40, "BLOBS", "BLOBS", namespace=None, large=[(1, b"abc"), (2, b"")]))
    archive = Writer((1, 16), compression, piece=5).archive(entries)
    assert unpack(archive)[1].complete
    for cut in range(len(archive)):
        assert "ends early" in unpack(archive[:cut])[1].fault
    for more in (b"\0", b"\1", bytes(5), bytes(6), b"\1" + bytes(9)):
        assert unpack(archive + more)[1].fault


@given(
    changes=st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.binary(min_size=1, max_size=6)), min_size=1)
)
def test_whatever_was_changed_there_is_an_answer(changes: list[tuple[int, bytes]]) -> None:
    archive = bytearray(PLAIN)
    for at, change in changes:
        archive[at : at + len(change)] = change
    try:
        stored, catalogue = unpack(bytes(archive))
    except Refused:
        return
    for file in files(catalogue, len(stored)).values():
        assert len(content(file, stored)) == file.size
    for rows in table_rows(catalogue).values():
        try:
            for _ in csv(rows, lambda start, length: [stored[start : start + length]]):
                pass
        except (Damaged, Refused):
            pass


def test_names_cannot_end_a_comment() -> None:
    evil = "x\n\\! touch /tmp/owned\n--\rDROP TABLE y;"
    entries = [*shop(), Entry(30, evil, evil, "SELECT 1;\n", namespace=evil, owner=evil)]
    stored, catalogue = unpack(Writer().archive(entries))
    sql = content(files(catalogue, len(stored))["dump.sql"], stored)
    assert b"\n\\!" not in sql
    assert b"\r" not in sql


def test_a_catalogue_that_points_elsewhere_is_refused() -> None:
    stored, catalogue = unpack(PLAIN)
    for change in (
        {"sql": [[0, len(stored) + 1]]},
        {"sql": [[-1, 4]]},
        {"sql": "x"},
        {"plain": "{"},
        {"plain": "\udc80"},
        {"toc": len(stored) + 1},
        {"integer": 5},
        {"toc": "x"},
    ):
        wrong = Catalogue(catalogue.engine, "pgdump", catalogue.sections, extra={**catalogue.extra, **change})
        with pytest.raises(Damaged):
            files(wrong, len(stored))
