"""The worker that parses guests, from the parent's side: its answers, and the disk that it reads."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, StoreError
from holdfast.formats.guests.client.guest import GuestDisk
from holdfast.formats.guests.values.values import (
    GuestDamaged,
    GuestMissing,
    NodeType,
    Volume,
    WorkerFailed,
)
from holdfast.formats.guests.worker.disk_cache import BLOCK, CachedDisk
from holdfast.formats.guests.worker.process import Limits
from holdfast.formats.guests.worker.protocol import Channel, Kind, Opening, Request, Want
from holdfast.formats.guests.worker.worker import Worker
from support import guest_fakes
from support.basics import random_bytes
from support.guest import CONTENT, SIZE, MemoryDisk, open_guest, process_of, said
from support.guest_fakes import (
    ENDLESS,
    EXTENTS,
    FILE,
    MANY,
    MANY_FOLDER,
    ODD_NAME,
    PACKED,
    ROOT,
    make_entry,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[GuestDisk, MemoryDisk]]:
    """A worker for tests that leave it as it was."""
    disk = MemoryDisk()
    with open_guest(disk, "secret") as guest:
        yield guest, disk


# ---- answers ------------------------------------------------------------------------------------------


def test_volumes_come_with_their_texts_and_each_with_a_name_of_its_own(
    shared: tuple[GuestDisk, MemoryDisk],
) -> None:
    assert shared[0].volumes() == (
        Volume("p1", SIZE, 0, "fake", "label", ""),
        Volume("lvm/vg/swap", 4096, -1, "", "", "secret"),
        Volume("lvm/vg/swap~2", 4096, -1, "", "", "a second of the same name"),
    )


def test_every_question_has_its_answer(shared: tuple[GuestDisk, MemoryDisk]) -> None:
    guest, _ = shared
    file = make_entry(FILE, NodeType.FILE, 10_000, EXTENTS)
    assert guest.root("p1") == make_entry(ROOT, NodeType.FOLDER)
    assert guest.entry("p1", FILE) == file
    assert guest.lookup("p1", ROOT, b"file") == file
    assert list(guest.list("p1", ROOT)) == [
        (b"file", file),
        (b"many", make_entry(MANY_FOLDER, NodeType.FOLDER)),
    ]
    assert guest.readlink("p1", FILE) == b"/etc/passwd"
    assert guest.xattrs("p1", FILE) == {b"user.comment": b"\0value"}


def test_what_is_not_there_is_missing(shared: tuple[GuestDisk, MemoryDisk]) -> None:
    guest, _ = shared
    for ask in (
        lambda: guest.root("p9"),
        lambda: guest.root("lvm/vg/swap"),
        lambda: guest.entry("p1", 99),
        lambda: guest.entry("p1", 2**64),
        lambda: guest.entry("p1", -1),
        lambda: guest.lookup("p1", ROOT, b"nothing"),
        lambda: guest.lookup("p1", ROOT, b"x" * 70_000),
        lambda: list(guest.list("p9", ROOT)),
    ):
        with pytest.raises(GuestMissing, match="sda: "):
            ask()


def test_a_large_folder_comes_in_pages_and_other_questions_may_come_between(
    shared: tuple[GuestDisk, MemoryDisk],
) -> None:
    guest, _ = shared
    listings = [guest.list("p1", MANY_FOLDER) for _ in range(17)]  # more than the worker keeps open
    firsts = [next(listing) for listing in listings]
    guest.root("p1")
    for at in (0, -1):
        names = [name for name, _ in (firsts[at], *listings[at])]
        assert names == [b"name %d" % i for i in range(MANY)]


def test_a_worker_keeps_few_listings_open() -> None:
    worker = Worker(Channel(socket.socket()), guest_fakes.open_volumes)
    with worker._channel.socket:
        worker._open(Opening(SIZE, [], 1))
        for position in range(40):
            kind, _ = worker._list(Request(Kind.LIST, "p1", MANY_FOLDER, position))
            assert kind is Kind.PAGE
        assert len(worker._listings) == 16


def test_a_listing_goes_on_with_a_fresh_worker() -> None:
    with open_guest(MemoryDisk()) as guest:
        listing = guest.list("p1", MANY_FOLDER)
        first = [next(listing) for _ in range(100)]
        with pytest.raises(WorkerFailed):
            guest.lookup("p1", ROOT, b"exit")
        assert [name for name, _ in first + list(listing)] == [b"name %d" % i for i in range(MANY)]


def test_a_folder_with_damage_or_an_impossible_name_is_damaged(shared: tuple[GuestDisk, MemoryDisk]) -> None:
    guest, _ = shared
    with pytest.raises(
        GuestDamaged,
        match=r"^sda: directory: name of an entry is b'../../etc/passwd'; it",
    ):
        list(guest.list("p1", ODD_NAME))
    listing = guest.list("p1", guest_fakes.DAMAGED_LATER)
    assert [next(listing)[0] for _ in range(2000)] == [b"name %d" % i for i in range(2000)]
    with pytest.raises(GuestDamaged, match="block 7"):
        next(listing)


def test_an_endless_folder_ends_as_damaged() -> None:
    with open_guest(MemoryDisk(), limits=Limits(names=10_000)) as guest:
        listing = guest.list("p1", ENDLESS)
        assert {name for name, _ in islice(listing, 10_000)} == {b"again"}
        with pytest.raises(
            GuestDamaged,
            match=r"number of names is at least 12000; it must be at most 10000$",
        ):
            next(listing)
        assert guest.root("p1").inode == ROOT


@settings(max_examples=30)
@given(st.integers(0, 3 << 20), st.integers(0, 3 << 20))
def test_bytes_of_a_file_come_through_its_parser(
    shared: tuple[GuestDisk, MemoryDisk], offset: int, length: int
) -> None:
    guest, _ = shared
    expected = CONTENT[offset : min(offset + length, 3 << 20)]
    assert guest.read("p1", PACKED, offset, length) == expected


# ---- the disk, as the worker sees it ------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, SIZE), st.integers(0, 1 << 20))
def test_a_parser_reads_the_disks_bytes(
    shared: tuple[GuestDisk, MemoryDisk], offset: int, length: int
) -> None:
    length = min(length, SIZE - offset, 200)
    assert said(shared[0], f"read {offset} {length}") == CONTENT[offset : offset + length].hex()


@pytest.mark.parametrize(("offset", "length"), [(SIZE, 1), (SIZE - 1, 2), (-1, 2), (0, -1), (2**70, 1)])
def test_a_parser_that_reads_outside_of_the_disk_met_damage(
    shared: tuple[GuestDisk, MemoryDisk], offset: int, length: int
) -> None:
    guest, disk = shared
    reads = len(disk.reads)
    assert "it must be inside the disk's 16789561 bytes" in said(guest, f"read {offset} {length}")
    assert len(disk.reads) == reads


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 40 * BLOCK), st.integers(0, 5 * BLOCK)), max_size=12))
def test_the_cache_of_a_worker_gives_the_disks_bytes(reads: list[tuple[int, int]]) -> None:
    content = random_bytes(40 * BLOCK + 777, 5)
    disk = CachedDisk(len(content), lambda want: content[want.offset : want.offset + want.length])
    for offset, length in reads:
        length = min(length, len(content) - offset)  # noqa: PLW2901  to the end of the disk
        assert disk.read(offset, length) == content[offset : offset + length]


def test_small_reads_are_cheap_and_reading_on_asks_for_more_at_once() -> None:
    wants: list[Want] = []

    def fetch(want: Want) -> bytes:
        wants.append(want)
        return bytes(want.length)

    disk = CachedDisk(64 << 20, fetch)
    for offset in range(0, 64 << 20, 4096):
        disk.read(offset, 4096)
    assert [want.length // BLOCK for want in wants[:6]] == [1, 2, 4, 8, 16, 16]
    assert len(wants) < 80
    wants.clear()
    disk.read((64 << 20) - 40 * BLOCK, 4096)
    assert not wants  # kept
    disk.read(0, 4096)
    assert [want.length for want in wants] == [BLOCK]  # not kept for ever
    with pytest.raises(GuestDamaged, match="is 1073741824; it must be at most 67108864 bytes"):
        CachedDisk(1 << 40, fetch).read(0, 1 << 30)


# ---- a repository that cannot deliver -----------------------------------------------------------------


def test_a_repository_error_reaches_the_caller_as_itself_even_when_the_parser_hides_it() -> None:
    disk = MemoryDisk()
    error = disk.bad[5_000_000] = Damaged("pack ab", "the record does not open", offset=7)
    with open_guest(disk) as guest:
        process = process_of(guest)
        for trick in ("read 4999999 2", "swallow 4999999 2"):
            with pytest.raises(Damaged) as caught:
                guest.lookup("p1", ROOT, trick.encode())
            assert caught.value is error
        assert said(guest, "read 4999999 1") == CONTENT[4999999:5000000].hex()  # beside it all is well
        assert said(guest, "read 5000001 1") == CONTENT[5000001:5000002].hex()
        disk.bad.clear()
        for trick in ("read", "swallow"):  # nothing of the failure is remembered
            assert said(guest, f"{trick} 4999999 2") == CONTENT[4999999:5000001].hex()
        assert process_of(guest) == process


def test_damage_under_one_volume_leaves_the_others_to_be_read() -> None:
    disk = MemoryDisk()
    disk.bad[1000] = Damaged("pack ab", "gone")
    with open_guest(disk, "read at 1000") as guest:
        assert "the repository cannot deliver" in guest.volumes()[1].text
        assert guest.root("p1").inode == ROOT


def test_a_store_that_is_away_while_volumes_are_looked_for_is_asked_again_later() -> None:
    disk = MemoryDisk()
    disk.bad[1000] = StoreError.wrap("read", "packs/ab", OSError(5, "Input/output error"))
    with open_guest(disk, "read at 1000") as guest:
        for _ in range(2):
            with pytest.raises(StoreError):
                guest.volumes()
        disk.bad.clear()
        assert guest.volumes()[1].text == "read at 1000"


def test_ranges_that_were_not_backed_up_are_the_disks_error_too() -> None:
    disk = MemoryDisk()
    disk.bad[1000] = GuestDamaged("sda: 1000 could not be read when it was backed up")
    with open_guest(disk) as guest, pytest.raises(GuestDamaged, match="when it was backed up"):
        guest.lookup("p1", ROOT, b"swallow 1000 1")


def test_a_slow_repository_does_not_count_as_the_workers_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    disk = MemoryDisk()

    class SlowDisk(MemoryDisk):
        def read(self, offset: int, length: int) -> bytes:
            now[0] += 1000
            return super().read(offset, length)

    disk = SlowDisk()
    with open_guest(disk, limits=Limits(answer_seconds=30)) as guest:
        assert said(guest, "read 0 4") == CONTENT[:4].hex()
