"""Replaying a VHDX log, held against `qemu-img check -r all`, which replays it into a copy."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.formats.disks.base.errors import ImageDamaged, ImageRefused
from holdfast.formats.disks.base.files import BytesFile, OpenFile
from holdfast.formats.disks.base.image import Image
from holdfast.formats.disks.open import no_companions
from holdfast.formats.disks.vhdx import format as vhdx
from holdfast.formats.disks.vhdx.log import ReplayedFile, Write
from holdfast.formats.disks.vhdx.reader import open_vhdx
from support.disk import check_image, read_disk, run
from support.old_disk import LOG_GUID, MIB, log_entry, make_dirty, write_vhdx

PAGE = 4096
SIZE = 4 * MIB
END = 8 * MIB
"""Bytes of the images here: tables up to 4 MiB, and blocks 0 and 1 of four behind them; up to 2 MiB more of
the file are no block's."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    rng = random.Random(3)
    return write_vhdx(
        tmp_path / "disk.vhdx",
        size=SIZE,
        bat={0: 4 * MIB | 6, 1: 5 * MIB | 6},
        data={at: rng.randbytes(MIB) for at in range(4 * MIB, END, MIB)},
    )


@contextmanager
def opened(path: Path) -> Iterator[Image]:
    with OpenFile(path) as file:
        yield open_vhdx(file, no_companions)


def bat_page(**blocks: int) -> bytes:
    """The first page of a BAT: the MiB that each block's data are at."""
    places = {int(name[1:]): at for name, at in blocks.items()}
    return struct.pack("<512Q", *(places[n] * MIB | 6 if n in places else 0 for n in range(512)))


def replayed_by_qemu(image: Path) -> bytes:
    """The disk after QEMU replayed the log into a copy."""
    copy, raw = image.with_suffix(".copy"), image.with_suffix(".raw")
    shutil.copyfile(image, copy)
    run("qemu-img", "check", "-r", "all", "-f", "vhdx", copy)
    run("qemu-img", "convert", "-f", "vhdx", "-O", "raw", copy, raw)
    return raw.read_bytes()


def agree(image: Path) -> bytes:
    """Holdfast shows the disk as QEMU does after a replay, and leaves the image alone."""
    before = image.read_bytes()
    wanted = replayed_by_qemu(image)
    with opened(image) as disk:
        check_image(disk, wanted, block=MIB)
    assert image.read_bytes() == before
    return wanted


def test_a_table_and_data_in_the_log_are_seen(image: Path) -> None:
    page = random.Random(4).randbytes(PAGE)
    writes: list[tuple[int, bytes | int]] = [
        (3 * MIB, bat_page(b0=4, b2=7, b3=6)),
        (4 * MIB + 8 * PAGE, page),
        (7 * MIB, 3 * PAGE),
    ]
    disk = agree(make_dirty(image, {0: log_entry(1, 0, writes, flushed=END)}))
    assert disk[8 * PAGE : 9 * PAGE] == page
    assert disk[MIB : 2 * MIB + 3 * PAGE] == bytes(MIB + 3 * PAGE)
    assert any(disk[3 * MIB :])


def test_entries_are_applied_in_order_and_later_ones_win(image: Path) -> None:
    pages = [bytes([n]) * PAGE for n in range(1, 5)]
    at = 4 * MIB
    first = log_entry(5, 0, [(at, pages[0]), (at + PAGE, pages[1]), (at + 2 * PAGE, pages[2])], flushed=END)
    second = log_entry(6, 0, [(at + PAGE, 2 * PAGE)], flushed=END)
    third = log_entry(7, 0, [(at + 2 * PAGE, pages[3]), (at + 2 * PAGE, pages[0])], flushed=END)
    entries = {0: first, len(first): second, len(first) + len(second): third}
    disk = agree(make_dirty(image, entries))
    assert disk[: 3 * PAGE] == pages[0] + bytes(PAGE) + pages[0]


def test_a_sequence_may_run_over_the_end_of_the_ring(image: Path) -> None:
    tail = MIB - 3 * PAGE
    first = log_entry(9, tail, [(4 * MIB, b"a" * PAGE)], flushed=END)
    second = log_entry(10, tail, [(4 * MIB + PAGE, b"b" * PAGE)], flushed=END)  # half of it at the start
    third = log_entry(11, tail, [(4 * MIB + 2 * PAGE, b"c" * PAGE)], flushed=END)
    make_dirty(image, {tail: first, MIB - PAGE: second})
    assert agree(image)[: 2 * PAGE] == b"a" * PAGE + b"b" * PAGE
    make_dirty(image, {PAGE: third})  # which QEMU, blind to tails, takes for a sequence of its own
    with opened(image) as disk:
        assert read_disk(disk, MIB, 0, 3 * PAGE) == b"a" * PAGE + b"b" * PAGE + b"c" * PAGE


