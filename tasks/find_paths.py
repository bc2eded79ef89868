"""Finding paths by patterns in many snapshots: which to search, and each subject's findings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from holdfast.base.errors import NotFound
from holdfast.base.types import ProgressFunction
from holdfast.repo.snapshots.select import filter_snapshots, select_one
from holdfast.repo.snapshots.snapshot import StoredSnapshot, SubjectKind
from holdfast.tasks.snapshot_trees import SnapshotTrees
from holdfast.tree.search.findings import SearchFindings
from holdfast.tree.search.pattern import Pattern
from holdfast.tree.search.search import Search


@dataclass(frozen=True, slots=True)
class Wanted:
    """Filters of the snapshots to search. An empty filter lets all pass, also log archives."""

    names: Collection[str] = ()
    tags: Collection[str] = ()
    kinds: Collection[SubjectKind] = ()
    selectors: Collection[str] = ()

    def choose(self, snapshots: Sequence[StoredSnapshot]) -> list[StoredSnapshot]:
        """Raises NotFound when none passes, and as `select_one` does."""
        kinds = self.kinds or tuple(SubjectKind)
        chosen = filter_snapshots(snapshots, names=self.names, tags=self.tags, kinds=kinds)
        if self.selectors:
            ids = {select_one(snapshots, selector).id for selector in self.selectors}
            chosen = [stored for stored in chosen if stored.id in ids]
        if not chosen:
            raise NotFound("no snapshots to search")
        return chosen


class PathSearch:
    """One search; `groups` are the snapshots of each subject, oldest first."""

    def __init__(
        self,
        trees: SnapshotTrees,
        groups: Sequence[Sequence[StoredSnapshot]],
        patterns: Sequence[Pattern],
        *,
        prefix: str = "",
    ) -> None:
        self._searches = [(group, Search(patterns, trees.open, prefix=prefix)) for group in groups]

    @property
    def disks(self) -> int:
        """How many disks will be walked."""
        return sum(search.walks(group) for group, search in self._searches)

    def run(self, walked: ProgressFunction) -> list[tuple[StoredSnapshot, SearchFindings]]:
        """Search. Returns the matches, with the newest snapshot of each subject; `walked` counts disks."""
        for group, search in self._searches:
            for stored in group:
                search.snapshot(stored, walked)
        return [(group[-1], search.findings) for group, search in self._searches]
