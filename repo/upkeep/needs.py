"""Whether a pack may go: asked of the pack's own directory and of other packs' records, not of the index.

The index is a cache. One flipped bit in it makes another pack the holder of a chunk, and then the true one
seems to be of no use. So before a pack is moved or deleted its own directory is held against the set of
needed IDs, and a copy elsewhere counts only when it has been read and found good.
"""

from __future__ import annotations

from collections.abc import Collection

from holdfast.base.types import ChunkID, PackID
from holdfast.repo.core.repository import Repository
from holdfast.repo.index.idset import IdSet
from holdfast.repo.upkeep.prune_plan import record_at

_BATCH = 1024


class Needs:
    """The chunks that snapshots need, and those of them that this prune wrote into new packs (`copied`)."""

    def __init__(self, repository: Repository, needed: IdSet, copied: IdSet) -> None:
        self._repository = repository
        self.needed = needed
        self.copied = copied
        self.new_packs: list[PackID] = []
        """The packs that hold what is `copied`. None of it counts when one of them is not there any more."""
        self.is_complete = False
        """Whether `needed` has all; until then nothing may go."""
        self.wrong_index = False
        """Whether the index said something that packs do not say."""

    def may_go(self, pack: PackID, size: int, *, going: Collection[PackID]) -> bool:
        """Whether each needed chunk of the pack has a good copy in a pack that stays, so none of `going`.

        The pack may lie in the trash already. Raises Damaged when nothing of it can be read, StoreError.
        """
        if not self.is_complete:
            return False
        for offset in range(0, len(ids := self._ids(pack, size)), _BATCH):
            batch = ids[offset : offset + _BATCH]
            wanted = [
                id_ for id_, is_needed in zip(batch, self.needed.contains(batch), strict=True) if is_needed
            ]
            if not all(self._is_elsewhere(id_, pack, going) for id_ in wanted):
                return False
        return True

    def _ids(self, pack: PackID, size: int) -> list[ChunkID]:
        try:
            return [header.id for _, header in self._repository.directory(pack, size)]
        except FileNotFoundError:
            return []  # another process removed it

    def _is_elsewhere(self, id_: ChunkID, pack: PackID, going: Collection[PackID]) -> bool:
        if self._has_new_packs() and self.copied.contains([id_])[0]:
            return True
        others = [each for each in self._repository.index.locations(id_) if each.pack != pack]
        for location in others:
            if location.pack not in going:
                if record_at(self._repository, location) == id_:
                    return True
                self.wrong_index = True  # or the pack is damaged: a new index finds out
        return False

    def _has_new_packs(self) -> bool:
        return all(map(self._repository.index.is_listed, self.new_packs))
