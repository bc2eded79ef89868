"""Small files that are stored as two copies, so that damage to one copy loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from holdfast.base.errors import Damaged, NoSpace, Unsupported
from holdfast.repo.format.format import CONFIG_LIMIT, KEY_SLOT_LIMIT, KEYRING_LIMIT, OBJECT_LIMIT
from holdfast.repo.store.interface import FileKind, Store

_SECOND = ".2"

_LIMITS = {
    FileKind.CONFIG: CONFIG_LIMIT,
    FileKind.KEY: KEY_SLOT_LIMIT,
    FileKind.KEYRING: KEYRING_LIMIT,
}
"""Most bytes of files that are parsed before anything in them is authentic."""

T = TypeVar("T")


def put_mirrored(store: Store, kind: FileKind, name: str, data: bytes) -> None:
    """Write the second copy, then the first, so that a visible first copy implies both. Durable on return."""
    store.put(kind, name + _SECOND, data)
    store.sync()
    store.put(kind, name, data)
    store.sync()


def read_mirrored(store: Store, kind: FileKind, name: str, parse: Callable[[bytes, str], T]) -> T:
    """The first copy that `parse(data, where)` accepts.

    Raises FileNotFoundError when neither copy is there, else what `parse` raised for the first.
    """
    first: Damaged | Unsupported | None = None
    for copy in (name, name + _SECOND):
        try:
            return parse(read_small(store, kind, copy), store.describe(kind, copy))
        except FileNotFoundError:
            continue
        except (Damaged, Unsupported) as error:  # a flipped bit may look like a newer version
            first = first or error
    if first is None:
        raise FileNotFoundError(store.describe(kind, name))
    raise first


def read_small(store: Store, kind: FileKind, name: str) -> bytes:
    """Read a whole small file. Raises Damaged when it is larger than files of its kind may be."""
    limit = _LIMITS.get(kind, OBJECT_LIMIT)
    data = store.read(kind, name, 0, limit + 1)
    if len(data) > limit:
        raise Damaged(store.describe(kind, name), f"is larger than {limit} bytes, the most allowed")
    return data


def mirrored_names(store: Store, kind: FileKind, *, trashed: bool = False) -> dict[str, int]:
    """Number of copies (1 or 2) by name, for every mirrored file of which at least one copy exists."""
    names: dict[str, int] = {}
    for entry in store.listing(kind, trashed=trashed):
        name = first_name(entry.name)
        names[name] = names.get(name, 0) + 1
    return names


def restore_missing_copies(store: Store, kind: FileKind, check: Callable[[bytes, str, str], object]) -> None:
    """Write the second copy of files of which there is one, and which `check(data, where, name)` accepts.

    Where that cannot be, one copy is enough for now: of damage `check` tells.
    """
    for name, count in mirrored_names(store, kind).items():
        if count < 2:

            def proven(data: bytes, where: str, name: str = name) -> bytes:
                check(data, where, name)
                return data

            try:
                put_mirrored(store, kind, name, read_mirrored(store, kind, name, proven))
            except (Damaged, Unsupported, NoSpace):
                continue


def first_name(file: str) -> str:
    """The name that both copies of a file have, from the file name of either."""
    return file.removesuffix(_SECOND)


def copies(name: str) -> tuple[str, str]:
    """The file names of both copies."""
    return name, name + _SECOND


def delete_mirrored(store: Store, kind: FileKind, name: str, *, trashed: bool = False) -> None:
    """Remove both copies, the first one first, so that a crash leaves only a second copy."""
    for copy in copies(name):
        store.delete(kind, copy, trashed=trashed)
    store.sync()


def trash_mirrored(store: Store, kind: FileKind, name: str) -> None:
    """Move both copies to the trash. Raises FileNotFoundError when there is none."""
    _move(store.trash, kind, name)
    store.sync()


def untrash_mirrored(store: Store, kind: FileKind, name: str) -> None:
    """Move both copies back from the trash. Raises FileNotFoundError when there is none."""
    _move(store.untrash, kind, name)
    store.sync()


def _move(move: Callable[[FileKind, str], None], kind: FileKind, name: str) -> None:
    moved = False
    for copy in copies(name):
        try:
            move(kind, copy)
            moved = True
        except FileNotFoundError:
            continue
    if not moved:
        raise FileNotFoundError(name)
