"""Where two recipes differ, held against a comparison of every chunk."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.base.errors import Damaged
from holdfast.base.types import ChunkID
from holdfast.repo.chunks.recipe import Recipe, RecipeBuilder, RecipeNode, decode_node, encode_node
from holdfast.repo.chunks.recipe_diff import differing
from support.basics import random_bytes


class Nodes:
    """Recipe nodes in memory; counts how often one is loaded."""

    def __init__(self) -> None:
        self.stored: dict[ChunkID, bytes] = {}
        self.loads = 0

    def put(self, data: bytes) -> ChunkID:
        id_ = ChunkID(random.Random(data).randbytes(32))
        self.stored[id_] = data
        return id_

    def load(self, id_: ChunkID) -> RecipeNode:
        self.loads += 1
        return decode_node(self.stored[id_], "node")

    def recipe(self, pieces: list[tuple[int, int]]) -> tuple[ChunkID, int]:
        """(root, size) of chunks given as (content, length); content 0 is a hole."""
        builder = RecipeBuilder(self.put)
        for content, length in pieces:
            if content:
                builder.add_chunk(ChunkID(random_bytes(32, content * 8 + length % 8)), length)
            else:
                builder.add_hole(length)
        return builder.finish(), builder.size


def expected(nodes: Nodes, one: tuple[ChunkID, int], other: tuple[ChunkID, int]) -> list[tuple[int, int]]:
    """By brute force: the bytes that are not in the same place of the same chunk."""

    def bytes_of(recipe: tuple[ChunkID, int]) -> list[object]:
        return [
            (extent.id, extent.start) if extent.id else None
            for extent in Recipe(*recipe, nodes.load).extents()
            for _ in range(extent.length)
        ]

    a, b = bytes_of(one), bytes_of(other)
    longest = max(len(a), len(b))
    differs = [at >= len(a) or at >= len(b) or a[at] != b[at] for at in range(longest)]
    ranges: list[tuple[int, int]] = []
    for at, different in enumerate(differs):
        if different and ranges and ranges[-1][1] == at:
            ranges[-1] = (ranges[-1][0], at + 1)
        elif different:
            ranges.append((at, at + 1))
    return ranges


PIECES = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=300)


@given(PIECES, st.lists(st.tuples(st.integers(0, 299), st.integers(0, 3), st.integers(1, 4)), max_size=6))
def test_it_finds_what_a_comparison_of_every_byte_finds(
    pieces: list[tuple[int, int]], changes: list[tuple[int, int, int]]
) -> None:
    changed = list(pieces)
    for at, content, length in changes:
        if at < len(changed):
            changed[at] = (content, length)
    nodes = Nodes()
    one, other = nodes.recipe(pieces), nodes.recipe(changed)
    assert list(differing(one, other, nodes.load)) == expected(nodes, one, other)
    assert list(differing(one, one, nodes.load)) == []


def test_what_both_share_is_not_loaded() -> None:
    nodes = Nodes()
    noise = random.Random(1)
    pieces = [(noise.randrange(1, 1 << 30), 4096) for _ in range(50_000)]
    one = nodes.recipe(pieces)
    pieces[20_000] = (1, 4096)
    other = nodes.recipe(pieces)
    assert list(differing(one, other, nodes.load)) == [(20_000 * 4096, 20_001 * 4096)]
    assert nodes.loads < 40
    assert len(nodes.stored) > 300


def test_a_disk_that_grew_differs_where_it_grew() -> None:
    nodes = Nodes()
    one, other = nodes.recipe([(1, 10)]), nodes.recipe([(1, 10), (0, 5)])
    assert list(differing(one, other, nodes.load)) == [(10, 15)]
    assert list(differing(nodes.recipe([]), one, nodes.load)) == [(0, 10)]


def test_trees_that_contradict_themselves_are_damage() -> None:
    nodes = Nodes()
    leaf = nodes.put(encode_node(0, [10], [ChunkID(bytes(32))]))
    wrong_size = nodes.put(encode_node(1, [11], [leaf])), 11
    wrong_level = nodes.put(encode_node(2, [10], [leaf])), 10
    good = nodes.recipe([(1, 10)])
    for bad, says in ((wrong_size, "parent"), (wrong_level, "parent"), ((good[0], 11), "describes 10 bytes")):
        with pytest.raises(Damaged, match=says):
            list(differing(bad, good, nodes.load))
