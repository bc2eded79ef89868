"""A buffer's pieces on their way into a recipe: cut, hashed, stored, entered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from holdfast.base.types import Buffer, ChunkID
from holdfast.repo.chunks.chunker import Chunker
from holdfast.repo.chunks.recipe import RecipeBuilder


class ChunkSink(Protocol):
    """Where chunks and recipe nodes go: a Writer, or what only wants to know their IDs. Any thread."""

    def put(self, chunks: Sequence[Buffer], ids: Sequence[ChunkID]) -> None: ...
    def put_node(self, node: bytes) -> ChunkID: ...


class Piece(NamedTuple):
    """A chunk or a hole at [start, start + length) of a buffer; `id` when it is known already."""

    start: int
    length: int
    is_hole: bool
    id: ChunkID | None = None


Stored: TypeAlias = list[tuple[ChunkID | None, int]]
"""ID (None: a hole) and length of pieces that are stored, in order."""


def cut_pieces(cutter: Chunker, view: memoryview, start: int = 0, *, final: bool) -> Iterator[Piece]:
    """The pieces that the cutter makes of `view`, which is at `start` of its buffer. Unless `final` they end
    before what only the following bytes can decide."""
    for cut in cutter.cut(view, final=final):
        yield Piece(start, abs(cut), is_hole=cut < 0)
        start += abs(cut)


def store_pieces(
    sink: ChunkSink,
    make_id: Callable[[Buffer], ChunkID],
    view: memoryview,
    pieces: Iterable[Piece],
    *,
    known_are_there: bool = False,
) -> Stored:
    """Hash what has no ID and put it into the sink; with `known_are_there` what has one is passed over."""
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
