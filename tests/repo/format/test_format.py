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
    RECORD_HEADER,
    TAG,
    FileHead,
    NonceDomain,
    ObjectType,
    RecordHeader,
    directory_size,
    nonce,
    pack_directory,
    pack_foot,
    parse_directory,
    parse_foot,
    parse_head,
    parse_record,
    record_size,
)

lengths = st.integers(0, CHUNK_LIMIT)
ids = st.binary(min_size=32, max_size=32).map(ChunkID)
headers = st.builds(RecordHeader, st.sampled_from(RecordType), st.sampled_from(Codec), lengths, lengths, ids)
heads = st.builds(
    FileHead,
    st.integers(0, 255),
    st.sampled_from(ObjectType),
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
def test_a_head_with_a_changed_public_byte_is_refused_or_of_another_suite(
    head: FileHead, at: int, flip: int
) -> None:
    data = bytearray(head.pack())
    data[at] ^= flip
    if at == 9:
        assert parse_head(data, "here", head.type).suite == head.suite ^ flip
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


@given(st.binary(min_size=48, max_size=48))
def test_any_record_header_is_within_limits_or_damaged(plain: bytes) -> None:
    try:
        header = parse_record(plain, "here")
    except Damaged:
        return
    assert max(header.raw, header.encoded) <= CHUNK_LIMIT


@pytest.mark.parametrize("field", ["raw", "encoded"])
def test_records_that_claim_too_much_are_refused_before_anything_is_allocated(field: str) -> None:
    good = {"raw": 1, "encoded": 1} | {field: CHUNK_LIMIT + 1}
    header = RecordHeader(RecordType.DATA, Codec.RAW, id=ChunkID(bytes(32)), **good)
    with pytest.raises(Damaged, match="claims"):
        parse_record(header.pack(), "here")
    with pytest.raises(Damaged, match="claims"):
        list(parse_directory(pack_directory([header]), "here"))


@given(st.lists(headers, max_size=20))
def test_directories_survive_and_give_the_offsets(entries: list[RecordHeader]) -> None:
    plain = pack_directory(entries)
    assert len(plain) + TAG == directory_size(len(entries))
    found = list(parse_directory(plain, "here"))
    assert [header for _, header in found] == entries
    offset = HEAD_SIZE
    for at, header in found:
        assert at == offset
        offset += header.size


@given(st.integers(0, 10_000), st.integers(HEAD_SIZE, 1 << 26))
def test_feet_survive_and_must_fit_the_size(count: int, offset: int) -> None:
    size = offset + directory_size(count) + FOOT_SIZE
    assert parse_foot(pack_foot(count, offset), "here", size) == (count, offset)
    for wrong in (size - 1, size + 1, size + 64):
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
