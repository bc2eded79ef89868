"""What to read of a disk that changed since its parent: from a dirty bitmap to runs. No I/O but recipe nodes.

By the laws of the chunker (see `repo.chunks.chunker`) cuts may begin anew at any place where an extent of
the parent begins before the change, and from the first cut behind the change where an extent of the parent
begins the rest is the parent's:

    parent   |  A  |  B  |   C   |  D  | hole     |  E  |
    changed                 ~~~
    read                 |.......|                C whole, and further if no cut falls at its end
    new      |  A  |  B  |  X |Y |  D  | hole     |  E  |

A change at the very start of a hole may lengthen the chunk before it, which ended for the hole's sake only:
then reading starts with that chunk. Inside a hole cuts may begin and end at any block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.repo.chunks.chunker import BLOCK, DISK, ChunkerSpec
from holdfast.repo.chunks.recipe import Extent, Recipe, RecipeNode
from holdfast.repo.snapshots.snapshot import Item, ItemKind, StoredSnapshot

# ---- what a bitmap is worth ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BitmapParent:
    """The parent's item that a bitmap counts from; without one `reason` says why all must be read."""

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
    """Whether `bitmap` tells what changed since `parent` read the disk at `path`, now `size` bytes.

    It does when the parent's item was read at the moment the bitmap began to record, in full, as a disk of
    this size cut by this rule, and the repository is known to hold all its chunks: `known_complete` is
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
        f"was cut by another rule at {path}": item.cutter != spec or item.kind is not ItemKind.DISK,
        "is not known to be complete in the repository": not known_complete,
    }
    for fault, applies in faults.items():
        if applies:
            return BitmapParent(None, f"the parent snapshot {short} {fault}: reading all of it")
    return BitmapParent(item)


# ---- the plan -----------------------------------------------------------------------------------------


class ReadRange(NamedTuple):
    """Read [start, stop). The changes in it end at `end`; `final`: a hole or the end follows `stop`."""

    start: int
    end: int
    stop: int
    final: bool


class ParentExtents:
    """The parent's extents by offset, quick for offsets near the last one."""

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
        """Whether a cut there lets the parent's extents follow."""
        if offset >= self.size:
            return True
        extent = self.find(offset)
        return extent.id is None or extent.start == offset

    def is_hole_at(self, offset: int) -> bool:
        """The end counts as one: chunks end before it just so."""
        return offset >= self.size or self.find(offset).id is None

    def restart(self, offset: int) -> int:
        """The last place up to `offset` where cuts are the parent's, whatever changed from `offset` on."""
        extent = self.find(offset)
        if extent.id is not None:
            return extent.start
        if offset > extent.start:
            return offset
        return self.find(offset - 1).start if offset else 0

    def stop(self, end: int) -> int:
        """Where reading may stop at the earliest when the last change ends at `end`, a block's edge."""
        extent = self.find(end - 1)
        return end if extent.id is None else extent.start + extent.length


def plan(recipe: Recipe, changed: Iterable[tuple[int, int]]) -> Iterator[ReadRange]:
    """What to read, in order, runs apart from each other. `changed` is (start, end), ascending by start.

    ValueError for ranges that do not ascend or lie outside. Raises Damaged for a broken recipe.
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