def test_a_long_sequence_that_begins_near_the_end_of_the_ring_is_summed_once(image: Path) -> None:
    tail, count = MIB - 2 * PAGE, 100
    pages = [bytes([n + 1]) * PAGE for n in range(count)]
    make_dirty(
        image,
        {
            (tail + 2 * PAGE * n) % MIB: log_entry(50 + n, tail, [(4 * MIB + PAGE * n, page)], flushed=END)
            for n, page in enumerate(pages)
        },
    )
    with opened(image) as disk:
        assert read_disk(disk, MIB, 0, count * PAGE) == b"".join(pages)


def test_entries_before_the_tail_and_torn_ones_behind_the_head_are_left_alone(image: Path) -> None:
    old = log_entry(3, 0, [(4 * MIB, b"old!" * 1024)], flushed=END)
    first = log_entry(4, 2 * PAGE, [(4 * MIB + PAGE, b"new!" * 1024)], flushed=END)
    torn = bytearray(log_entry(5, 2 * PAGE, [(4 * MIB + PAGE, b"torn" * 1024)], flushed=END))
    torn[-100] ^= 1
    make_dirty(image, {0: old, 2 * PAGE: first, 4 * PAGE: bytes(torn)})
    plain = image.read_bytes()[4 * MIB : 5 * MIB]
    with opened(image) as disk:
        found = read_disk(disk, MIB, 0, MIB)
    assert found[PAGE : 2 * PAGE] == b"new!" * 1024
    assert found[:PAGE] == plain[:PAGE]
    assert found[2 * PAGE :] == plain[2 * PAGE :]


def test_a_stale_entry_behind_the_last_one_is_left_alone(image: Path) -> None:
    newest = log_entry(9, 0, [(4 * MIB, b"new!" * 1024)], flushed=END)
    stale = log_entry(7, 0, [(4 * MIB, b"old!" * 1024)], flushed=END)
    make_dirty(image, {0: newest, len(newest): stale})
    with opened(image) as disk:
        assert read_disk(disk, MIB, 0, PAGE) == b"new!" * 1024


def test_the_sequence_with_the_highest_number_is_the_active_one(image: Path) -> None:
    stale = log_entry(90, 0, [(4 * MIB, b"x" * PAGE)], flushed=END)
    active = log_entry(700, 64 * PAGE, [(4 * MIB, b"y" * PAGE)], flushed=END)
    foreign = log_entry(9000, 128 * PAGE, [(4 * MIB, b"z" * PAGE)], flushed=END, guid=b"another guid....")
    make_dirty(image, {0: stale, 64 * PAGE: active, 128 * PAGE: foreign})
    assert agree(image)[:PAGE] == b"y" * PAGE


def test_a_file_that_the_log_makes_longer(image: Path) -> None:
    entry = log_entry(
        1, 0, [(3 * MIB, bat_page(b0=4, b3=9)), (9 * MIB + PAGE, b"x" * PAGE)], flushed=END, last=10 * MIB
    )
    make_dirty(image, {0: entry})
    with opened(image) as disk:
        found = read_disk(disk, MIB, 3 * MIB)
    assert found == bytes(PAGE) + b"x" * PAGE + bytes(MIB - 2 * PAGE)


