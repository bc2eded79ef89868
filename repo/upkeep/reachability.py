"""Which chunks snapshots need: walking recipes, each shared part once."""

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
    """A recipe node that could not be read, so that what it names is unknown."""

    node: ChunkID
    error: Damaged


def reachable_chunks(
    reader: Reader, snapshots: Sequence[StoredSnapshot], seen: IdSet
) -> Iterator[tuple[StoredSnapshot, list[ChunkID] | UnreadableNode]]:
    """Walk all recipes; yields (first snapshot that needs them, chunk IDs not yielded before).

    IDs of nodes are yielded too, before they are read. `seen` collects them all; memory stays bounded by
    the depth of the trees. A node that cannot be read is yielded as UnreadableNode and the walk goes on.
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
