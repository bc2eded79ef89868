"""Splits a buffer into chunks and holes, hashes and stores them, and adds them to a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from holdfast.base.types import Buffer, ChunkID
from holdfast.repo.chunks.chunker import Chunker
from holdfast.repo.chunks.recipe import RecipeBuilder


class ChunkSink(Protocol):
    """Receives chunks and recipe nodes: a Writer, or an object that only computes IDs. Thread-safe."""

    def put(self, chunks: Sequence[Buffer], ids: Sequence[ChunkID]) -> None: ...
    def put_node(self, node: bytes) -> ChunkID: ...


class ChunkOrHole(NamedTuple):
    """A chunk or a hole at [start, start + length) of a buffer; `id` is None if it is not known yet."""

    start: int
    length: int
    is_hole: bool
    id: ChunkID | None = None


Stored: TypeAlias = list[tuple[ChunkID | None, int]]
"""(ID or None for a hole, length) of stored chunks and holes, in order."""


def cut_pieces(chunker: Chunker, view: memoryview, start: int = 0, *, final: bool) -> Iterator[ChunkOrHole]:
    """The chunks and holes of `view`, which is at `start` of its buffer.

    Unless `final`, they end before bytes whose chunk depends on bytes that follow.
    """
    for cut in chunker.cut(view, final=final):
        yield ChunkOrHole(start, abs(cut), is_hole=cut < 0)
        start += abs(cut)


def store_pieces(
    sink: ChunkSink,
    make_id: Callable[[Buffer], ChunkID],
    view: memoryview,
    pieces: Iterable[ChunkOrHole],
    *,
    known_are_there: bool = False,
) -> Stored:
    """Hash chunks without ID and put all chunks into the sink; with `known_are_there` only those without."""
    chunks: list[memoryview] = []
    ids: list[ChunkID] = []
    stored: Stored = []
    for start, length, is_hole, id_ in pieces:
        if is_hole:
            stored.append((None, length))
            continue
        if id_ is None or not known_are_there:
            chunk = view[start : start + length]
            id_ = id_ or make_id(chunk)  # noqa: PLW2901
            chunks.append(chunk)
            ids.append(id_)
        stored.append((id_, length))
    if chunks:
        sink.put(chunks, ids)
    return stored


def enter_pieces(recipe: RecipeBuilder, stored: Stored) -> None:
    """Append pieces to a recipe."""
    for id_, length in stored:
        if id_ is None:
            recipe.add_hole(length)
        else:
            recipe.add_chunk(id_, length)
