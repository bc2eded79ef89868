"""The byte layout: what is encoded is decoded, and nothing else is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged, Unsupported
from holdfast.base.types import ChunkID, Codec, RecordType
from holdfast.repo.format.format import (
    ALIGN,
    CHUNK_LIMIT,
    FOOT_SIZE,
    HEAD_SIZE,
    PACK_LIMIT,
    PACK_TARGET,
    RECORD_HEADER,
    TAG,
    FileHead,
    NonceDomain,
    ObjectType,
    RecordHeader,
    directory_size,
    full_end,
    last_end,
    nonce,
    pack_directory,
    pack_foot,
    padding_header,
    padme,
    parse_directory,
    parse_foot,
    parse_head,
    parse_record,
    record_size,
)

lengths = st.integers(0, CHUNK_LIMIT)
ids = st.binary(min_size=32, max_size=32).map(ChunkID)
listed = st.sampled_from([RecordType.DATA, RecordType.NODE])
headers = st.builds(RecordHeader, listed, st.sampled_from(Codec), lengths, lengths, ids)
heads = st.builds(
    FileHead,
    st.integers(0, 255),
    st.sampled_from(ObjectType),
    st.integers(0, 0xFFFF),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
)


@given(heads)
def test_heads_survive(head: FileHead) -> None:
    data = head.pack()
    assert len(data) == HEAD_SIZE == 64
    assert parse_head(data, "here", head.type) == head
    assert parse_head(data + b"more", "here", head.type) == head


@given(heads, st.integers(0, 15), st.integers(1, 255))
def test_a_head_with_a_changed_public_byte_is_refused_or_of_another_suite_or_epoch(
    head: FileHead, at: int, flip: int
) -> None:
    data = bytearray(head.pack())
    data[at] ^= flip
    if at == 9:
        assert parse_head(data, "here", head.type).suite == head.suite ^ flip
        return
    if at in (12, 13):
        assert parse_head(data, "here", head.type).epoch == head.epoch ^ flip << 8 * (at - 12)
        return
    with pytest.raises(Unsupported if at == 8 else Damaged, match="here"):
        parse_head(data, "here", head.type)


@given(heads, st.integers(0, 63))
def test_short_heads_are_damaged(head: FileHead, length: int) -> None:
    with pytest.raises(Damaged, match=f"only {length} bytes"):
        parse_head(head.pack()[:length], "here", head.type)


@given(st.binary(max_size=80), st.sampled_from(ObjectType))
def test_any_bytes_are_a_head_or_refused(data: bytes, kind: ObjectType) -> None:
    with pytest.raises((Damaged, Unsupported)):
        parse_head(data, "here", kind)


@given(headers)
def test_record_headers_survive_and_say_how_long_the_record_is(header: RecordHeader) -> None:
    plain = header.pack()
    assert len(plain) + TAG == RECORD_HEADER == 64
    assert parse_record(plain, "here") == header
    assert header.size == record_size(header.encoded)
    assert header.size % ALIGN == 0
    assert 0 <= header.size - RECORD_HEADER - TAG - header.encoded < ALIGN
    assert header.filled == header.size - RECORD_HEADER - TAG


@given(st.binary(min_size=48, max_size=48))
def test_any_record_header_is_within_limits_or_damaged(plain: bytes) -> None:
    try:
        header = parse_record(plain, "here")
    except Damaged:
        return
    assert max(header.raw, header.encoded) <= (
        PACK_LIMIT if header.type is RecordType.PADDING else CHUNK_LIMIT
    )


@pytest.mark.parametrize("field", ["raw", "encoded"])
def test_records_that_claim_too_much_are_refused_before_anything_is_allocated(field: str) -> None:
    good = {"raw": 1, "encoded": 1} | {field: CHUNK_LIMIT + 1}
    header = RecordHeader(RecordType.DATA, Codec.RAW, id=ChunkID(bytes(32)), **good)
    with pytest.raises(Damaged, match="claims"):
        parse_record(header.pack(), "here")
    with pytest.raises(Damaged, match="claims"):
        list(parse_directory(pack_directory([header]), 1, "here"))


@given(st.lists(headers, max_size=20))
def test_directories_survive_and_give_the_offsets(entries: list[RecordHeader]) -> None:
    plain = pack_directory(entries)
    assert 0 <= directory_size(len(entries)) - TAG - len(plain) < ALIGN
    found = list(parse_directory(plain + bytes(99), len(entries), "here"))
    assert [header for _, header in found] == entries
    offset = HEAD_SIZE
    for at, header in found:
        assert at == offset
        offset += header.size


@given(st.integers(0, 10_000), st.integers(HEAD_SIZE, 1 << 26))
def test_feet_survive_and_must_fit_the_size(count: int, offset: int) -> None:
    size = offset + directory_size(count) + FOOT_SIZE
    assert parse_foot(pack_foot(count, offset), "here", size) == (count, offset)
    assert parse_foot(pack_foot(count, offset), "here", size + 64) == (count, offset)
    for wrong in (size - 1, size + 128):
        with pytest.raises(Damaged, match="foot does not fit"):
            parse_foot(pack_foot(count, offset), "here", wrong)


@given(
    st.sampled_from(NonceDomain),
    st.sampled_from(NonceDomain),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
)
def test_nonces_differ_when_domain_or_offset_does(
    one: NonceDomain, two: NonceDomain, here: int, there: int
) -> None:
    assert len(nonce(one, here)) == 12
    assert (nonce(one, here) == nonce(two, there)) == ((one, here) == (two, there))


ends = st.integers(1, (PACK_TARGET >> 7) - 1).map(lambda n: n * 64)


@given(ends, st.integers(1, 10_000), st.data())
def test_a_full_pack_has_exactly_its_size(end: int, count: int, data: st.DataObject) -> None:
    least = end + directory_size(count) + FOOT_SIZE
    size = least + 64 * data.draw(st.integers(0, 5) | st.integers(0, 100_000))
    fill = full_end(end, count, size)
    assert end + fill.padding + fill.directory + FOOT_SIZE == size
    assert parse_foot(pack_foot(count, end + fill.padding), "here", size) == (count, end + fill.padding)
    if fill.padding:
        header = padding_header(fill.padding)
        assert header.size == fill.padding
        assert header.filled == header.encoded, "all of it is payload"
        assert parse_record(header.pack(), "here") == header


@given(ends, st.integers(1, 10_000))
def test_the_last_pack_is_rounded_up_and_never_larger_than_a_full_one(end: int, count: int) -> None:
    least = end + directory_size(count) + FOOT_SIZE
    target = max(PACK_TARGET, least)
    fill = last_end(end, count, target)
    size = end + fill.padding + fill.directory + FOOT_SIZE
    assert least <= size <= min(target, least * 9 // 8 + 64)
    assert size == target or size % 64 == 0


@pytest.mark.parametrize(
    ("size", "padded"),
    [(0, 0), (1, 1), (7, 7), (8, 8), (9, 10), (100, 104), (1000, 1024), (65_537, 67_584), (1 << 26, 1 << 26),
     (50_000_001, 50_331_648)],
)  # fmt: skip
def test_padme_rounds_as_in_the_paper(size: int, padded: int) -> None:
    assert padme(size) == padded


@given(st.integers(1, 1 << 40))
def test_padme_adds_little_and_keeps_the_order(size: int) -> None:
    assert size <= padme(size) <= size * 1.12
    assert padme(size) <= padme(size + 1)
    assert padme(padme(size)) == padme(size)


def test_padding_is_in_no_directory() -> None:
    with pytest.raises(Damaged, match="lists a record of type 3"):
        list(parse_directory(pack_directory([padding_header(128)]), 1, "here"))


@given(heads, heads)
def test_what_is_sealed_is_bound_to_repository_type_and_epoch(one: FileHead, two: FileHead) -> None:
    assert len(one.binding(bytes(16))) == 22
    same = (one.type, one.epoch) == (two.type, two.epoch)
    assert (one.binding(bytes(16)) == two.binding(bytes(16))) == same
    assert one.binding(bytes(16)) != one.binding(bytes(15) + b"x")


@given(heads, st.integers(1, 0xFFFF))
def test_files_of_clients_are_refused_because_there_are_none(head: FileHead, client: int) -> None:
    data = bytearray(head.pack())
    data[14:16] = client.to_bytes(2, "little")
    with pytest.raises(Damaged, match=f"written by client {client}"):
        parse_head(data, "here", head.type)
