"""Files that are made out of dumps, for commands: `dump`, `ls`, `restore`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from holdfast.base.errors import Damaged, MissingChunk, NotFound, Refused, RepositoryError
from holdfast.base.types import Buffer
from holdfast.formats.dumps.registry import find_table, table_csv
from holdfast.formats.dumps.virtual_files import (
    Made,
    MadeFile,
    folder_of,
    has_made_files,
    load_catalogue,
    made_files,
    stream,
)
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.repository import Repository
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item, Snapshot

_CACHE = 32 << 20


class MadeFiles:
    """What is made out of one snapshot's dumps. `found` is by path."""

    def __init__(self, repository: Repository, snapshot: Snapshot) -> None:
        """Reads the catalogues; nothing of a snapshot without any. One that cannot be read is told of when
        it matters."""
        self._snapshot = snapshot
        self._reader = Reader(repository, chunk_cache=_CACHE)
        self._restorer = Restorer(repository, self._reader)
        self._made = made_files(self._reader, snapshot) if has_made_files(snapshot) else Made()
        self.found: dict[str, MadeFile] = self._made.files

    @property
    def faults(self) -> Sequence[RepositoryError]:
        """Why files are missing that could be made out of dumps."""
        return list(self._made.faults.values())

    def check(self) -> None:
        """Raises Damaged or Unsupported when there are such faults: what was not found may be there."""
        for error in self.faults:
            raise error

    def check_item(self, item: Item) -> None:
        """Raises Damaged or Unsupported when what is stored is not what was backed up."""
        if item.path in self._made.withheld:
            raise self._made.faults[item.path]

    def read(self, file: MadeFile) -> Iterator[Buffer]:
        """Its bytes in order. Raises Refused for a symbolic link."""
        if file.composed.target:
            raise Refused(f"a symbolic link to {file.composed.target}, and no file")
        return stream(file.composed, self._reader.recipe(file.item), self._reader, self._restorer)

    def table(self, wanted: str) -> str:
        """The path of a table's file. Raises NotFound, Ambiguous, Damaged or Unsupported."""
        self.check()
        if not self.found:
            raise NotFound("no dump in this snapshot whose tables could be had one by one")
        return find_table(self.found, wanted)

    def csv(self, path: str) -> Iterator[bytes]:
        """A table's rows. Raises Refused when the dump's form does not allow it."""
        item = self.found[path].item
        recipe = self._reader.recipe(item)

        def read(start: int, length: int) -> Iterable[Buffer]:
            return self._restorer.in_order(recipe, start, start + length)

        inner = path.removeprefix(folder_of(self._snapshot, item))
        rows = table_csv(load_catalogue(self._reader, item), inner, read)
        return _to_the_end(rows) if any(not bad.length for bad in item.bad) else rows


def _to_the_end(rows: Iterator[bytes]) -> Iterator[bytes]:
    """The rows of a dump that is not whole, as far as they go; whoever asked is told that it is not."""
    try:
        yield from rows
    except Damaged as error:
        if isinstance(error, MissingChunk):
            raise
