"""Finds the chunks that snapshots need, by walking their recipes; reads each shared node once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast.base.errors import Damaged
from holdfast.base.types import ChunkID
from holdfast.repo.core.reader import Reader
from holdfast.repo.index.idset import IdSet
from holdfast.repo.snapshots.snapshot import StoredSnapshot


@dataclass(frozen=True, slots=True)
class UnreadableNode:
    """A recipe node that could not be read, so that the chunks below it are unknown."""

    node: ChunkID
    error: Damaged


def reachable_chunks(
    reader: Reader, snapshots: Sequence[StoredSnapshot], seen: IdSet
) -> Iterator[tuple[StoredSnapshot, list[ChunkID] | UnreadableNode]]:
    """Walk all recipes. Yields (first snapshot that needs them, chunk IDs that were not yielded before).

    Yields the IDs of nodes too, before it reads them. Adds all IDs to `seen`; memory is bounded by the depth
    of the trees. Yields an UnreadableNode for a node that cannot be read, and continues.
    """
    for stored in snapshots:
        for root in (root for item in stored.snapshot.items for root in item.recipes):
            stack = list(seen.add([root]))
            if stack:
                yield stored, [root]
            while stack:
                id_ = ChunkID(stack.pop())
                try:
                    node = reader.node(id_)
                except Damaged as error:
                    yield stored, UnreadableNode(id_, error)
                    continue
                new = [ChunkID(child) for child in seen.add(child for child in node.ids if child)]
                if node.level:
                    stack += reversed(new)
                if new:
                    yield stored, new
