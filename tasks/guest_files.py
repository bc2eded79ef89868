"""What commands that look inside guests share: opening a snapshot's tree, its passphrases, its errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.base.errors import NotFound, Refused
from holdfast.base.passwords import from_file
from holdfast.base.types import Buffer
from holdfast.formats.disks.export_formats import VIEWS
from holdfast.formats.guests.client.content import Contents, lost
from holdfast.formats.guests.client.guest import GuestDisk
from holdfast.formats.guests.client.open_disk import Guest
from holdfast.formats.guests.client.stored import StoredDisk
from holdfast.formats.guests.values.naming import to_text
from holdfast.formats.guests.values.values import (
    GuestDamaged,
    GuestError,
    GuestMissing,
    NodeType,
    WorkerFailed,
)
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.snapshots.snapshot import Snapshot
from holdfast.tree.paths import GuestNode, Inside, TextNode

_CHUNKS: Final = 64 << 20
"""Bytes of decoded chunks that are kept: metadata of guests, and small files that are neighbours."""


@dataclass(frozen=True, slots=True)
class Guests:
    """Opens trees of snapshots of one repository, over one cache."""

    reader: Reader
    contents: Contents
    passphrases: tuple[str, ...]

    @staticmethod
    def of(repository: Repository, passphrase_files: Sequence[str] = ()) -> Guests:
        """Reads the passphrases. The repository's index is in step."""
        reader = Reader(repository, chunk_cache=_CHUNKS)
        passphrases = tuple(from_file(Path(file)) for file in passphrase_files)
        return Guests(reader, Contents(repository, reader), passphrases)

    def inside(self, snapshot: Snapshot) -> Inside:
        """The tree of a snapshot; a context manager."""
        return Inside(self.reader, snapshot, self._open, formats=tuple(VIEWS))

    def content(self, inside: Inside, path: str) -> tuple[Iterator[Buffer], int]:
        """(what is in a file of a guest, bytes of it that could not be read when it was backed up).

        Raises Refused for what has no content."""
        node = inside.resolve(path)
        if isinstance(node, TextNode):
            return iter([node.content]), 0
        if isinstance(node, GuestNode) and node.entry.type is NodeType.FILE:
            zeros = lost(node.disk, node.entry)
            return self.contents.stream(node.disk, node.volume, node.entry), zeros
        if isinstance(node, GuestNode) and node.entry.type is NodeType.LINK:
            target = to_text(node.disk.guest.readlink(node.volume, node.entry.inode))
            raise Refused(f"{path} is a symbolic link to {target!r}; links of a guest are not followed")
        if isinstance(node, GuestNode) and node.entry.type is not NodeType.FOLDER:
            raise Refused(f"{path} is a {node.entry.type.value}: it has no content")
        raise Refused(
            f"{path} is a folder; `holdfast restore SNAPSHOT:{path} --target DIR` gets what is in it"
        )

    def _open(self, stored: StoredDisk, name: str) -> Guest:
        return GuestDisk(stored, name=name, passphrases=self.passphrases)


@contextmanager
def explained() -> Iterator[None]:
    """Make errors of guests such that they say what to do."""
    try:
        yield
    except GuestMissing as error:
        raise NotFound(str(error)) from error
    except (GuestDamaged, WorkerFailed) as error:
        raise GuestError(
            f"{error}; other volumes and disks can be used, and `holdfast restore SNAPSHOT:disks/NAME.raw` "
            "gets the disk itself for other tools to look into"
        ) from error
