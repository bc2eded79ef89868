"""Virtual files against a model of bytes: every range, whatever they are made of."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from holdfast.formats.dumps.core.virtual_file import VirtualFile, VirtualRange, stored_range, text
from support.basics import random_bytes

STORED = random_bytes(1000, 1)

stretches = st.integers(0, 1000).flatmap(
    lambda start: st.integers(0, 1000 - start).map(lambda length: stored_range(start, length))
)
pieces = st.lists(st.binary(max_size=30).map(text) | stretches, max_size=12)


def model(made_of: list[VirtualRange]) -> bytes:
    return b"".join(
        piece.data if piece.data is not None else STORED[piece.start : piece.start + piece.length]
        for piece in made_of
    )


def read(file: VirtualFile, start: int, end: int) -> bytes:
    """[start, end) of the file; its parts must be clipped, in order, without gaps and never empty."""
    found = bytearray()
    for part in file.parts(start, end):
        assert part.start == start + len(found)
        assert part.length > 0
        data = STORED[part.disk : part.disk + part.length] if part.data is None else part.data
        assert len(data) == part.length
        found += data
    assert len(found) == end - start
    return bytes(found)


@given(pieces, st.data())
def test_every_range_is_what_the_pieces_say(made_of: list[VirtualRange], data: st.DataObject) -> None:
    file, expected = VirtualFile(made_of), model(made_of)
    assert file.size == len(expected)
    assert model(list(file.pieces)) == expected
    assert read(file, 0, file.size) == expected
    start = data.draw(st.integers(0, file.size))
    end = data.draw(st.integers(start, file.size))
    assert read(file, start, end) == expected[start:end]
    assert b"".join(read(file, at, at + 1) for at in range(file.size)) == expected


@given(pieces)
def test_no_two_neighbours_could_be_one(made_of: list[VirtualRange]) -> None:
    merged = VirtualFile(made_of).pieces
    assert all(piece.length for piece in merged)
    for one, two in pairwise(merged):
        assert not (one.data is not None and two.data is not None)
        if one.data is None and two.data is None:
            assert one.start + one.length != two.start


@given(pieces)
def test_its_tables_are_the_text_of_our_own(made_of: list[VirtualRange]) -> None:
    file, expected = VirtualFile(made_of), model(made_of)
    own = bytearray(file.size)
    for start, end in file.tables():
        assert start < end
        own[start:end] = b"\1" * (end - start)
    for part in file.parts(0, file.size):
        is_own = part.data is not None
        assert set(own[part.start : part.start + part.length]) == {is_own}
        if is_own:
            assert part.data == expected[part.start : part.start + part.length]


def test_a_file_of_nothing_is_empty() -> None:
    for made_of in ([], [text(b"")], [stored_range(5, 0), text(b"")]):
        file = VirtualFile(made_of)
        assert (file.size, file.pieces) == (0, ())
        assert list(file.parts(0, 0)) == []
        assert list(file.tables()) == []


def test_a_file_far_into_a_large_dump_has_exact_offsets() -> None:
    file = VirtualFile(
        [text(b"head"), stored_range(1 << 50, 1 << 40), stored_range((1 << 50) + (1 << 40), 7), text(b"end")]
    )
    assert file.size == 4 + (1 << 40) + 7 + 3
    assert len(file.pieces) == 3
    (part,) = file.parts(file.size - 5, file.size - 4)
    assert (part.length, part.disk) == (1, (1 << 50) + (1 << 40) + 5)


def test_what_a_file_is_besides_its_bytes() -> None:
    plain = VirtualFile([text(b"x")])
    assert (plain.mode, plain.mtime, plain.target, plain.data_start) == (0o444, None, "", 0)
    link = VirtualFile([], mode=0o777, mtime=7, target="../base/1")
    assert (link.mode, link.mtime, link.target, link.size) == (0o777, 7, "../base/1", 0)