@pytest.mark.parametrize("count", [125, 126, 127, 128, 200, 253])
def test_many_descriptors_in_one_entry(image: Path, count: int) -> None:
    rng = random.Random(count)
    wanted = bytearray(image.read_bytes()[4 * MIB : 6 * MIB])
    pages = {PAGE * n: rng.randbytes(PAGE) for n in rng.sample(range(512), count)}
    for at, page in pages.items():
        wanted[at : at + PAGE] = page
    entry = log_entry(1 << 40, 0, [(4 * MIB + at, page) for at, page in pages.items()], flushed=END)
    assert len(entry) == (1 + (count + 2 - 1) // 128 + count) * PAGE
    make_dirty(image, {0: entry})
    with opened(image) as disk:
        assert read_disk(disk, MIB, 0, 2 * MIB) == wanted
    if count <= 126:  # QEMU 7.2 rejects entries with a second page of descriptors
        assert replayed_by_qemu(image)[: 2 * MIB] == wanted


def spoiled(entry: bytes, at: int, content: bytes) -> bytes:
    """An entry with other bytes, summed anew."""
    return vhdx.sealed(entry[:at] + content + entry[at + len(content) :])


PLAIN = log_entry(7, 0, [(4 * MIB, b"x" * PAGE), (5 * MIB, PAGE)], flushed=END)


@pytest.mark.parametrize(
    "entry",
    [
        PLAIN[:100] + b"!" + PLAIN[101:],
        PLAIN[:5000] + b"!" + PLAIN[5001:],
        log_entry(7, 0, [], flushed=END, guid=b"another guid...."),
        log_entry(0, 0, [], flushed=END),
        log_entry(7, PAGE, [], flushed=END),
        spoiled(PLAIN, 8, struct.pack("<I", 2 * MIB)),
        spoiled(PLAIN, 8, struct.pack("<I", 0)),
        spoiled(PLAIN, 12, struct.pack("<I", 17)),
        spoiled(PLAIN, 24, struct.pack("<I", 0xFFFFFFFF)),
        spoiled(PLAIN, 24, struct.pack("<I", 3)),
        spoiled(PLAIN, 56, struct.pack("<Q", (1 << 64) - 1)),
        spoiled(PLAIN, 64, b"what"),
        spoiled(PLAIN, 64 + 16, struct.pack("<Q", 4 * MIB + 512)),
        spoiled(PLAIN, 64 + 16, struct.pack("<Q", (1 << 64) - 4096)),
        spoiled(PLAIN, 64 + 24, struct.pack("<Q", 8)),
        spoiled(PLAIN, 64 + 32 + 8, struct.pack("<Q", 512)),
        spoiled(PLAIN, 64 + 32 + 8, struct.pack("<Q", (1 << 64) - 4096)),
        spoiled(PLAIN, 64 + 32, b"desc"),
        spoiled(PLAIN, 4096, b"atad"),
        spoiled(PLAIN, 4096 + 4, struct.pack("<I", 1)),
        spoiled(PLAIN, 8188, struct.pack("<I", 6)),
        b"",
    ],
)
def test_a_log_without_a_valid_sequence_is_damage(image: Path, entry: bytes) -> None:
    make_dirty(image, {0: entry})
    with pytest.raises(ImageDamaged, match="offset 1048576: the log has no valid sequence"), opened(image):
        pass


def test_a_file_that_lost_what_the_log_relies_on_is_damage(image: Path) -> None:
    make_dirty(image, {PAGE: log_entry(7, PAGE, [], flushed=END + 1)})
    with (
        pytest.raises(ImageDamaged, match=rf"offset {MIB + PAGE}: the file was {END + 1} bytes"),
        opened(image),
    ):
        pass


def test_a_log_that_wants_more_than_a_crash_can_have_lost_is_damage(image: Path) -> None:
    """Zeros without end, for the table to point to."""
    make_dirty(image, {0: log_entry(7, 0, [], flushed=END, last=1 << 50)})
    with pytest.raises(ImageDamaged, match=rf"offset {MIB}: the log wants a file"), opened(image):
        pass


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"log_length": 5 * MIB}, "would have to be replayed; the limit"),
        ({"log_version": 1}, "its log, of version 1"),
        ({"log_offset": 0}, "a log of 1048576 bytes at 0"),
        ({"log_offset": MIB + 4096}, "a log of"),
        ({"log_length": 0}, "a log of 0 bytes"),
        ({"log_length": MIB + 4096}, "a log of 1052672"),
        ({"log_offset": (1 << 64) - MIB}, "a log of"),
    ],
)
def test_impossible_places_of_a_log(tmp_path: Path, fields: Mapping[str, int], says: str) -> None:
    values: dict[str, int] = {"log_length": MIB, "log_offset": MIB, **fields}
    header = vhdx.Header(2, log_guid=LOG_GUID, **values)
    image = write_vhdx(tmp_path / "disk", size=MIB, headers=(header, header), data={80 * MIB: b"x"})
    with pytest.raises((ImageDamaged, ImageRefused), match=says), opened(image):
        pass


def test_a_log_of_heads_that_all_claim_the_whole_log_does_not_take_hours(image: Path) -> None:
    head = struct.pack("<4sIIIQII16sQQ", b"loge", 1, MIB, 0, 5, 0, 0, LOG_GUID, 0, 0)
    make_dirty(image, dict.fromkeys(range(0, MIB, PAGE), head))
    with pytest.raises(ImageDamaged, match="the entries of the log lie over each other"), opened(image):
        pass


@st.composite
def writes(draw: st.DrawFn) -> list[Write]:
    result = []
    for number in range(draw(st.integers(0, 20))):
        start = PAGE * draw(st.integers(0, 12))
        if draw(st.booleans()):
            result.append(Write(start, start + PAGE, bytes([number + 1]) * PAGE))
        else:
            result.append(Write(start, start + PAGE * draw(st.integers(0, 9)), None))
    return result


@settings(max_examples=200)
@given(writes(), st.integers(0, 20 * PAGE), st.integers(0, 20 * PAGE), st.integers(0, 25 * PAGE))
def test_a_replayed_file_is_the_file_with_the_writes_done_in_order(
    todo: list[Write], size: int, start: int, length: int
) -> None:
    under = random.Random(size).randbytes(size)
    model = bytearray(under.ljust(24 * PAGE, b"\0"))
    for write in todo:
        model[write.start : write.end] = write.page or bytes(write.end - write.start)
    file = ReplayedFile(BytesFile(under), 22 * PAGE, todo)
    assert file.size == 22 * PAGE
    buffer = bytearray(b"\xa5" * length)
    count = file.read_into(memoryview(buffer), start)
    assert count == max(0, min(length, file.size - start))
    assert buffer[:count] == model[start : start + count]
    assert buffer[count:] == b"\xa5" * (length - count)
