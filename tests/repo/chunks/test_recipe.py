"""Recipes: any file's extents are found by offset, and equal files have equal trees."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.base.errors import Damaged
from holdfast.base.types import ChunkID
from holdfast.repo.chunks.recipe import Extent, Recipe, RecipeBuilder, RecipeNode, decode_node, encode_node

Part = tuple[ChunkID | None, int]


class Nodes:
    """Stores nodes by their hash and counts what is loaded."""

    def __init__(self) -> None:
        self.data: dict[ChunkID, bytes] = {}
        self.loads = 0

    def put(self, node: bytes) -> ChunkID:
        id_ = ChunkID(sha256(node).digest())
        self.data[id_] = node
        return id_

    def load(self, id_: ChunkID) -> RecipeNode:
        self.loads += 1
        return decode_node(self.data[id_], id_.hex())


def chunk_id(n: int) -> ChunkID:
    return ChunkID(sha256(n.to_bytes(8, "little")).digest())


def build(parts: list[Part], nodes: Nodes) -> Recipe:
    builder = RecipeBuilder(nodes.put)
    for id_, length in parts:
        if id_ is None:
            builder.add_hole(length)
        else:
            builder.add_chunk(id_, length)
    root = builder.finish()
    assert builder.size == sum(length for _, length in parts)
    assert builder.allocated == sum(length for id_, length in parts if id_)
    return Recipe(root, builder.size, nodes.load)


def model(parts: list[Part]) -> list[Extent]:
    """The extents, adjacent holes joined."""
    found: list[Extent] = []
    at = 0
    for id_, length in parts:
        if id_ is None and found and found[-1].id is None:
            found[-1] = Extent(found[-1].start, found[-1].length + length, None)
        else:
            found.append(Extent(at, length, id_))
        at += length
    return found


def made(seed: int, count: int, *, holes: float = 0.2) -> list[Part]:
    rng = random.Random(seed)
    return [
        (None if rng.random() < holes else chunk_id(rng.getrandbits(60)), rng.randrange(1, 1 << 18))
        for _ in range(count)
    ]


some_parts = st.one_of(
    st.lists(st.tuples(st.none() | st.integers(0, 50).map(chunk_id), st.integers(1, 1 << 40)), max_size=40),
    st.builds(made, st.integers(0, 999), st.integers(0, 3000)),
    st.builds(lambda count, n: [(chunk_id(n), 7)] * count, st.integers(1000, 1100), st.integers(0, 999)),
)


@given(some_parts, st.data())
def test_the_extents_of_any_range_are_those_of_the_list(parts: list[Part], data: st.DataObject) -> None:
    recipe, expected = build(parts, Nodes()), model(parts)
    assert list(recipe.extents()) == expected
    offsets = st.integers(0, recipe.size + 10)
    if expected:
        offsets |= st.sampled_from([e.start for e in expected]) | st.just(recipe.size)
    for _ in range(5):
        start, end = data.draw(offsets), data.draw(offsets)
        wanted = [e for e in expected if e.start < end and e.start + e.length > start and start < end]
        assert list(recipe.extents(start, end)) == wanted
        if start < recipe.size:
            assert recipe.find(start) == next(e for e in expected if e.start + e.length > start)


@given(some_parts, st.data())
def test_equal_files_have_equal_trees_however_their_holes_came(
    parts: list[Part], data: st.DataObject
) -> None:
    split: list[Part] = []
    for id_, length in parts:
        cut = data.draw(st.integers(1, length - 1)) if id_ is None and length > 1 and len(parts) < 50 else 0
        split += [(id_, cut), (id_, length - cut)] if cut else [(id_, length)]
    nodes = Nodes()
    one, two = build(parts, nodes), build(split, nodes)
    assert one._root == two._root  # the root's ID stands for the whole tree


def test_an_empty_file_has_a_recipe() -> None:
    recipe = build([], Nodes())
    assert list(recipe.extents()) == []
    assert list(recipe.extents(0, 100)) == []


def test_a_change_in_the_middle_rewrites_a_few_nodes() -> None:
    nodes = Nodes()
    parts = made(1, 20_000)
    build(parts, nodes)
    before = dict(nodes.data)
    for edit in ([(chunk_id(7), 999)], [], [(chunk_id(n), 4096) for n in range(3)]):
        build(parts[:10_000] + edit + parts[10_001:], nodes)
        new = nodes.data.keys() - before.keys()
        assert len(new) <= 8
        assert sum(len(nodes.data[id_]) for id_ in new) < 100_000
        nodes.data = dict(before)
    assert len(before) > 100


def test_finding_an_offset_loads_a_path_and_not_the_tree() -> None:
    nodes = Nodes()
    recipe = build(made(2, 20_000), nodes)
    for offset in (0, recipe.size // 2, recipe.size - 1):
        nodes.loads = 0
        recipe.find(offset)
        assert nodes.loads <= 6


def test_nodes_hold_about_128_entries() -> None:
    nodes = Nodes()
    build(made(3, 50_000, holes=0), nodes)
    assert 50_000 / 180 < len(nodes.data) < 50_000 / 90


def test_files_without_a_natural_node_border_are_cut_at_the_limit() -> None:
    nodes = Nodes()
    never = next(id_ for id_ in map(chunk_id, range(999)) if int.from_bytes(id_[-2:], "little") % 96)
    recipe = build([(never, 4096)] * 5000, nodes)
    assert max(len(decode_node(data, "").ids) for data in nodes.data.values()) == 1024
    assert sum(e.length for e in recipe.extents()) == 5000 * 4096


entries = st.lists(
    st.tuples(st.none() | st.binary(min_size=32, max_size=32).map(ChunkID), st.integers(1, 1 << 50)),
    max_size=20,
)


@given(entries)
def test_leaves_survive(parts: list[Part]) -> None:
    data = encode_node(0, [length for _, length in parts], [id_ for id_, _ in parts])
    node = decode_node(data, "here")
    assert node.ids == tuple(id_ for id_, _ in parts)
    assert [node.starts[n + 1] - node.starts[n] for n in range(len(parts))] == [length for _, length in parts]
    assert node.size == sum(length for _, length in parts)


@settings(max_examples=300)
@given(entries, st.data())
def test_any_bytes_are_a_node_in_its_one_form_or_damaged(parts: list[Part], data: st.DataObject) -> None:
    good = bytearray(encode_node(0, [length for _, length in parts], [id_ for id_, _ in parts]))
    for _ in range(data.draw(st.integers(0, 3))):
        if good:
            good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    for bytes_ in (bytes(good), bytes(good[:cut]), bytes(good) + b"\0", data.draw(st.binary(max_size=100))):
        try:
            node = decode_node(bytes_, "here")
        except Damaged:
            continue
        lengths = [node.starts[n + 1] - node.starts[n] for n in range(len(node.ids))]
        assert encode_node(node.level, lengths, list(node.ids)) == bytes_


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\1\0\0",
        b"\x0d\0\0\0",
        b"\0\0\xff\xff",
        b"\0\0\5\0abc",
        b"\0\0\1\0" + bytes(8) + bytes(32),  # an entry without bytes
        b"\0\0\1\0" + (1).to_bytes(8, "little") + bytes(31),
        b"\1\0\1\0" + (1 << 63 | 5).to_bytes(8, "little"),  # a hole above the leaves
        b"\0\0\4\0" + (2**64 - 1).to_bytes(8, "little") * 4,  # a size that does not fit
        b"\0\0\2\0" + ((1 << 63) - 1).to_bytes(8, "little") * 2 + bytes(64),
    ],
    ids=repr,
)
def test_malformed_nodes_are_damaged(data: bytes) -> None:
    with pytest.raises(Damaged, match="here"):
        decode_node(data, "here")


def test_a_tree_that_lies_about_sizes_or_levels_is_damaged() -> None:
    nodes = Nodes()
    leaf = nodes.put(encode_node(0, [10, 20], [chunk_id(1), chunk_id(2)]))
    short = nodes.put(encode_node(1, [29], [leaf]))
    skipping = nodes.put(encode_node(2, [30], [leaf]))
    empty = nodes.put(encode_node(1, [5], [nodes.put(encode_node(0, [], []))]))
    for root, size, says in (
        (leaf, 31, "describes 30 bytes, not 31"),
        (short, 29, "not what its parent says"),
        (skipping, 30, "is at level 0, not 1"),
        (empty, 5, "not what its parent says"),
    ):
        with pytest.raises(Damaged, match=says):
            list(Recipe(root, size, nodes.load).extents())


def test_a_tree_that_contains_itself_ends() -> None:
    loop = chunk_id(0)
    node = decode_node(encode_node(3, [10], [loop]), "here")
    with pytest.raises(Damaged, match="level"):
        list(Recipe(loop, 10, lambda id_: node).extents())
