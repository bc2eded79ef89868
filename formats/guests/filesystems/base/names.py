"""The names in a guest's directories: which can be shown, and a cache that finds them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from holdfast.base.lru import Lru
from holdfast.formats.guests.values.damage import StructureDamaged

_MAX_NAME = 1024
"""Bytes of a name. 255 units of UTF-16 take up to 765."""
_MAX_SEEN = 400 << 20
"""Bytes of memory for the names of one directory being listed: a million of the longest names of Linux."""
_MAX_KEPT = 32 << 20
"""Bytes of memory for names in a cache: 200,000 of usual length."""
_EACH = 120
"""Bytes that a name takes in a set or dict, besides its own."""
_EACH_DIRECTORY = _MAX_KEPT // 1024
"""The cost of a directory besides its names, so that no more than 1024 are kept."""

Child = TypeVar("Child")


def is_safe(name: bytes) -> bool:
    """Whether a name can be shown: not empty, no `.` or `..`, no slash or NUL, not too long."""
    return 0 < len(name) <= _MAX_NAME and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def safe_names(names: Iterable[tuple[bytes, Child]]) -> Iterator[tuple[bytes, Child]]:
    """Yield each name once, without those that cannot be shown. Raises StructureDamaged when they take more
    memory than a listing may."""
    seen: set[bytes] = set()
    size = 0
    for name, child in names:
        if name in seen or not is_safe(name):
            continue
        seen.add(name)
        size += len(name) + _EACH
        if size > _MAX_SEEN:
            memory = f"{size} bytes for {len(seen)}"
            raise StructureDamaged("directory", "memory of its names", memory, f"at most {_MAX_SEEN} bytes")
        yield name, child


class NameCache:
    """The names of the directories searched last, with their inode numbers.

    Searching a directory's own index would read less for the first name; but callers look up many names of
    one directory, then of the next.
    """

    def __init__(self) -> None:
        self._directories: Lru[int, dict[bytes, int]] = Lru(_MAX_KEPT)

    def find(
        self, directory: int, name: bytes, names: Callable[[int], Iterable[tuple[bytes, int]]]
    ) -> int | None:
        """The number that `names(directory)` yields first with a name; None when it yields no such name."""
        kept = self._directories.get(directory)
        if kept is not None:
            return kept.get(name)
        known: dict[bytes, int] = {}
        size = _EACH_DIRECTORY
        rest = iter(names(directory))
        while size < _MAX_KEPT:
            try:
                found, child = next(rest)
            except StopIteration:
                self._directories.put(directory, known, size)
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
