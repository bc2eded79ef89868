"""The virtual files of a snapshot. The only module that asks the dump formats for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from holdfast.base.types import Buffer
from holdfast.formats.dumps import contents, virtual_files
from holdfast.formats.dumps.core.virtual_file import VirtualFile
from holdfast.repo.chunks.recipe import Recipe
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item, Snapshot

VirtualFiles = virtual_files.VirtualFiles


def has_virtual_files(snapshot: Snapshot) -> bool:
    """Whether there may be any. Reads nothing."""
    return virtual_files.has_virtual_files(snapshot)


def find_virtual_files(reader: Reader, snapshot: Snapshot) -> VirtualFiles:
    """All of a snapshot. Reads the dumps' catalogues. Raises StoreError."""
    return virtual_files.find_virtual_files(reader, snapshot)


def stream(file: VirtualFile, recipe: Recipe, reader: Reader, restorer: Restorer) -> Iterator[Buffer]:
    """All bytes of a virtual file in order; give `reader` a chunk cache, for ranges that share chunks."""
    return virtual_files.stream(file, recipe, reader, restorer)


def find_table(paths: Iterable[str], wanted: str) -> str:
    """The path of the file that holds a table. Raises NotFound or Ambiguous."""
    return contents.find_table(paths, wanted)


def table_name(path: str) -> str:
    """`public.orders` for the virtual file `tables/public.orders.sql`; "" for a file that holds no table."""
    above, _, name = f"/{path}".rpartition("/")
    is_table = f"/{contents.TABLES}/" in f"{above}/" and name.endswith(contents.SUFFIX)
    return name.removesuffix(contents.SUFFIX) if is_table else ""


def table_csv(
    reader: Reader, snapshot: Snapshot, item: Item, path: str, read: Callable[[int, int], Iterable[Buffer]]
) -> Iterator[bytes]:
    """The rows of the table whose virtual file is at `path`, with a header line; `read(start, length)`
    gives a range of the stored dump. Raises Refused when the rows are not available as CSV."""
    inner = path.removeprefix(virtual_files.directory_of(snapshot, item))
    return contents.table_csv(virtual_files.load_catalogue(reader, item), inner, read)


def is_schema(path: str) -> bool:
    """Whether a virtual file holds all definitions of a database, and no rows."""
    name = path.rpartition("/")[2]
    return name == "schema.sql" or name.endswith(".schema.sql")
