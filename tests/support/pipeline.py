"""Ingesting into memory, and the expected result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.base.types import Buffer, ChunkID
from holdfast.ingest.pipeline.parent_chunks import ParentRecipe
from holdfast.ingest.pipeline.pipeline import IngestResult, Pipeline
from holdfast.ingest.sources.source import Source
from holdfast.repo.chunks.chunker import Chunker, ChunkerSpec
from holdfast.repo.chunks.recipe import Recipe, RecipeBuilder, RecipeNode, decode_node
from holdfast.repo.format.crypto import Keys, Suite
from support.basics import ignore

UNIT = 64 << 10
"""Many units out of little content."""
KEYS = Keys.of(bytes(range(32)), {1: bytes(range(32))}, bytes(16), Suite.AES_256_GCM)


@dataclass
class MemoryWriter:
    """Takes chunks and nodes as a Writer does; `known` counts what came with an ID that was not computed."""

    chunks: dict[ChunkID, bytes] = field(default_factory=dict)
    nodes: dict[ChunkID, bytes] = field(default_factory=dict)
    fail: BaseException | None = None

    def put(self, chunks: Sequence[Buffer], ids: Sequence[ChunkID]) -> None:
        if self.fail:
            raise self.fail
        for chunk, id_ in zip(chunks, ids, strict=True):
            self.chunks[id_] = bytes(chunk)

    def put_node(self, node: bytes) -> ChunkID:
        id_ = KEYS.node_chunk_id(node)
        self.nodes[id_] = node
        return id_

    def load(self, id_: ChunkID) -> RecipeNode:
        return decode_node(self.nodes[id_], id_.hex())

    def recipe(self, ingested: IngestResult) -> Recipe:
        return Recipe(ingested.recipe, ingested.size, self.load)

    def content(self, ingested: IngestResult) -> bytes:
        return b"".join(
            self.chunks[e.id] if e.id else bytes(e.length) for e in self.recipe(ingested).extents()
        )


def ingest(
    writer: MemoryWriter,
    source: Source,
    spec: ChunkerSpec,
    parent: Recipe | None = None,
    *,
    present: bool = False,
    unit: int = UNIT,
) -> IngestResult:
    pipeline = Pipeline(writer, KEYS, ignore, threads=2, unit=unit, pause=1)
    return pipeline.ingest(source, spec, ParentRecipe(parent, present) if parent else None)


def cut_directly(content: bytes, spec: ChunkerSpec) -> IngestResult:
    """The whole content in one call of the chunker: what every way must give."""
    builder = RecipeBuilder(MemoryWriter().put_node)
    at = 0
    for piece in Chunker(spec, KEYS.cut).cut(content, final=True):
        if piece < 0:
            builder.add_hole(-piece)
        else:
            builder.add_chunk(KEYS.data_chunk_id(content[at : at + piece]), piece)
        at += abs(piece)
    return IngestResult(builder.finish(), builder.size, builder.allocated)


def same_recipe(one: IngestResult, two: IngestResult) -> bool:
    return (one.recipe, one.size, one.allocated) == (two.recipe, two.size, two.allocated)
