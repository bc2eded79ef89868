"""PostgreSQL's WAL as pure functions see it: names, headers, timelines, gaps."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Refused
from holdfast.formats.dumps.core.facts import DumpFacts
from holdfast.formats.dumps.postgresql.physical.wal import (
    Base,
    Branch,
    Reach,
    SegmentRange,
    WalKind,
    archive_findings,
    base_of,
    check_file,
    coverage,
    is_before,
    lsn_text,
    parse_history,
    parse_lsn,
    parse_name,
    reach,
    segment_name,
)

MIB = 1 << 20
SIZE = 16 * MIB
SYSTEM = "7412345678901234567"


def header(
    *,
    number: int = 3,
    size: int = SIZE,
    timeline: int = 1,
    magic: int = 0xD110,
    info: int = 2,
    system: str = SYSTEM,
    order: str = "<",
) -> bytes:
    return struct.pack(order + "HHIQI4xQII", magic, info, timeline, number * size, 0, int(system), size, 8192)


def segments(timeline: int, *numbers: int, size: int = SIZE) -> list[str]:
    return [segment_name(timeline, number, size) for number in numbers]


def test_names_of_all_kinds_are_told_apart_and_others_are_none() -> None:
    assert parse_name("0000000A0000000100000002") == (WalKind.SEGMENT, 10, 1, 2)
    assert parse_name("000000010000000000000003.partial") == (WalKind.PARTIAL, 1, 0, 3)
    assert parse_name("000000010000000000000003.00000028.backup") == (WalKind.BACKUP, 1, 0, 3)
    assert parse_name("00000002.history") == (WalKind.HISTORY, 2, 0, 0)
    strangers = (
        "",
        "postgresql.conf",
        "00000001000000000000000a",
        "../00000002.history",
        "00000002.history\n",
    )
    for name in (*strangers, "000000010000000000000003.partial.gz", "0000000100000000000000030"):
        assert parse_name(name) is None, name


@given(
    st.integers(1, (1 << 32) - 1),
    st.integers(20, 30).map(lambda bits: 1 << bits),
    st.integers(0, (1 << 64) - 1),
)
def test_the_name_of_a_segment_says_where_it_begins(timeline: int, size: int, lsn: int) -> None:
    number = lsn // size
    name = parse_name(segment_name(timeline, number, size))
    assert name is not None
    assert (name.timeline, name.number(size)) == (timeline, number)
    assert parse_lsn(lsn_text(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "/", "1", "0/", "0/123456789", "x/1", "0/1 ", "-1/0"])
def test_what_is_no_place_in_the_log_is_none(text: str) -> None:
    assert parse_lsn(text) is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_segment_of_either_byte_order_is_taken(order: str) -> None:
    name = segment_name(1, 3, SIZE)
    assert check_file(name, SIZE, header(order=order), SYSTEM).kind is WalKind.SEGMENT


def test_the_first_segment_of_a_timeline_may_begin_with_a_page_of_the_one_before() -> None:
    check_file(segment_name(2, 3, SIZE), SIZE, header(timeline=1), SYSTEM)


@pytest.mark.parametrize(
    ("name", "size", "head", "reason"),
    [
        (segment_name(1, 3, SIZE), SIZE - 1, header(), "cut short"),
        (segment_name(1, 3, SIZE), 0, b"", "cut short"),
        (segment_name(1, 3, SIZE), SIZE // 2, header(), "its header says segments of"),
        (segment_name(1, 3, SIZE), SIZE, bytes(40), "does not begin with a WAL page header"),
        (segment_name(1, 3, SIZE), SIZE, header()[:39], "does not begin with a WAL page header"),
        (segment_name(1, 3, SIZE), SIZE, header(info=0), "first page"),
        (segment_name(1, 3, SIZE), SIZE, header(system="12345"), "system identifier 12345"),
        (segment_name(1, 4, SIZE), SIZE, header(), "not what its name says"),
        (segment_name(1, 3, SIZE), SIZE, header(timeline=2), "is of timeline 2, its name says 1"),
        (segment_name(1, 3, SIZE), SIZE, header(timeline=0), "is of timeline 0"),
        ("00000002.history", 0, b"", "is none"),
        ("00000002.history", 2 * MIB, b"1", "is none"),
        ("backup_label", 10, b"", "not the name of"),
    ],
)
def test_what_is_not_the_file_that_its_name_says_is_refused(
    name: str, size: int, head: bytes, reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        check_file(name, size, head, SYSTEM)


def test_a_history_is_read_as_the_server_reads_it() -> None:
    text = (
        "# comment\n1\t0/3000158\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-11-22\nnonsense\n"
    )
    assert parse_history(text) == (Branch(1, 0x3000158), Branch(2, 0x5000000))


def test_gaps_are_found_within_a_timeline_and_where_it_branched_off() -> None:
    names = [*segments(1, 3, 4, 7), *segments(2, 9, 10), "00000002.history", "junk"]
    found = coverage(names, SIZE, {2: (Branch(1, 8 * SIZE + 5),)})
    assert found.ranges == (SegmentRange(1, 3, 4), SegmentRange(1, 7, 7), SegmentRange(2, 9, 10))
    assert found.gaps == (SegmentRange(1, 5, 6), SegmentRange(2, 8, 8))


def test_a_partial_segment_fills_no_gap() -> None:
    names = [*segments(1, 3, 5), segment_name(1, 4, SIZE) + ".partial"]
    assert coverage(names, SIZE, {}).gaps == (SegmentRange(1, 4, 4),)


@given(st.sets(st.tuples(st.integers(1, 3), st.integers(0, 600))))
def test_ranges_and_gaps_together_are_all_there_is_between_first_and_last(
    there: set[tuple[int, int]],
) -> None:
    found = coverage([segment_name(t, n, 64 * MIB) for t, n in there], 64 * MIB, {})
    held = {(r.timeline, n) for r in found.ranges for n in range(r.first, r.last + 1)}
    missing = {(r.timeline, n) for r in found.gaps for n in range(r.first, r.last + 1)}
    assert held == there
    assert not missing & there
    for timeline in {t for t, _ in there}:
        numbers = [n for t, n in there if t == timeline]
        every = {(timeline, n) for n in range(min(numbers), max(numbers) + 1)}
        assert every <= held | missing


def base(start: int, timeline: int = 1) -> Base:
    return Base("the backup", timeline, start * SIZE + 0x28, start * SIZE + 0x100)


def test_recovery_follows_the_newest_timeline_that_descends_from_the_backup() -> None:
    histories = {2: (Branch(1, 6 * SIZE + 7),), 3: (Branch(1, 6 * SIZE + 7), Branch(2, 8 * SIZE))}
    names = [*segments(1, 4, 5), *segments(2, 6, 7), *segments(3, 8, 9)]
    found = coverage(names, SIZE, histories)
    assert reach(base(4), found, histories, SIZE) == Reach((3, 9), "")
    without = coverage([n for n in names if n != segment_name(2, 7, SIZE)], SIZE, histories)
    assert reach(base(4), without, histories, SIZE) == Reach((2, 6), segment_name(2, 7, SIZE))


def test_a_timeline_that_branched_off_before_the_backup_is_not_followed() -> None:
    histories = {2: (Branch(1, 3 * SIZE),)}
    found = coverage([*segments(1, 4, 5), *segments(2, 3, 4, 5)], SIZE, histories)
    assert reach(base(4), found, histories, SIZE) == Reach((1, 5), "")


def test_findings_say_what_cannot_be_recovered_and_from_where_on() -> None:
    names = segments(1, 3, 4, 6)
    assert archive_findings(names, SIZE, {}, [base(6)]) == ["WAL is missing: 000000010000000000000005"]
    assert archive_findings(names, SIZE, {}, [base(3)])[1] == (
        "the backup can be recovered to the end of 000000010000000000000004 only: "
        "000000010000000000000005 is missing"
    )
    assert archive_findings(names, SIZE, {}, [base(1)])[1] == (
        "the backup cannot be recovered from the archive: 000000010000000000000002 is not in it"
    )
    assert archive_findings(segments(1, 3, 4), SIZE, {}, [base(4)]) == []


def test_the_log_within_a_backup_need_not_be_archived() -> None:
    assert archive_findings(segments(1, 5, 6), SIZE, {}, [base(4)]) == []
    assert archive_findings(segments(1, 2, 3), SIZE, {}, [base(4)]) == []


def test_facts_make_a_base_only_of_a_physical_backup_whose_place_is_known() -> None:
    facts = DumpFacts(physical=True, lsn="0/2000028", timeline="1", stop_lsn="0/2000138")
    assert base_of(facts, "b") == Base("b", 1, 0x2000028, 0x2000138)
    assert base_of(replace(facts, physical=False), "b") is None
    assert base_of(replace(facts, lsn="nowhere"), "b") is None
    assert base_of(replace(facts, timeline="one"), "b") is None


def test_what_ends_before_a_place_is_before_it_but_a_history_never_is() -> None:
    place = 4 * SIZE + 0x28
    assert is_before(segment_name(1, 3, SIZE), place, SIZE)
    assert is_before(segment_name(7, 3, SIZE) + ".partial", place, SIZE)
    assert not is_before(segment_name(1, 4, SIZE), place, SIZE)
    assert not is_before("00000002.history", place, SIZE)
    assert not is_before("strange", place, SIZE)
