"""The NBD client against a server of ours that behaves: order, reading ahead, pieces, errors, runs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from holdfast.base.errors import SourceError
from holdfast.ingest.nbd.source import NbdSource
from holdfast.repo.snapshots.snapshot import BadRange
from support.basics import random_bytes
from support.nbd import (
    ALLOCATION,
    DIRTY,
    UNSUPPORTED,
    FakeServer,
    Request,
    Server,
    chunk,
    data_chunk,
    error_chunk,
    export_info,
    go,
    hole_chunk,
    option_reply,
    read,
    status_chunk,
    usual,
)

MIB = 1 << 20
CONTENT = random_bytes(4 * MIB, 1)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return lambda **settings: FakeServer(str(tmp_path / "nbd.sock"), **({"content": CONTENT} | settings))


def test_many_reads_are_in_flight_and_replies_may_come_in_any_order(server: Server) -> None:
    """The server answers when it has four requests, the last one first: who waits for each one hangs."""
    with server() as fake, NbdSource(fake.uri, timeout=60) as source:
        fake.hold = 4
        assert source.name == "disk"
        assert read(source, 0, 4 * MIB) == CONTENT
        assert [r.offset for r in fake.requests[1:]] == [0, MIB, 2 * MIB, 3 * MIB]
    assert fake.goodbyes == 1


def test_reading_ahead_asks_for_what_comes_next_and_for_nothing_twice(server: Server) -> None:
    with server() as fake, NbdSource(fake.uri, timeout=60) as source:
        assert [extent.length for extent in source.extents(holes=True)] == [4 * MIB]
        assert b"".join(read(source, at * MIB, MIB) for at in range(4)) == CONTENT
        reads = [(r.offset, r.length) for r in fake.requests if r.kind == 0][1:]
        assert reads == [(at * MIB, MIB) for at in range(4)]


@pytest.mark.parametrize("hold", [1, 2])
def test_what_was_announced_and_is_not_read_is_thrown_away(server: Server, hold: int) -> None:
    with server() as fake, NbdSource(fake.uri, timeout=60) as source:
        fake.hold = hold
        source.will_read(0, MIB)
        source.will_read(MIB + 4096, 8192)
        source.will_read(2 * MIB, 8192)
        assert read(source, 2 * MIB, 4096) == CONTENT[2 * MIB : 2 * MIB + 4096]
        source.will_read(3 * MIB - 4096, 4096)
        assert read(source, 3 * MIB, 8192) == CONTENT[3 * MIB : 3 * MIB + 8192]
        assert read(source, 0, 4 * MIB) == CONTENT


def test_no_more_is_announced_than_there_is_room_for(server: Server) -> None:
    with server(content=bytes(40 * MIB)) as fake, NbdSource(fake.uri, timeout=60) as source:
        source.will_read(0, 40 * MIB)
        for at in range(1000):
            source.will_read(20 * MIB + at * 4096, 4096)
        assert read(source, 39 * MIB, 4096) == bytes(4096)
        assert len(fake.requests) == 1 + 16 + 1


def test_holes_and_data_of_one_read_may_come_in_pieces_in_any_order(server: Server) -> None:
    def answer(fake: FakeServer, r: Request) -> bytes:
        third = r.length // 3
        last = data_chunk(
            r, r.offset + 2 * third, fake.content[r.offset + 2 * third :][: r.length - 2 * third], done=False
        )
        hole = hole_chunk(r, r.offset + third, third, done=False)
        return (
            last + hole + data_chunk(r, r.offset, fake.content[r.offset :][:third], done=False) + chunk(r, 0)
        )

    content = CONTENT[:300_000] + bytes(300_000) + CONTENT[600_000:900_000]
    with server(content=content) as fake, NbdSource(fake.uri, timeout=60) as source:
        fake.read = answer
        assert read(source, 0, 900_000) == content


def test_a_read_error_is_narrowed_down_to_the_blocks_that_are_bad(server: Server) -> None:
    bad = range(100 * 4096 + 512, 102 * 4096 - 512)

    def answer(fake: FakeServer, r: Request) -> bytes:
        if r.offset < bad.stop and bad.start < r.offset + r.length:
            half = r.length // 2 or 1
            return data_chunk(r, r.offset, bytes(half), done=False) + error_chunk(r, 5)
        return data_chunk(r, r.offset, fake.content[r.offset :][: r.length])

    with server() as fake, NbdSource(fake.uri, timeout=60) as source:
        fake.read = answer
        found = read(source, 0, 4 * MIB)
        assert found == CONTENT[: 100 * 4096] + bytes(8192) + CONTENT[102 * 4096 :]
        assert source.bad == [BadRange(100 * 4096, 8192, "Input/output error")]
        assert len(fake.requests) < 30
        source.bad.clear()
        found = read(source, 100 * 4096 + 2048, 8192)
        assert found == bytes(6144) + CONTENT[102 * 4096 :][:2048]
        assert source.bad == [BadRange(100 * 4096 + 2048, 6144, "Input/output error")]


def test_a_server_that_refuses_long_reads_in_one_piece_is_read_in_several(server: Server) -> None:
    def answer(fake: FakeServer, r: Request) -> bytes:
        return error_chunk(r, 75) if r.flags & 4 and r.length > 64 << 10 else usual(fake, r)

    with server(read=answer, options=go(export_info(4 * MIB, 0x81))) as fake, NbdSource(fake.uri) as source:
        assert read(source, 0, 4 * MIB) == CONTENT
        assert read(source, 0, 4 * MIB) == CONTENT
        assert source.bad == []
        assert [r.flags for r in fake.requests][:2] == [4, 4]
        assert [r.flags for r in fake.requests][-4:] == [0] * 4


def test_block_status_runs_become_extents_at_4_kib_edges(server: Server) -> None:
    runs = [(100_000, 0), (100_000, 3), (200_000, 2), (8192, 1), (8192, 2), (MIB, 0)]

    def answer(fake: FakeServer, r: Request) -> bytes:
        return status_chunk(r, ALLOCATION, *runs, (5 * MIB, 3))

    with server(status=answer) as fake, NbdSource(fake.uri, timeout=60) as source:
        first, last = -(-100_000 // 4096) * 4096, 400_000 // 4096 * 4096
        second = -(-(416_384 + MIB) // 4096) * 4096
        found = [(e.start, e.start + (e.length or 0), e.is_hole) for e in source.extents(holes=True)]
        assert found == [
            (0, first, False),
            (first, last, True),
            (last, second, False),
            (second, 4 * MIB, True),
        ]
        assert [e.length for e in source.extents(holes=False)] == [4 * MIB]


def test_dirty_extents_are_the_bitmaps_and_joined(server: Server) -> None:
    def answer(fake: FakeServer, r: Request) -> bytes:
        runs = [(65536, 0), (65536, 1), (65536, 1), (65536, 0), (8 * MIB, 1)]
        return status_chunk(r, ALLOCATION, (r.length, 0), done=False) + status_chunk(r, DIRTY, *runs)

    with server(status=answer) as fake, NbdSource(fake.uri, bitmap="monday", timeout=60) as source:
        assert list(source.dirty_extents()) == [(65536, 3 * 65536), (4 * 65536, 4 * MIB)]


def test_simple_replies_do_without_block_status(server: Server) -> None:
    def answer(fake: FakeServer, r: Request) -> bytes:
        error = 5 if r.offset == MIB else 0
        data = b"" if error else fake.content[r.offset :][: r.length]
        return struct.pack(">IIQ", 0x67446698, error, r.cookie) + data

    refusal = option_reply(8, UNSUPPORTED)
    with (
        server(read=answer, options={"structured": refusal}) as fake,
        NbdSource(fake.uri, timeout=60) as source,
    ):
        assert [(e.length, e.is_hole) for e in source.extents(holes=True)] == [(4 * MIB, False)]
        assert read(source, 0, MIB) == CONTENT[:MIB]
        assert read(source, MIB, 4096) == bytes(4096)
        assert source.bad == [BadRange(MIB, 4096, "Input/output error")]
    with server(options={"structured": refusal}) as fake, pytest.raises(SourceError, match="no structured"):
        NbdSource(fake.uri, bitmap="monday", timeout=60)
