"""An open directory of a guest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from holdfast.formats.guests.values.values import Entry

Name = tuple[bytes, int, Entry]
"""A name in a guest's directory, its inode number in the mount, and what it stands for."""
Page = tuple[Sequence[Name], bool]
"""Names that stand together, and whether they are the last of their directory."""


class GuestFolder:
    """The names of a directory, a page of them in memory at a time: there may be a million.

    `load` gets the page that begins at a position.
    """

    def __init__(self, load: Callable[[int], Awaitable[Page]]) -> None:
        self._load = load
        self._first = 0
        self._page: Page = (), False

    async def names_from(self, position: int) -> Sequence[Name]:
        """Names from a position on; none where the directory ends."""
        if position < self._first:  # it is read once more
            self._first, self._page = 0, ((), False)
        first, (names, is_last) = self._first, self._page
        while position >= first + len(names) and not is_last:
            first += len(names)
            names, is_last = await self._load(first)
            self._first, self._page = first, (names, is_last)
        return names[position - first :]
