"""The search for byte strings: equal to its Python twin, whatever the parts of a stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.formats.dumps.core.scan_marks import Marks, MarkWatch
from holdfast.formats.dumps.lexer._lexer import find_all
from support import lexer_twin

NEEDLES = [
    b"\n--\n",
    b"\n-- x",
    b"ab",
    b"aba",
    b"a",
    b"\0\xff",
    b"\n-- PostgreSQL database dump\n",
    b"b" * 40,
]
needles = st.lists(st.one_of(st.sampled_from(NEEDLES), st.binary(min_size=1, max_size=4)), max_size=5).map(
    tuple
)
streams = st.lists(
    st.one_of(st.sampled_from(NEEDLES), st.binary(max_size=3), st.just(b"\n"), st.just(b"-" * 33)),
    max_size=30,
).map(b"".join)


@given(data=streams, needles=needles, common=st.sampled_from([b"", b"a", b"-- "]))
@example(data=b"x" * 31 + b"aba" + b"x" * 31, needles=(b"aba",), common=b"")
@example(data=b"ab" * 40, needles=(b"aba", b"b"), common=b"")
def test_matches_are_the_twins(data: bytes, needles: tuple[bytes, ...], common: bytes) -> None:
    assert find_all(data, needles, common) == lexer_twin.find_all(data, needles, common)


@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 33])
def test_a_needle_is_found_wherever_it_stands(length: int) -> None:
    needle = bytes(range(1, length + 1))
    for size in range(length, length + 70):
        for at in range(size - length + 1):
            data = bytes(at) + needle + bytes(size - length - at)
            assert find_all(data, (needle,), needle) == [(at + length, 0)]


@given(data=streams, cuts=st.lists(st.integers(0, 400), max_size=12))
def test_marks_are_found_whatever_the_parts(data: bytes, cuts: list[int]) -> None:
    marks = Marks(heads=(b"\n--\n", b"aba"), ends=(b"\n-- x", b"bbbb"))
    wanted = [(end, index < 2) for end, index in lexer_twin.find_all(data, marks.heads + marks.ends, b"")]
    watch = MarkWatch(marks)
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found = [
        (start + end, is_head)
        for start, stop in pairwise(borders)
        for end, is_head in watch.find(memoryview(data)[start:stop])
    ]
    assert found == wanted


def test_bad_needles_are_refused() -> None:
    for bad in ((b"a", b""), (b"a",) * 17):
        with pytest.raises(ValueError, match="byte string"):
            find_all(b"abc", bad, b"")
    with pytest.raises(TypeError):
        find_all(b"abc", ("a",), b"")  # type: ignore[arg-type]  # on purpose
