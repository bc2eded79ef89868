"""The parts of the mount that show guests, one by one: inode numbers, files put together from a disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import pairwise

import pyfuse3
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged
from holdfast.base.types import Buffer, SnapshotID
from holdfast.formats.disks.base.view import ViewPart
from holdfast.formats.guests.values.values import DiskExtent, GuestDamaged
from holdfast.fusefs.bridge import Bridge
from holdfast.fusefs.guest_file import MappedFile, ParsedFile
from holdfast.fusefs.guest_inodes import Slots, VolumeKey, guest_number, is_guest, split_number
from holdfast.fusefs.inodes import number_of
from holdfast.fusefs.view_file import OpenView
from holdfast.repo.snapshots.snapshot import BadRange
from support.basics import random_bytes

DISK = random_bytes(1 << 16, 1)


class OneBuffer:
    """A disk that answers every read out of the same buffer, as the real one does."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._buffer = bytearray(1 << 20)
        self.closed = 0

    async def read(self, offset: int, length: int) -> Buffer:
        part = self._content[offset : offset + length]
        self._buffer[: len(part)] = part
        return memoryview(self._buffer)[: len(part)]

    def close(self) -> None:
        self.closed += 1


def key(volume: str) -> VolumeKey:
    return VolumeKey(SnapshotID("a" * 64), "disks/sda.raw", volume)


def test_numbers_of_guests_are_told_from_all_others() -> None:
    assert not is_guest(1)
    assert not is_guest(number_of("anything"))
    assert is_guest(guest_number(0, 0))


@given(st.integers(0, (1 << 18) - 1), st.integers(0, (1 << 44) - 1))
def test_a_number_says_its_volume_and_its_inode(slot: int, inode: int) -> None:
    number = guest_number(slot, inode)
    assert number < 1 << 63
    assert split_number(number) == (slot, inode)


@pytest.mark.parametrize("inode", [-1, 1 << 44, 1 << 63])
def test_an_inode_number_without_room_is_refused(inode: int) -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        guest_number(0, inode)
    assert caught.value.errno == errno.EOVERFLOW


def test_a_volume_keeps_its_slot_and_shares_it_with_none() -> None:
    slots = Slots()
    volumes = [key(f"p{n}") for n in range(2000)]
    taken = [slots.slot(volume) for volume in volumes]
    assert len(set(taken)) == len(taken)
    assert [slots.slot(volume) for volume in volumes] == taken
    assert [slots.key(slot) for slot in taken] == volumes
    assert Slots().slot(volumes[7]) == taken[7]


def test_a_slot_that_was_never_handed_out_is_stale() -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        Slots().key(5)
    assert caught.value.errno == errno.ESTALE


@st.composite
def mapped(draw: st.DrawFn) -> tuple[tuple[DiskExtent, ...], bytes]:
    """A file's extents, and the content they make."""
    lengths = draw(st.lists(st.integers(1, 9000), max_size=6))
    starts = [sum(lengths[:n]) for n in range(len(lengths))]
    extents = []
    content = b""
    for start, length in zip(starts, lengths, strict=True):
        disk = draw(st.one_of(st.just(-1), st.integers(0, len(DISK) - length)))
        extents.append(DiskExtent(start, length, disk))
        content += bytes(length) if disk < 0 else DISK[disk : disk + length]
    return tuple(extents), content


@given(mapped(), st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 60_000)), max_size=5))
def test_a_mapped_file_is_its_extents_whatever_is_read(
    file: tuple[tuple[DiskExtent, ...], bytes], reads: list[tuple[int, int]]
) -> None:
    extents, content = file
    opened = MappedFile(extents, len(content), OneBuffer(DISK))
    for offset, length in [*reads, (0, len(content))]:
        assert bytes(trio.run(opened.read, offset, length)) == content[offset : offset + length]


def test_what_was_lost_at_the_backup_is_an_error_and_no_zeros() -> None:
    bad = [BadRange(8192, 4096, "Input/output error")]
    file = MappedFile((DiskExtent(0, 20_000, 4096),), 20_000, OneBuffer(DISK), bad)
    assert bytes(trio.run(file.read, 0, 4096)) == DISK[4096:8192]
    assert bytes(trio.run(file.read, 8192, 100)) == DISK[12_288:12_388]
    for offset, length in ((0, 4097), (4096, 1), (8191, 1)):
        with pytest.raises(GuestDamaged, match="could not be read when it was backed up"):
            trio.run(file.read, offset, length)


def test_a_mapped_file_behind_the_end_of_its_disk_is_damaged() -> None:
    file = MappedFile((DiskExtent(0, 100, len(DISK) - 50),), 100, OneBuffer(DISK))
    with pytest.raises(GuestDamaged):
        trio.run(file.read, 0, 100)


def test_a_parsed_file_that_ends_early_is_damaged() -> None:
    async def read(offset: int, length: int) -> bytes:
        return b"abcdef"[offset : offset + length]

    assert trio.run(ParsedFile(read, 6).read, 2, 100) == b"cdef"
    assert trio.run(ParsedFile(read, 6).read, 6, 1) == b""
    with pytest.raises(GuestDamaged, match="ended at 6"):
        trio.run(ParsedFile(read, 7).read, 0, 100)


class Sandwich:
    """A view: a table, the disk with a hole in it, zeros."""

    data_start = 1000
    size = 1000 + len(DISK) + 24

    def parts(self, start: int, end: int) -> Iterator[ViewPart]:
        edges = (0, 1000, 1000 + 5000, 1000 + 9000, 1000 + len(DISK), self.size)
        for first, last in pairwise(edges):
            at, stop = max(start, first), min(end, last)
            if at < stop:
                data = b"T" * (stop - at) if first == 0 else None
                is_disk = first in (1000, 1000 + 9000)
                yield ViewPart(at, stop - at, data, at - 1000 if is_disk else -1)

    def tables(self) -> Iterator[tuple[int, int]]:
        yield 0, 1000


@given(st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 70_000)), min_size=1, max_size=5))
def test_a_view_is_its_parts_whatever_is_read(reads: list[tuple[int, int]]) -> None:
    whole = b"T" * 1000 + DISK[:5000] + bytes(4000) + DISK[9000:] + bytes(24)

    async def check() -> None:
        with Bridge(1) as bridge:
            view = OpenView(Sandwich(), OneBuffer(DISK), bridge)
            for offset, length in reads:
                assert bytes(await view.read(offset, length)) == whole[offset : offset + length]

    trio.run(check)


def test_a_view_of_a_disk_that_ends_early_is_damage() -> None:
    async def check() -> None:
        with Bridge(1) as bridge:
            view = OpenView(Sandwich(), OneBuffer(DISK[:-1]), bridge)
            await view.read(Sandwich.size - 30, 30)

    with pytest.raises(Damaged):
        trio.run(check)
