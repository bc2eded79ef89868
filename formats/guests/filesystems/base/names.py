"""The names in a guest's folders: which can be shown, and finding one of them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from holdfast.base.lru import Lru
from holdfast.formats.guests.values.values import GuestDamaged

_MAX_NAME = 1024
"""Bytes of a name: 255 UTF-16 units take up to 765."""
_MAX_SEEN = 400 << 20
"""Memory for the names of a folder that is listed: two million of the longest that Linux has."""
_MAX_KEPT = 32 << 20
"""Memory for names that are kept: 200,000 of usual length."""
_EACH = 120
"""Bytes that a short name takes besides its own in a set or dict."""
_EACH_FOLDER = _MAX_KEPT // 1024
"""What a folder costs besides its names, so that no more than 1024 are kept."""

Child = TypeVar("Child")


def is_safe(name: bytes) -> bool:
    """Whether a name can be shown: not empty, no `.` or `..`, no slash or NUL, not too long."""
    return 0 < len(name) <= _MAX_NAME and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def safe_names(names: Iterable[tuple[bytes, Child]]) -> Iterator[tuple[bytes, Child]]:
    """Leave out names that cannot be shown, and those that were there before."""
    seen: set[bytes] = set()
    size = 0
    for name, child in names:
        if name in seen or not is_safe(name):
            continue
        seen.add(name)
        size += len(name) + _EACH
        if size > _MAX_SEEN:
            raise GuestDamaged(f"a folder with more than {len(seen) - 1} names")
        yield name, child


class NameCache:
    """What the names in the folders asked last stand for. Looking one up by the index that its folder has
    would read less the first time; but names are looked up many at a time, one folder after the other."""

    def __init__(self) -> None:
        self._folders: Lru[int, dict[bytes, int]] = Lru(_MAX_KEPT)

    def find(
        self, folder: int, name: bytes, names: Callable[[int], Iterable[tuple[bytes, int]]]
    ) -> int | None:
        """What `names(folder)` says of a name, the first time that it is there; None when it is not there."""
        kept = self._folders.get(folder)
        if kept is not None:
            return kept.get(name)
        known: dict[bytes, int] = {}
        size = _EACH_FOLDER
        rest = iter(names(folder))
        while size < _MAX_KEPT:
            try:
                found, child = next(rest)
            except StopIteration:
                self._folders.put(folder, known, size)
                return known.get(name)
            except Exception:
                if name in known:
                    return known[name]
                raise
            if found not in known and is_safe(found):
                known[found] = child
                size += len(found) + _EACH
        if name in known:
            return known[name]
        return next((child for found, child in rest if found == name), None)
