"""Whether a new backup has anything in common with the history that it would continue.

A name and a path do not show that a disk is the one that was there yesterday. Its chunks do: two states of
one disk or dump share most of them, and two different disks share none but by chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import Final

from holdfast.base.errors import Damaged
from holdfast.base.types import ChunkID
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.histories import OtherContent
from holdfast.repo.snapshots.snapshot import Item, ItemKind, Snapshot, StoredSnapshot

_FEWEST: Final = 16
"""Chunks from which on nothing in common means something: a small dump may change as a whole."""
_MOST: Final = 20_000
"""Chunks that are compared of each side, from the start: 1.3 GB of a disk's data."""
_SHARED: Final = 0.01
"""The least share of chunks that two states of one thing have in common."""


def refuse_other_content(repository: Repository, snapshot: Snapshot, parent: StoredSnapshot) -> None:
    """Raises OtherContent when disks or dumps share nothing with those of the parent.

    All chunks of `snapshot` must be in packs. Not for a database whose server says which it is, nor for
    files, which may be compressed. A parent that cannot be read is not compared.
    """
    if snapshot.subject.origin.server or snapshot.subject.engine == "other":
        return
    reader = Reader(repository)
    old, new = (_chunks(reader, _judged(each)) for each in (parent.snapshot, snapshot))
    try:
        shared, compared = _compare(old, new)
    except Damaged:
        return
    if compared >= _FEWEST and shared < _SHARED * compared:
        before = parent.snapshot
        raise OtherContent(
            f"of {compared} chunks of {snapshot.source} that were compared, {shared} are in the newest "
            f"snapshot of {before.subject.name!r} ({parent.id[:8]}, from {before.host}:{before.source}): "
            "this is something else; no snapshot was made"
        )


def _judged(snapshot: Snapshot) -> Sequence[Item]:
    return [item for item in snapshot.items if item.kind in (ItemKind.DISK, ItemKind.DUMP)]


def _chunks(reader: Reader, items: Sequence[Item]) -> Iterator[ChunkID]:
    """IDs of the items' chunks in order, at most `_MOST`, without holes."""
    extents = (extent for item in items for extent in reader.recipe(item).extents(0, item.size))
    return islice((extent.id for extent in extents if extent.id is not None), _MOST)


def _compare(old: Iterator[ChunkID], new: Iterator[ChunkID]) -> tuple[int, int]:
    """(how many chunks both sides have, chunks of the smaller side). Stops as soon as enough are shared."""
    olds: set[ChunkID] = set()
    news: set[ChunkID] = set()
    shared = 0
    for count, (before, after) in enumerate(zip_longest(old, new), 1):
        for id_, mine, others in ((before, olds, news), (after, news, olds)):
            if id_ is not None and id_ not in mine:
                mine.add(id_)
                shared += id_ in others
        if count >= _FEWEST and shared >= count / 2:
            break
    return shared, min(len(olds), len(news))
