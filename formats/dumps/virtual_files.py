"""The virtual files of stored dumps: finds them, and reads them in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from holdfast.base.errors import Damaged, NotFound, RepositoryError, Unsupported
from holdfast.base.types import Buffer
from holdfast.formats.dumps.contents import files, whole_name
from holdfast.formats.dumps.core.catalogue import LIMIT, Catalogue, decode
from holdfast.formats.dumps.core.engine import KeyOf
from holdfast.formats.dumps.core.virtual_file import VirtualFile
from holdfast.formats.dumps.engines import formats_stored_apart
from holdfast.repo.chunks.recipe import Recipe
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item, Snapshot, check_item_path

_HEAD: Final = 4096
_SHORT: Final = 1 << 20
"""Bytes. Shorter ranges are read one by one: starting threads for each would take longer."""


@dataclass(frozen=True, slots=True)
class DumpFile:
    """A virtual file of `item`. It stands for an empty directory when its path ends in "/"."""

    item: Item
    file: VirtualFile


@dataclass(frozen=True, slots=True)
class VirtualFiles:
    """The virtual files of a snapshot by path. `faults` has, by path, the items that have none, with the
    reason. `withheld` are paths of items that are stored taken apart and cannot be put together: their stored
    bytes are not the file that was backed up and must not be shown as that file."""

    files: dict[str, DumpFile] = field(default_factory=dict)
    faults: dict[str, RepositoryError] = field(default_factory=dict)
    withheld: set[str] = field(default_factory=set)


def load_catalogue(reader: Reader, item: Item) -> Catalogue:
    """Read the catalogue of a dump. Raises NotFound when it was stored without one, Damaged."""
    if item.catalogue is None:
        raise NotFound(f"{item.path} was stored without a catalogue of what stands where in it")
    where = f"the catalogue of {item.path}"
    if item.catalogue.size > LIMIT:
        raise Damaged(where, f"has {item.catalogue.size} bytes")
    data = reader.read(reader.recipe(item.catalogue), 0, item.catalogue.size)
    return decode(data, where, item.size)


def has_virtual_files(snapshot: Snapshot) -> bool:
    """Whether `find_virtual_files` might find any. Reads nothing."""
    return any(item.catalogue for item in snapshot.items)


def find_virtual_files(reader: Reader, snapshot: Snapshot) -> VirtualFiles:
    """All virtual files of a snapshot's dumps, by path in the snapshot. Raises StoreError.

    Of several dumps each has a directory, named like the dump without its suffix. The virtual file that is
    the whole dump has its item's path and hides what is stored; any other virtual file is hidden by an item.
    """
    virtual = VirtualFiles()
    taken = {item.path for item in snapshot.items}
    for item in snapshot.items:
        if item.catalogue is None:
            continue
        try:
            whole, found = _files_of(reader, item)
        except (Damaged, Unsupported) as error:
            virtual.faults[item.path] = error
            if _is_apart(reader, item) or isinstance(error, _NotWhole):
                virtual.withheld.add(item.path)
            continue
        prefix = directory_of(snapshot, item)
        for name, file in found.items():
            path = item.path if name == whole else prefix + name
            if name == whole or (path not in taken and _is_possible(path)):
                virtual.files[path] = DumpFile(item, file)
    return virtual


def _key_of(reader: Reader, item: Item) -> KeyOf:
    """The keys that guard the virtual files of an item, by path in the item's directory.

    A key is derived from a secret of the repository, which no writer of a dump has, and from the dump's
    recipe, which follows from its content. So a writer who has seen a key and puts it into his next dump gets
    another one, and a mount and a command give the same bytes at any time.
    """
    return lambda path: reader.secret_for(item.recipe + path.encode(errors="surrogateescape"))


class _NotWhole(Unsupported):
    """An item is stored taken apart, and cannot be put together."""


def _files_of(reader: Reader, item: Item) -> tuple[str, dict[str, VirtualFile]]:
    """(name of the whole dump, all virtual files). The name is "" for a dump that is stored as it was."""
    catalogue = load_catalogue(reader, item)
    try:
        found = files(catalogue, item.size, _key_of(reader, item))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Damaged(f"the catalogue of {item.path}", f"makes no sense: {error!r}") from None
    whole = whole_name(catalogue)
    if whole and whole not in found:
        raise _NotWhole(f"{item.path} is stored in parts that this program cannot put together")
    return whole, found


def _is_apart(reader: Reader, item: Item) -> bool:
    """Whether an item is stored taken apart, judged without its catalogue: its stored bytes begin like the
    archive that it was."""
    formats = formats_stored_apart()
    if any(item.source_format == each.name or item.path.endswith(f".{each.name}") for each in formats):
        return True
    try:
        head = reader.read(reader.recipe(item), 0, min(item.size, _HEAD))
    except Damaged:
        return False
    return any(each.begins(head) for each in formats)


def _is_possible(path: str) -> bool:
    """Whether a snapshot can have the path: names in a catalogue come from the writer of the dump."""
    try:
        check_item_path(path.removesuffix("/"))
    except (ValueError, UnicodeEncodeError):
        return False
    return True


def directory_of(snapshot: Snapshot, item: Item) -> str:
    """The directory of an item's virtual files, with a slash at its end; "" for the top."""
    if sum(other.catalogue is not None for other in snapshot.items) == 1:
        return ""
    return f"{item.path.rpartition('.')[0] or item.path + '.files'}/"


def stream(file: VirtualFile, recipe: Recipe, reader: Reader, restorer: Restorer) -> Iterator[Buffer]:
    """All bytes of a virtual file in order; give `reader` a chunk cache, for ranges that share chunks."""
    for piece in file.pieces:
        if piece.data is not None:
            yield piece.data
        elif piece.length < _SHORT:
            yield reader.read(recipe, piece.start, piece.length)
        else:
            yield from restorer.in_order(recipe, piece.start, piece.start + piece.length)
