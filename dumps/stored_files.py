"""The files that are made out of stored dumps: found, and read in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from holdfast.dumps.catalogue import LIMIT, Catalogue, decode
from holdfast.dumps.composed import Composed
from holdfast.dumps.layout import files
from holdfast.repo.errors import Damaged, NotFound
from holdfast.repo.reader import Reader
from holdfast.repo.recipe import Recipe
from holdfast.repo.restore import Restorer
from holdfast.repo.snapshot import Item, Snapshot, check_item_path
from holdfast.repo.types import Buffer

WHOLE: Final = "dump.pgdump"
"""The one made file that stands for its item, which is stored taken apart."""
_SHORT: Final = 1 << 20
"""Bytes. Shorter stretches are read one by one; starting threads for each would take longer."""


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file made out of an item; of a folder that would be empty the path ends in "/"."""

    item: Item
    composed: Composed


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


def made_files(reader: Reader, snapshot: Snapshot) -> dict[str, MadeFile]:
    """All files that are made out of a snapshot's dumps, by their path in it. Raises Damaged.

    Of several dumps each has a folder, named like the dump without its suffix. A file that stands at its
    item's own path is shown instead of what is stored; any other item goes before a made file.
    """
    dumps = [item for item in snapshot.items if item.catalogue]
    taken = {item.path for item in snapshot.items}
    found: dict[str, MadeFile] = {}
    for item in dumps:
        prefix = folder_of(snapshot, item)
        for name, composed in files(load_catalogue(reader, item), item.size).items():
            path = item.path if name == WHOLE else prefix + name
            if path == item.path or (path not in taken and _is_possible(path)):
                found[path] = MadeFile(item, composed)
    return found


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


def below(made: Mapping[str, MadeFile], path: str) -> dict[str, MadeFile]:
    """The made file at a path, or all below it; folders left out."""
    start = f"{path}/" if path else ""
    return {
        name: file
        for name, file in made.items()
        if (name == path or name.startswith(start)) and not name.endswith("/")
    }


def stream(composed: Composed, recipe: Recipe, reader: Reader, restorer: Restorer) -> Iterator[Buffer]:
    """All bytes of a made file in order; give `reader` a chunk cache, for stretches that share chunks."""
    for piece in composed.pieces:
        if piece.data is not None:
            yield piece.data
        elif piece.length < _SHORT:
            yield reader.read(recipe, piece.start, piece.length)
        else:
            yield from restorer.in_order(recipe, piece.start, piece.start + piece.length)
