"""Restoring files and directories of guests into a directory of the host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from holdfast.base.errors import Refused
from holdfast.base.target_folder import TargetFolder
from holdfast.base.types import ProgressFunction
from holdfast.formats.guests.client.content import Contents
from holdfast.formats.guests.values.naming import to_bytes
from holdfast.tasks.restore_errors import InsideRepository, NeedsDirectory, TargetExists
from holdfast.tree.extract.extractor import ExtractEvent, ExtractOptions, Extractor
from holdfast.tree.nodes import Node, is_directory
from holdfast.tree.snapshot_tree import SnapshotTree


@dataclass(frozen=True, slots=True)
class GuestTarget:
    """The directory to restore into, and the name of a single file in it: b"" for what a directory holds."""

    directory: Path
    name: bytes = b""


def guest_target(root: Path, node: Node, target: str, *, overwrite: bool) -> GuestTarget:
    """Where a node goes; `root` is the repository's directory. Nothing is written yet.

    Raises NeedsDirectory, TargetExists, InsideRepository, Refused.
    """
    place = Path(target)
    if is_directory(node):
        if place.exists() and not place.is_dir():
            raise NeedsDirectory(target, node.path)
        found = GuestTarget(place)
    else:
        if target.endswith("/") or place.is_dir():
            place /= node.path.rpartition("/")[2]
        if not place.parent.is_dir():
            raise Refused(f"{place.parent} is no folder; nothing was written")
        if os.path.lexists(place):
            if not (place.is_symlink() or place.is_file()):
                raise Refused(f"{place} is neither a file nor a link; nothing was written")
            if not overwrite:
                raise TargetExists(place)
        found = GuestTarget(place.parent, to_bytes(place.name))
    if found.directory.resolve().is_relative_to(root.resolve()):
        raise InsideRepository(Path(target))
    return found


class GuestRestore:
    """One restore; `bits_dropped` counts the files and directories that lost their setuid or setgid bit."""

    def __init__(self, contents: Contents, target: GuestTarget, options: ExtractOptions) -> None:
        self._contents = contents
        self._target = target
        self._options = options
        self.bits_dropped = 0

    def run(self, tree: SnapshotTree, node: Node, add: ProgressFunction) -> Iterator[ExtractEvent]:
        """Restore, reporting each finished name. Raises as Extractor does."""
        with closing(TargetFolder.top(self._target.directory, overwrite=self._options.overwrite)) as top:
            extractor = Extractor(self._contents, top, self._options, add)
            yield from extractor.run(tree, node, self._target.name)
            self.bits_dropped = extractor.bits_dropped
