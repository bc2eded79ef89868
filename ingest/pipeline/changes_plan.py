"""Plans from a dirty bitmap which ranges to read of a disk that changed since its parent snapshot.

By the laws of the chunker (see `repo.chunks.chunker`), chunking may restart at the start of any of the
parent's extents before a change. After the change, once a cut falls on the start of an extent of the parent,
all that follows is equal to the parent:

    parent   |  A  |  B  |   C   |  D  | hole     |  E  |
    changed                 ~~~
    read                 |.......|                C whole, and further if no cut falls at its end
    new      |  A  |  B  |  X |Y |  D  | hole     |  E  |

A change at the very start of a hole may lengthen the chunk before it, which ended only because of the hole:
then reading starts with that chunk. Inside a hole, chunking may start and stop at any block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.repo.chunks.chunker import BLOCK, DISK, ChunkerSpec
from holdfast.repo.chunks.recipe import Extent, Recipe, RecipeNode
from holdfast.repo.snapshots.snapshot import Item, ItemKind, StoredSnapshot

# ---- validity of a bitmap -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BitmapParent:
    """The parent's item to which a bitmap's changes relate; None with the `reason` why all must be read."""

    item: Item | None
    reason: str = ""


def find_bitmap_parent(
    parent: StoredSnapshot | None,
    path: str,
    bitmap: str,
    size: int,
    known_complete: bool,
    *,
    spec: ChunkerSpec = DISK,
) -> BitmapParent:
    """The parent's item, if `bitmap` has all changes of the disk at `path` since that item was read.

    It has if the item was read completely when the bitmap began to record, as a disk of the same `size` in
    bytes by the same chunker, and the repository has all its chunks: `known_complete` is
    `index.is_known_complete(parent.id)`.
    """
    if parent is None:
        return BitmapParent(None, "there is no earlier snapshot: reading all of it")
    short = parent.id[:8]
    item = next((item for item in parent.snapshot.items if item.path == path), None)
    if item is None:
        return BitmapParent(None, f"the parent snapshot {short} has no {path}: reading all of it")
    faults = {
        f"was not taken at the start of bitmap {bitmap}": not bitmap or item.checkpoint != bitmap,
        f"has {path} with {item.size} bytes, now there are {size}": item.size != size,
        f"lacks parts of {path} that could not be read": bool(item.bad),
        f"was cut by another rule at {path}": item.chunker != spec or item.kind is not ItemKind.DISK,
        "is not known to be complete in the repository": not known_complete,
    }
    for fault, applies in faults.items():
        if applies:
            return BitmapParent(None, f"the parent snapshot {short} {fault}: reading all of it")
    return BitmapParent(item)


# ---- the plan -----------------------------------------------------------------------------------------


class ReadRange(NamedTuple):
    """Read [start, stop). Its changes end at `end`; `final`: a hole or the end of the disk follows `stop`."""

    start: int
    end: int
    stop: int
    final: bool


class ParentExtents:
    """Finds the parent's extents by offset; fast for offsets near the last one."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._base = 0
        self._leaf: RecipeNode | None = None
        self.size = recipe.size

    def find(self, offset: int) -> Extent:
        if self._leaf is None or not self._base <= offset < self._base + self._leaf.size:
            self._base, self._leaf = next(self._recipe.leaves(offset, offset + 1))
        at = self._leaf.find(offset - self._base)
        starts = self._leaf.starts
        return Extent(self._base + starts[at], starts[at + 1] - starts[at], self._leaf.ids[at])

    def may_continue_at(self, offset: int) -> bool:
        """Whether the parent's extents may follow a cut at `offset`."""
        if offset >= self.size:
            return True
        extent = self.find(offset)
        return extent.id is None or extent.start == offset

    def is_hole_at(self, offset: int) -> bool:
        """Whether a hole or the end of the disk is at `offset`; chunks end before either."""
        return offset >= self.size or self.find(offset).id is None

    def restart(self, offset: int) -> int:
        """The last offset up to `offset` at which there is a cut, whatever changed from `offset` on."""
        extent = self.find(offset)
        if extent.id is not None:
            return extent.start
        if offset > extent.start:
            return offset
        return self.find(offset - 1).start if offset else 0

    def stop(self, end: int) -> int:
        """The earliest offset at which reading may stop if the last change ends at `end`, a block's edge."""
        extent = self.find(end - 1)
        return end if extent.id is None else extent.start + extent.length


def plan(recipe: Recipe, changed: Iterable[tuple[int, int]]) -> Iterator[ReadRange]:
    """The disjoint ranges to read, in order. `changed` are ranges (start, end), ascending by start.

    Raises ValueError for ranges that do not ascend or are outside of the disk, Damaged for a bad recipe.
    """
    parent = ParentExtents(recipe)
    run: ReadRange | None = None
    before = 0
    for start, end in changed:
        if not before <= start <= end <= recipe.size:
            raise ValueError(
                f"changed range {start} to {end} out of order, or outside of {recipe.size} bytes"
            )
        before = start
        if start == end:
            continue
        first, last = start // BLOCK * BLOCK, min(-(-end // BLOCK) * BLOCK, recipe.size)
        begin, stop = parent.restart(first), parent.stop(last)
        if run is not None and begin <= run.stop:
            last, stop = max(last, run.end), max(stop, run.stop)
            run = ReadRange(run.start, last, stop, final=False)
        else:
            if run is not None:
                yield run._replace(final=parent.is_hole_at(run.stop))
            run = ReadRange(begin, last, stop, final=False)
    if run is not None:
        yield run._replace(final=parent.is_hole_at(run.stop))
