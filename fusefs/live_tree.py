"""The mount tree as the event loop sees it: follows the repository while it is looked at."""

from __future__ import annotations

import logging
from collections.abc import Callable

from holdfast.fusefs.bridge import Bridge, Flight, Result
from holdfast.fusefs.catalog import Catalog
from holdfast.fusefs.inodes import Inodes
from holdfast.tree.build import Tree

_log = logging.getLogger("holdfast.fusefs")
_INTERVAL = 1.0
"""Seconds between two looks at the repository."""


class LiveTree:
    """Event loop only. `invalidate(folder's inode, name)` takes an entry back from the kernel."""

    def __init__(
        self,
        catalog: Catalog,
        tree: Tree,
        bridge: Bridge,
        *,
        invalidate: Callable[[int, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._bridge = bridge
        self._invalidate = invalidate
        self._clock = clock
        self._looked = clock()
        self._looking: Flight[bool] | None = None
        self._tree = tree
        self.inodes = Inodes()
        self.generation = 0
        """Grows when the tree changes."""
        self.inodes.replace(None, tree)

    async def look(self) -> None:
        """Show snapshots that came and hide those that went since the last look; cheap when called often.

        Trouble with the store leaves the tree as it is.
        """
        if self._looking is None:
            if self._clock() - self._looked < _INTERVAL:
                return
            self._looking = Flight()
            before = self._tree
            self._bridge.post(lambda: self._catalog.update(before), self._seen, urgent=True)
        await self._looking.wait()

    def _seen(self, found: Result[Tree | None]) -> None:
        self._looked = self._clock()
        looking, self._looking = self._looking, None
        try:
            tree = found.get()
        except Exception as error:  # noqa: BLE001  the mount goes on with what it has
            _log.error("cannot look for new snapshots: %s", error)
            tree = None
        if tree is not None:
            gone = self.inodes.replace(self._tree, tree)
            self._tree = tree
            self.generation += 1
            for folder, name in gone:
                self._invalidate(folder, name)
        assert looking is not None
        looking.land(Result(lambda: tree is not None))
