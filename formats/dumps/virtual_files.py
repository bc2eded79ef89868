"""The files that are made out of stored dumps: found, and read in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from holdfast.base.errors import Damaged, NotFound, RepositoryError, Unsupported
from holdfast.base.types import Buffer
from holdfast.formats.dumps.contents import files, whole_name
from holdfast.formats.dumps.core.catalogue import LIMIT, Catalogue, decode
from holdfast.formats.dumps.core.engine import KeyOf
from holdfast.formats.dumps.core.virtual_file import Composed
from holdfast.formats.dumps.engines import formats_stored_apart
from holdfast.repo.chunks.recipe import Recipe
from holdfast.repo.core.reader import Reader
from holdfast.repo.core.restore import Restorer
from holdfast.repo.snapshots.snapshot import Item, Snapshot, check_item_path

_HEAD: Final = 4096
_SHORT: Final = 1 << 20
"""Bytes. Shorter stretches are read one by one; starting threads for each would take longer."""


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file made out of an item; of a folder that would be empty the path ends in "/"."""

    item: Item
    composed: Composed


@dataclass(frozen=True, slots=True)
class Made:
    """What is made out of a snapshot's dumps: `files` by path. `faults` says, by path, of which items
    nothing can be made and why. Those in `withheld` are stored taken apart: what is stored is not the file
    that was backed up, and must not be given out for it."""

    files: dict[str, MadeFile] = field(default_factory=dict)
    faults: dict[str, RepositoryError] = field(default_factory=dict)
    withheld: set[str] = field(default_factory=set)


def load_catalogue(reader: Reader, item: Item) -> Catalogue:
    """What stands where in a dump. Raises NotFound when it was stored without, Damaged."""
    if item.catalogue is None:
        raise NotFound(f"{item.path} was stored without a catalogue of what stands where in it")
    where = f"the catalogue of {item.path}"
    if item.catalogue.size > LIMIT:
        raise Damaged(where, f"has {item.catalogue.size} bytes")
    data = reader.read(reader.recipe(item.catalogue), 0, item.catalogue.size)
    return decode(data, where, item.size)


def has_made_files(snapshot: Snapshot) -> bool:
    """Whether `made_files` might find any. Reads nothing."""
    return any(item.catalogue for item in snapshot.items)


def made_files(reader: Reader, snapshot: Snapshot) -> Made:
    """All virtual files of a snapshot's dumps, by path in the snapshot. Raises StoreError.

    Of several dumps each has a directory, named like the dump without its suffix. The virtual file that is
    the whole dump has its item's path and hides what is stored; any other virtual file is hidden by an item.
    """
    made = Made()
    taken = {item.path for item in snapshot.items}
    for item in snapshot.items:
        if item.catalogue is None:
            continue
        try:
            whole, found = _files_of(reader, item)
        except (Damaged, Unsupported) as error:
            made.faults[item.path] = error
            if _is_apart(reader, item) or isinstance(error, _NotWhole):
                made.withheld.add(item.path)
            continue
        prefix = folder_of(snapshot, item)
        for name, composed in found.items():
            path = item.path if name == whole else prefix + name
            if name == whole or (path not in taken and _is_possible(path)):
                made.files[path] = MadeFile(item, composed)
    return made


def _key_of(reader: Reader, item: Item) -> KeyOf:
    """The keys that guard the files made of an item, by path in its folder.

    Made of the repository's key, which no writer of a dump has, and of the dump's recipe, which its content
    decides: whoever sees one and writes it into his next dump gets another. So a mount and a command give the
    same bytes, today and tomorrow.
    """
    return lambda path: reader.secret_for(item.recipe + path.encode(errors="surrogateescape"))


class _NotWhole(Unsupported):
    """An item is stored taken apart, and cannot be put together."""


def _files_of(reader: Reader, item: Item) -> tuple[str, dict[str, Composed]]:
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
    """Whether it is stored taken apart, as far as that shows without its catalogue: what is stored begins
    like the archive that it was."""
    formats = formats_stored_apart()
    if any(item.source_format == each.name or item.path.endswith(f".{each.name}") for each in formats):
        return True
    try:
        head = reader.read(reader.recipe(item), 0, min(item.size, _HEAD))
    except Damaged:
        return False
    return any(each.begins(head) for each in formats)


def _is_possible(path: str) -> bool:
    """Names in a catalogue come from whoever made the dump."""
    try:
        check_item_path(path.removesuffix("/"))
    except (ValueError, UnicodeEncodeError):
        return False
    return True


def folder_of(snapshot: Snapshot, item: Item) -> str:
    """Where the files made out of an item stand: "" or a folder, with a slash behind it."""
    if sum(other.catalogue is not None for other in snapshot.items) == 1:
        return ""
    return f"{item.path.rpartition('.')[0] or item.path + '.files'}/"


def stream(composed: Composed, recipe: Recipe, reader: Reader, restorer: Restorer) -> Iterator[Buffer]:
    """All bytes of a virtual file in order; give `reader` a chunk cache, for ranges that share chunks."""
    for piece in composed.pieces:
        if piece.data is not None:
            yield piece.data
        elif piece.length < _SHORT:
            yield reader.read(recipe, piece.start, piece.length)
        else:
            yield from restorer.in_order(recipe, piece.start, piece.start + piece.length)
