"""Ranges of bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.ranges import RangeSet, joined


@given(
    st.lists(st.integers(0, 50), unique=True, max_size=12).map(sorted), st.integers(0, 50), st.integers(0, 50)
)
def test_a_set_tells_the_parts_of_a_range_that_are_in_it(edges: list[int], start: int, end: int) -> None:
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    ranges = RangeSet(iter(pairs))
    got = {at for first, last in ranges.within(start, end) for at in range(first, last)}
    assert got == {at for first, last in pairs for at in range(first, last) if start <= at < end}
    assert ranges.total == sum(last - first for first, last in pairs)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted), max_size=12))
def test_joined_ranges_hold_the_same_bytes_and_do_not_touch(edges: list[list[int]]) -> None:
    pairs = sorted((first, last) for first, last in edges)
    found = list(joined(pairs))
    assert {at for first, last in found for at in range(first, last)} == {
        at for first, last in pairs for at in range(first, last)
    }
    assert all(first < last for first, last in found)
    assert all(one[1] < other[0] for one, other in pairwise(found))
