"""Opening the trees of snapshots of one repository, over one cache of chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.base.passwords import from_file
from holdfast.formats.guests.client.open_disk import Guest
from holdfast.formats.guests.client.stored import StoredDisk
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import StoredSnapshot
from holdfast.tree.content import NodeReader
from holdfast.tree.snapshot_tree import SnapshotTree

_CHUNKS: Final = 64 << 20
"""Bytes of decoded chunks that are kept: metadata of guests, and small files that are neighbours."""


@dataclass(frozen=True, slots=True)
class SnapshotTrees:
    """Opens trees. `passphrases` are tried on encrypted volumes of guests."""

    reader: Reader
    files: NodeReader
    passphrases: tuple[str, ...]

    @staticmethod
    def of(repository: Repository, passphrase_files: Sequence[str] = ()) -> SnapshotTrees:
        """Reads the passphrases. For what is in files the repository's index must be in step."""
        reader = Reader(repository, chunk_cache=_CHUNKS)
        passphrases = tuple(from_file(Path(file)) for file in passphrase_files)
        return SnapshotTrees(reader, NodeReader(repository, reader), passphrases)

    def open(self, stored: StoredSnapshot) -> SnapshotTree:
        """The tree of a snapshot; a context manager."""
        return SnapshotTree(self.reader, stored, self._open_guest)

    def _open_guest(self, disk: StoredDisk, name: str) -> Guest:
        # Imported here: a command that opens no disk does not load the modules that start the parser.
        from holdfast.formats.guests.client.guest import GuestDisk  # noqa: PLC0415

        return GuestDisk(disk, name=name, passphrases=self.passphrases)
